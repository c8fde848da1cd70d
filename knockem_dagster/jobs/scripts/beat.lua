-- ARGV: prefix, worker, lease in ms (0: leave), what the worker says of itself (JSON; '' when unchanged),
--       canceled jobs that it has ended (16 bytes each, one after the other),
--       the jobs that it knows to hold (likewise; left out when it does not say)
-- Renews a worker's lease, by the server's clock; one that leaves gives back what it holds. Returns the jobs that were
-- canceled and that it has not ended yet.
local worker, lease, said, over, known = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]

-- Give back what the worker holds, as if it had never been claimed, except those that `keeps` names.
local function give_back(keeps)
    local held = redis.call('HGETALL', P .. ':held:' .. worker)
    for index = #held - 1, 1, -2 do -- the first of them is to be the head
        local job, owner = held[index], held[index + 1]
        local base = base_of(owner)
        if not keeps(base, job) then
            local released = release(base, job, worker, nil)
            if released then
                charge(owner, base, -released.charged)
                make_ready(owner, base, released.class, job, true)
                wake_for_room(owner, base, 1)
            end
        end
    end
end

if lease == 0 then
    give_back(function() return false end)
    forget_worker(worker)
    return {}
end
if not has_lease(worker) then
    if said == '' then
        return redis.error_reply('LAPSED this worker has no lease')
    end
    give_back(function() return false end) -- who registers has ended all work
    redis.call('DEL', P .. ':canceled:' .. worker)
end
redis.call('ZADD', P .. ':leases', milliseconds() + lease, worker)
if said ~= '' then
    redis.call('HSET', P .. ':workers', worker, said)
end
if known then
    -- A claim whose answer never arrived, or a result whose acceptance died with the server. For one lease's length a
    -- claim's answer may still be under way.
    local knows, recent = {}, milliseconds() - lease
    for index = 1, #known, 16 do
        knows[string.sub(known, index, index + 15)] = true
    end
    give_back(function(base, job)
        return knows[job] or tonumber(string.match(redis.call('HGET', active_key(base), job), '[^\t]*$')) > recent
    end)
end
for index = 1, #over, 16 do
    redis.call('HDEL', P .. ':canceled:' .. worker, string.sub(over, index, index + 15))
end
return redis.call('HKEYS', P .. ':canceled:' .. worker)
