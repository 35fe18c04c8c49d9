//! Which members of a direct conversation blocked the other: records next to its log, written when an inbox says so.

use std::collections::BTreeMap;

use antiphon_protocol::UserId;
use antiphon_storage_contract::RecordWrite;
use bytes::Bytes;
use prost::Message;

use crate::seldom::Empty;

/// Record key prefix of blocks.
pub(super) const RECORD_PREFIX: &[u8] = b"blocked/";

/// What one member's inbox last said. Stored, so its tags are never reused.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Said {
    /// Position in that inbox.
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(bool, tag = "2")]
    blocked: bool,
}

/// The blocks of one direct conversation.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    by_user: BTreeMap<UserId, Said>,
}

impl Empty for Blocks {
    fn empty() -> &'static Self {
        static EMPTY: Blocks = Blocks { by_user: BTreeMap::new() };
        &EMPTY
    }
}

impl Blocks {
    /// Whether somebody blocked the other.
    pub(super) fn is_any(&self) -> bool {
        self.by_user.values().any(|said| said.blocked)
    }

    /// Whether something that the user's inbox said at this position is news.
    pub(super) fn is_news(&self, user: &UserId, seq: u64) -> bool {
        self.by_user.get(user).is_none_or(|said| said.seq < seq)
    }

    /// The record of what the user's inbox said.
    pub(super) fn record(user: &UserId, seq: u64, blocked: bool) -> RecordWrite {
        let key = [RECORD_PREFIX, user.as_str().as_bytes()].concat();
        RecordWrite { key: key.into(), value: Some(Said { seq, blocked }.encode_to_vec().into()) }
    }

    /// The record is durable.
    pub(super) fn set(&mut self, user: UserId, seq: u64, blocked: bool) {
        self.by_user.insert(user, Said { seq, blocked });
    }

    /// Takes up what is stored; what was said meanwhile stays.
    pub(super) fn restore(&mut self, records: &[(Bytes, Bytes)]) {
        let read = |(key, value): &(Bytes, Bytes)| {
            let user: UserId = std::str::from_utf8(key.strip_prefix(RECORD_PREFIX)?).ok()?.parse().ok()?;
            Some((user, Said::decode(value.clone()).ok()?))
        };
        for (user, said) in records.iter().filter_map(read) {
            if self.is_news(&user, said.seq) {
                self.by_user.insert(user, said);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_from_its_record_and_an_older_word_is_no_news() {
        let ann: UserId = "ann".parse().unwrap();
        let mut blocks = Blocks::default();
        let record = Blocks::record(&ann, 7, true);
        blocks.restore(&[(record.key, record.value.unwrap())]);
        assert!(blocks.is_any());
        assert!(!blocks.is_news(&ann, 7) && blocks.is_news(&ann, 8));
        let record = Blocks::record(&ann, 8, false);
        blocks.restore(&[(record.key, record.value.unwrap())]);
        assert!(!blocks.is_any());
    }
}
