-- ARGV: prefix, worker, then for each job: owner, job, token, verdict, seconds of slot time, payload
-- Ends jobs that this worker holds by these tokens. Verdicts: succeeded; failed (counts towards maxFail); lost (towards
-- maxLost); retried (ready again, whatever maxFail says); returned (untouched, first in line again). Returns for each
-- job the entry of its outcome; '' for one that was returned; false for one that the worker does not hold (any more):
-- nothing has changed then.
local worker = ARGV[2]
local answers, returned, freed = {}, {}, {}
local is_there = has_lease(worker)
for index = 3, #ARGV, 6 do
    local owner, job, token, verdict = ARGV[index], ARGV[index + 1], ARGV[index + 2], ARGV[index + 3]
    local seconds, payload = tonumber(ARGV[index + 4]), ARGV[index + 5]
    local base = base_of(owner)
    local held = is_there and release(base, job, worker, token)
    local answer = false
    if held then
        charge(owner, base, seconds * cpus_of(held.class) - held.charged)
        if verdict == 'returned' then
            returned[#returned + 1] = { owner, base, held.class, job, true }
            answer = ''
        else
            local mean = 'mean:' .. held.class
            local before = tonumber(redis.call('HGET', base, mean) or seconds)
            redis.call('HSET', base, mean, 0.9 * before + 0.1 * seconds)
            redis.call('HINCRBY', P .. ':tally', worker .. (verdict == 'succeeded' and ':done' or ':failed'), 1)
            if verdict == 'succeeded' then
                redis.call('HINCRBY', base, COMPLETED, 1)
                forget_tries(base, job)
                answer = emit(base, job, 1, payload)
            elseif verdict == 'retried' then
                redis.call('HINCRBY', base .. ':tries', 'r' .. job, 1)
                make_ready(owner, base, held.class, job, false)
                answer = emit(base, job, 0, payload)
            else
                answer = again_or_over(owner, base, job, held.class, verdict, payload)
            end
        end
        freed[owner] = (freed[owner] or 0) + 1
    end
    answers[#answers + 1] = answer
end
for index = #returned, 1, -1 do -- the first of them is to be the head
    make_ready(unpack(returned[index]))
end
for owner, number in pairs(freed) do
    wake_for_room(owner, base_of(owner), number)
end
return answers
