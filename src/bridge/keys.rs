//! Names and scripts of what stands in Redis. `docs/REDIS.md` describes them for those who look.
//!
//! All of a room's keys and its channel hash to one slot, that of `live:room:{id}`: the others carry that name as their hash tag.

use crate::base::ids::RoomId;

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

/// String: what the canary writes.
pub fn canary(node: &str) -> String {
    format!("live:canary:{node}")
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

/// What there is of a room. Keys: numbering, log, parts. Arguments: epoch to begin with, empty = none; seconds kept. Answers nil, or
/// epoch, newest number, batches, nodes and their connections.
pub const READ: &str = r"
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then
  if ARGV[1] == '' then return false end
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'seq', 0)
  redis.call('DEL', KEYS[2])
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return {epoch, redis.call('HGET', KEYS[1], 'seq'), redis.call('XRANGE', KEYS[2], '-', '+'), redis.call('HGETALL', KEYS[3])}
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
