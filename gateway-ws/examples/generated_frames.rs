//! Writes generated frames, and the lines that they are in JSON, for readers in other languages to be held against.
//!
//! Each record is the length of the frame and of the line (u32, little-endian), the number of the request that the frame
//! answers (u8; 0 = none), the frame, the line. As in the tests, `ANTIPHON_JSON_FRAMES` says how many, and
//! `ANTIPHON_JSON_SEED` which ones.

// A helper of tests is not a `#[test]` function itself.
#![allow(clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{self, BufWriter, ErrorKind, Write as _};

use antiphon_protocol::FrameType;

use crate::support::{count_and_random, encode, generate::Generator};

fn main() -> io::Result<()> {
    match write() {
        // The reader has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn write() -> io::Result<()> {
    let (count, random) = count_and_random();
    let mut generator = Generator::new(random);
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    for _ in 0..count {
        let (frame, answers) = generator.frame();
        let line = encode(&frame, answers).unwrap();
        for length in [frame.len(), line.len()] {
            out.write_all(&u32::try_from(length).unwrap().to_le_bytes())?;
        }
        out.write_all(&[answers.map_or(0, |request: FrameType| request as u8)])?;
        out.write_all(&frame)?;
        out.write_all(line.as_bytes())?;
    }
    out.flush()
}
