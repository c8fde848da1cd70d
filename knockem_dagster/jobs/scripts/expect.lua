-- ARGV: prefix, owner, token, seconds, then for each job: job, how many others it waits for, 1 if one that it waited
--       for did not complete (else 0)
-- Notes for how many others each job of a graph waits, for who counts by this token (count.lua), and lets it go on for
-- so many seconds. Returns 1; 0, noting nothing, where somebody else counts by now.
local base = base_of(ARGV[2])
if redis.call('GET', base .. ':counting') ~= ARGV[3] then
    return 0
end
redis.call('EXPIRE', base .. ':counting', ARGV[4])
for index = 5, #ARGV, 3 do
    redis.call('HSET', base .. ':blockers', ARGV[index], ARGV[index + 1])
    if ARGV[index + 2] == '1' then
        redis.call('SADD', base .. ':spoiled', ARGV[index])
    end
end
return 1
