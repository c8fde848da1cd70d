-- ARGV: prefix, owner, then for each job that is over: job, 1 if it completed (else 0), number of jobs that wait for
--       it, those jobs
-- Counts each job that is over once, whoever tells of it how often. Returns those of the named jobs that wait for
-- nothing any more and are not ready yet, each with 1 if one that it waited for did not complete (else 0). Told again,
-- it answers the same until they are ready: who died before making them ready is made up for by whoever tells next.
local base = base_of(ARGV[2])
local answers = {}
if redis.call('EXISTS', base .. ':blockers', base .. ':counting') == 0 then
    return answers -- nobody waits, or it is canceled
end
local index = 3
while index <= #ARGV do
    local ended, completed, number = ARGV[index], ARGV[index + 1] == '1', tonumber(ARGV[index + 2])
    local is_new = redis.call('SADD', base .. ':ended', ended) == 1
    for place = index + 3, index + 2 + number do
        local job = ARGV[place]
        local left = redis.call('HGET', base .. ':blockers', job)
        if is_new and left then
            left = redis.call('HINCRBY', base .. ':blockers', job, -1)
            if not completed then
                redis.call('SADD', base .. ':spoiled', job)
            end
        end
        if tonumber(left) == 0 then
            answers[#answers + 1] = job
            answers[#answers + 1] = redis.call('SISMEMBER', base .. ':spoiled', job)
        end
    end
    index = index + 3 + number
end
return answers
