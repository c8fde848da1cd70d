-- ARGV: prefix, owner, forget (1: outcomes not yet recorded too)
-- Takes an owner's jobs out of the queue. Those in work are taken from their workers, which hear of it at their next
-- beat, and tell when they have ended them.
-- Returns the number of jobs.
local owner, forget = ARGV[2], ARGV[3] == '1'
local base = base_of(owner)
local number = 0
for _, class in ipairs(redis.call('SMEMBERS', base .. ':classes')) do
    number = number + redis.call('LLEN', ready_key(base, class))
    redis.call('DEL', ready_key(base, class))
end
local held = redis.call('HGETALL', active_key(base))
for index = 1, #held, 2 do
    local job, worker = held[index], string.match(held[index + 1], '^([^\t]*)')
    redis.call('HDEL', P .. ':held:' .. worker, job)
    redis.call('HSET', P .. ':canceled:' .. worker, job, owner)
    number = number + 1
end
redis.call('ZREM', P .. ':ready', owner)
if forget or redis.call('XLEN', base .. ':outcomes') == 0 then
    redis.call('SREM', P .. ':activeSubmissions', owner)
end
redis.call('DEL', base, active_key(base), base .. ':classes', base .. ':tries',
    base .. ':pendingAssays', base .. ':activeAssays', base .. ':blockers', base .. ':ended', base .. ':spoiled')
if forget then
    redis.call('DEL', base .. ':outcomes')
end
return number
