-- ARGV: prefix, how long a lease must have lapsed (ms), payload for a job lost with its worker ('': only end the
--       lease), worker...
-- Takes away what workers hold whose lease has lapsed: ready again, first in line, or over at maxLost. Where what they
-- run must be killed first, their leases are ended before: from then on they can hand in nothing, nor renew them.
-- Returns the number of jobs of each worker; -1 for one whose lease has not lapsed (any more).
local patience, payload = tonumber(ARGV[2]), ARGV[3]
local moment = milliseconds()
local answers = {}
for index = 4, #ARGV do
    local worker = ARGV[index]
    local lapses = redis.call('ZSCORE', P .. ':leases', worker)
    if not lapses or tonumber(lapses) + patience > moment then
        answers[#answers + 1] = -1
    elseif payload == '' then
        redis.call('ZADD', P .. ':leases', -math.abs(tonumber(lapses)), worker)
        answers[#answers + 1] = redis.call('HLEN', P .. ':held:' .. worker)
    else
        local held = redis.call('HGETALL', P .. ':held:' .. worker)
        for place = #held - 1, 1, -2 do -- the first of them is to be the head
            local job, owner = held[place], held[place + 1]
            local base = base_of(owner)
            local released = release(base, job, worker, nil)
            if released then
                charge(owner, base, -released.charged)
                again_or_over(owner, base, job, released.class, 'lost', payload)
                wake_for_room(owner, base, 1)
            end
        end
        forget_worker(worker)
        answers[#answers + 1] = #held / 2
    end
end
return answers
