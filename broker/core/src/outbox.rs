//! What waits to be written to one connection, by priority class.
//!
//! Each class has a bound and a policy: control stops the session's requests, events end the subscription with BEHIND,
//! state drops its oldest, backfill is bounded by the pages a session may have in flight. Frames are shared bytes; the
//! bound counts them as if they were not, because any one of them may be the last reference.

use std::collections::VecDeque;

use antiphon_protocol::Class;
use bytes::Bytes;

use crate::limits::{OUTBOX_CONTROL_BYTES_MAX, OUTBOX_EVENT_BYTES_MAX, OUTBOX_MARK_BYTES_MAX, OUTBOX_STATE_BYTES_MAX};

/// Room for so many frames stays with an empty lane, so that a delivery at a time allocates nothing.
const KEPT_FRAMES: usize = 4;

/// Frames of one class, oldest first.
#[derive(Debug, Default)]
pub struct Lane {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Lane {
    pub(crate) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// The oldest frame.
    pub fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        // The room of a burst, as when ten subscriptions are answered at once, is not kept by an idle session.
        if self.frames.is_empty() && self.frames.capacity() > KEPT_FRAMES {
            self.frames = VecDeque::new();
        }
        Some(frame)
    }

    /// Puts back what could not be written of the frame that was popped last.
    pub fn unpop(&mut self, rest: Bytes) {
        self.bytes += rest.len();
        self.frames.push_front(rest);
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

/// A subscription's event did not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// The lanes of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    lanes: [Lane; Class::ALL.len()],
}

impl Outbox {
    /// Adds an answer. Always fits: the session is not read while [`Self::is_control_full`].
    pub fn push_control(&mut self, frame: Bytes) {
        self.lane_mut(Class::Control).push(frame);
    }

    /// Whether the session's further requests must wait.
    pub fn is_control_full(&self) -> bool {
        self.lane(Class::Control).bytes() >= OUTBOX_CONTROL_BYTES_MAX
    }

    /// Adds a live event, unless events are full.
    pub fn push_event(&mut self, frame: &Bytes) -> Result<(), Overflow> {
        let lane = self.lane_mut(Class::Events);
        // An empty lane takes any one frame: the largest event is larger than the bound.
        if !lane.is_empty() && lane.bytes() + frame.len() > OUTBOX_EVENT_BYTES_MAX {
            return Err(Overflow);
        }
        lane.push(frame.clone());
        Ok(())
    }

    /// Adds a mark that must follow the events before it: ATTACH, BEHIND, DETACH. Always fits: the session is not read
    /// while [`Self::is_marks_full`].
    pub fn push_mark(&mut self, frame: Bytes) {
        self.lane_mut(Class::Events).push(frame);
    }

    /// Whether the session's further requests must wait, because what they may leave among the events is not read.
    pub fn is_marks_full(&self) -> bool {
        self.lane(Class::Events).bytes() >= OUTBOX_EVENT_BYTES_MAX + OUTBOX_MARK_BYTES_MAX
    }

    /// Whether a hand-over may inline rows of so many bytes.
    pub fn has_room_to_inline(&self, bytes: usize) -> bool {
        self.lane(Class::Events).bytes() + bytes <= OUTBOX_EVENT_BYTES_MAX
    }

    /// Adds state; the oldest gives way. Returns how many frames were dropped.
    pub fn push_state(&mut self, frame: Bytes) -> usize {
        let lane = self.lane_mut(Class::State);
        let mut dropped = 0;
        while !lane.is_empty() && lane.bytes() + frame.len() > OUTBOX_STATE_BYTES_MAX {
            lane.pop();
            dropped += 1;
        }
        lane.push(frame);
        dropped
    }

    /// Adds a page. Bounded by the pages that a session may have in flight.
    pub fn push_page(&mut self, frame: Bytes) {
        self.lane_mut(Class::Backfill).push(frame);
    }

    /// The frames of a class.
    pub fn lane(&self, class: Class) -> &Lane {
        &self.lanes[class as usize]
    }

    /// The frames of a class, to write them.
    pub fn lane_mut(&mut self, class: Class) -> &mut Lane {
        &mut self.lanes[class as usize]
    }

    /// Bytes that wait, over all classes.
    pub fn bytes(&self) -> usize {
        self.lanes.iter().map(Lane::bytes).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(Lane::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_over_the_bound_are_refused_and_counted_bytes_return_to_zero() {
        let mut outbox = Outbox::default();
        let frame = Bytes::from(vec![0; OUTBOX_EVENT_BYTES_MAX / 4]);
        for _ in 0..4 {
            assert_eq!(outbox.push_event(&frame), Ok(()));
        }
        assert_eq!(outbox.push_event(&frame), Err(Overflow));
        while outbox.lane_mut(Class::Events).pop().is_some() {}
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn the_largest_event_fits_an_empty_lane() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push_event(&Bytes::from(vec![0; OUTBOX_EVENT_BYTES_MAX * 2])), Ok(()));
        assert_eq!(outbox.push_event(&Bytes::from_static(b"x")), Err(Overflow));
    }

    #[test]
    fn newest_state_wins() {
        let mut outbox = Outbox::default();
        for n in 0..4_u8 {
            outbox.push_state(Bytes::from(vec![n; OUTBOX_STATE_BYTES_MAX / 2]));
        }
        let lane = outbox.lane_mut(Class::State);
        assert_eq!(lane.pop().map(|frame| frame[0]), Some(2));
        assert_eq!(lane.pop().map(|frame| frame[0]), Some(3));
    }

    #[test]
    fn an_empty_lane_keeps_the_room_of_a_delivery_and_gives_back_that_of_a_burst() {
        let mut lane = Lane::default();
        lane.push(Bytes::from_static(b"x"));
        lane.pop();
        assert!((1..=KEPT_FRAMES).contains(&lane.frames.capacity()));
        (0..100).for_each(|_| lane.push(Bytes::from_static(b"x")));
        while lane.pop().is_some() {}
        assert_eq!((lane.frames.capacity(), lane.bytes()), (0, 0));
    }

    #[test]
    fn an_unwritten_rest_comes_first_again() {
        let mut outbox = Outbox::default();
        outbox.push_control(Bytes::from_static(b"hello"));
        let lane = outbox.lane_mut(Class::Control);
        let frame = lane.pop().unwrap();
        lane.unpop(frame.slice(2..));
        assert_eq!((lane.bytes(), lane.pop()), (3, Some(Bytes::from_static(b"llo"))));
    }
}
