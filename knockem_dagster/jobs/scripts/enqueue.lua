-- ARGV: prefix, owner, settings (JSON object or ''), assays (JSON object or ''), class, requirement (JSON), first
--       (1 or 0), counted (1 or 0), jobs (16 bytes each, one after the other)
-- Makes jobs ready; where they are counted (jobs of a graph), only those that wait for nothing any more, each once, and
-- not after the owner was canceled. Settings are fields of the owner; assays says which are pending and active, how
-- many are completed and how many competitions were answered without a job. Returns the number of jobs.
local owner, settings, assays, class, requirement, first, counted, jobs =
    ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7] == '1', ARGV[8] == '1', ARGV[9]
local base = base_of(owner)
if counted then
    local startable = {}
    for index = 1, #jobs, 16 do
        local job = string.sub(jobs, index, index + 15)
        if redis.call('HGET', base .. ':blockers', job) == '0' then
            redis.call('HDEL', base .. ':blockers', job)
            startable[#startable + 1] = job
        end
    end
    if #startable == 0 then
        return 0
    end
    jobs = table.concat(startable)
end
redis.call('SADD', P .. ':activeSubmissions', owner)
if settings ~= '' then
    for name, value in pairs(cjson.decode(settings)) do
        redis.call('HSET', base, name, value)
    end
end
if assays ~= '' then
    local told = cjson.decode(assays)
    for _, name in ipairs({ 'pendingAssays', 'activeAssays' }) do
        redis.call('DEL', base .. ':' .. name)
        for _, assay in ipairs(told[name]) do
            redis.call('SADD', base .. ':' .. name, assay)
        end
    end
    redis.call('HSET', base, 'submissionNumPendingAssays', #told.pendingAssays,
        'submissionNumActiveAssays', #told.activeAssays, 'submissionNumCompletedAssays', told.completedAssays,
        COMPLETED, told.completedCompetitions)
end
local number = #jobs / 16
if number == 0 then
    return 0
end
if redis.call('HSETNX', P .. ':classes', class, requirement) == 1 then
    for _, waiter in ipairs(redis.call('HKEYS', P .. ':waiting')) do -- nobody can wait for a class not yet heard of
        call(waiter)
    end
    redis.call('DEL', P .. ':waiting')
end
redis.call('SADD', base .. ':classes', class)
local list, command = ready_key(base, class), first and 'LPUSH' or 'RPUSH'
local chunk = {}
for index = 1, number do
    local place = first and number - index or index - 1
    chunk[#chunk + 1] = string.sub(jobs, place * 16 + 1, place * 16 + 16)
    if #chunk == 4000 or index == number then
        redis.call(command, list, unpack(chunk))
        chunk = {}
    end
end
redis.call('HINCRBY', base, PENDING, number)
stand_in_line(owner, base)
wake(owner, class, number)
return number
