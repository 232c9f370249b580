-- Keep a session under a key that is free.
--
-- KEYS[1]  the session's key
-- ARGV     the record, milliseconds to live
--
-- Returns 1 written | the stored record (the key is taken) | {message} refused

local stored = redis.pcall('GET', KEYS[1])
if type(stored) == 'table' then
  return { stored.err }
elseif stored then
  return stored
end
local reply = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return reply.err and { reply.err } or 1
