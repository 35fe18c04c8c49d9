//! A block's payload: writes, one after the other, in the order of submission.
//!
//! ```text
//! write   = kind u8, log [16], then by kind
//! append  = 1: count u32, rows          rewrite = 2: row          floor = 5: floor u64
//! checkpoint = 3: through u64, len u32, value
//! records = 4: count u32, (key_len u16, key, value_len u32 or u32::MAX for a deletion, value)*
//! ```
//!
//! A row is encoded exactly as it travels and is stored; decoding shares the block's bytes.

use antiphon_protocol::{InvalidRow, LogKey, Row};
use antiphon_storage_contract::{Op, RecordWrite};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

const APPEND: u8 = 1;
const REWRITE: u8 = 2;
const CHECKPOINT: u8 = 3;
const RECORDS: u8 = 4;
const FLOOR: u8 = 5;
const DELETED: u32 = u32::MAX;

/// Why bytes with a right checksum are still no payload; only a defect of this program can cause it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum InvalidPayload {
    /// The payload ends inside a write.
    #[error("a write is cut off")]
    Truncated,
    /// A kind of write that this version does not know.
    #[error("{0} is no kind of write")]
    Kind(u8),
    /// A row that is none.
    #[error(transparent)]
    Row(#[from] InvalidRow),
}

/// Bytes that `op` takes; 0 for a read.
pub(crate) fn encoded_len(op: &Op) -> usize {
    let body = match op {
        Op::Append { rows, .. } => 4 + rows.iter().map(|row| row.bytes().len()).sum::<usize>(),
        Op::Rewrite { row, .. } => row.bytes().len(),
        Op::Checkpoint { value, .. } => 12 + value.len(),
        Op::PutRecords { records, .. } => {
            4 + records.iter().map(|r| 6 + r.key.len() + r.value.as_ref().map_or(0, Bytes::len)).sum::<usize>()
        }
        Op::SetFloor { .. } => 8,
        _ => return 0,
    };
    17 + body
}

/// Appends a write to `out`; a read adds nothing.
pub(crate) fn encode(op: &Op, out: &mut BytesMut) {
    out.reserve(encoded_len(op));
    match op {
        Op::Append { log, rows } => {
            put_head(APPEND, *log, out);
            out.put_u32_le(rows.len() as u32);
            rows.iter().for_each(|row| out.put_slice(row.bytes()));
        }
        Op::Rewrite { log, row } => {
            put_head(REWRITE, *log, out);
            out.put_slice(row.bytes());
        }
        Op::Checkpoint { log, through, value } => {
            put_head(CHECKPOINT, *log, out);
            out.put_u64_le(*through);
            out.put_u32_le(value.len() as u32);
            out.put_slice(value);
        }
        Op::PutRecords { log, records } => {
            put_head(RECORDS, *log, out);
            out.put_u32_le(records.len() as u32);
            records.iter().for_each(|record| put_record(record, out));
        }
        Op::SetFloor { log, floor } => {
            put_head(FLOOR, *log, out);
            out.put_u64_le(*floor);
        }
        _ => {}
    }
}

/// Takes the first write off `payload`; nothing once it is empty.
pub(crate) fn decode(payload: &mut Bytes) -> Result<Option<Op>, InvalidPayload> {
    if payload.is_empty() {
        return Ok(None);
    }
    need(payload, 17)?;
    let kind = payload.get_u8();
    let mut log = [0; 16];
    payload.copy_to_slice(&mut log);
    let log = LogKey(log);
    let op = match kind {
        APPEND => Op::Append { log, rows: take_rows(payload)? },
        REWRITE => Op::Rewrite { log, row: Row::split_first(payload)? },
        CHECKPOINT => take_checkpoint(log, payload)?,
        RECORDS => Op::PutRecords { log, records: take_records(payload)? },
        FLOOR => {
            need(payload, 8)?;
            Op::SetFloor { log, floor: payload.get_u64_le() }
        }
        other => return Err(InvalidPayload::Kind(other)),
    };
    Ok(Some(op))
}

