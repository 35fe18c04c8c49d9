//! Whatever a line holds, reading it is no panic and costs a small multiple of the line.

// Helpers of tests are not `#[test]` functions themselves.
#![allow(clippy::unwrap_used)]

mod support;

use antiphon_gateway_ws::json::{self, EncodeError, JsonError};
use antiphon_protocol::{
    ContentType, Direction, ErrorCode, EventKind, FrameType, NewRow, RawFrame, Row, UserId,
    frames::{self, Ack, Page},
    limits::FRAME_BYTES_MAX,
};
use bytes::{Bytes, BytesMut};
use serde::de::IgnoredAny;
use uuid::Uuid;

use crate::support::{Random, count_and_random, encode, frame, generate::Generator, heap::Heap};

#[global_allocator]
static HEAP: Heap = Heap;

/// What reading a line of so many bytes may hold at once.
fn memory_max(line: usize) -> usize {
    16 * line + 16_384
}

const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\",
    "\\u",
    "\\ud83d",
    "\\ude00",
    "null",
    "true",
    "-",
    "0",
    ".",
    "e9",
    "1e999",
    "9007199254740992",
    "18446744073709551616",
    "-1",
    "\"id\":1,",
    "\"op\":\"SEND\",",
    "\"text\":\"x\",",
    "\"data\":{},",
    "\"body\":{},",
    "\"content_type\":",
    "\"protobuf\"",
    "\"kind\":\"member\",",
    "{\"a\":1,\"a\":2}",
    "[[[[[[[[",
    "]]]]]]]]",
    " ",
    "\n",
    "\0",
    "\u{1f600}",
];

/// What may stand behind a name.
const VALUES: &[&str] = &[
    "0",
    "1",
    "3",
    "255",
    "256",
    "4294967295",
    "4294967296",
    "9007199254740991",
    "1.0",
    "-1",
    "true",
    "false",
    "null",
    "\"\"",
    "\"a\"",
    "\"c:tea\"",
    "\"pin\"",
    "\"member\"",
    "\"text/plain\"",
    "\"protobuf\"",
    "\"AQ\"",
    "\"AR\"",
    "\"1-1\"",
    "[]",
    "[1]",
    "[\"a\"]",
    "[{}]",
    "{}",
    "{\"a\":\"b\"}",
    "\"0192f3a1-4c05-7000-8000-00000000beef\"",
    "\"0123456789abcdef\"",
    "\"SYNC\"",
];

/// Changes a line but leaves it JSON, most often: another value behind a name, another letter or digit.
fn reworded(line: &str, random: &mut Random) -> Vec<u8> {
    let mut bytes = line.as_bytes().to_vec();
    for _ in 0..=random.below(2) {
        let at = random.below(bytes.len());
        match bytes[at..].iter().position(|byte| *byte == b':') {
            Some(colon) if random.one_in(2) => {
                let begin = at + colon + 1;
                let length = bytes[begin..].iter().position(|byte| b",]}".contains(byte)).unwrap_or(0);
                drop(bytes.splice(begin..begin + length, random.pick(VALUES).bytes()));
            }
            _ if bytes[at].is_ascii_digit() => bytes[at] = b'0' + random.below(10) as u8,
            _ if bytes[at].is_ascii_lowercase() => bytes[at] = b'a' + random.below(26) as u8,
            _ => {}
        }
    }
    bytes
}

/// Changes a line in a few places: most often a byte or a token; at times it cuts, repeats, or moves a part.
fn mutated(line: &str, random: &mut Random) -> Vec<u8> {
    let mut bytes = line.as_bytes().to_vec();
    for _ in 0..=random.below(3) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(8) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] = random.pick(b"{}[]\",:\\0123456789-+.eEuntfalse"),
            2 | 3 => drop(bytes.splice(at..at, random.pick(TOKENS).bytes())),
            4 => drop(bytes.remove(at)),
            5 => bytes.truncate(at),
            6 => bytes.extend_from_within(at..),
            _ => {
                let (from, to) = (at.min(random.below(bytes.len())), at);
                let part = bytes[from..to].to_vec();
                let place = random.below(bytes.len());
                drop(bytes.splice(place..place, part));
            }
        }
        bytes.truncate(8_192);
    }
    bytes
}

