-- Take a place for a session that is being made, where its tenant has one left.
--
-- KEYS[1]  the tenant's places: session ids, scored with when to look whether they are still there (Unix time in seconds)
-- ARGV     the session's id, how many places there are, in how many seconds to look at this one, how many due ones to return
--
-- Returns nil (it has a place) | the ids and scores of places that are due, one after the other, as all are taken
--
-- The half second says that the session is being made, three quarters that it has been begun more than once. The time is
-- this server's, see charge.lua.

local now = tonumber(redis.call('TIME')[1])
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[4])
end
redis.call('ZADD', KEYS[1], now + ARGV[3] + (score and score % 1 ~= 0 and 0.75 or 0.5), ARGV[1])
return false
