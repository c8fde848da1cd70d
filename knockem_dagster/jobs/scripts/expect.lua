-- ARGV: prefix, owner, seconds, 1 to forget what was noted (else 0), then for each job: job, how many others it waits for,
--       1 if one that it waited for did not complete (else 0)
-- Notes for how many others each job of a graph waits. With seconds above 0 it begins, and nobody else may for so long.
-- What was noted is forgotten only where nothing of the owner is ready, in work, or to be recorded: whoever records what
-- has ended lets others go on before the queue forgets it. Returns 1; 0 if nothing was begun.
local base, seconds, anew = base_of(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local function goes_on()
    for _, class in ipairs(redis.call('SMEMBERS', base .. ':classes')) do
        if redis.call('LLEN', ready_key(base, class)) > 0 then
            return true
        end
    end
    return redis.call('HLEN', active_key(base)) > 0 or redis.call('XLEN', base .. ':outcomes') > 0
end
if seconds > 0 then
    if anew and goes_on() or not redis.call('SET', base .. ':counting', '1', 'NX', 'EX', seconds) then
        return 0
    end
    if anew then
        redis.call('DEL', base .. ':blockers', base .. ':spoiled', base .. ':ended')
    end
end
for index = 5, #ARGV, 3 do
    redis.call('HSET', base .. ':blockers', ARGV[index], ARGV[index + 1])
    if ARGV[index + 2] == '1' then
        redis.call('SADD', base .. ':spoiled', ARGV[index])
    end
end
return 1
