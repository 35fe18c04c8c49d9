//! What waits to be written to one socket, by priority class, in the socket's own form.
//!
//! The bounds are those of a client's connection at the broker, so a slow browser costs no more than a slow native client.

use std::collections::VecDeque;

use antiphon_protocol::Class;
use bytes::{Bytes, BytesMut};

/// Event bytes that wait. More: the subscription whose event does not fit lags.
pub const EVENT_BYTES_MAX: usize = 64 << 10;
/// State bytes that wait. More: the oldest gives way.
pub const STATE_BYTES_MAX: usize = 16 << 10;
/// Answer bytes that wait. More: the socket is not read.
pub const CONTROL_BYTES_MAX: usize = 64 << 10;

/// Frames of one class, oldest first.
#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Lane {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        if self.frames.is_empty() && self.frames.capacity() > 4 {
            self.frames = VecDeque::new();
        }
        Some(frame)
    }
}

/// An event did not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// The lanes of one socket.
#[derive(Debug, Default)]
pub struct Outbox {
    lanes: [Lane; Class::ALL.len()],
}

impl Outbox {
    /// Adds an event that may be thrown away, because the broker can be told so.
    ///
    /// # Errors
    ///
    /// [`Overflow`] if it does not fit; then the reader lags.
    pub fn push_event(&mut self, frame: Bytes) -> Result<(), Overflow> {
        let lane = &mut self.lanes[Class::Events as usize];
        // An empty lane takes any one frame: the largest event is larger than the bound.
        if lane.bytes > 0 && lane.bytes + frame.len() > EVENT_BYTES_MAX {
            return Err(Overflow);
        }
        lane.push(frame);
        Ok(())
    }

    /// Adds any other frame. State gives way to newer state; what else there is is bounded by what the client asked for.
    pub fn push(&mut self, class: Class, frame: Bytes) {
        let lane = &mut self.lanes[class as usize];
        while class == Class::State && lane.bytes > 0 && lane.bytes + frame.len() > STATE_BYTES_MAX {
            lane.pop();
        }
        lane.push(frame);
    }

    /// Throws away all but answers: the session's way to the broker is lost, and with it what its handles stand for.
    pub fn forget_streams(&mut self) {
        for class in Class::ALL.into_iter().filter(|class| *class != Class::Control) {
            self.lanes[class as usize] = Lane::default();
        }
    }

    /// Whether the socket's further requests have to wait.
    pub fn is_control_full(&self) -> bool {
        self.lanes[Class::Control as usize].bytes >= CONTROL_BYTES_MAX
    }

    /// The most urgent frames, joined by `separator` up to about `bytes_max`: one alone may be longer.
    pub fn take(&mut self, separator: &[u8], bytes_max: usize) -> Option<Bytes> {
        let first = self.pop()?;
        if first.len() >= bytes_max || self.is_empty() {
            return Some(first);
        }
        let mut joined = BytesMut::with_capacity(bytes_max.min(first.len() + self.bytes() + 64));
        joined.extend_from_slice(&first);
        while let Some(next) = self.peek().filter(|next| joined.len() + separator.len() + next <= bytes_max) {
            debug_assert!(next > 0);
            joined.extend_from_slice(separator);
            joined.extend_from_slice(&self.pop().unwrap_or_default());
        }
        Some(joined.freeze())
    }

    /// The most urgent frame.
    pub fn pop(&mut self) -> Option<Bytes> {
        self.lanes.iter_mut().find_map(Lane::pop)
    }

    /// Length of what comes next.
    fn peek(&self) -> Option<usize> {
        self.lanes.iter().find_map(|lane| lane.frames.front()).map(Bytes::len)
    }

    /// Bytes that wait, over all classes.
    pub fn bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.bytes).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.frames.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize) -> Bytes {
        Bytes::from(vec![b'x'; length])
    }

    #[test]
    fn events_over_the_bound_are_refused_and_one_always_fits() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push_event(frame(EVENT_BYTES_MAX * 2)), Ok(()));
        assert_eq!(outbox.push_event(frame(1)), Err(Overflow));
        assert_eq!(outbox.take(b"\n", 16_384).map(|bytes| bytes.len()), Some(EVENT_BYTES_MAX * 2));
        assert_eq!((outbox.push_event(frame(1)), outbox.bytes()), (Ok(()), 1));
    }

    #[test]
    fn newest_state_wins() {
        let mut outbox = Outbox::default();
        (0..100).for_each(|_| outbox.push(Class::State, frame(1_000)));
        assert!(outbox.bytes() <= STATE_BYTES_MAX);
    }

    #[test]
    fn answers_outlive_the_way_to_the_broker() {
        let mut outbox = Outbox::default();
        Class::ALL.into_iter().for_each(|class| outbox.push(class, frame(class as usize + 1)));
        outbox.forget_streams();
        assert_eq!((outbox.take(b"", 100), outbox.take(b"", 100)), (Some(frame(1)), None));
    }

    #[test]
    fn answers_come_before_events_and_small_frames_are_joined() {
        let mut outbox = Outbox::default();
        outbox.push_event(Bytes::from_static(b"event")).unwrap();
        outbox.push(Class::Control, Bytes::from_static(b"answer"));
        outbox.push(Class::Backfill, frame(100));
        assert_eq!(outbox.take(b"\n", 50), Some(Bytes::from_static(b"answer\nevent")));
        assert_eq!(outbox.take(b"\n", 50), Some(frame(100)));
        assert_eq!((outbox.take(b"\n", 50), outbox.bytes()), (None, 0));
    }

    #[test]
    fn whoever_does_not_take_answers_is_not_read() {
        let mut outbox = Outbox::default();
        outbox.push(Class::Control, frame(CONTROL_BYTES_MAX));
        assert!(outbox.is_control_full());
    }
}
