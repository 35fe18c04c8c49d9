//! Frames of arbitrary content come back as they went; arbitrary bytes are refused or read, and never cost more than
//! they are.

// Helpers of tests are not `#[test]` functions themselves.
#![allow(clippy::unwrap_used)]

mod every_body;

use antiphon_protocol::{
    ContentType, DecodeError, Decoder, EventKind, FrameType, LogName, NewRow, Position, RawFrame, Row, UserId, control,
    frames,
    header::{HEADER_BYTES, Header},
    limits::{COUNTER_MAX, ENVELOPE_BYTES_MAX, FRAME_BYTES_MAX, PRE_AUTH_BYTES_MAX},
};
use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*, sample::Index, strategy::ValueTree};
use uuid::Uuid;

use crate::every_body::{MESSAGES, decode_every_body, decode_message};

const ID: &str = "[A-Za-z0-9._:@|~-]{1,64}";

prop_compose! {
    fn any_user()(id in ID) -> UserId { id.parse().unwrap() }
}

prop_compose! {
    fn any_log()(kind in "[cu]", id in ID) -> LogName { format!("{kind}:{id}").parse().unwrap() }
}

prop_compose! {
    fn any_uuid()(bytes in any::<[u8; 16]>()) -> Uuid { Uuid::from_bytes(bytes) }
}

fn any_bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=max)
}

/// Content types that a client may send.
fn any_content_type() -> impl Strategy<Value = ContentType> {
    (0..3_u8).prop_map(|number| ContentType::from_number(number).unwrap())
}

prop_compose! {
    fn any_row()(
        (seq, msgno, time_ms) in any::<(u64, u64, u64)>(),
        (event_id, client_message_id) in (any_uuid(), any_uuid()),
        (kind, content_type) in (any::<u8>(), 0..4_u8),
        (sender, via) in (any_user(), option::of(any_user())),
        (envelope, body) in (any_bytes(40), any_bytes(300)),
    ) -> Row {
        NewRow {
            seq, msgno, time_ms, event_id, client_message_id,
            kind: EventKind(kind),
            content_type: ContentType::from_number(content_type).unwrap(),
            sender: &sender,
            via: via.as_ref(),
            envelope: &envelope,
            body: &body,
        }
        .to_row()
    }
}

prop_compose! {
    fn any_page()(
        (next, head, floor, epoch) in any::<(u64, u64, u64, u32)>(),
        rows in vec(any_row(), 0..4),
    ) -> frames::Page {
        frames::Page { next, head, floor, epoch, rows }
    }
}

prop_compose! {
    fn any_ack()(
        (epoch, seq, msgno, time_ms, duplicate) in any::<(u32, u64, u64, u64, bool)>(),
        event_id in any_uuid(),
    ) -> frames::Ack {
        frames::Ack { position: Position { epoch, seq }, msgno, time_ms, event_id, duplicate }
    }
}

prop_compose! {
    fn any_send()(
        (client_message_id, dseq) in (any_uuid(), any::<u64>()),
        (kind, content_type) in (any::<u8>(), any_content_type()),
        (log, act_as) in (any_log(), option::of(any_user())),
        (envelope, body) in (any_bytes(40), any_bytes(300)),
    ) -> frames::Send {
        let (kind, envelope, body) = (EventKind(kind), envelope.into(), body.into());
        frames::Send { client_message_id, dseq, kind, content_type, log, act_as, envelope, body }
    }
}

fn new_send(send: &frames::Send) -> frames::NewSend<'_> {
    frames::NewSend {
        client_message_id: send.client_message_id,
        dseq: send.dseq,
        kind: send.kind,
        content_type: send.content_type,
        log: &send.log,
        act_as: send.act_as.as_ref(),
        envelope: &send.envelope,
        body: &send.body,
    }
}

/// A batch: one log, one `dseq`.
fn any_batch() -> impl Strategy<Value = Vec<frames::Send>> {
    vec(any_send(), 1..5).prop_map(|mut records| {
        let log = records[0].log.clone();
        for record in &mut records[1..] {
            (record.log, record.dseq) = (log.clone(), 0);
        }
        records
    })
}

