-- Give a session that is there a place, or another time at which to look at the one that it has.
--
-- KEYS[1]  the tenant's places, see take_place.lua
-- ARGV     the session's id, in how many seconds to look at it

redis.call('ZADD', KEYS[1], redis.call('TIME')[1] + ARGV[2], ARGV[1])
