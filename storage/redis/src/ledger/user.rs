//! A user with seats or watchers at this process.

use std::collections::BTreeSet;

use antiphon_protocol::DeviceId;
use antiphon_storage::presence::{Look, Seen};

use crate::turn::UserState;

/// A seat of a user: stated by which handle, of which device, which connection.
pub(super) type SeatKey = (u64, DeviceId, u64);

/// What is stated and known of a user.
#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) seats: BTreeSet<SeatKey>,
    /// The newest that this process knows of, for stating it again; of use only with seats.
    pub(super) look: Look,
    pub(super) not_before_ms: u64,
    /// Handles that watch.
    pub(super) watchers: BTreeSet<u64>,
    /// Those of them that were not told anything yet.
    pub(super) waiting: BTreeSet<u64>,
    /// The state that watchers are told; `None` before the first answer.
    pub(super) seen: Option<Seen>,
    version: u64,
    /// Seems to have gone, which is not told before the bucket has settled.
    pub(super) is_held: bool,
}

impl User {
    /// Takes in a state of the store. True if watchers have to be told.
    pub(super) fn observe(&mut self, state: &UserState, is_settling: bool) -> bool {
        if !self.seats.is_empty() && state.is_here && state.look.set_at_ms > self.look.set_at_ms {
            self.look = state.look.clone();
        }
        if state.version <= self.version {
            return false;
        }
        let seen = state.seen();
        let was_there = self.seen.as_ref().is_none_or(|seen| *seen != Seen::offline());
        if is_settling && !state.is_here && was_there {
            // The version is not taken over, so that the same state counts when it is read again.
            self.is_held = true;
            return false;
        }
        self.version = state.version;
        self.is_held = false;
        self.seen = Some(seen);
        true
    }

    /// Everything was lost; versions begin again, by another clock perhaps.
    pub(super) fn begin_life(&mut self) {
        self.version = 0;
    }

    /// Whether there is nothing to keep.
    pub(super) fn is_nobody(&self) -> bool {
        self.seats.is_empty() && self.watchers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(version: u64, is_here: bool) -> UserState {
        UserState { version, is_here, look: Look::default() }
    }

    #[test]
    fn an_older_state_and_the_same_again_are_nothing() {
        let mut user = User::default();
        assert!(user.observe(&state(5, true), false));
        assert!(!user.observe(&state(5, true), false));
        assert!(!user.observe(&state(4, false), false));
        assert!(user.observe(&state(6, false), false));
        assert_eq!(user.seen, Some(Seen::offline()));
    }

    #[test]
    fn whoever_seems_to_have_gone_is_held_while_a_bucket_settles() {
        let mut user = User::default();
        user.observe(&state(5, true), false);
        user.begin_life();
        assert!(!user.observe(&state(3, false), true));
        assert!(user.is_held);
        assert!(user.observe(&state(3, false), false), "it counts once the bucket has settled");
        assert!(!user.is_held);
    }

    #[test]
    fn whoever_comes_back_while_a_bucket_settles_was_never_gone() {
        let mut user = User::default();
        user.observe(&state(5, true), false);
        user.begin_life();
        assert!(!user.observe(&state(3, false), true));
        assert!(user.observe(&state(4, true), true));
        assert!(!user.is_held);
    }
}