/// A control frame of each shape that Protobuf has: repeated, nested, optional, one of several, bytes.
fn any_control_frame() -> impl Strategy<Value = Bytes> {
    use control::{Attach, ConversationUpdate, Error, Hello, MemberCursor, Position, Subscribe, subscribe::From};
    let text = || "\\PC{0,20}";
    let octets = || any_bytes(20).prop_map(Bytes::from);
    let hello = (vec(any::<u32>(), 0..4), text(), octets(), any::<bool>(), vec(text(), 0..3)).prop_map(
        |(versions, token, sender_instance, follow_mine, capabilities)| {
            let hello = Hello { versions, token, sender_instance, follow_mine, capabilities, ..Default::default() };
            frames::control(FrameType::Hello, 1, &hello)
        },
    );
    let from = prop_oneof![
        any::<(u32, u64)>().prop_map(|(epoch, seq)| From::After(Position { epoch, seq })),
        any::<u32>().prop_map(From::Last),
        any::<bool>().prop_map(From::Tail),
    ];
    let subscribe = (text(), option::of(from))
        .prop_map(|(log, from)| frames::control(FrameType::Subscribe, 2, &Subscribe { log, from }));
    let cursor = (text(), any::<u64>()).prop_map(|(user, read)| MemberCursor { user, read, ..Default::default() });
    let attach = (any::<(u32, u64, i32)>(), vec(cursor, 0..4)).prop_map(|((handle, head, reset), cursors)| {
        frames::control(FrameType::Attach, 3, &Attach { handle, head, reset, cursors, ..Default::default() })
    });
    let properties = (option::of(text()), option::of(any::<i32>()), option::of(any::<u32>()), option::of(any::<i32>()));
    let update = properties.prop_map(|(title, join_policy, retention_s, history)| {
        let update = ConversationUpdate { conversation: "tea".into(), title, join_policy, retention_s, history };
        frames::control(FrameType::ConversationUpdate, 4, &update)
    });
    let error = (any::<u32>(), text()).prop_map(|(number, message)| {
        frames::control(FrameType::Error, 5, &Error { number, message, ..Default::default() })
    });
    prop_oneof![hello, subscribe, attach, update, error]
}

fn any_hot_frame() -> impl Strategy<Value = Bytes> {
    let id = any::<u32>;
    prop_oneof![
        (id(), any_send()).prop_map(|(id, send)| new_send(&send).to_frame(id)),
        (id(), any_batch()).prop_map(|(id, records)| {
            frames::SendBatch::to_frame(id, &records.iter().map(new_send).collect::<Vec<_>>())
        }),
        (id(), any_ack()).prop_map(|(id, ack)| ack.to_frame(id)),
        (id(), any_page()).prop_map(|(id, page)| page.to_frame(id)),
        (id(), any_row()).prop_map(|(id, row)| frames::event(id, &row)),
        any::<(u32, u64, u64)>().prop_map(|(id, from, to)| frames::skip(id, from, to)),
    ]
}

fn any_frame() -> impl Strategy<Value = Bytes> {
    prop_oneof![any_hot_frame(), any_control_frame()]
}

fn body(frame: &Bytes) -> Bytes {
    frame.slice(HEADER_BYTES..)
}

