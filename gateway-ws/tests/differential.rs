//! Generated frames of every type go through JSON and come back as they went, and so do lines.

// Helpers of tests are not `#[test]` functions themselves.
#![allow(clippy::unwrap_used)]

#[path = "../../protocol/tests/every_body/mod.rs"]
mod every_body;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use antiphon_gateway_ws::json;
use antiphon_protocol::{Direction, FrameType};
use serde_json::value::RawValue;

use crate::{
    every_body::{MESSAGES, decode_message},
    support::{Random, count_and_random, encode, frame, generate::Generator},
};

#[test]
fn generated_frames_and_lines_come_back() {
    let (count, random) = count_and_random();
    let mut generator = Generator::new(random);
    let mut seen = BTreeSet::new();
    for number in 0..count {
        let (bytes, answers) = generator.frame();
        let sent = frame(&bytes);
        let line = encode(&bytes, answers).unwrap_or_else(|error| panic!("frame {number} {sent:?}: {error}"));
        assert!(!line.contains('\n'), "{line}");

        let side = sent.frame_type.direction();
        let read = json::decode(line.as_bytes(), side).unwrap_or_else(|error| panic!("frame {number} {line}: {error}"));
        assert_eq!(read.frame, bytes, "frame {number}: {line}");
        assert_eq!((read.frame_type, read.id), (sent.frame_type, sent.id), "{line}");
        assert_eq!(encode(&read.frame, read.answers).as_ref(), Ok(&line), "frame {number}");

        let other = respelled(&line, &mut generator.random);
        let read =
            json::decode(other.as_bytes(), side).unwrap_or_else(|error| panic!("frame {number} {other}: {error}"));
        assert_eq!(read.frame, bytes, "frame {number}: {other}");

        check_canonical(&generator, &sent);
        seen.insert(sent.frame_type);
    }
    // Trunks do not carry JSON.
    assert!(count < 10_000 || seen.len() == FrameType::ALL.len() - 4, "{} types were generated", seen.len());
}

/// The same line with its members in another order, white space between them, and escapes in names.
fn respelled(line: &str, random: &mut Random) -> String {
    let members: BTreeMap<&str, &RawValue> = serde_json::from_str(line).unwrap();
    let mut members: Vec<_> = members.into_iter().collect();
    let begin = random.below(members.len());
    members.rotate_left(begin);
    let white = [" ", "\t", "", "\r", "  "];
    let mut out = "{".to_owned();
    for (place, (name, value)) in members.into_iter().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        let name = if random.one_in(4) { name.replacen('e', "\\u0065", 1) } else { name.to_owned() };
        let [a, b, c, d] = [0; 4].map(|_| random.pick(&white));
        out += &format!("{comma}{a}\"{name}\"{b}:{c}{value}{d}");
    }
    out + "}\r"
}

/// What brokers demand of requests: the form that their own decoder would write.
fn check_canonical(generator: &Generator, sent: &antiphon_protocol::RawFrame) {
    let Some(message) = generator.message_of(sent.frame_type) else { return };
    if sent.frame_type.direction() == Direction::ToBroker && MESSAGES.contains(&message) {
        assert_eq!(decode_message(message, &sent.body), Ok(()), "{message}");
    }
}
