//! `src/control.rs` and `src/descriptors.bin` are generated from `proto/antiphon.proto`. `ANTIPHON_REGENERATE=1 cargo test -p antiphon-protocol
//! --test generated` writes it anew; without the variable the test proves that it is current.

use std::{fs, path::Path};

use prost::Message;

#[test]
fn control_messages_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let schema = protox::compile(["antiphon.proto"], [root.join("proto")]).unwrap();
    let descriptors = schema.encode_to_vec();
    prost_build::Config::new().out_dir(out.path()).bytes(["."]).disable_comments(["."]).compile_fds(schema).unwrap();
    let generated = fs::read_to_string(out.path().join("antiphon.v1.rs")).unwrap();
    let committed = root.join("src/control.rs");
    if std::env::var_os("ANTIPHON_REGENERATE").is_some() {
        fs::write(&committed, &generated).unwrap();
        fs::write(root.join("src/descriptors.bin"), &descriptors).unwrap();
    }
    assert!(fs::read(root.join("src/descriptors.bin")).unwrap() == descriptors, "run with ANTIPHON_REGENERATE=1");
    assert_eq!(fs::read_to_string(&committed).unwrap(), generated, "run with ANTIPHON_REGENERATE=1");
}
