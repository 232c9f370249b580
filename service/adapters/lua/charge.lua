-- Take from the buckets of rate limits, into debt if need be.
--
-- KEYS  of the buckets; the value of each is when it will be full, Unix time in microseconds
-- ARGV  per key: what was taken, as microseconds of its filling
--
-- Returns per key: in how many microseconds it is full
--
-- The time is this server's, so that the clocks of its clients need not agree. A bucket that is full is none.

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local backlogs = {}
for i, key in ipairs(KEYS) do
  local full_at = math.max(tonumber(redis.call('GET', key)) or 0, now) + ARGV[i]
  redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
  backlogs[i] = full_at - now
end
return backlogs
