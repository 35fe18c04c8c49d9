//! Ids that many logs name: a person's in each of their conversations, a conversation's in the inbox of each member. Those
//! that are read from the store are kept once in a shard.

use std::{borrow::Borrow, collections::BTreeSet, str::FromStr};

use antiphon_protocol::{ConversationId, UserId};

/// So many ids are kept before it is looked for the first time which of them nobody names any more.
const KEPT_MIN: usize = 1_024;

/// The ids that a shard has read.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    pub(crate) users: Known<UserId>,
    pub(crate) conversations: Known<ConversationId>,
}

/// Ids of one kind.
#[derive(Debug)]
pub(crate) struct Known<T> {
    known: BTreeSet<T>,
    /// With so many it is looked for those that are named nowhere else.
    tidy_at: usize,
}

/// An id whose clones share its text.
pub(crate) trait SharedId: Clone + Ord + Borrow<str> + FromStr {
    fn has_clones(&self) -> bool;
}

impl SharedId for UserId {
    fn has_clones(&self) -> bool {
        self.has_clones()
    }
}

impl SharedId for ConversationId {
    fn has_clones(&self) -> bool {
        self.has_clones()
    }
}

impl<T: Ord> Default for Known<T> {
    fn default() -> Self {
        Self { known: BTreeSet::new(), tidy_at: KEPT_MIN }
    }
}

impl<T: SharedId> Known<T> {
    /// The id that is written so, if it is one.
    pub(crate) fn read(&mut self, text: &str) -> Option<T> {
        if let Some(id) = self.known.get(text) {
            return Some(id.clone());
        }
        let id: T = text.parse().ok()?;
        if self.known.len() >= self.tidy_at {
            self.known.retain(T::has_clones);
            self.tidy_at = KEPT_MIN.max(2 * self.known.len());
        }
        self.known.insert(id.clone());
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_read_twice_is_kept_once() {
        let mut users = Known::<UserId>::default();
        let ids = [users.read("ann").unwrap(), users.read("ann").unwrap()];
        assert_eq!(ids[0].as_str().as_ptr(), ids[1].as_str().as_ptr());
        assert_eq!(users.read("no id"), None);
        assert_eq!(users.known.len(), 1);
    }

    #[test]
    fn what_nobody_names_any_more_is_forgotten() {
        let mut users = Known::<UserId>::default();
        let ann = users.read("ann").unwrap();
        for n in 0..10 * KEPT_MIN {
            users.read(&format!("user-{n}"));
            assert!(users.known.len() <= KEPT_MIN);
        }
        assert_eq!(users.read("ann").unwrap().as_str().as_ptr(), ann.as_str().as_ptr());
    }
}