/// Everything that `stream` holds, when it comes in chunks that end at `cuts`.
fn decode_in_chunks(stream: &Bytes, cuts: &[usize]) -> (Vec<RawFrame>, Option<DecodeError>) {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let mut found = Vec::new();
    let mut begin = 0;
    for end in cuts.iter().copied().chain([stream.len()]) {
        decoder.push(Bytes::copy_from_slice(&stream[begin..end]));
        begin = end;
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

proptest! {
    #[test]
    fn sends_come_back(id in any::<u32>(), send in any_send()) {
        let frame = new_send(&send).to_frame(id);
        prop_assert_eq!(frames::Send::decode(&body(&frame)), Ok(send));
    }

    #[test]
    fn batches_come_back(records in any_batch()) {
        let frame = frames::SendBatch::to_frame(1, &records.iter().map(new_send).collect::<Vec<_>>());
        prop_assert_eq!(frames::SendBatch::decode(&body(&frame)), Ok(frames::SendBatch { records }));
    }

    #[test]
    fn imports_come_back(records in any_batch(), time_ms in 1..=COUNTER_MAX) {
        let new: Vec<_> = records.iter().map(|send| (time_ms, new_send(send))).collect();
        let records = records.iter().map(|send| frames::ImportRecord { time_ms, send: send.clone() }).collect();
        prop_assert_eq!(frames::Import::decode(&body(&frames::Import::to_frame(1, &new))), Ok(frames::Import { records }));
    }

    #[test]
    fn acks_come_back(id in any::<u32>(), ack in any_ack()) {
        prop_assert_eq!(frames::Ack::decode(&body(&ack.to_frame(id))), Ok(ack));
    }

    #[test]
    fn pages_come_back(page in any_page()) {
        prop_assert_eq!(frames::Page::decode(&body(&page.to_frame(1))), Ok(page));
    }

    #[test]
    fn rows_come_back_and_keep_who_and_where_when_redacted(row in any_row()) {
        let again = Row::new(body(&frames::event(7, &row))).unwrap();
        prop_assert_eq!(&again, &row);
        let redacted = Row::new(row.redacted().bytes().clone()).unwrap();
        prop_assert!(redacted.is_redacted() && redacted.body().is_empty() && redacted.envelope().is_empty());
        prop_assert_eq!((redacted.seq(), redacted.msgno()), (row.seq(), row.msgno()));
        prop_assert_eq!((redacted.sender(), redacted.via()), (row.sender(), row.via()));
        prop_assert_eq!(redacted.content_hash(), row.content_hash());
    }

    #[test]
    fn control_frames_come_back(frame in any_control_frame()) {
        // What is accepted is compared with what is written again, inside.
        prop_assert!(decode_every_body(&body(&frame)) > 0);
    }

    #[test]
    fn chunks_give_the_frames_of_the_whole(
        stream in vec(any_frame(), 1..6).prop_map(|frames| Bytes::from(frames.concat())),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(decode_in_chunks(&stream, &cuts), decode_in_chunks(&stream, &[]));
    }

    #[test]
    fn chunks_give_the_error_of_the_whole(stream in any_bytes(400), cuts in vec(any::<Index>(), 0..20)) {
        let stream = Bytes::from(stream);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(decode_in_chunks(&stream, &cuts), decode_in_chunks(&stream, &[]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_truncated_frame_is_waited_for_and_a_truncated_body_is_no_panic(frame in any_frame()) {
        for length in 0..frame.len() {
            let mut decoder = Decoder::new(FRAME_BYTES_MAX);
            decoder.push(frame.slice(..length));
            prop_assert_eq!(decoder.next_frame(), Ok(None), "{} of {} bytes", length, frame.len());
        }
        let body = body(&frame);
        for length in 0..body.len() {
            decode_every_body(&body.slice(..length));
        }
    }

    #[test]
    fn a_changed_byte_is_no_panic(frame in any_frame(), to in any::<u8>()) {
        for at in 0..frame.len() {
            let mut bytes = frame.to_vec();
            bytes[at] ^= to;
            read_everything(&Bytes::from(bytes));
        }
    }
}

fn read_everything(stream: &Bytes) {
    for frame in decode_in_chunks(stream, &[]).0 {
        decode_every_body(&frame.body);
    }
}

/// A small fast generator (xorshift64*), so that millions of frames take seconds and a seed repeats a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// One good frame of each kind, to be changed.
fn seeds() -> Vec<Bytes> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seeds: Vec<Bytes> = (0..200).map(|_| any_frame().new_tree(&mut runner).unwrap().current()).collect();
    seeds.extend(FrameType::ALL.iter().map(|frame_type| frames::raw(*frame_type, 1, b"")));
    seeds
}

/// Changes some bytes: most often a length, a bit, a byte; at times cuts, repeats or replaces.
fn mutated(seed: &Bytes, random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(8) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 | 3 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            4 => bytes[at.min(HEADER_BYTES - 1)] = random.next() as u8,
            5 => bytes.truncate(at),
            6 => bytes.extend_from_within(at..),
            _ => bytes[at] = random.next() as u8,
        }
        bytes.truncate(4_096);
    }
    bytes
}

/// Makes the header fit the body, so that the body is read in half of the cases.
fn fit_header(bytes: &mut [u8], random: &mut Random) {
    if bytes.len() >= HEADER_BYTES && random.below(2) == 0 {
        let frame_type = FrameType::ALL[random.below(FrameType::ALL.len())];
        let length = bytes.len() - HEADER_BYTES;
        bytes[..HEADER_BYTES].copy_from_slice(&Header::new(frame_type, 1, length).encode());
    }
}

/// `ANTIPHON_FUZZ_FRAMES` says how many frames; `ANTIPHON_FUZZ_SEED` repeats or varies a run.
#[test]
fn generated_frames_neither_panic_nor_bloat_the_decoder() {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect(name));
    let count = number("ANTIPHON_FUZZ_FRAMES").unwrap_or(2_000_000);
    let mut random = Random(number("ANTIPHON_FUZZ_SEED").unwrap_or(1).max(1));
    let seeds = seeds();
    let limits = [64, PRE_AUTH_BYTES_MAX, FRAME_BYTES_MAX];
    let (mut decoder, mut limit) = (Decoder::new(FRAME_BYTES_MAX), FRAME_BYTES_MAX);
    let mut accepted = 0;
    for _ in 0..count {
        // Another connection, so that one long announced length does not swallow the frames that follow it.
        if random.below(4) == 0 {
            limit = limits[random.below(limits.len())];
            decoder = Decoder::new(limit);
        }
        let mut bytes = mutated(&seeds[random.below(seeds.len())], &mut random);
        fit_header(&mut bytes, &mut random);
        let mut second = Bytes::from(bytes);
        let first = second.split_to(random.below(second.len() + 1));
        for chunk in [first, second] {
            let chunk_len = chunk.len();
            decoder.push(chunk);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => accepted += decode_some_bodies(&frame, &mut random),
                    Ok(None) => break,
                    Err(_) => decoder = Decoder::new(limit),
                }
            }
            assert!(decoder.buffered() <= limit + chunk_len, "{} bytes are buffered", decoder.buffered());
        }
    }
    assert!(count < 1_000 || accepted as u64 > count / 100, "only {accepted} bodies of {count} frames were read");
}

