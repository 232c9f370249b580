-- Let the place of a session that was deleted be looked at before all others, unless one of its name is being made.
--
-- KEYS[1]  the tenant's places, see take_place.lua
-- ARGV[1]  the session's id

local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and score % 1 == 0 then
  redis.call('ZADD', KEYS[1], 0, ARGV[1])
end
