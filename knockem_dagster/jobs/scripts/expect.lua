-- ARGV: prefix, owner, anew (1: forget what was noted before), then for each job: job, how many others it waits for, 1 if
--       one that it waited for did not complete (else 0)
-- Notes for how many others each job of a graph waits. Nothing of it is ready yet.
local base = base_of(ARGV[2])
if ARGV[3] == '1' then
    redis.call('DEL', base .. ':blockers', base .. ':spoiled', base .. ':ended')
end
for index = 4, #ARGV, 3 do
    redis.call('HSET', base .. ':blockers', ARGV[index], ARGV[index + 1])
    if ARGV[index + 2] == '1' then
        redis.call('SADD', base .. ':spoiled', ARGV[index])
    end
end
