//! Which part of a Redis Cluster a command goes to: the slot of its first key or channel (Redis Cluster specification, "Key distribution
//! model" and "Hash tags").

use redis::{Arg, Cmd};

/// Slots of a Redis Cluster.
pub const SLOTS: usize = 16_384;

/// The slot of a key or channel.
pub fn slot(key: &[u8]) -> u16 {
    crc16(tag(key)) % SLOTS as u16
}

/// What of a key is hashed: what stands between its first `{` and the next `}`, if anything does.
fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else {
        return key;
    };
    let behind = &key[open + 1..];
    match behind.iter().position(|byte| *byte == b'}') {
        Some(length) if length > 0 => &behind[..length],
        _ => key,
    }
}

/// CRC-16/XMODEM: polynomial 0x1021, beginning with 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

/// The slot a command goes to; `None`: any node can answer it.
pub fn slot_of(command: &Cmd) -> Option<u16> {
    let mut words = command.args_iter().filter_map(|word| match word {
        Arg::Simple(word) => Some(word),
        _ => None,
    });
    let key = match words.next()? {
        b"EVAL" | b"EVALSHA" => words.nth(2)?,
        b"TIME" | b"SCRIPT" => return None,
        _ => words.next()?,
    };
    Some(slot(key))
}

#[cfg(test)]
mod tests {
    use redis::cmd;

    use super::*;

    #[test]
    fn keys_hash_as_the_specification_says() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % 16_384);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
    }

    #[test]
    fn commands_go_where_their_first_key_is() {
        let mut script = cmd("EVALSHA");
        script.arg("digest").arg(2).arg("foo").arg("other");
        assert_eq!(slot_of(&script), Some(12_182));
        let mut said = cmd("SPUBLISH");
        said.arg("foo").arg("hello");
        assert_eq!(slot_of(&said), Some(12_182));
        assert_eq!(slot_of(&cmd("TIME")), None);
    }
}
