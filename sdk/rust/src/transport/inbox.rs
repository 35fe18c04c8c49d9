//! What a socket has brought on the broker's streams, until the driver takes it.
//!
//! On QUIC a driver leaves events unread while the application does not take them, and answers keep coming on a stream of
//! their own. A socket has one order for all, so its reader may wait for the driver, but not for the application: what
//! does not fit then is thrown away as a gateway would, with BEHIND in its place, and the subscription begins again after
//! its last position once there is room.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use antiphon_protocol::{Class, FrameType, control::Attach, frames};
use antiphon_sdk_core::StreamId;
use bytes::Bytes;
use tokio::sync::Notify;

use super::{FromBroker, form::Frame};

/// Bytes from which on the reader waits, or throws away.
const BYTES_MAX: usize = 256 << 10;

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    readable: Notify,
    writable: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<(Class, Bytes)>,
    bytes: usize,
    /// Classes whose stream has begun, by number.
    opened: BTreeSet<u8>,
    /// The application does not take what there is.
    is_stalled: bool,
    /// Handles of which something was thrown away, until they are attached again.
    lagging: BTreeSet<u32>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done where a thread could panic in here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a frame; waits for room as long as the application takes what there is.
    pub(super) async fn push(&self, frame: Frame) {
        while !self.try_push(&frame) {
            self.writable.notified().await;
        }
        self.readable.notify_one();
    }

    fn try_push(&self, frame: &Frame) -> bool {
        let mut state = self.lock();
        match frame.frame_type {
            Some(FrameType::Event | FrameType::Skip) if state.lagging.contains(&frame.id) => {}
            _ if state.bytes < BYTES_MAX => state.push(frame),
            _ if !state.is_stalled => return false,
            Some(FrameType::Event | FrameType::Skip) => state.lag(frame.id),
            _ => {
                if frame.class() == Class::State {
                    state.drop_oldest_state();
                }
                // What else there is was asked for, and is bounded by that.
                state.push(frame);
            }
        }
        true
    }

    /// The connection on this socket is over and another one begins: handles stand for something else.
    pub(super) fn restart(&self) {
        self.lock().lagging.clear();
    }

    pub(super) fn set_stalled(&self, is_stalled: bool) {
        let was_stalled = std::mem::replace(&mut self.lock().is_stalled, is_stalled);
        if is_stalled && !was_stalled {
            self.writable.notify_one();
        }
    }

    /// The next bytes. Cancel-safe.
    pub(super) async fn recv(&self) -> FromBroker {
        loop {
            if let Some(bytes) = self.try_recv() {
                return bytes;
            }
            self.readable.notified().await;
        }
    }

    pub(super) fn try_recv(&self) -> Option<FromBroker> {
        let (class, bytes) = self.lock().pop()?;
        self.writable.notify_one();
        Some(FromBroker::Bytes(StreamId(class as u64), bytes))
    }
}

impl State {
    fn push(&mut self, frame: &Frame) {
        if frame.frame_type == Some(FrameType::Attach)
            && let Ok(attach) = frames::decode_answer::<Attach>(&frame.body())
        {
            self.lagging.remove(&attach.handle);
        }
        let class = frame.class();
        if self.opened.insert(class as u8) {
            self.add(class, frames::open(class));
        }
        self.add(class, frame.bytes.clone());
    }

    fn add(&mut self, class: Class, bytes: Bytes) {
        self.bytes += bytes.len();
        self.frames.push_back((class, bytes));
    }

    fn pop(&mut self) -> Option<(Class, Bytes)> {
        let (class, bytes) = self.frames.pop_front()?;
        self.bytes -= bytes.len();
        Some((class, bytes))
    }

    fn lag(&mut self, handle: u32) {
        self.lagging.insert(handle);
        // The stream has begun: ATTACH came before, and always finds a place.
        self.add(Class::Events, frames::raw(FrameType::Behind, handle, &[]));
    }

