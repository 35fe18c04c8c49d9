//! Delivered and read positions of a log's readers. Monotone; the log's owner alone keeps them.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_protocol::{UserId, control};
use antiphon_storage_contract::RecordWrite;
use bytes::Bytes;
use prost::Message;

use crate::seldom::Empty;

/// How far one user has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
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
///
/// One that its user moves is saved within a second. One that a row tells, as whoever sends a message has read up to it,
/// takes no write of its own: it is known again when the row is folded in again. Until a record holds it, checkpoints
/// carry it on.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    by_user: BTreeMap<UserId, Kept>,
    unsaved: BTreeSet<UserId>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    cursor: Cursor,
    /// Whether a row told it, and no record holds it yet.
    is_told: bool,
}

/// Cursors as they are being saved.
pub(crate) type Saving = Vec<(UserId, Cursor)>;

impl Empty for Cursors {
    fn empty() -> &'static Self {
        static EMPTY: Cursors = Cursors { by_user: BTreeMap::new(), unsaved: BTreeSet::new() };
        &EMPTY
    }
}

impl Cursor {
    /// Moves forward to `to`, each position by itself. Whether anything changed.
    fn advance(&mut self, to: Self) -> bool {
        let before = *self;
        if to.read > self.read {
            (self.read, self.read_msgno) = (to.read, to.read_msgno);
        }
        // What is read has been delivered.
        self.delivered = self.delivered.max(to.delivered).max(self.read);
        *self != before
    }
}

impl Cursors {
    /// The user's cursor; zero for one who never moved it.
    pub(super) fn get(&self, user: &UserId) -> Cursor {
        self.by_user.get(user).map(|kept| kept.cursor).unwrap_or_default()
    }

    /// The user moves a cursor forward. Returns the new value if it changed.
    pub(super) fn advance(&mut self, user: &UserId, to: Cursor) -> Option<Cursor> {
        let kept = self.by_user.entry(user.clone()).or_default();
        let moved = kept.cursor.advance(to).then_some(kept.cursor)?;
        self.unsaved.insert(user.clone());
        Some(moved)
    }

    /// A durable row, or a checkpoint, tells that the user has got so far.
    pub(super) fn tell(&mut self, user: &UserId, to: Cursor) {
        let kept = self.by_user.entry(user.clone()).or_default();
        kept.is_told |= kept.cursor.advance(to);
    }

    /// Every cursor, as ATTACH carries them.
    pub(super) fn to_control(&self) -> Vec<control::MemberCursor> {
        self.by_user.iter().map(|(user, kept)| to_control(user, kept.cursor)).collect()
    }

    /// What a checkpoint has to carry, as its rows will not be folded in again.
    pub(super) fn to_checkpoint(&self) -> Vec<control::MemberCursor> {
        let told = self.by_user.iter().filter(|(_, kept)| kept.is_told);
        told.map(|(user, kept)| to_control(user, kept.cursor)).collect()
    }

    /// What a checkpoint carried.
    pub(super) fn from_checkpoint(carried: &[control::MemberCursor]) -> Self {
        let mut cursors = Self::default();
        for (user, cursor) in carried.iter().filter_map(from_control) {
            cursors.tell(&user, cursor);
        }
        cursors
    }

    /// The cursors that their users moved since the last call.
    pub(super) fn take_unsaved(&mut self) -> Saving {
        let unsaved = std::mem::take(&mut self.unsaved);
        unsaved.into_iter().filter_map(|user| Some((user.clone(), self.by_user.get(&user)?.cursor))).collect()
    }

    /// The same, and those that rows told.
    pub(super) fn take_all_unsaved(&mut self) -> Saving {
        let unsaved = std::mem::take(&mut self.unsaved);
        let is_due = |(user, kept): &(&UserId, &Kept)| kept.is_told || unsaved.contains(*user);
        self.by_user.iter().filter(is_due).map(|(user, kept)| (user.clone(), kept.cursor)).collect()
    }

    /// The store has taken these.
    pub(super) fn saved(&mut self, saved: &[(UserId, Cursor)]) {
        for (user, cursor) in saved {
            if let Some(kept) = self.by_user.get_mut(user).filter(|kept| kept.cursor == *cursor) {
                kept.is_told = false;
            }
        }
    }

    /// The store did not take these.
    pub(super) fn save_again(&mut self, unsaved: Saving) {
        self.unsaved.extend(unsaved.into_iter().map(|(user, _)| user));
    }

