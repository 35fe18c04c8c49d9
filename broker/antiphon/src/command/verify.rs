//! `antiphon verify`: every checksum, row and index entry of a data directory.

use antiphon_storage::embedded::verify;

use crate::{cli::Verify, failure::Failure};

pub(crate) fn run(command: &Verify) -> Result<(), Failure> {
    let report = verify(&command.dir)?;
    for finding in &report.findings {
        println!("{finding}");
    }
    println!(
        "{} logs, {} rows, {} duplicate entries, {} records, {} blocks to replay, {} torn tails",
        report.logs, report.rows, report.duplicates, report.records, report.blocks, report.torn
    );
    if report.findings.is_empty() { Ok(()) } else { Err(Failure::Damaged(report.findings.len())) }
}
