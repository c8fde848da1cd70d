-- ARGV: prefix, worker, waiter, token, most, only (owner or ''), preferred (owner or ''), lead (seconds), wait
--       (1 or 0), excluded, permitted (owners, comma before, between and after; permitted '': all), class...
-- Gives jobs of one owner and one class to a worker: of the owner whose turn it is, that is who has had the least slot
-- time and has a job that fits; or of the preferred one while it leads by no more than `lead`, unless it would be the
-- other's first turn. Returns {owner, class, job...}, or nothing, having noted who waits.
local worker, waiter, token, most, only, preferred, lead, wait, excluded, permitted =
    ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[7], tonumber(ARGV[8]), ARGV[9] == '1', ARGV[10], ARGV[11]
local PAGE = 100
if not has_lease(worker) then
    return redis.error_reply('LAPSED this worker has no lease')
end
redis.call('HDEL', P .. ':waiting', waiter)
if most < 1 then
    return {}
end

local function room_of(base)
    return tonumber(redis.call('HGET', base, 'maxActive') or 1) - redis.call('HLEN', active_key(base))
end

-- The class of which this worker may have a job of this owner; nil when there is none.
local function class_for(owner)
    local base, named = base_of(owner), ',' .. owner .. ','
    if string.find(excluded, named, 1, true) or room_of(base) <= 0
        or permitted ~= '' and not string.find(permitted, named, 1, true) then
        return nil
    end
    for index = 12, #ARGV do
        if redis.call('LLEN', ready_key(base, ARGV[index])) > 0 then
            return ARGV[index]
        end
    end
    return nil
end

-- The owner whose turn it is, its class, and the slot time it has had.
local function next_in_line()
    local from = 0
    while true do
        local line = redis.call('ZRANGE', P .. ':ready', from, from + PAGE - 1, 'WITHSCORES')
        if #line == 0 then
            return nil
        end
        for index = 1, #line, 2 do
            local class = class_for(line[index])
            if class then
                return line[index], class, tonumber(line[index + 1])
            end
        end
        from = from + PAGE
    end
end

local function choose()
    local owner, class, moment = next_in_line()
    if not owner then
        return nil
    end
    -- Who works for one owner only does not move the clock beyond the turn of the others.
    if moment > tonumber(redis.call('GET', P .. ':clock') or 0) then
        redis.call('SET', P .. ':clock', moment)
    end
    if only ~= '' then
        return only, class_for(only)
    end
    local mine = preferred ~= '' and preferred ~= owner and redis.call('ZSCORE', P .. ':ready', preferred)
    if mine and tonumber(mine) - moment <= lead and redis.call('HEXISTS', base_of(owner), ACTIVE) == 1 then
        local its_class = class_for(preferred)
        if its_class then
            return preferred, its_class
        end
    end
    return owner, class
end

local function leave_line_when_empty(owner, base)
    for _, class in ipairs(redis.call('SMEMBERS', base .. ':classes')) do
        if redis.call('LLEN', ready_key(base, class)) > 0 then
            return
        end
    end
    redis.call('ZREM', P .. ':ready', owner)
end

local function take(owner, class)
    local base = base_of(owner)
    local list, active = ready_key(base, class), active_key(base)
    local ready = redis.call('LLEN', list)
    -- A worker that feeds ahead must leave something to the others.
    local share = math.ceil(math.min(room_of(base), ready) / math.max(1, redis.call('ZCARD', P .. ':leases')))
    local expected = tonumber(redis.call('HGET', base, 'mean:' .. class) or 1) * cpus_of(class)
    local lease = worker .. '\t' .. token .. '\t' .. class .. '\t' .. expected .. '\t' .. milliseconds()
    local jobs = {}
    for _, job in ipairs(redis.call('LPOP', list, math.min(most, share))) do
        -- One may be twice in the list: asked again when the server was away.
        if redis.call('HSETNX', active, job, lease) == 1 then
            redis.call('HSET', P .. ':held:' .. worker, job, owner)
            redis.call('HDEL', P .. ':canceled:' .. worker, job)
            jobs[#jobs + 1] = job
        end
    end
    local left = redis.call('LLEN', list)
    redis.call('HINCRBY', base, PENDING, left - ready)
    if left == 0 then
        leave_line_when_empty(owner, base)
    end
    redis.call('HINCRBY', base, ACTIVE, #jobs)
    charge(owner, base, expected * #jobs)
    return jobs
end

repeat
    local owner, class = choose()
    local jobs = class and take(owner, class)
    if jobs and #jobs > 0 then
        return { owner, class, unpack(jobs) }
    end
until not jobs -- all it took were in work already
if wait then
    local classes = ',' .. table.concat(ARGV, ',', 12) .. ','
    local limited = (permitted ~= '' or excluded ~= ',,') and LIMITED or ''
    redis.call('HSET', P .. ':waiting', waiter, worker .. '\t' .. only .. '\t' .. classes .. limited)
end
return {}
