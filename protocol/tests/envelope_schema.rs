//! `src/envelope/generated.rs` is generated from `fbs/envelope.fbs` by `regenerate/`. With the path of flatc in `FLATC`
//! this test proves that it is current: `FLATC=$(cargo run --manifest-path protocol/regenerate/Cargo.toml -- --path)`.

use std::{env, fs, path::Path, process::Command};

/// The flatc whose output is committed; the same version as the `flatbuffers` crate.
const FLATC_VERSION: &str = "flatc version 25.12.19";

#[test]
fn generated_envelope_is_current() {
    let Some(flatc) = env::var_os("FLATC") else {
        eprintln!("not compared: FLATC does not name a flatc");
        return;
    };
    let version = Command::new(&flatc).arg("--version").output().unwrap().stdout;
    assert_eq!(String::from_utf8(version).unwrap().trim(), FLATC_VERSION);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let schema = root.join("fbs/envelope.fbs");
    assert!(Command::new(&flatc).arg("--rust").arg("-o").arg(out.path()).arg(schema).status().unwrap().success());
    let generated = fs::read_to_string(out.path().join("envelope_generated.rs")).unwrap();
    let committed = fs::read_to_string(root.join("src/envelope/generated.rs")).unwrap();
    assert!(committed == generated, "run: cargo run --manifest-path protocol/regenerate/Cargo.toml");
}
