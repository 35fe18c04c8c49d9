//! Bytes to frames and back: what one SEND, one EVENT and one page cost in the codec alone.

#![expect(clippy::unwrap_used, reason = "work that cannot go on has nobody to tell but its reader")]

use std::hint::black_box;

use antiphon_protocol::{
    ContentType, Decoder, EventKind, LogName, Row,
    frames::{self, NewSend, Page, Send},
    header::HEADER_BYTES,
    limits::FRAME_BYTES_MAX,
};
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    case::Case,
    rows::{BODY, row, sender},
    world::log,
};

const PAGE_ROWS: u64 = 100;
const FRAMES_PER_CHUNK: u64 = 10;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("send", "decode", decode_send),
        Case::new("send", "encode", encode_send),
        Case::new("send", "cut 10 from a stream", cut_sends).elements(FRAMES_PER_CHUNK),
        Case::new("event", "encode", encode_event),
        Case::new("event", "read", read_event),
        Case::new("page of 100", "encode", encode_page).elements(PAGE_ROWS).rounds(10),
        Case::new("page of 100", "decode", decode_page).elements(PAGE_ROWS).rounds(10),
    ]
}

/// A message of [`BODY`].
pub(crate) fn send(log: &LogName) -> NewSend<'_> {
    NewSend {
        client_message_id: Uuid::from_u128(7),
        dseq: 1,
        kind: EventKind::MESSAGE,
        content_type: ContentType::Text,
        log,
        act_as: None,
        envelope: &[],
        body: BODY,
    }
}

fn decode_send() -> impl FnMut() {
    let body = send(&log()).to_frame(1).slice(HEADER_BYTES..);
    move || {
        black_box(Send::decode(black_box(&body)).unwrap());
    }
}

fn encode_send() -> impl FnMut() {
    let log = log();
    move || {
        black_box(black_box(&send(&log)).to_frame(1));
    }
}

/// Ten frames in one chunk, as a client that pipelines sends them.
fn cut_sends() -> impl FnMut() {
    let chunk = Bytes::from([&send(&log()).to_frame(1)[..]; FRAMES_PER_CHUNK as usize].concat());
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    move || {
        decoder.push(chunk.clone());
        let mut frames = 0;
        while let Some(frame) = decoder.next_frame().unwrap() {
            frames += u64::from(!black_box(frame).body.is_empty());
        }
        assert_eq!(frames, FRAMES_PER_CHUNK);
    }
}

fn encode_event() -> impl FnMut() {
    let sender = sender();
    move || {
        black_box(frames::new_event(1, black_box(&row(9, &sender))));
    }
}

fn read_event() -> impl FnMut() {
    let stored = row(9, &sender()).to_row();
    move || {
        black_box(Row::new(black_box(stored.bytes().clone())).unwrap());
    }
}

/// A page of [`PAGE_ROWS`] rows.
pub(crate) fn page() -> Page {
    let sender = sender();
    let rows = (1..=PAGE_ROWS).map(|seq| row(seq, &sender).to_row()).collect();
    Page { epoch: 1, head: PAGE_ROWS, floor: 1, next: 0, rows }
}

fn encode_page() -> impl FnMut() {
    let page = page();
    move || {
        black_box(black_box(&page).to_frame(1));
    }
}

fn decode_page() -> impl FnMut() {
    let body = page().to_frame(1).slice(HEADER_BYTES..);
    move || {
        black_box(Page::decode(black_box(&body)).unwrap());
    }
}
