-- One turn of a bucket of users, for one process: takes in what the process states, lets seats run out, and answers
-- with how things are then. Atomic, so that exactly one turn makes a user come or go, whichever process it is for.
--
-- KEYS[1]  the bucket, such as antiphon:{17}; every other key begins with it, so all are in one slot
-- ARGV     process, number of the turn, a fresh id, seat_ttl_ms, hold_after_ms, hold_ms, keep_ms, revocation_ttl_ms;
--          then statements:
--            here     user seat set_at_ms status text not_before_ms
--            left     user seat
--            look     user
--            devices  user
--            revoke   user not_before_ms
--
-- <bucket>                  hash    life: id, last turn (turn_ms), until when no seat runs out (hold_ms)
-- <bucket>:turn:<process>   string  number of the process's last turn
-- <bucket>:due              zset    <user>/<seat> by the moment at which it runs out
-- <bucket>:seats:<user>     set     <process>/<device>/<incarnation>
-- <bucket>:user:<user>      hash    version, set_at_ms, status, text; outlives the seats, so that a version never repeats
-- <bucket>:revoked:<user>   string  not_before_ms
-- <bucket>:news             channel of what changes
--
-- A version is the microsecond of the change: it grows also across a loss of everything that is kept.

local bucket = KEYS[1]
local process, number, fresh_id = ARGV[1], ARGV[2], ARGV[3]
local seat_ttl, hold_after, hold_for = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local keep, revocation_ttl = ARGV[7], ARGV[8]

local clock = redis.call('TIME')
local now_us = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now = math.floor(now_us / 1000)

-- Lua writes large numbers with an exponent unless told otherwise.
local function whole(n)
    return string.format('%.0f', n)
end
local runs_out = whole(now + seat_ttl)

-- A turn that was given up by its process may arrive after later ones, through an older connection.
local turn_key = bucket .. ':turn:' .. process
if tonumber(number) <= tonumber(redis.call('GET', turn_key) or '0') then
    return { 'late' }
end
redis.call('SET', turn_key, number, 'PX', keep)

-- Where nobody had a turn for a while, the store was away or all processes were: all seats look older than they are.
local life = redis.call('HMGET', bucket, 'id', 'turn_ms', 'hold_ms')
local id, hold = life[1] or fresh_id, tonumber(life[3] or '0')
if life[1] and now - tonumber(life[2]) > hold_after then
    hold = now + hold_for
end
redis.call('HSET', bucket, 'id', id, 'turn_ms', whole(now), 'hold_ms', whole(hold))
redis.call('PEXPIRE', bucket, keep)

local function publish(...)
    redis.call('SPUBLISH', bucket .. ':news', table.concat({ ... }, '\n'))
end

local function is_here(user)
    return redis.call('SCARD', bucket .. ':seats:' .. user) > 0
end

-- A user has come, gone, or looks different.
local function changed(user)
    local key = bucket .. ':user:' .. user
    local before = tonumber(redis.call('HGET', key, 'version') or '0')
    local version = whole(math.max(now_us, before + 1))
    redis.call('HSET', key, 'version', version)
    redis.call('PEXPIRE', key, keep)
    local look = redis.call('HMGET', key, 'set_at_ms', 'status', 'text')
    local here = is_here(user) and '1' or '0'
    publish('user', id, user, version, here, look[1] or '0', look[2] or '0', look[3] or '')
    return version
end

-- Answers with what is in force.
local function revoke(user, not_before)
    local key = bucket .. ':revoked:' .. user
    local stored = redis.call('GET', key) or '0'
    if tonumber(not_before) <= tonumber(stored) then
        return stored
    end
    redis.call('SET', key, not_before, 'PX', revocation_ttl)
    publish('revoked', user, not_before)
    return not_before
end

local function how_is(user)
    local look = redis.call('HMGET', bucket .. ':user:' .. user, 'version', 'set_at_ms', 'status', 'text')
    -- Of a user who is not kept, it is known that they are not there now, before whatever follows in this turn.
    local version = look[1] or whole(now_us - 1)
    return { version, is_here(user) and '1' or '0', look[2] or '0', look[3] or '0', look[4] or '', revoke(user, '0') }
end

-- Mostly a seat that is stated again, which takes no more commands than it must.
local function here(user, seat, set_at, status, text, not_before)
    local key, seats = bucket .. ':user:' .. user, bucket .. ':seats:' .. user
    local is_first = redis.call('SADD', seats, seat) == 1 and redis.call('SCARD', seats) == 1
    redis.call('PEXPIRE', seats, keep)
    redis.call('ZADD', bucket .. ':due', runs_out, user .. '/' .. seat)
    local look = redis.call('HMGET', key, 'version', 'set_at_ms', 'status', 'text')
    -- A server that runs out of memory may have let go of one key and not of the other.
    is_first = is_first or not look[1]
    if is_first or tonumber(set_at) > tonumber(look[2] or '0') then
        redis.call('HSET', key, 'set_at_ms', set_at, 'status', status, 'text', text)
        if is_first or status ~= look[3] or text ~= look[4] then
            look[1] = changed(user)
        end
        look[2], look[3], look[4] = set_at, status, text
    end
    redis.call('PEXPIRE', key, keep)
    return { look[1], '1', look[2], look[3], look[4], revoke(user, not_before) }
end

local function remove(user, seat)
    if redis.call('SREM', bucket .. ':seats:' .. user, seat) == 1 and not is_here(user) then
        changed(user)
    end
end

local function left(user, seat)
    redis.call('ZREM', bucket .. ':due', user .. '/' .. seat)
    remove(user, seat)
    return how_is(user)
end

local statements = {
    here = { 6, here },
    left = { 2, left },
    look = { 1, how_is },
    devices = { 1, function(user) return redis.call('SMEMBERS', bucket .. ':seats:' .. user) end },
    revoke = { 2, function(user, not_before) return { revoke(user, not_before) } end },
}

local answers, n = { 'ok', id }, 9
while n <= #ARGV do
    local statement = statements[ARGV[n]]
    answers[#answers + 1] = statement[2](unpack(ARGV, n + 1, n + statement[1]))
    n = n + 1 + statement[1]
end

redis.call('PEXPIRE', bucket .. ':due', keep)

-- After the statements, so that a process which is late renews its seats first; bounded, so that a turn is short.
if now >= hold then
    for _, member in ipairs(redis.call('ZRANGE', bucket .. ':due', '-inf', whole(now), 'BYSCORE', 'LIMIT', 0, 100)) do
        local user, seat = string.match(member, '^([^/]+/[^/]+)/(.+)$')
        redis.call('ZREM', bucket .. ':due', member)
        remove(user, seat)
    end
end

return answers
