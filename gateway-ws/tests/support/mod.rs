//! What the tests of the JSON form share.

#![allow(dead_code)]

pub(crate) mod generate;
pub(crate) mod heap;
pub(crate) mod spec;

use std::{env, fs, path::Path};

use antiphon_gateway_ws::json::{self, Decoded, EncodeError, JsonError};
use antiphon_protocol::{Decoder, Direction, ErrorCode, FrameType, RawFrame, limits::FRAME_BYTES_MAX};
use bytes::{Bytes, BytesMut};
use serde_json::Value;

/// A small fast generator (xorshift64*), so that millions of frames take seconds and a seed repeats a run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 to below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 11) % bound as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// `ANTIPHON_JSON_FRAMES` says how many frames; `ANTIPHON_JSON_SEED` repeats or varies a run.
pub(crate) fn count_and_random() -> (u64, Random) {
    let number = |name| env::var(name).ok().map(|value| value.parse::<u64>().expect(name));
    (number("ANTIPHON_JSON_FRAMES").unwrap_or(200_000), Random(number("ANTIPHON_JSON_SEED").unwrap_or(1).max(1)))
}

/// The list `name` of one file of `protocol/vectors`.
pub(crate) fn vectors(file: &str, name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/vectors").join(file);
    let json: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let list = json[name].as_array().unwrap().clone();
    assert!(!list.is_empty());
    list
}

pub(crate) fn text<'a>(vector: &'a Value, field: &str) -> &'a str {
    vector[field].as_str().unwrap_or_else(|| panic!("{field} of {vector}"))
}

pub(crate) fn hex(text: &str) -> Bytes {
    assert!(text.is_ascii() && text.len().is_multiple_of(2));
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The one frame that `bytes` are.
pub(crate) fn frame(bytes: &Bytes) -> RawFrame {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    decoder.push(bytes.clone());
    let frame = decoder.next_frame().unwrap().unwrap();
    assert_eq!((decoder.next_frame(), decoder.buffered()), (Ok(None), 0));
    frame
}

pub(crate) fn encode(bytes: &Bytes, answers: Option<FrameType>) -> Result<String, EncodeError> {
    let mut out = BytesMut::from(&b"before"[..]);
    let encoded = json::encode(&frame(bytes), answers, &mut out);
    assert!(encoded.is_ok() || &out[..] == b"before");
    encoded.map(|()| String::from_utf8(out[b"before".len()..].to_vec()).unwrap())
}

/// Reads a line from the side that its frame comes from.
pub(crate) fn decode(line: &str) -> Result<Decoded, JsonError> {
    match json::decode(line.as_bytes(), Direction::ToBroker) {
        Err(error) if error.code == ErrorCode::UnexpectedFrame => json::decode(line.as_bytes(), Direction::ToClient),
        other => other,
    }
}
