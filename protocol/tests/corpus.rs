//! Replays the corpora of the fuzz targets on a stable toolchain.

// Helpers of tests are not `#[test]` functions themselves.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/checks.rs"]
mod checks;
mod every_body;

use std::{fs, path::Path};

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for file in fs::read_dir(corpus).unwrap() {
        check(&fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 20, "the corpus of {target} has {count} inputs");
}

#[test]
fn frame() {
    replay("frame", checks::frame);
}

#[test]
fn chunked_decoder() {
    replay("chunked_decoder", checks::chunked_decoder);
}
