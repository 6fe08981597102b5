//! Names and scripts of what stands in Redis. `docs/REDIS.md` describes them for those who look.
//!
//! All of a room's keys and its channel hash to one slot, that of `live:room:{id}`: the others carry that name as their hash tag.

use crate::base::ids::{RoomId, UserId};

/// Tag that puts a key into the slot of the room's presence hash.
fn tagged(kind: &str, room: &RoomId) -> String {
    format!("live:{kind}:{{live:room:{room}}}")
}

/// Hash: `epoch` and `seq` of the room's numbering.
pub fn numbering(room: &RoomId) -> String {
    tagged("seq", room)
}

/// Stream: the newest batches, by the number of their last line.
pub fn log(room: &RoomId) -> String {
    tagged("log", room)
}

/// Hash: who is in the room, `user:{id}` = second they came, `total` = connections.
pub fn presence(room: &RoomId) -> String {
    format!("live:room:{room}")
}

/// Set: users one node has in the room.
pub fn here(room: &RoomId, node: &str) -> String {
    format!("{}:{node}", tagged("here", room))
}

/// Hash: on how many nodes each user is.
pub fn refs(room: &RoomId) -> String {
    tagged("refs", room)
}

/// HyperLogLog: users that have been in the room.
pub fn visitors(room: &RoomId) -> String {
    tagged("uv", room)
}

/// Channel: what every node is to do.
pub const ORDERS: &str = "live:orders";

/// Sorted set: rooms by connections.
pub const RANK: &str = "live:rank";

/// Sorted set: nodes, by the unix second at which they began.
pub const NODES: &str = "live:nodes";

/// Stream: what happened, the newest entries.
pub const EVENTS: &str = "live:events";

/// Hash: what each node says of itself.
pub const ABOUT: &str = "live:about";

/// String that lives as long as a node is heard of.
pub fn lease(node: &str) -> String {
    format!("live:lease:{node}")
}

/// Sorted set: connections of a login, by when they entered. Each is its node and where it is there.
pub fn login(user: &UserId) -> String {
    format!("live:login:{user}", user = user.as_str())
}

/// Set: users with such connections on a node.
pub fn logins(node: &str) -> String {
    format!("live:logins:{node}")
}

/// Set: rooms a node has counted in.
pub fn rooms(node: &str) -> String {
    format!("live:rooms:{node}")
}

/// String: what its owner has said of the room. Stays until the room is closed.
pub fn settings(room: &RoomId) -> String {
    tagged("settings", room)
}

/// Hash: what happened lately, by node.
pub fn stats(room: &RoomId) -> String {
    tagged("stats", room)
}

/// String: somebody looks at what happens.
pub fn watched(room: &RoomId) -> String {
    tagged("watched", room)
}

/// Hash: connections by node.
pub fn parts(room: &RoomId) -> String {
    tagged("part", room)
}

/// String: the newest batch a node had numbered, so that one sent twice is numbered once.
pub fn sent(room: &RoomId, node: &str) -> String {
    format!("{}:{node}", tagged("sent", room))
}

/// Channel: what happens in the room.
pub fn channel(room: &RoomId) -> String {
    tagged("lines", room)
}

/// The room of a channel.
pub fn room_of(channel: &str) -> Option<RoomId> {
    let room = channel.strip_prefix("live:lines:{live:room:")?;
    RoomId::parse(room.strip_suffix('}')?)
}

/// Channel: what one node says to itself.
pub fn own(node: &str) -> String {
    format!("live:node:{node}")
}

/// String: what the canary writes, beside the channel it comes back by.
pub fn canary(channel: &str) -> String {
    format!("live:canary:{{{channel}}}")
}

/// Numbers a batch, keeps it and publishes it, in one step. Sent twice it does so once; sent too late, not at all: its lines have been
/// delivered without a number by then.
///
/// Keys: numbering, log, sent. Arguments: channel, count, payload, epoch to begin with, node, batch, batches kept, seconds kept,
/// deadline in microseconds of Redis' clock. Answers epoch and first number.
pub const PUBLISH: &str = r"
local sent = redis.call('GET', KEYS[3])
if sent then
  local batch, epoch, first = string.match(sent, '^(%d+) (%d+) (%d+)$')
  if batch == ARGV[6] then return {epoch, first} end
end
local now = redis.call('TIME')
if now[1] * 1000000 + now[2] > tonumber(ARGV[9]) then
  return redis.error_reply('LATE the batch came after its deadline')
end
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then
  epoch = ARGV[4]
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'seq', 0)
  redis.call('DEL', KEYS[2])
