-- ARGV: prefix, owner, seconds, then for each job: job, how many others it waits for, 1 if one that it waited for did not
--       complete (else 0)
-- Notes for how many others each job of a graph waits. With seconds above 0 it begins anew, and nobody else may begin for
-- so long: only where nothing of the owner is ready, in work, or to be recorded, since whoever records what has ended lets
-- others go on before the queue forgets it. Returns 1; 0 if nothing was begun.
local base, seconds = base_of(ARGV[2]), tonumber(ARGV[3])
if seconds > 0 then
    for _, class in ipairs(redis.call('SMEMBERS', base .. ':classes')) do
        if redis.call('LLEN', ready_key(base, class)) > 0 then
            return 0
        end
    end
    if redis.call('HLEN', active_key(base)) > 0 or redis.call('XLEN', base .. ':outcomes') > 0
        or not redis.call('SET', base .. ':counting', '1', 'NX', 'EX', seconds) then
        return 0
    end
    redis.call('DEL', base .. ':blockers', base .. ':spoiled', base .. ':ended')
end
for index = 4, #ARGV, 3 do
    redis.call('HSET', base .. ':blockers', ARGV[index], ARGV[index + 1])
    if ARGV[index + 2] == '1' then
        redis.call('SADD', base .. ':spoiled', ARGV[index])
    end
end
return 1
