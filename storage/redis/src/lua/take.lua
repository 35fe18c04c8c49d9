-- Takes tokens from a bucket that all processes share.
--
-- KEYS[1]  the bucket
-- ARGV     cost, per_second, burst
-- Answers  '' if the tokens were taken, else after how many milliseconds there are as many

local cost, per_second, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

local bucket = redis.call('HMGET', KEYS[1], 'held', 'at')
local held, at = tonumber(bucket[1] or burst), tonumber(bucket[2] or now)
-- A clock that goes back gives nothing.
held = math.min(burst, held + math.max(0, now - at) * per_second)

local answer = ''
if held >= cost then
    held = held - cost
else
    answer = string.format('%.0f', math.ceil((cost - held) / per_second * 1000))
end
redis.call('HSET', KEYS[1], 'held', string.format('%.6f', held), 'at', string.format('%.6f', math.max(now, at)))
-- Full again by then, and a full bucket need not be kept.
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil((burst - held) / per_second * 1000) + 1000))
return answer