end
local last = redis.call('HINCRBY', KEYS[1], 'seq', ARGV[2])
local first = string.format('%.0f', last - ARGV[2] + 1)
local message = 'L ' .. epoch .. ' ' .. first .. ' ' .. ARGV[2] .. ' ' .. ARGV[5] .. ' ' .. ARGV[6] .. '\n' .. ARGV[3]
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[7], string.format('%.0f-0', last), 'b', message)
redis.call('SET', KEYS[3], ARGV[6] .. ' ' .. epoch .. ' ' .. first, 'EX', 60)
redis.call('EXPIRE', KEYS[1], ARGV[8])
redis.call('EXPIRE', KEYS[2], ARGV[8])
redis.call('PUBLISH', ARGV[1], message)
return {epoch, first}
";

/// What there is of a room. Keys: numbering, log, parts, settings, presence, visitors, watched. Arguments: epoch to begin with, empty = none;
/// seconds kept. Answers settings, epoch, newest number, batches, nodes and their connections, users, most connections at once, different
/// users so far, whether somebody looks at its figures; settings alone where there is no numbering.
pub const READ: &str = r"
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then
  if ARGV[1] == '' then return {redis.call('GET', KEYS[4])} end
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'seq', 0)
  redis.call('DEL', KEYS[2])
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return {redis.call('GET', KEYS[4]), epoch, redis.call('HGET', KEYS[1], 'seq'), redis.call('XRANGE', KEYS[2], '-', '+'), redis.call('HGETALL', KEYS[3]),
  math.max(redis.call('HLEN', KEYS[5]) - 1, 0), redis.call('HGET', KEYS[1], 'peak') or '0', redis.call('PFCOUNT', KEYS[6]), redis.call('EXISTS', KEYS[7])}
";

/// A node's part of who is in a room: how many connections, and which users came and went. It says what is, not what changed, so that
/// saying it twice is saying it once. What the node counted here under older names is taken out in the same step, as soon as everybody
/// has been told of under the new one: nobody sees the room without them, or with them twice.
///
/// Keys: presence, parts, here, refs, visitors, numbering. Arguments: node, connections, seconds kept, channel, what the older names
/// begin with (empty = there are none), whether more users follow (1, 0), how many came, then who came and when, then who went. Answers
/// connections on all nodes.
pub const COUNT: &str = r"
local moved = false
local function went(here, user)
  if redis.call('SREM', here, user) == 1 and redis.call('HINCRBY', KEYS[4], user, -1) <= 0 then
    redis.call('HDEL', KEYS[4], user)
    redis.call('HDEL', KEYS[1], 'user:' .. user)
    moved = true
  end
end
local at = 8
for _ = 1, tonumber(ARGV[7]) do
  local user = ARGV[at]
  if redis.call('SADD', KEYS[3], user) == 1 and redis.call('HINCRBY', KEYS[4], user, 1) == 1 then
    redis.call('HSET', KEYS[1], 'user:' .. user, ARGV[at + 1])
    redis.call('PFADD', KEYS[5], user)
    moved = true
  end
  at = at + 2
end
while ARGV[at] do
  went(KEYS[3], ARGV[at])
  at = at + 1
