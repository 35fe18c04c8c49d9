//! What waits for one connection: frames into its lanes and out again.

use std::hint::black_box;

use antiphon_core::{Outbox, limits::OUTBOX_STATE_BYTES_MAX};
use antiphon_protocol::{Class, FrameType, frames};
use bytes::Bytes;

use crate::case::Case;

const BURST: u32 = 100;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("outbox", "1 event", || events(1)),
        Case::new("outbox", "100 events", || events(BURST)).elements(BURST),
        Case::new("outbox", "1 answer", answer),
        Case::new("outbox", "state in place of older state", state),
    ]
}

fn frame(frame_type: FrameType) -> Bytes {
    frames::raw(frame_type, 1, &[b'x'; 200])
}

fn pop(outbox: &mut Outbox, class: Class) -> u32 {
    let mut frames = 0;
    while let Some(frame) = outbox.lane_mut(class).pop() {
        black_box(frame);
        frames += 1;
    }
    frames
}

fn events(count: u32) -> impl FnMut() {
    let (mut outbox, event) = (Outbox::default(), frame(FrameType::Event));
    move || {
        for _ in 0..count {
            assert!(outbox.push_event(black_box(&event)).is_ok());
        }
        assert_eq!(pop(&mut outbox, Class::Events), count);
    }
}

fn answer() -> impl FnMut() {
    let (mut outbox, ack) = (Outbox::default(), frame(FrameType::Ack));
    move || {
        outbox.push_control(black_box(ack.clone()));
        assert_eq!(pop(&mut outbox, Class::Control), 1);
    }
}

/// Into a lane that is full, as of a connection that does not read.
fn state() -> impl FnMut() {
    let (mut outbox, signaled) = (Outbox::default(), frame(FrameType::Signaled));
    for _ in 0..OUTBOX_STATE_BYTES_MAX / signaled.len() {
        outbox.push_state(signaled.clone());
    }
    move || assert_eq!(outbox.push_state(black_box(signaled.clone())), 1)
}
