-- Replace many sessions, each only if it still is where its writer read it.
--
-- KEYS  distinct keys of sessions
-- ARGV  per key three: the 24 bytes of epoch, step and nonce that its record must hold, the new record, milliseconds to live
--
-- Returns per key: 1 written | 0 no such session | the stored record (another writer was faster) | {message} refused
--
-- Everything is called through pcall, for an error would end the script half-way: where Redis is out of memory, or a key
-- holds something else, that key keeps its value whole and is told so. The offsets are record.VERSION_SLICE. There is no
-- "#!lua" line because Redis 6.2 does not know it.

local replies = {}
for i, key in ipairs(KEYS) do
  local expected, record, ttl = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  local stored = redis.pcall('GETRANGE', key, 4, 27)
  if type(stored) == 'table' then
    replies[i] = { stored.err }
  elseif stored == expected then
    local reply = redis.pcall('SET', key, record, 'PX', ttl)
    replies[i] = reply.err and { reply.err } or 1
  elseif stored == '' then
    replies[i] = 0
  else
    replies[i] = redis.call('GET', key)
  end
end
return replies
