//! Bytes to frames and back: what one SEND, one EVENT and one page cost in the codec alone.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on has nobody to tell but its reader")]

use std::hint::black_box;

use antiphon_bench::world::log;
use antiphon_protocol::{
    ContentType, Decoder, EventKind, NewRow, Row, UserId,
    frames::{self, NewSend, Page, Send},
    header::HEADER_BYTES,
    limits::FRAME_BYTES_MAX,
};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use uuid::Uuid;

const BODY: &[u8] = &[b'x'; 200];
const PAGE_ROWS: u64 = 100;

fn row(seq: u64, sender: &UserId) -> NewRow<'_> {
    NewRow {
        seq,
        msgno: seq,
        time_ms: 1_800_000_000_000 + seq,
        event_id: Uuid::from_u128(u128::from(seq)),
        client_message_id: Uuid::from_u128(u128::from(seq) << 64),
        kind: EventKind::MESSAGE,
        content_type: ContentType::Text,
        sender,
        via: None,
        envelope: &[],
        body: BODY,
    }
}

fn send(c: &mut Criterion) {
    let log = log();
    let send = NewSend {
        client_message_id: Uuid::from_u128(7),
        dseq: 1,
        kind: EventKind::MESSAGE,
        content_type: ContentType::Text,
        log: &log,
        act_as: None,
        envelope: &[],
        body: BODY,
    };
    let frame = send.to_frame(1);
    let mut group = c.benchmark_group("send");
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode", |b| {
        let body = frame.slice(HEADER_BYTES..);
        b.iter(|| Send::decode(black_box(&body)).unwrap());
    });
    group.bench_function("encode", |b| b.iter(|| black_box(&send).to_frame(1)));
    // Ten frames in one chunk, as a client that pipelines sends them.
    let chunk = Bytes::from([&frame[..]; 10].concat());
    group.throughput(Throughput::Elements(10));
    group.bench_function("cut 10 from a stream", |b| {
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        b.iter(|| {
            decoder.push(chunk.clone());
            let mut frames = 0;
            while let Some(frame) = decoder.next_frame().unwrap() {
                frames += usize::from(!black_box(frame).body.is_empty());
            }
            assert_eq!(frames, 10);
        });
    });
    group.finish();
}

fn event(c: &mut Criterion) {
    let sender = UserId::new("user17").unwrap();
    let mut group = c.benchmark_group("event");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode", |b| b.iter(|| frames::new_event(1, black_box(&row(9, &sender)))));
    let stored = row(9, &sender).to_row();
    group.bench_function("read", |b| b.iter_batched(|| stored.bytes().clone(), Row::new, BatchSize::SmallInput));
    group.finish();
}

fn page(c: &mut Criterion) {
    let sender = UserId::new("user17").unwrap();
    let rows: Vec<Row> = (1..=PAGE_ROWS).map(|seq| row(seq, &sender).to_row()).collect();
    let page = Page { epoch: 1, head: PAGE_ROWS, floor: 1, next: 0, rows };
    let frame = page.to_frame(1);
    let mut group = c.benchmark_group("page of 100");
    group.throughput(Throughput::Elements(PAGE_ROWS));
    group.bench_function("encode", |b| b.iter(|| black_box(&page).to_frame(1)));
    group.bench_function("decode", |b| {
        let body = frame.slice(HEADER_BYTES..);
        b.iter(|| Page::decode(black_box(&body)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, send, event, page);
criterion_main!(benches);
