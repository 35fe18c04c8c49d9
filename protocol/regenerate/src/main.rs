//! Writes `protocol/src/envelope/generated.rs` anew from `protocol/fbs/envelope.fbs`.
//!
//! ```text
//! cargo run --manifest-path protocol/regenerate/Cargo.toml            # write the file
//! cargo run --manifest-path protocol/regenerate/Cargo.toml -- --path  # print where flatc was built
//! ```
//!
//! The first run builds flatc, which takes a C++ compiler, cmake and a few minutes. The output is committed, so nothing
//! else needs them. With the printed path in `FLATC`, the protocol's test `envelope_schema` proves that the committed
//! file is current.

use std::{
    env, fs, io,
    path::Path,
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let flatc = flatc_fork::flatc();
    if env::args().nth(1).as_deref() == Some("--path") {
        println!("{}", flatc.display());
        return ExitCode::SUCCESS;
    }
    match regenerate(flatc) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot regenerate the envelope: {error}");
            ExitCode::FAILURE
        }
    }
}

fn regenerate(flatc: &Path) -> io::Result<()> {
    let protocol = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = env::temp_dir().join(format!("antiphon-regenerate-{}", std::process::id()));
    fs::create_dir_all(&out)?;
    let status =
        Command::new(flatc).arg("--rust").arg("-o").arg(&out).arg(protocol.join("fbs/envelope.fbs")).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("flatc: {status}")));
    }
    fs::copy(out.join("envelope_generated.rs"), protocol.join("src/envelope/generated.rs"))?;
    fs::remove_dir_all(&out)
}
