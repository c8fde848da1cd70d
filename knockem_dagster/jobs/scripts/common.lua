-- What the scripts share. Every key begins with ARGV[1]; the keys of one owner share a hash tag.
--
--   P:activeSubmissions                        set: owners with anything in the queue
--   P:ready                                    sorted set: owners with ready jobs, by the slot time they have had
--   P:clock                                    the slot time of the owner whose turn it was at the latest claim
--   P:classes                                  hash: resource class -> its requirement as JSON
--   P:leases                                   sorted set: workers, by when their lease lapses (ms of the server's
--                                              clock); negative: it was ended, and its jobs wait until
--                                              nothing of them runs
--   P:workers, P:tally                         hashes: worker -> what it says of itself; worker and outcome -> number
--                                              of jobs
--   P:held:W                                   hash: what worker W holds, job -> owner
--   P:canceled:W                               hash: jobs that W must end, or ends -> owner
--   P:waiting, P:wake:X                        hash: waiter -> worker, owner, classes, and LIMITED if it may not
--                                              work for every owner; list: its wake-up call
--   P:{owner}                                  hash: maxActive, maxFail, maxLost, weight, served, mean:CLASS, the six
--                                              counters
--   P:{owner}:pendingCompetitionAttempts:CLASS list: ready jobs, 16 bytes each
--   P:{owner}:activeCompetitionAttempts        hash: job -> worker, token, class, charge, since
--   P:{owner}:classes                          set: the resource classes of its lists
--   P:{owner}:pendingAssays, ...:activeAssays  sets
--   P:{owner}:tries                            hash: failures, losses and retries of jobs that had any
--   P:{owner}:outcomes                         stream: what has ended and is not in the record yet
--   P:{owner}:blockers                         hash: job of a graph that is not ready yet -> how many others it
--                                              waits for
--   P:{owner}:counting                         the token of who counts them
--   P:{owner}:ended, ...:spoiled               sets: jobs that were counted as over; those of which one blocker did not
--                                              complete
local P = ARGV[1]
local PENDING, ACTIVE, COMPLETED =
    'submissionNumPendingCompetitions', 'submissionNumActiveCompetitions', 'submissionNumCompletedCompetitions'
local LIMITED = '\tlimited'

local function milliseconds()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function cpus_of(class)
    return cjson.decode(redis.call('HGET', P .. ':classes', class)).cpus
end

local function base_of(owner)
    return P .. ':{' .. owner .. '}'
end

local function ready_key(base, class)
    return base .. ':pendingCompetitionAttempts:' .. class
end

local function active_key(base)
    return base .. ':activeCompetitionAttempts'
end

-- One whose lease was ended (reap.lua) has none until it registers again, whatever it still does.
local function has_lease(worker)
    return tonumber(redis.call('ZSCORE', P .. ':leases', worker) or 0) > 0
end

-- An owner with ready jobs stands in line at its own slot time, but never before the present: idling earns nothing.
local function stand_in_line(owner, base)
    if not redis.call('ZSCORE', P .. ':ready', owner) then
        local served = tonumber(redis.call('HGET', base, 'served') or 0)
        served = math.max(served, tonumber(redis.call('GET', P .. ':clock') or 0))
        redis.call('HSET', base, 'served', served)
        redis.call('ZADD', P .. ':ready', served, owner)
    end
end

-- Add slot time to an owner; seconds may be negative, when less was used than was charged.
local function charge(owner, base, seconds)
    local weight = tonumber(redis.call('HGET', base, 'weight') or 1)
    local served = redis.call('HINCRBYFLOAT', base, 'served', seconds / weight)
    redis.call('ZADD', P .. ':ready', 'XX', served, owner)
end

local function call(waiter)
    redis.call('RPUSH', P .. ':wake:' .. waiter, '1')
    redis.call('EXPIRE', P .. ':wake:' .. waiter, 60)
end

