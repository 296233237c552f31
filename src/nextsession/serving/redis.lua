-- What a RedisStore does inside Redis: each call is one step, of which nobody sees half.
--
-- KEYS[1] is the namespace ns, ARGV[1] says what to do, the rest are its arguments.
--
--   ns:seq, ns:first        place of the newest entry of the log; no entry stands before the first
--   ns:events, ns:shown     place -> entry: the log, the truth
--   ns:visitors             id of a visitor -> number of a person
--   ns:people               the number of the newest person
--   ns:tombstones           SHA-256 of an id -> when it was erased (ms)
--   ns:notes                small texts
--   ns:rewritten            how often entries of the log were changed or removed
--   ns:person:N             name, touched, thin (some of its events were removed by age)
--   ns:names:N              ids of the person -> their SHA-256
--   ns:ids:N                id of an event -> its place
--   ns:lists:N              places of lists that were shown
--   ns:record:N             the record: time -> event, made of the log and rebuilt from it
--
-- An entry begins with the number of the person and when it arrived; what follows in one of an event
-- is in EVENT.  An event of a record is its place, and what Python wrote of it: it begins with the
-- hash of the event's id.  Both are MessagePack, so that Python decodes a whole record at once.

local ns, call = KEYS[1], redis.call
local EVENT = '>I8ddBI4c0I4c0'  -- person, arrived, time, of a record?, id, what a record holds of it
local SLICE = 1000

local function of(what, person)
  return ns .. ':' .. what .. ':' .. person
end

local function text(number)
  return string.format('%d', number)
end

local function member(seq, packed)
  return '\150\207' .. struct.pack('>I8', seq) .. packed
end

