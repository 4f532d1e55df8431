"""What has to be atomic on the server. Each script has one key, so that it runs in a Cluster as well.

Numbers in Lua are doubles, and `struct` reads records as Python's does; positions count from 1. Times come as
packed doubles, since text loses infinity.
"""

from __future__ import annotations

from typing import Final

from quickcache_core.store.redis.client import Script

_JUDGE: Final = """
local function judge(v, now)
  -- 0: nothing, or a load under way; 1: expired; 2: live; 3: it depends on its tags
  if #v < 21 or v:byte(1) ~= 1 or v:byte(18) == 255 then return 0 end
  if math.floor(v:byte(19) / 2) % 2 == 0 then
    return struct.unpack('<d', v, 10) > now and 2 or 1
  end
  if #v < 94 then return 0 end
  if struct.unpack('<I4', v, 87) > 0 then return 3 end
  return struct.unpack('<d', v, 30) > now and 2 or 1
end
local function put(key, record, px)
  if px == '' then redis.call('SET', key, record) else redis.call('SET', key, record, 'PX', px) end
end
"""
_HEAD: Final = """
local function head(key)
  local v = redis.call('GETRANGE', key, 0, 93)
  if #v == 94 and math.floor(v:byte(19) / 2) % 2 == 1 then
    local tags = struct.unpack('<I4', v, 87)
    if tags > 0 then v = redis.call('GETRANGE', key, 0, 93 + 4 * tags) end
  end
  return v
end
"""

PUT_WHERE: Final = Script(
    _JUDGE
    + _HEAD
    + """
-- now, '1' where something live is or '0' where nothing is, record, px
local v = head(KEYS[1])
local state = judge(v, struct.unpack('<d', ARGV[1]))
if state == 3 then return {3, v} end
if (state == 2) == (ARGV[2] == '1') then put(KEYS[1], ARGV[3], ARGV[4]) end
return {state, ''}
"""
)
"""Store where something live is, or where nothing is: the state, and the head if that depends on its tags."""

SWAP: Final = Script(
    _JUDGE
    + """
-- beginning that is expected, record, px
if redis.call('GETRANGE', KEYS[1], 0, math.max(#ARGV[1] - 1, 0)) ~= ARGV[1] then return 0 end
put(KEYS[1], ARGV[2], ARGV[3])
return 1
"""
)
"""Store, if what is there begins so; empty: if nothing is there."""

PATCH: Final = Script(
    """
-- head that is expected, new head, px
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then return 0 end
redis.call('SETRANGE', KEYS[1], 0, ARGV[2])
if ARGV[3] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
"""
)
"""Change the head, if it is what is expected."""

PUT_NONCE: Final = Script(
    _JUDGE
    + """
-- nonce, record, px
if redis.call('GETRANGE', KEYS[1], 1, 8) ~= ARGV[1] then return 0 end
put(KEYS[1], ARGV[2], ARGV[3])
return 1
"""
)
"""Store, if nobody stored or removed anything since that write."""

