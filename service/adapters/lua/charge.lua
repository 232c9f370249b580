-- Take from the buckets of rate limits, into debt if need be.
--
-- KEYS  of the buckets; the value of each is when it will be full, Unix time in microseconds
-- ARGV  per key two, in microseconds: how long it takes to fill in what was taken, and how long ago that was
--
-- Returns per key: in how many microseconds it is full
--
-- The time is this server's, so that the clocks of its clients need not agree. A bucket that is full is none.

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local backlogs = {}
for i, key in ipairs(KEYS) do
  local filling, age = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local full_at = math.max(tonumber(redis.call('GET', key)) or 0, now - age) + filling
  backlogs[i] = math.max(full_at - now, 0)
  if full_at > now then
    redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
  end
end
return backlogs