-- Wake at most `number` of those who wait for this class (and not for another owner). Returns how many calls are left.
-- One that may not work for every owner is called beyond that number: it must find out whether it may for this one.
local function wake(owner, class, number)
    local cursor = '0'
    repeat
        local page = redis.call('HSCAN', P .. ':waiting', cursor, 'COUNT', 10)
        cursor = page[1]
        for index = 1, #page[2], 2 do
            if number < 1 then
                return 0
            end
            local waiter = page[2][index]
            local worker, only, classes = string.match(page[2][index + 1], '^([^\t]*)\t([^\t]*)\t(.*)$')
            if not has_lease(worker) then
                redis.call('HDEL', P .. ':waiting', waiter) -- a call to the dead would be lost
            elseif (only == '' or only == owner) and string.find(classes, ',' .. class .. ',', 1, true)
                and redis.call('HDEL', P .. ':waiting', waiter) == 1 then
                call(waiter)
                if string.sub(classes, -#LIMITED) ~= LIMITED then
                    number = number - 1
                end
            end
        end
    until cursor == '0'
    return number
end

-- An owner has room for so many jobs more: wake who waits for any of those it has ready.
local function wake_for_room(owner, base, number)
    for _, class in ipairs(redis.call('SMEMBERS', base .. ':classes')) do
        local ready = redis.call('LLEN', ready_key(base, class))
        local calls = math.min(number, ready)
        if calls > 0 then
            number = number - calls + wake(owner, class, calls)
        end
    end
end

local function make_ready(owner, base, class, job, first)
    redis.call(first and 'LPUSH' or 'RPUSH', ready_key(base, class), job)
    redis.call('HINCRBY', base, PENDING, 1)
    stand_in_line(owner, base)
end

local function emit(base, job, final, payload)
    return redis.call('XADD', base .. ':outcomes', '*', 'job', job, 'final', final, 'payload', payload)
end

-- Take a job from its holder; nil unless this worker holds it by this token (any token when it is nil).
local function release(base, job, worker, token)
    local held = redis.call('HGET', active_key(base), job)
    if not held then
        return nil
    end
    local by, with, class, charged = string.match(held, '^([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)')
    if by ~= worker or (token and with ~= token) then
        return nil
    end
    redis.call('HDEL', active_key(base), job)
    redis.call('HDEL', P .. ':held:' .. worker, job)
    redis.call('HINCRBY', base, ACTIVE, -1)
    return { class = class, charged = tonumber(charged) }
end

local function forget_tries(base, job)
    redis.call('HDEL', base .. ':tries', 'f' .. job, 'l' .. job, 'r' .. job)
end

-- Decide what becomes of a released job that brought no result: ready again, or over. Counts it in `tries`.
local function again_or_over(owner, base, job, class, kind, payload)
    local most = tonumber(redis.call('HGET', base, kind == 'failed' and 'maxFail' or 'maxLost') or 1)
    local had = 1
    if most > 1 then
        had = redis.call('HINCRBY', base .. ':tries', (kind == 'failed' and 'f' or 'l') .. job, 1)
    end
    if had < most then
        make_ready(owner, base, class, job, kind == 'lost')
        return emit(base, job, 0, payload)
    end
    forget_tries(base, job)
    return emit(base, job, 1, payload)
end

-- Take a worker off every list: a name may tell what it works on, and is not to outlast it.
local function forget_worker(worker)
    redis.call('ZREM', P .. ':leases', worker)
    redis.call('HDEL', P .. ':workers', worker)
    redis.call('HDEL', P .. ':tally', worker .. ':done', worker .. ':failed')
    redis.call('DEL', P .. ':held:' .. worker, P .. ':canceled:' .. worker)
    local cursor = '0'
    repeat
        local page = redis.call('HSCAN', P .. ':waiting', cursor, 'MATCH', worker .. '/*', 'COUNT', 1000)
        cursor = page[1]
        for index = 1, #page[2], 2 do
            redis.call('HDEL', P .. ':waiting', page[2][index])
            redis.call('DEL', P .. ':wake:' .. page[2][index])
        end
    until cursor == '0'
end