fn put_head(kind: u8, log: LogKey, out: &mut BytesMut) {
    out.put_u8(kind);
    out.put_slice(&log.0);
}

fn put_record(record: &RecordWrite, out: &mut BytesMut) {
    out.put_u16_le(record.key.len() as u16);
    out.put_slice(&record.key);
    out.put_u32_le(record.value.as_ref().map_or(DELETED, |value| value.len() as u32));
    out.put_slice(record.value.as_deref().unwrap_or_default());
}

fn need(payload: &Bytes, bytes: usize) -> Result<(), InvalidPayload> {
    if payload.len() < bytes { Err(InvalidPayload::Truncated) } else { Ok(()) }
}

fn take(payload: &mut Bytes, bytes: usize) -> Result<Bytes, InvalidPayload> {
    need(payload, bytes)?;
    Ok(payload.split_to(bytes))
}

fn take_rows(payload: &mut Bytes) -> Result<Vec<Row>, InvalidPayload> {
    need(payload, 4)?;
    let count = payload.get_u32_le();
    (0..count).map(|_| Ok(Row::split_first(payload)?)).collect()
}

fn take_checkpoint(log: LogKey, payload: &mut Bytes) -> Result<Op, InvalidPayload> {
    need(payload, 12)?;
    let (through, len) = (payload.get_u64_le(), payload.get_u32_le());
    Ok(Op::Checkpoint { log, through, value: take(payload, len as usize)? })
}

fn take_records(payload: &mut Bytes) -> Result<Vec<RecordWrite>, InvalidPayload> {
    need(payload, 4)?;
    let count = payload.get_u32_le();
    (0..count).map(|_| take_record(payload)).collect()
}

fn take_record(payload: &mut Bytes) -> Result<RecordWrite, InvalidPayload> {
    need(payload, 2)?;
    let key_len = payload.get_u16_le();
    let key = take(payload, usize::from(key_len))?;
    need(payload, 4)?;
    let value = match payload.get_u32_le() {
        DELETED => None,
        len => Some(take(payload, len as usize)?),
    };
    Ok(RecordWrite { key, value })
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{ContentType, EventKind, NewRow, UserId};
    use uuid::Uuid;

    use super::*;

    fn row(seq: u64) -> Row {
        let new = NewRow {
            seq,
            msgno: seq,
            time_ms: 1,
            event_id: Uuid::from_u128(seq.into()),
            client_message_id: Uuid::from_u128(2),
            kind: EventKind::MESSAGE,
            content_type: ContentType::Text,
            sender: &UserId::new("ann").unwrap(),
            via: None,
            envelope: b"",
            body: b"hello",
        };
        new.to_row()
    }

    fn every_write() -> Vec<Op> {
        let log = LogKey([7; 16]);
        let record = |value: Option<&'static [u8]>| RecordWrite {
            key: Bytes::from_static(b"key"),
            value: value.map(Bytes::from_static),
        };
        vec![
            Op::Append { log, rows: vec![row(1), row(2)] },
            Op::Rewrite { log, row: row(1).redacted() },
            Op::Checkpoint { log, through: 2, value: Bytes::from_static(b"state") },
            Op::PutRecords { log, records: vec![record(Some(b"value")), record(Some(b"")), record(None)] },
            Op::SetFloor { log, floor: 2 },
        ]
    }

    #[test]
    fn writes_are_read_back_in_order() {
        let mut out = BytesMut::new();
        let writes = every_write();
        writes.iter().for_each(|op| encode(op, &mut out));
        assert_eq!(out.len(), writes.iter().map(encoded_len).sum::<usize>());
        let mut payload = out.freeze();
        for op in writes {
            assert_eq!(decode(&mut payload), Ok(Some(op)));
        }
        assert_eq!(decode(&mut payload), Ok(None));
    }

    #[test]
    fn every_truncation_is_noticed() {
        for op in every_write() {
            let mut out = BytesMut::new();
            encode(&op, &mut out);
            let whole = out.freeze();
            for len in 1..whole.len() {
                assert!(decode(&mut whole.slice(..len)).is_err(), "{op:?} cut to {len}");
            }
        }
    }
}