    /// Whether a user has moved a cursor since it was last saved.
    pub(super) fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }

    /// Takes up saved cursors; one that has moved meanwhile stays.
    pub(super) fn restore(&mut self, records: &[(Bytes, Bytes)]) {
        for (_, value) in records {
            let Ok(saved) = control::MemberCursor::decode(value.clone()) else { continue };
            let Some((user, saved)) = from_control(&saved) else { continue };
            let kept = self.by_user.entry(user).or_default();
            kept.cursor.advance(saved);
            kept.is_told &= kept.cursor != saved;
        }
    }

    /// Takes up cursors that were kept while the log was read anew.
    pub(super) fn merge(&mut self, kept: Self) {
        for (user, Kept { cursor, is_told }) in kept.by_user {
            let known = self.by_user.entry(user).or_default();
            known.cursor.advance(cursor);
            known.is_told |= is_told;
        }
        self.unsaved.extend(kept.unsaved);
    }
}

/// The records that hold these cursors.
pub(super) fn records(saving: &[(UserId, Cursor)]) -> Vec<RecordWrite> {
    let record = |(user, cursor): &(UserId, Cursor)| RecordWrite {
        key: [RECORD_PREFIX, user.as_str().as_bytes()].concat().into(),
        value: Some(to_control(user, *cursor).encode_to_vec().into()),
    };
    saving.iter().map(record).collect()
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

fn from_control(stored: &control::MemberCursor) -> Option<(UserId, Cursor)> {
    let control::MemberCursor { user, delivered, read, read_msgno } = stored;
    Some((user.parse().ok()?, Cursor { delivered: *delivered, read: *read, read_msgno: *read_msgno }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(delivered: u64, read: u64) -> Cursor {
        Cursor { delivered, read, read_msgno: read }
    }

    fn stored(saving: &[(UserId, Cursor)]) -> Vec<(Bytes, Bytes)> {
        records(saving).into_iter().filter_map(|write| Some((write.key, write.value?))).collect()
    }

    #[test]
    fn a_cursor_never_moves_back_and_is_saved_once_per_move() {
        let (mut cursors, ann) = (Cursors::default(), "ann".parse::<UserId>().unwrap());
        assert_eq!(cursors.advance(&ann, to(5, 3)), Some(to(5, 3)));
        assert_eq!(cursors.advance(&ann, to(4, 2)), None);
        assert_eq!(cursors.advance(&ann, to(0, 7)), Some(to(7, 7)), "what is read has been delivered");
        assert_eq!(cursors.take_unsaved(), [(ann, to(7, 7))]);
        assert!(!cursors.has_unsaved());
    }

    #[test]
    fn saved_cursors_come_back() {
        let (mut cursors, ann) = (Cursors::default(), "ann".parse::<UserId>().unwrap());
        let cursor = Cursor { delivered: 5, read: 3, read_msgno: 2 };
        cursors.advance(&ann, cursor);
        let mut restored = Cursors::default();
        restored.restore(&stored(&cursors.take_unsaved()));
        assert_eq!(restored.get(&ann), cursor);
        assert!(!restored.has_unsaved());
    }

    #[test]
    fn what_a_row_told_is_carried_by_checkpoints_until_a_record_holds_it() {
        let (mut cursors, ann) = (Cursors::default(), "ann".parse::<UserId>().unwrap());
        cursors.tell(&ann, to(5, 5));
        assert!(!cursors.has_unsaved(), "it takes no write of its own");
        let mut cursors = Cursors::from_checkpoint(&cursors.to_checkpoint());
        assert_eq!(cursors.get(&ann), to(5, 5));
        let saving = cursors.take_all_unsaved();
        cursors.tell(&ann, to(6, 6));
        cursors.saved(&saving);
        assert_eq!(cursors.to_checkpoint(), [to_control(&ann, to(6, 6))], "it has moved meanwhile");
        let saving = cursors.take_all_unsaved();
        cursors.saved(&saving);
        assert!(cursors.to_checkpoint().is_empty() && cursors.take_all_unsaved().is_empty());
    }

    #[test]
    fn a_record_that_holds_what_a_row_told_is_not_written_again() {
        let (mut cursors, ann) = (Cursors::default(), "ann".parse::<UserId>().unwrap());
        cursors.tell(&ann, to(5, 5));
        let records = stored(&cursors.take_all_unsaved());
        cursors.restore(&records);
        assert!(cursors.to_checkpoint().is_empty());
        cursors.tell(&ann, to(6, 6));
        cursors.restore(&records);
        assert_eq!(cursors.to_checkpoint().len(), 1, "the record is older");
    }

    #[test]
    fn cursors_that_were_kept_are_neither_forgotten_nor_taken_for_saved() {
        let [ann, bob] = ["ann", "bob"].map(|user| user.parse::<UserId>().unwrap());
        let (mut kept, mut cursors) = (Cursors::default(), Cursors::default());
        kept.tell(&ann, to(5, 5));
        kept.advance(&bob, to(4, 4));
        cursors.tell(&bob, to(3, 3));
        cursors.merge(kept);
        assert_eq!((cursors.get(&ann), cursors.get(&bob)), (to(5, 5), to(4, 4)));
        assert_eq!(cursors.to_checkpoint().len(), 2);
        assert_eq!(cursors.take_unsaved(), [(bob, to(4, 4))]);
    }
}