-- Do something with a list, some at a time: a call takes only so many arguments.
local function sliced(list, act)
  for start = 1, #list, SLICE do
    local some = {}
    for i = start, math.min(start + SLICE - 1, #list) do
      some[#some + 1] = list[i]
    end
    act(some)
  end
end

local function person_of(visitor, digest)
  local person = call('HGET', ns .. ':visitors', visitor)
  if not person then
    person = text(call('INCR', ns .. ':people'))
    call('HSET', ns .. ':visitors', visitor, person)
    call('HSET', of('person', person), 'name', visitor)
    call('HSET', of('names', person), visitor, digest)
  end
  return person
end

local function is_erased(digest, time)
  local at = call('HGET', ns .. ':tombstones', digest)
  return at and tonumber(time) <= tonumber(at)
end

local function forget(person)
  call('DEL', of('record', person))
  call('HDEL', of('person', person), 'touched', 'thin')
end

local function remember(person, seq, now, time, packed, ttl, keep)
  local known = call('HMGET', of('person', person), 'touched', 'thin')
  local touched = tonumber(known[1] or '0')
  if now - touched > ttl then
    forget(person)
  elseif known[2] then  -- an id that is no longer in the log may still be in the record
    for _, one in ipairs(call('ZRANGE', of('record', person), 0, -1)) do
      if one:sub(11, 19) == packed:sub(1, 9) then
        return
      end
    end
  end
  call('ZADD', of('record', person), time, member(seq, packed))
  call('ZREMRANGEBYRANK', of('record', person), 0, -keep - 1)
  call('HSET', of('person', person), 'touched', text(math.max(touched, now)))
end

local function remake(person, ttl, keep)
  forget(person)
  local places, run, touched = {}, {}, 0
  for _, seq in ipairs(call('HVALS', of('ids', person))) do
    places[#places + 1] = tonumber(seq)
  end
  table.sort(places)
  sliced(places, function(some)
    for i, entry in ipairs(call('HMGET', ns .. ':events', unpack(some))) do
      local _, now, time, recorded, _, packed = struct.unpack(EVENT, entry)
      if recorded == 1 then
        if now - touched > ttl then
          run = {}
        end
        run[#run + 1] = text(time)
        run[#run + 1] = member(some[i], packed)
        touched = math.max(touched, now)
      end
    end
  end)
  if #run == 0 then
    return false
  end
  sliced(run, function(some) call('ZADD', of('record', person), unpack(some)) end)
  call('ZREMRANGEBYRANK', of('record', person), 0, -keep - 1)
  call('HSET', of('person', person), 'touched', text(touched))
  return true
end

local act = {}

-- After now, ttl and keep comes for each event: visitor, digest, time, of a record?, id, packed, request.
function act.add(now, ttl, keep)
  local found = {}
  now, ttl, keep = tonumber(now), tonumber(ttl), tonumber(keep)
  for i = 5, #ARGV, 7 do
    local visitor, digest, time, recorded, id, packed, request = unpack(ARGV, i, i + 6)
    if is_erased(digest, time) then
      found[#found + 1] = 'refused'
    else
      local person = person_of(visitor, digest)
      if call('HEXISTS', of('ids', person), id) == 1 then
        found[#found + 1] = 'duplicate'
      else
        local seq = call('INCR', ns .. ':seq')
        local entry = struct.pack(
          EVENT, tonumber(person), now, tonumber(time), tonumber(recorded), #id, id, #packed, packed)
        call('HSET', of('ids', person), id, text(seq))
        call('HSET', ns .. ':events', text(seq), entry .. request)
        if recorded == '1' then
          remember(person, seq, now, time, packed, ttl, keep)
        end
        found[#found + 1] = 'accepted'
      end
    end
  end
  return found
end

function act.list(visitor, digest, time, packed)
  if not is_erased(digest, time) then
    local person, seq = person_of(visitor, digest), text(call('INCR', ns .. ':seq'))
    call('HSET', ns .. ':shown', seq, struct.pack('>I8d', tonumber(person), tonumber(time)) .. packed)
    call('SADD', of('lists', person), seq)
  end
end

function act.merge(ttl, keep, visitor, digest, into, its_digest)
  local one, other, moved = person_of(visitor, digest), person_of(into, its_digest), 0
  if one == other then
    return 0
  end
  local header = struct.pack('>I8', tonumber(other))
  local function give(log, seq)
    call('HSET', log, seq, header .. call('HGET', log, seq):sub(9))
  end
  local ids = call('HGETALL', of('ids', one))
  for i = 1, #ids, 2 do
    if call('HSETNX', of('ids', other), ids[i], ids[i + 1]) == 1 then
      give(ns .. ':events', ids[i + 1])
      moved = moved + 1
    else
      call('HDEL', ns .. ':events', ids[i + 1])
    end
  end
  for _, seq in ipairs(call('SMEMBERS', of('lists', one))) do
    give(ns .. ':shown', seq)
    call('SADD', of('lists', other), seq)
  end
  if call('EXISTS', of('ids', one), of('lists', one)) > 0 then
    call('INCR', ns .. ':rewritten')
  end
  local names = call('HGETALL', of('names', one))
  for i = 1, #names, 2 do
    call('HSET', ns .. ':visitors', names[i], other)
    call('HSET', of('names', other), names[i], names[i + 1])
  end
  for _, what in ipairs({'person', 'names', 'ids', 'lists', 'record'}) do
    call('DEL', of(what, one))
  end
  remake(other, tonumber(ttl), tonumber(keep))
  return moved
end

function act.erase(visitor, digest, now)
  local person = call('HGET', ns .. ':visitors', visitor)
  local names, events, lists = {visitor, digest}, {}, {}
  if person then
    names = call('HGETALL', of('names', person))
    events = call('HVALS', of('ids', person))
    lists = call('SMEMBERS', of('lists', person))
    sliced(events, function(some) call('HDEL', ns .. ':events', unpack(some)) end)
    sliced(lists, function(some) call('HDEL', ns .. ':shown', unpack(some)) end)
    for _, what in ipairs({'person', 'names', 'ids', 'lists', 'record'}) do
      call('DEL', of(what, person))
    end
  end
  for i = 1, #names, 2 do
    call('HDEL', ns .. ':visitors', names[i])
    local before = call('HGET', ns .. ':tombstones', names[i + 1])
    call('HSET', ns .. ':tombstones', names[i + 1], text(math.max(tonumber(now), tonumber(before or now))))
  end
  call('SET', ns .. ':rewrite', '1')
  if #events + #lists > 0 then
    call('INCR', ns .. ':rewritten')
  end
  return {#events, #lists, #names / 2}
end

-- Drop the records of people start .. stop - 1 that were last heard of before an instant.
function act.forget(start, stop, before)
  local silent = 0
  for person = tonumber(start), tonumber(stop) - 1 do
    local touched = call('HGET', of('person', text(person)), 'touched')
    if touched and tonumber(touched) < tonumber(before) then
      forget(text(person))
      silent = silent + 1
    end
  end
  return silent
end

-- Remove entries start .. stop - 1 that arrived before an instant; return how many are left.
function act.trim(start, stop, before)
  local left, removed, places = 0, false, {}
  for seq = tonumber(start), tonumber(stop) - 1 do
    places[#places + 1] = text(seq)
  end
  for _, log in ipairs({ns .. ':events', ns .. ':shown'}) do
    for i, entry in ipairs(call('HMGET', log, unpack(places))) do
      if entry then
        local person, now = struct.unpack('>I8d', entry)
        if now >= tonumber(before) then
          left = left + 1
        else
          person, removed = text(person), true
          call('HDEL', log, places[i])
          if log == ns .. ':shown' then
            call('SREM', of('lists', person), places[i])
          else
            local _, _, _, _, id = struct.unpack(EVENT, entry)
            call('HDEL', of('ids', person), id)
            call('HSET', of('person', person), 'thin', '1')
          end
        end
      end
    end
  end
  if removed then
    call('INCR', ns .. ':rewritten')
  end
  return left
end

function act.rebuild(ttl, keep, start, stop)
  local made = 0
  for person = tonumber(start), tonumber(stop) - 1 do
    if call('EXISTS', of('person', text(person))) == 1 and remake(text(person), tonumber(ttl), tonumber(keep)) then
      made = made + 1
    end
  end
  return made
end

function act.record(visitor)
  local person = call('HGET', ns .. ':visitors', visitor)
  local touched = person and call('HGET', of('person', person), 'touched')
  if not touched then
    return false
  end
  local events = call('ZRANGE', of('record', person), 0, -1)
  return struct.pack('>dI4', tonumber(touched), #events) .. table.concat(events)
end

function act.known(visitor)
  local person = call('HGET', ns .. ':visitors', visitor)
  if not person then
    return false
  end
  local found = {call('HGET', of('person', person), 'name'), call('HKEYS', of('names', person))}
  for i, places in ipairs({call('HVALS', of('ids', person)), call('SMEMBERS', of('lists', person))}) do
    local entries = {}
    sliced(places, function(some)
      for j, entry in ipairs(call('HMGET', ns .. (i == 1 and ':events' or ':shown'), unpack(some))) do
        entries[#entries + 1] = some[j]
        entries[#entries + 1] = entry
      end
    end)
    found[2 + i] = entries
  end
  return found
end

function act.standing(visitor, digest)
  local person = call('HGET', ns .. ':visitors', visitor)
  local names = person and call('HGETALL', of('names', person)) or {visitor, digest}
  for i = 2, #names, 2 do
    names[i] = call('HGET', ns .. ':tombstones', names[i])
  end
  return names
end

-- Entries start .. stop - 1 of a log, each with its place and the name of its person.
function act.page(log, start, stop)
  local places, found = {}, {}
  for seq = tonumber(start), tonumber(stop) - 1 do
    places[#places + 1] = text(seq)
  end
  for i, entry in ipairs(call('HMGET', ns .. ':' .. log, unpack(places))) do
    if entry then
      found[#found + 1] = places[i]
      found[#found + 1] = call('HGET', of('person', text((struct.unpack('>I8', entry)))), 'name')
      found[#found + 1] = entry
    end
  end
  return found
end

return act[ARGV[1]](unpack(ARGV, 2, 8))
