//! Replays the corpus of the fuzz target on a stable toolchain.

// Helpers of tests are not `#[test]` functions themselves.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/checks.rs"]
mod checks;

use std::{fs, path::Path};

#[test]
fn handshake() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/handshake");
    let mut count = 0;
    for file in fs::read_dir(corpus).unwrap() {
        let path = file.unwrap().path();
        println!("{}", path.display());
        checks::handshake(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count >= 20, "the corpus has {count} inputs");
}
