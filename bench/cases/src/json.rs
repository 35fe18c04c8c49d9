//! Frames as JSON and back, as the gateway does it: an event once for all browsers that follow its log, a page for each
//! that asks, and what a browser sends.

#![expect(clippy::unwrap_used, reason = "work that cannot go on has nobody to tell but its reader")]

use std::hint::black_box;

use antiphon_json as json;
use antiphon_protocol::{Direction, FrameType, NewEnvelope, NewRow, RawFrame, frames, header::HEADER_BYTES};
use bytes::{Bytes, BytesMut};

use crate::{
    case::Case,
    codec,
    rows::{row, sender},
    world::log,
};

/// A text with what JSON escapes, and with letters of more than one byte.
const ESCAPED: &str = "\"Grüße\"\nund\tmehr: \\o/ ";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("json", "event", || write_event(&row(9, &sender()))),
        Case::new("json", "event with escapes and mentions", write_rich_event),
        Case::new("json", "page of 100", write_page).elements(100_u64).rounds(10),
        Case::new("json", "read a send", read_send),
    ]
}

fn write_event(new_row: &NewRow<'_>) -> impl FnMut() + use<> {
    let (frame, _) = frames::new_event(1, new_row);
    write(FrameType::Event, frame.slice(HEADER_BYTES..))
}

fn write_rich_event() -> impl FnMut() {
    let (sender, text) = (sender(), ESCAPED.repeat(8));
    let envelope = NewEnvelope { mentions: &["ann".parse().unwrap(), "bob".parse().unwrap()], ..Default::default() };
    write_event(&NewRow { envelope: &envelope.to_bytes(), body: text.as_bytes(), ..row(9, &sender) })
}

fn write_page() -> impl FnMut() {
    write(FrameType::Page, codec::page().to_frame(1).slice(HEADER_BYTES..))
}

fn write(frame_type: FrameType, body: Bytes) -> impl FnMut() {
    let frame = RawFrame { frame_type, id: 1, body };
    move || {
        // As much room as the gateway makes.
        let mut line = BytesMut::with_capacity(2 * frame.body.len() + 128);
        json::encode(black_box(&frame), None, &mut line).unwrap();
        black_box(line);
    }
}

fn read_send() -> impl FnMut() {
    let body = codec::send(&log()).to_frame(1).slice(HEADER_BYTES..);
    let mut line = BytesMut::new();
    json::encode(&RawFrame { frame_type: FrameType::Send, id: 1, body }, None, &mut line).unwrap();
    move || {
        black_box(json::decode(black_box(&line), Direction::ToBroker).unwrap());
    }
}
