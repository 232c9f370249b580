-- Let the place of a session that is not there be looked at before all others, unless it is not as the caller knew it.
--
-- KEYS[1]  the tenant's places, see take_place.lua
-- ARGV     the session's id; the part of a second that its score ends in: 0 where a session was deleted, 0.5 where its
--          making has failed. Otherwise one of that name is being made, by others.

local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and score % 1 == tonumber(ARGV[2]) then
  redis.call('ZADD', KEYS[1], 0, ARGV[1])
end