end
local now = tonumber(ARGV[2])
local before = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
local was = before
for _, node in ipairs(ARGV[5] ~= '' and redis.call('HKEYS', KEYS[2]) or {}) do
  if node ~= ARGV[1] and string.sub(node, 1, #ARGV[5]) == ARGV[5] then
    if ARGV[6] == '1' then
      now = before
    else
      local here = string.sub(KEYS[3], 1, #KEYS[3] - #ARGV[1]) .. node
      for _, user in ipairs(redis.call('SMEMBERS', here)) do went(here, user) end
      was = was + redis.call('HGET', KEYS[2], node)
      redis.call('HDEL', KEYS[2], node)
      moved = true
    end
  end
end
local total = tonumber(redis.call('HGET', KEYS[1], 'total') or 0) + now - was
if now ~= was then redis.call('HSET', KEYS[1], 'total', total) end
if now ~= before then
  if now == 0 then redis.call('HDEL', KEYS[2], ARGV[1]) else redis.call('HSET', KEYS[2], ARGV[1], now) end
  moved = true
end
local peak = tonumber(redis.call('HGET', KEYS[6], 'peak') or 0)
if total > peak then
  peak = total
  redis.call('HSET', KEYS[6], 'peak', peak)
end
if moved then
  local users = math.max(redis.call('HLEN', KEYS[1]) - 1, 0)
  redis.call('PUBLISH', ARGV[4], 'N ' .. table.concat({ARGV[1], ARGV[2], users, peak, redis.call('PFCOUNT', KEYS[5])}, ' ') .. '\n')
end
for key = 1, 6 do redis.call('EXPIRE', KEYS[key], ARGV[3]) end
if total == 0 then redis.call('DEL', KEYS[1]) end
return total
";

/// Rooms by connections, most first, then by name. Key: rank. Arguments: how many; after how many connections, empty = from the first on;
/// after which room. Answers rooms and their connections by turns.
pub const ROOMS: &str = r"
local rank, left = KEYS[1], tonumber(ARGV[1])
local function below(score) return redis.call('ZCOUNT', rank, '-inf', '(' .. score) end
local found = {}
local function take(from, count, score)
  if count <= 0 then return end
  for _, room in ipairs(redis.call('ZRANGE', rank, from, from + count - 1)) do
    found[#found + 1] = room
    found[#found + 1] = score
    left = left - 1
  end
end
local function follows(room, other)
  for i = 1, math.min(#room, #other) do
    local one, two = string.byte(room, i), string.byte(other, i)
    if one ~= two then return one > two end
  end
  return #room > #other
end
local top = '+inf'
if ARGV[2] ~= '' then
  top = '(' .. ARGV[2]
  local low, past = below(ARGV[2]), redis.call('ZCOUNT', rank, '-inf', ARGV[2])
  local high = past
  while low < high do
    local middle = math.floor((low + high) / 2)
    if follows(redis.call('ZRANGE', rank, middle, middle)[1], ARGV[3]) then high = middle else low = middle + 1 end
  end
  take(low, math.min(left, past - low), ARGV[2])
end
local rest = left > 0 and redis.call('ZREVRANGEBYSCORE', rank, top, '-inf', 'WITHSCORES', 'LIMIT', 0, left) or {}
local at = 2
while rest[at] do
  local score, count = rest[at], 0
  while rest[at] == score do
    count = count + 1
    at = at + 2
  end
  take(below(score), count, score)
end
return found
";

/// A room in short. Keys: numbering, settings, presence, visitors. Answers epoch, newest number, settings, connections, users, most
/// connections at once, different users so far.
pub const BRIEF: &str = r"
local seq = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'peak')
local total = redis.call('HGET', KEYS[3], 'total')
return {seq[1] or '0', seq[2] or '0', redis.call('GET', KEYS[2]), total or '0',
  math.max(redis.call('HLEN', KEYS[3]) - 1, 0), seq[3] or '0', redis.call('PFCOUNT', KEYS[4])}
";

/// One more connection of a login. Key: login. Arguments: node, what it counts under, the connection there, when it entered, how many there
/// may be, seconds kept. What the node has told under an older name counts no more. Answers those that are too many, the oldest first; they
/// are taken out.
pub const LOGIN: &str = r"
local old, mine = ARGV[1] .. '#', ARGV[2] .. ' '
for _, connection in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if string.sub(connection, 1, #old) == old and string.sub(connection, 1, #mine) ~= mine then
    redis.call('ZREM', KEYS[1], connection)
  end
end
redis.call('ZADD', KEYS[1], ARGV[4], mine .. ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[6])
local over = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[5])
if over <= 0 then return {} end
local gone = redis.call('ZRANGE', KEYS[1], 0, over - 1)
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, over - 1)
return gone
";

/// Takes out a login's connections on a node that is gone. Key: login. Argument: node.
pub const LOGOUT: &str = r"
for _, connection in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if string.sub(connection, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then redis.call('ZREM', KEYS[1], connection) end
end
return 0
";

/// Takes out what a node that is gone had counted in a room. Keys: presence, parts, here, refs, visitors, numbering, stats. Arguments: node, channel. Answers
/// connections on all nodes.
pub const DROP: &str = r"
for _, user in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  if redis.call('HINCRBY', KEYS[4], user, -1) <= 0 then
    redis.call('HDEL', KEYS[4], user)
    redis.call('HDEL', KEYS[1], 'user:' .. user)
  end
end
redis.call('DEL', KEYS[3])
redis.call('HDEL', KEYS[7], ARGV[1])
local part = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
local total = tonumber(redis.call('HGET', KEYS[1], 'total') or 0) - part
if part > 0 then
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('HSET', KEYS[1], 'total', total)
  local users = math.max(redis.call('HLEN', KEYS[1]) - 1, 0)
  local peak = redis.call('HGET', KEYS[6], 'peak') or '0'
  redis.call('PUBLISH', ARGV[2], 'N ' .. table.concat({ARGV[1], 0, users, peak, redis.call('PFCOUNT', KEYS[5])}, ' ') .. '\n')
end
if total <= 0 then redis.call('DEL', KEYS[1]) end
return total
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rooms_keys_share_the_slot_of_its_presence_hash() {
        let room = RoomId::parse("vip:1.a-b_c").unwrap();
        let hashed = |key: &str| {
            let open = key.find('{').unwrap();
            let close = open + key[open..].find('}').unwrap();
            key[open + 1..close].to_owned()
        };
        for key in [
            numbering(&room),
            log(&room),
            parts(&room),
            sent(&room, "n{1}"),
            channel(&room),
            settings(&room),
        ] {
            assert!(key.starts_with("live:"), "{key}");
            assert_eq!(hashed(&key), "live:room:vip:1.a-b_c", "{key}");
        }
        assert_eq!(room_of(&channel(&room)), Some(room));
        for other in [
            "live:lines:{live:room:a b}",
            "live:lines:{live:room:a",
            "x",
            "",
        ] {
            assert_eq!(room_of(other), None);
        }
    }
}