/// Reads a line; what is accepted is JSON for others too, and comes back from its frame. Returns whether it was.
fn read(line: &[u8], from: Direction) -> Result<(), JsonError> {
    let (read, peak, _) = Heap::used_by(|| json::decode(line, from));
    assert!(
        peak <= memory_max(line.len()),
        "{} bytes for a line of {}: {:.300}",
        peak,
        line.len(),
        String::from_utf8_lossy(line)
    );
    let read = read.inspect_err(|error| assert!(error.field.len() <= 128 && error.code != ErrorCode::Internal))?;
    let text = std::str::from_utf8(line).unwrap();
    assert!(serde_json::from_str::<IgnoredAny>(text).is_ok(), "{text}");
    assert_eq!((frame(&read.frame).frame_type, frame(&read.frame).id), (read.frame_type, read.id));
    match encode(&read.frame, read.answers) {
        Ok(written) => {
            let again =
                json::decode(written.as_bytes(), from).unwrap_or_else(|error| panic!("{text} {written}: {error}"));
            assert_eq!(again.frame, read.frame, "{text}");
        }
        // A batch for two logs, or a content type that clients cannot send: that is for the broker to say.
        Err(EncodeError::Body(_))
            if [FrameType::Send, FrameType::SendBatch, FrameType::Import].contains(&read.frame_type) => {}
        Err(error) => panic!("{text}: {error}"),
    }
    Ok(())
}

fn random_change(random: &mut Random) -> fn(&str, &mut Random) -> Vec<u8> {
    if random.one_in(2) { mutated } else { reworded }
}

#[test]
fn changed_lines_are_refused_or_read() {
    let (count, random) = count_and_random();
    let mut generator = Generator::new(random);
    let seeds: Vec<(String, Direction)> = (0..2_000)
        .map(|_| {
            let (bytes, answers) = generator.frame();
            (encode(&bytes, answers).unwrap(), frame(&bytes).frame_type.direction())
        })
        .collect();
    let mut accepted = 0;
    for _ in 0..count {
        let (line, from) = &seeds[generator.random.below(seeds.len())];
        let change = random_change(&mut generator.random);
        accepted += u64::from(read(&change(line, &mut generator.random), *from).is_ok());
    }
    assert!(count < 1_000 || accepted > count / 10, "only {accepted} of {count} lines were read");
}

/// `begin`, then `unit` until the line is as long as a line may be, then `end`.
fn bomb(begin: &str, unit: impl Fn(usize) -> String, end: &str) -> String {
    let mut line = begin.to_owned();
    let mut number = 0;
    loop {
        let next = unit(number);
        if line.len() + next.len() + end.len() > FRAME_BYTES_MAX {
            return line + end;
        }
        line += &next;
        number += 1;
    }
}

fn same(unit: &str) -> impl Fn(usize) -> String {
    move |_| unit.to_owned()
}

#[test]
fn lines_as_long_as_they_may_be_cost_little() {
    let send =
        "{\"op\":\"SEND\",\"id\":1,\"log\":\"c:tea\",\"client_message_id\":\"0192f3a1-4c00-7abc-8def-0123456789ab\"";
    let record = "{\"log\":\"c:t\",\"client_message_id\":\"0192f3a1-4c00-7abc-8def-0123456789ab\"}";
    let lines = [
        bomb("", same("["), ""),
        bomb("{\"op\":\"SEND\",\"data\":", same("{\"a\":"), ""),
        bomb(&format!("{send},\"data\":["), same("[],"), "[]]}"),
        bomb(&format!("{send},\"data\":{{"), |n| format!("\"{n}\":0,"), "\"a\":0}}"),
        bomb(&format!("{send},\"data\":{{"), |n| format!("\"\\u0061{n}\":0,"), "\"a0\":0}}"),
        bomb(&format!("{send},\"data\":{{"), same("\"a\":0,"), "\"a\":0}}"),
        bomb(&format!("{send},\"data\":"), same("9"), "}"),
        bomb(&format!("{send},\"dseq\":"), same("9"), "}"),
        bomb(&format!("{send},\"text\":\""), same("\\u0000"), "\"}"),
        bomb(&format!("{send},\"text\":\""), same("\\ud83d"), "\"}"),
        bomb(&format!("{send},\"text\":\""), same("\\"), "\"}"),
        bomb(&format!("{send},\"body_b64\":\""), same("AAAA"), "\"}"),
        bomb(&format!("{send},\"mentions\":["), same("\"a\","), "\"b\"]}"),
        bomb(&format!("{send},\"attachments\":["), same("{\"url\":\"a\"},"), "{}]}"),
        bomb(&format!("{send},\"properties\":{{"), |n| format!("\"{n}\":\"\","), "\"a\":\"\"}}"),
        bomb(&format!("{send},\"thread\":{{\"event_id\":\""), same("0"), "\"}}"),
        bomb(send, |n| format!(",\"{n}\":0"), "}"),
        bomb(&format!("{send},\""), same("x"), "\":0}"),
        bomb(send, same(" "), "}"),
        bomb(&format!("{{\"op\":\"SEND_BATCH\",\"records\":[{record}"), same(&format!(",{record}")), "]}"),
        bomb("{\"op\":\"SEND_BATCH\",\"records\":[{}", same(",{}"), "]}"),
        bomb("{\"op\":\"HELLO\",\"versions\":[1", same(",1"), "]}"),
        bomb("{\"op\":\"HELLO\",\"capabilities\":[\"\"", same(",\"\""), "]}"),
        bomb("{\"op\":\"MEMBER_ADD\",\"members\":[{}", same(",{}"), "]}"),
        bomb("{\"op\":\"", same("A"), "\"}"),
        bomb("{\"op\":\"BYE\",\"op\":\"", same("A"), "\"}"),
    ];
    for line in lines {
        let _ = read(line.as_bytes(), Direction::ToBroker);
    }
}

