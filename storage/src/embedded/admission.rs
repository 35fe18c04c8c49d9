//! Whether a write keeps the contract, judged by its log's bounds alone; the same rules for every backend here.

use antiphon_protocol::Row;
use antiphon_storage_contract::{Op, RECORD_KEY_BYTES_MAX, StoreError};

use super::{payload, query::Bounds};

/// A write that keeps the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It changes nothing and succeeds.
    Nothing,
    /// It is to be stored; the log's bounds afterwards.
    Write(Bounds),
}

/// Checks a write against the bounds before it.
pub(crate) fn check(op: &Op, before: Bounds, bytes_max: usize) -> Result<Admitted, StoreError> {
    if payload::encoded_len(op) > bytes_max {
        return misuse(format!("one write has at most {bytes_max} bytes"));
    }
    match op {
        Op::Append { rows, .. } => check_append(rows, before),
        Op::Rewrite { row, .. } if !(before.floor..=before.head).contains(&row.seq()) => {
            misuse(format!("row {} does not exist, the log has {before:?}", row.seq()))
        }
        Op::Checkpoint { through, .. } if *through > before.head => {
            misuse(format!("a checkpoint through {through} describes more than the log has, {}", before.head))
        }
        Op::PutRecords { records, .. } if records.iter().any(|r| r.key.len() > RECORD_KEY_BYTES_MAX) => {
            misuse(format!("a record's key has at most {RECORD_KEY_BYTES_MAX} bytes"))
        }
        Op::PutRecords { records, .. } if records.is_empty() => Ok(Admitted::Nothing),
        Op::SetFloor { floor, .. } if *floor > before.head + 1 && before.head > 0 => {
            misuse(format!("a floor of {floor} lies beyond the log's head {}", before.head))
        }
        Op::SetFloor { floor, .. } if *floor <= before.floor => Ok(Admitted::Nothing),
        Op::SetFloor { floor, .. } => Ok(Admitted::Write(Bounds { floor: *floor, head: before.head.max(*floor - 1) })),
        _ => Ok(Admitted::Write(before)),
    }
}

fn check_append(rows: &[Row], before: Bounds) -> Result<Admitted, StoreError> {
    let expected = before.head + 1..;
    if let Some((row, expected)) = rows.iter().zip(expected).find(|(row, expected)| row.seq() != *expected) {
        return misuse(format!("row {} was appended where {expected} is next", row.seq()));
    }
    match rows.len() as u64 {
        0 => Ok(Admitted::Nothing),
        count => Ok(Admitted::Write(Bounds { head: before.head + count, ..before })),
    }
}

fn misuse(what: String) -> Result<Admitted, StoreError> {
    Err(StoreError::Misuse(what))
}