/// Reading every body as everything would spend the time on refusals: a frame is read as what it is, and one other way.
fn decode_some_bodies(frame: &RawFrame, random: &mut Random) -> usize {
    if random.below(16) == 0 {
        return decode_every_body(&frame.body);
    }
    let own = match frame.frame_type {
        FrameType::Send => frames::Send::decode(&frame.body).is_ok(),
        FrameType::SendBatch => frames::SendBatch::decode(&frame.body).is_ok(),
        FrameType::Import => frames::Import::decode(&frame.body).is_ok(),
        FrameType::Ack => frames::Ack::decode(&frame.body).is_ok(),
        FrameType::Page => frames::Page::decode(&frame.body).is_ok(),
        FrameType::Event => Row::new(frame.body.clone()).is_ok(),
        FrameType::Skip => frames::decode_skip(&frame.body).is_ok(),
        _ => false,
    };
    let other = decode_message(MESSAGES[random.below(MESSAGES.len())], &frame.body).is_ok();
    usize::from(own) + usize::from(other)
}

#[test]
fn the_longest_envelope_and_body_come_back() {
    let (envelope, body_bytes) = (vec![7; ENVELOPE_BYTES_MAX], vec![8; antiphon_protocol::limits::BODY_BYTES_MAX]);
    let send = frames::Send {
        client_message_id: Uuid::nil(),
        dseq: u64::MAX,
        kind: EventKind::MESSAGE,
        content_type: ContentType::Octets,
        log: format!("c:{}", "x".repeat(64)).parse().unwrap(),
        act_as: Some("y".repeat(64).parse().unwrap()),
        envelope: envelope.into(),
        body: body_bytes.into(),
    };
    assert_eq!(frames::Send::decode(&body(&new_send(&send).to_frame(1))), Ok(send));
}