#[test]
fn a_longer_line_is_refused_unread() {
    let mut line = b"{\"op\":\"BYE\"}".to_vec();
    line.resize(FRAME_BYTES_MAX, b' ');
    assert!(json::decode(&line, Direction::ToBroker).is_ok());
    line.push(b' ');
    let error = json::decode(&line, Direction::ToBroker).unwrap_err();
    assert_eq!((error.code, error.frame), (ErrorCode::FrameTooLarge, None));
}

/// Bodies of any bytes: a broker that is at fault does not stop its gateway.
#[test]
fn any_body_is_written_or_refused() {
    let (count, random) = count_and_random();
    let mut generator = Generator::new(random);
    let seeds: Vec<_> = (0..2_000).map(|_| generator.frame()).collect();
    let mut out = BytesMut::new();
    for _ in 0..count {
        let (bytes, answers) = &seeds[generator.random.below(seeds.len())];
        let RawFrame { frame_type, id, body } = frame(bytes);
        let random = &mut generator.random;
        let mut body = body.to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(body.len() + 1);
            match random.below(4) {
                0 => body.truncate(at),
                1 => body.insert(at, random.next() as u8),
                _ => body.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            }
        }
        out.clear();
        let frame = RawFrame { frame_type, id, body: Bytes::from(body) };
        if json::encode(&frame, *answers, &mut out).is_ok() {
            assert!(serde_json::from_slice::<IgnoredAny>(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
        }
        assert!(out.len() <= 64 * frame.body.len() + 4_096);
    }
}

fn row(content_type: ContentType, body: &[u8]) -> Row {
    NewRow {
        seq: 7,
        msgno: 5,
        time_ms: 1_731_000_000_000,
        event_id: Uuid::from_u128(1),
        client_message_id: Uuid::from_u128(2),
        kind: EventKind::MESSAGE,
        content_type,
        sender: &UserId::new("ann").unwrap(),
        via: None,
        envelope: &[],
        body,
    }
    .to_row()
}

#[test]
fn hot_frames_are_written_without_an_allocation() {
    let rows = vec![
        row(ContentType::Text, &[b'x'; 200]),
        row(ContentType::Json, b"{\"a\":[1,{\"b\":2}]}"),
        row(ContentType::Octets, b"abc"),
    ];
    let ack = Ack::of(&rows[0], 1, true).to_frame(1);
    let page = Page { next: 1, head: 9, floor: 1, epoch: 1, rows: rows.clone() }.to_frame(1);
    let behind = frames::raw(FrameType::Behind, 1, &[]);
    let mut out = BytesMut::with_capacity(65_536);
    let hot = rows.iter().map(|row| frames::event(1, row)).chain([ack, page, frames::skip(1, 2, 3), behind]);
    for bytes in hot {
        let frame = frame(&bytes);
        out.clear();
        let (written, _, allocations) = Heap::used_by(|| json::encode(&frame, None, &mut out));
        assert_eq!((written, allocations), (Ok(()), 0), "{}", String::from_utf8_lossy(&out));
    }
}
