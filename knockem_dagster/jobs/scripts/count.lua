-- ARGV: prefix, owner, token, step, seconds
-- Lets one at a time count for how many others each job of a graph waits: `begin` for so many seconds, until `end`.
-- With `anew`, it begins and forgets what was noted, but only where nothing of the owner is ready, in work, or to be
-- recorded: whoever records what has ended lets others go on before the queue forgets it. Returns 1; 0 if nothing was
-- begun.
local base, token, step, seconds = base_of(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local function goes_on()
    for _, class in ipairs(redis.call('SMEMBERS', base .. ':classes')) do
        if redis.call('LLEN', ready_key(base, class)) > 0 then
            return true
        end
    end
    return redis.call('HLEN', active_key(base)) > 0 or redis.call('XLEN', base .. ':outcomes') > 0
end
if step == 'end' then
    if redis.call('GET', base .. ':counting') == token then
        redis.call('DEL', base .. ':counting')
    end
    return 1
end
if step == 'anew' and goes_on() or not redis.call('SET', base .. ':counting', token, 'NX', 'EX', seconds) then
    return 0
end
if step == 'anew' then
    redis.call('DEL', base .. ':blockers', base .. ':spoiled', base .. ':ended')
end
return 1
