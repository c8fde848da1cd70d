-- ARGV: prefix, owner, then for each job that is over: job, 1 if it completed (else 0), number of jobs that wait for it,
--       those jobs
-- Counts each job that is over once, whoever tells of it how often. Returns the jobs that wait for nothing any more, each
-- with 1 if one that it waited for did not complete (else 0).
local base = base_of(ARGV[2])
local answers = {}
local index = 3
while index <= #ARGV do
    local ended, completed, number = ARGV[index], ARGV[index + 1] == '1', tonumber(ARGV[index + 2])
    if redis.call('SADD', base .. ':ended', ended) == 1 then
        for place = index + 3, index + 2 + number do
            local job = ARGV[place]
            if not completed then
                redis.call('SADD', base .. ':spoiled', job)
            end
            if redis.call('HEXISTS', base .. ':blockers', job) == 1
                and redis.call('HINCRBY', base .. ':blockers', job, -1) == 0 then
                answers[#answers + 1] = job
                answers[#answers + 1] = redis.call('SISMEMBER', base .. ':spoiled', job)
            end
        end
    end
    index = index + 3 + number
end
return answers
