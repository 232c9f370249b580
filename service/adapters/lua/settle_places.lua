-- Take notice of what was found at places that were due.
--
-- KEYS[1]  the tenant's places, see take_place.lua
-- ARGV     per place three: the session's id, the score that it had, in how many seconds to look again ('': it is gone)
--
-- A place with another score now was taken or released since, and stays as it is.

local now = redis.call('TIME')[1]
for i = 1, #ARGV, 3 do
  local id, seen, seconds = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if tonumber(redis.call('ZSCORE', KEYS[1], id) or -1) == tonumber(seen) then
    if seconds == '' then
      redis.call('ZREM', KEYS[1], id)
    else
      redis.call('ZADD', KEYS[1], now + seconds, id)
    end
  end
end