    /// Newest wins. The first one of all has the stream's beginning before it, which stays.
    fn drop_oldest_state(&mut self) {
        let is_open = |bytes: &Bytes| bytes.get(4) == Some(&(FrameType::Open as u8));
        let oldest = self.frames.iter().position(|(class, bytes)| *class == Class::State && !is_open(bytes));
        if let Some((_, bytes)) = oldest.and_then(|at| self.frames.remove(at)) {
            self.bytes -= bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(frame_type: FrameType, id: u32, length: usize) -> Frame {
        Frame { frame_type: Some(frame_type), id, bytes: frames::raw(frame_type, id, &vec![0; length]) }
    }

    fn attach(handle: u32) -> Frame {
        let bytes = frames::control(FrameType::Attach, 1, &Attach { handle, ..Attach::default() });
        Frame { frame_type: Some(FrameType::Attach), id: 1, bytes }
    }

    /// Type and id of everything that is there.
    fn seen(inbox: &Inbox) -> Vec<(FrameType, u32)> {
        let next = || match inbox.try_recv()? {
            FromBroker::Bytes(_, bytes) => {
                let id = u32::from_le_bytes(*bytes[8..].first_chunk().unwrap());
                Some((FrameType::from_number(bytes[4]).unwrap(), id))
            }
            FromBroker::Ended(_) => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn each_class_begins_with_open() {
        let inbox = Inbox::default();
        for frame in [frame(FrameType::Event, 7, 0), frame(FrameType::Head, 0, 0), frame(FrameType::Event, 7, 0)] {
            assert!(inbox.try_push(&frame));
        }
        let open = |class: Class| (FrameType::Open, class as u32);
        let event = (FrameType::Event, 7);
        assert_eq!(seen(&inbox), [open(Class::Events), event, open(Class::State), (FrameType::Head, 0), event]);
    }

    #[test]
    fn a_reader_waits_for_a_driver_and_not_for_an_application() {
        let inbox = Inbox::default();
        assert!(inbox.try_push(&frame(FrameType::Event, 7, BYTES_MAX)));
        assert!(!inbox.try_push(&frame(FrameType::Event, 7, 1)), "there is no room");
        inbox.set_stalled(true);
        for _ in 0..3 {
            assert!(inbox.try_push(&frame(FrameType::Event, 7, 1)));
        }
        assert!(inbox.try_push(&frame(FrameType::Event, 8, 1)));
        assert!(inbox.try_push(&frame(FrameType::Page, 2, 9)));
        let (open, event) = ((FrameType::Open, 1), (FrameType::Event, 7));
        let behind = |handle| (FrameType::Behind, handle);
        let page = [(FrameType::Open, Class::Backfill as u32), (FrameType::Page, 2)];
        assert_eq!(seen(&inbox), [open, event, behind(7), behind(8), page[0], page[1]]);
        // There is room, and still nothing for a reader that waits for ATTACH.
        inbox.set_stalled(false);
        assert!(inbox.try_push(&frame(FrameType::Event, 7, 1)));
        assert_eq!(seen(&inbox), []);
        for frame in [attach(7), frame(FrameType::Event, 7, 1)] {
            assert!(inbox.try_push(&frame));
        }
        assert_eq!(seen(&inbox), [(FrameType::Attach, 1), event]);
        assert!(inbox.try_push(&frame(FrameType::Event, 8, 1)));
        assert_eq!(seen(&inbox), []);
        inbox.restart();
        assert!(inbox.try_push(&frame(FrameType::Event, 8, 1)));
        assert_eq!(seen(&inbox), [(FrameType::Event, 8)]);
    }

    #[test]
    fn of_state_the_newest_wins() {
        let inbox = Inbox::default();
        inbox.set_stalled(true);
        for id in 1..=3 {
            assert!(inbox.try_push(&frame(FrameType::Cursors, id, BYTES_MAX)));
        }
        assert_eq!(seen(&inbox), [(FrameType::Open, 2), (FrameType::Cursors, 3)]);
    }

    #[tokio::test]
    async fn room_wakes_a_reader_that_waits_and_frames_wake_a_driver() {
        let inbox = std::sync::Arc::new(Inbox::default());
        inbox.push(frame(FrameType::Event, 7, BYTES_MAX)).await;
        let reader = tokio::spawn({
            let inbox = std::sync::Arc::clone(&inbox);
            async move { inbox.push(frame(FrameType::Event, 7, 1)).await }
        });
        for _ in 0..3 {
            inbox.recv().await;
        }
        reader.await.unwrap();
    }
}
