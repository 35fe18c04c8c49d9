//! Delivered and read positions of a log's readers. Monotone; the log's owner alone keeps them.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_protocol::{UserId, control};
use antiphon_storage_contract::RecordWrite;
use bytes::Bytes;
use prost::Message;

use crate::seldom::Empty;

/// How far one user has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    /// Last position that reached one of the user's devices.
    pub(super) delivered: u64,
    /// Last position that the user has read.
    pub(super) read: u64,
    /// `msgno` at `read`; unread = head's `msgno` minus this.
    pub(super) read_msgno: u64,
}

/// Record key prefix of cursors.
pub(super) const RECORD_PREFIX: &[u8] = b"cursor/";

/// The cursors of one log.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    by_user: BTreeMap<UserId, Cursor>,
    unsaved: BTreeSet<UserId>,
}

impl Empty for Cursors {
    fn empty() -> &'static Self {
        static EMPTY: Cursors = Cursors { by_user: BTreeMap::new(), unsaved: BTreeSet::new() };
        &EMPTY
    }
}

impl Cursors {
    /// The user's cursor; zero for one who never moved it.
    pub(super) fn get(&self, user: &UserId) -> Cursor {
        self.by_user.get(user).copied().unwrap_or_default()
    }

    /// Moves a cursor forward. Returns the new value if it changed.
    pub(super) fn advance(&mut self, user: &UserId, to: Cursor) -> Option<Cursor> {
        let cursor = self.by_user.entry(user.clone()).or_default();
        let before = *cursor;
        if to.read > cursor.read {
            (cursor.read, cursor.read_msgno) = (to.read, to.read_msgno);
        }
        // What is read has been delivered.
        cursor.delivered = cursor.delivered.max(to.delivered).max(cursor.read);
        let after = *cursor;
        (after != before).then(|| {
            self.unsaved.insert(user.clone());
            after
        })
    }

    /// Every cursor, as ATTACH carries them.
    pub(super) fn to_control(&self) -> Vec<control::MemberCursor> {
        self.by_user.iter().map(|(user, cursor)| to_control(user, *cursor)).collect()
    }

    /// The records of cursors that moved since the last call, and whose they are.
    pub(super) fn take_unsaved(&mut self) -> (Vec<UserId>, Vec<RecordWrite>) {
        let users: Vec<UserId> = std::mem::take(&mut self.unsaved).into_iter().collect();
        let record = |user: &UserId| RecordWrite {
            key: [RECORD_PREFIX, user.as_str().as_bytes()].concat().into(),
            value: Some(to_control(user, self.get(user)).encode_to_vec().into()),
        };
        let records = users.iter().map(record).collect();
        (users, records)
    }

    /// The store did not take these users' cursors.
    pub(super) fn save_again(&mut self, users: Vec<UserId>) {
        self.unsaved.extend(users);
    }

    /// Whether a cursor moved since it was last saved.
    pub(super) fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }

    /// Takes up saved cursors; one that has moved meanwhile stays.
    pub(super) fn restore(&mut self, records: &[(Bytes, Bytes)]) {
        for (_, value) in records {
            let Ok(saved) = control::MemberCursor::decode(value.clone()) else { continue };
            let Ok(user) = saved.user.parse::<UserId>() else { continue };
            let cursor = Cursor { delivered: saved.delivered, read: saved.read, read_msgno: saved.read_msgno };
            let known = self.by_user.entry(user).or_default();
            if cursor.read > known.read {
                (known.read, known.read_msgno) = (cursor.read, cursor.read_msgno);
            }
            known.delivered = known.delivered.max(cursor.delivered);
        }
    }
}

/// A cursor as frames and records hold it.
pub(super) fn to_control(user: &UserId, cursor: Cursor) -> control::MemberCursor {
    control::MemberCursor {
        user: user.to_string(),
        delivered: cursor.delivered,
        read: cursor.read,
        read_msgno: cursor.read_msgno,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_never_moves_back_and_is_saved_once_per_move() {
        let (mut cursors, ann) = (Cursors::default(), "ann".parse::<UserId>().unwrap());
        let to = |delivered, read| Cursor { delivered, read, read_msgno: read };
        assert_eq!(cursors.advance(&ann, to(5, 3)), Some(to(5, 3)));
        assert_eq!(cursors.advance(&ann, to(4, 2)), None);
        assert_eq!(cursors.advance(&ann, to(0, 7)), Some(to(7, 7)), "what is read has been delivered");
        assert_eq!(cursors.take_unsaved().1.len(), 1);
        assert!(!cursors.has_unsaved());
    }

    #[test]
    fn saved_cursors_come_back() {
        let (mut cursors, ann) = (Cursors::default(), "ann".parse::<UserId>().unwrap());
        let cursor = Cursor { delivered: 5, read: 3, read_msgno: 2 };
        cursors.advance(&ann, cursor);
        let records: Vec<_> =
            cursors.take_unsaved().1.into_iter().filter_map(|write| Some((write.key, write.value?))).collect();
        let mut restored = Cursors::default();
        restored.restore(&records);
        assert_eq!(restored.get(&ann), cursor);
        assert!(!restored.has_unsaved());
    }
}