REMOVE_NONCE: Final = Script(
    """
if redis.call('GETRANGE', KEYS[1], 1, 8) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
)
"""Remove what that write stored."""

REMOVE: Final = Script(
    _HEAD
    + """
local v = head(KEYS[1])
redis.call('UNLINK', KEYS[1])
return v
"""
)
"""Remove whatever is there: its head."""

POP: Final = Script(
    """
local v = redis.call('GET', KEYS[1])
redis.call('UNLINK', KEYS[1])
return v
"""
)
"""Remove whatever is there: all of it."""

INCREASE: Final = Script(
    _JUDGE
    + """
-- now, kind and number of the delta, nonce, record where nothing is or '', px, bound of exact numbers
local v = redis.call('GETRANGE', KEYS[1], 0, 93)
local state = judge(v, struct.unpack('<d', ARGV[1]))
if state == 3 then return {3, ''} end
if state < 2 then
  if ARGV[4] ~= '' then put(KEYS[1], ARGV[4], ARGV[5]) end
  return {state, ''}
end
local kind, delta = v:byte(18), ARGV[2]:byte(1)
if v:byte(19) ~= 0 or (kind ~= 2 and kind ~= 3) or #v ~= 29 then return {3, ''} end
local function number(of, s, at) return (struct.unpack(of == 2 and '<i8' or '<d', s, at)) end
local old, more = number(kind, v, 22), number(delta, ARGV[2], 2)
local sum, bound = old + more, tonumber(ARGV[6])
if kind == 2 or delta == 2 then
  if math.abs(old) >= bound or math.abs(more) >= bound or math.abs(sum) >= bound then return {3, ''} end
end
local result = (kind == 2 and delta == 2) and 2 or 3
local payload = struct.pack(result == 2 and '<i8' or '<d', sum)
local changed = v:sub(1, 1) .. ARGV[3] .. v:sub(10, 17) .. string.char(result) .. v:sub(19, 21) .. payload
redis.call('SETRANGE', KEYS[1], 0, changed)
return {2, string.char(result) .. payload}
"""
)
"""Add to a live plain number: the state, and the kind and the sum. State 3: that is for the client to do."""

BEGIN_LOAD: Final = Script(
    """
-- placeholder, milliseconds
local v = redis.call('GETRANGE', KEYS[1], 0, 20)
if #v < 21 or v:byte(1) ~= 1 then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return ARGV[1]:sub(2, 9)
end
local left = redis.call('PTTL', KEYS[1])
if left >= 0 and left < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return v:sub(2, 9)
"""
)
"""Have the name there until the load ends: the nonce of what is there."""

MARK: Final = Script(
    """
-- nonce
local v = redis.call('GETRANGE', KEYS[1], 0, 20)
if #v < 21 or v:byte(1) ~= 1 then return 0 end
redis.call('SETRANGE', KEYS[1], 1, ARGV[1])
return 1
"""
)
"""Give what is there another nonce, and leave it as it is: loads that began before are overtaken."""

WITHER: Final = Script(
    _JUDGE
    + """
-- now, placeholder's end, milliseconds
local v = redis.call('GETRANGE', KEYS[1], 0, 93)
local now = struct.unpack('<d', ARGV[1])
if judge(v, now) == 0 or struct.unpack('<d', v, 10) > now then return 0 end
redis.call('SET', KEYS[1], v:sub(1, 9) .. ARGV[2], 'PX', ARGV[3])
return 1
"""
)
"""Let the value of an entry go whose end has come. Its nonce stays for a while, for who loads a new one."""

RELEASE: Final = Script(
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
)
"""Give a lease back, if it is still one's own."""

RENEW: Final = Script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)
"""Keep a lease, if it is still one's own."""

GENERATION: Final = Script(
    """
local v = redis.call('GET', KEYS[1])
if v and #v == 8 then return v end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
"""
)
"""The generation, made if there is none."""

NEXT_GENERATION: Final = Script(
    """
local v = redis.call('GET', KEYS[1])
if v and v ~= ARGV[1] then return v end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
"""
)
"""Begin that generation after the one that is expected: the one that it is in the end."""

NUMBER: Final = Script(
    """
local v = redis.call('GET', KEYS[1])
if v then return v end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
"""
)
"""A number, which begins so."""

NEXT_NUMBER: Final = Script(
    """
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SET', KEYS[1], ARGV[1]) end
return redis.call('INCR', KEYS[1])
"""
)
"""The number after a number, which begins so."""

_FROM_CLOCK: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  local time = redis.call('TIME')
  redis.call('SET', KEYS[1], string.format('%.0f', time[1] * 1000000 + time[2]))
end
"""
SEQUENCE: Final = Script(_FROM_CLOCK + "return redis.call('GET', KEYS[1])")
"""A number that begins with the time, so that it is later than one that was lost."""

NEXT_SEQUENCE: Final = Script(_FROM_CLOCK + "return redis.call('INCR', KEYS[1])")

RAISE: Final = Script(
    """
local v = redis.call('GET', KEYS[1])
if not v or tonumber(v) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return 0
"""
)
"""Have a number be that much at least."""
