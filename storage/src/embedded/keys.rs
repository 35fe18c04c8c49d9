//! Keys of the index. Everything about one log is one contiguous range, ordered by log, kind and then by position.
//!
//! ```text
//! log [16] 0                               floor: u64
//! log [16] 1                               checkpoint: through u64, value
//! log [16] 2 seq u64 big-endian            the row
//! log [16] 3 client_message_id [16] sender seq u64 of the row that they stored
//! log [16] 4 key                           a record
//! ```

use antiphon_protocol::LogKey;
use uuid::Uuid;

const FLOOR: u8 = 0;
const CHECKPOINT: u8 = 1;
const ROW: u8 = 2;
const DUPLICATE: u8 = 3;
const RECORD: u8 = 4;

/// A key of the index, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    Floor,
    Checkpoint,
    Row(u64),
    Duplicate { client_message_id: Uuid, sender: &'a [u8] },
    Record(&'a [u8]),
}

impl<'a> Key<'a> {
    /// The bytes of this key of `log`.
    pub(crate) fn of(self, log: LogKey) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.write(log, &mut out);
        out
    }

    /// Replaces `out` by the bytes of this key of `log`.
    pub(crate) fn write(self, log: LogKey, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&log.0);
        match self {
            Self::Floor => out.push(FLOOR),
            Self::Checkpoint => out.push(CHECKPOINT),
            Self::Row(seq) => {
                out.push(ROW);
                out.extend_from_slice(&seq.to_be_bytes());
            }
            Self::Duplicate { client_message_id, sender } => {
                out.push(DUPLICATE);
                out.extend_from_slice(client_message_id.as_bytes());
                out.extend_from_slice(sender);
            }
            Self::Record(key) => {
                out.push(RECORD);
                out.extend_from_slice(key);
            }
        }
    }

    /// Takes a key apart; nothing if it is none of ours.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<(LogKey, Self)> {
        let (log, rest) = bytes.split_first_chunk::<16>()?;
        let (kind, rest) = rest.split_first()?;
        let key = match (*kind, rest.len()) {
            (FLOOR, 0) => Self::Floor,
            (CHECKPOINT, 0) => Self::Checkpoint,
            (ROW, 8) => Self::Row(number(rest)?),
            (DUPLICATE, 17..) => {
                let (id, sender) = rest.split_first_chunk::<16>()?;
                Self::Duplicate { client_message_id: Uuid::from_bytes(*id), sender }
            }
            (RECORD, _) => Self::Record(rest),
            _ => return None,
        };
        Some((LogKey(*log), key))
    }
}

/// The key after every record of `log` that begins with `prefix`.
pub(crate) fn after_records(log: LogKey, prefix: &[u8]) -> Vec<u8> {
    let mut key = Key::Record(prefix).of(log);
    // The kind byte before the prefix is below 255, so there always is a byte to raise.
    while key.last() == Some(&u8::MAX) {
        key.pop();
    }
    if let Some(last) = key.last_mut() {
        *last += 1;
    }
    key
}

/// Reads a big-endian number; nothing if it is not exactly eight bytes.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogKey = LogKey([9; 16]);

    #[test]
    fn a_key_is_taken_apart_again() {
        let client_message_id = Uuid::from_u128(5);
        let keys = [
            Key::Floor,
            Key::Checkpoint,
            Key::Row(7),
            Key::Duplicate { client_message_id, sender: b"ann" },
            Key::Record(b"cursor"),
        ];
        for key in keys {
            assert_eq!(Key::parse(&key.of(LOG)), Some((LOG, key)));
        }
        assert!(keys.map(|key| key.of(LOG)).is_sorted());
        assert_eq!(Key::parse(&LOG.0), None);
    }

    #[test]
    fn the_end_of_a_prefix_is_after_all_of_it_and_before_the_rest() {
        for prefix in [&b""[..], b"a", b"a\xff", b"\xff\xff"] {
            let end = after_records(LOG, prefix);
            assert!(Key::Record(&[prefix, &[0xff; 4]].concat()).of(LOG) < end, "{prefix:?}");
        }
        assert!(Key::Record(b"b").of(LOG) >= after_records(LOG, b"a"));
        assert!(Key::Floor.of(LogKey([10; 16])) >= after_records(LOG, b""));
    }
}
