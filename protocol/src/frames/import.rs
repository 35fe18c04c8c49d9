//! IMPORT: up to a hundred events of another system for one log, in order, each with the time that it had there and a
//! result of its own.
//!
//! ```text
//!  records, one after the other: length u32 | time_ms u64 | body of a SEND; `length` counts the bytes behind it
//! ```
//!
//! As in a SEND_BATCH, the first record's `dseq` is that of the whole; it is zero in the others.

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Fields, NewSend, Send,
    batch::{LENGTH_BYTES, read_records},
};
use crate::{
    error::DecodeError,
    frame_type::FrameType,
    header::{HEADER_BYTES, Header},
    ids::LogName,
    limits::COUNTER_MAX,
};

const TIME_BYTES: usize = 8;

/// A decoded IMPORT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// At least one, at most [`crate::limits::BATCH_RECORDS_MAX`], all of the same log.
    pub records: Vec<ImportRecord>,
}

/// An event as it was in the other system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRecord {
    /// When it happened there, Unix milliseconds; at least 1, below 2^53.
    pub time_ms: u64,
    /// What happened.
    pub send: Send,
}

impl Import {
    /// Reads an IMPORT body; envelopes and bodies are slices of it.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        Ok(Self { records: read_records(body, ImportRecord::decode, |record| &record.send)? })
    }

    /// Log and `dseq` of an IMPORT whose other fields may be wrong; `None` if these cannot be read either.
    pub fn decode_place(body: &[u8]) -> Option<(LogName, u64)> {
        Send::decode_place(body.get(LENGTH_BYTES + TIME_BYTES..)?)
    }

    /// The whole IMPORT frame of `records`, each with its time; they must keep the rules above.
    pub fn to_frame(request_id: u32, records: &[(u64, NewSend<'_>)]) -> Bytes {
        let length = records.iter().map(|(_, send)| Self::record_len(send)).sum();
        let mut out = BytesMut::with_capacity(HEADER_BYTES + length);
        out.put_slice(&Header::new(FrameType::Import, request_id, length).encode());
        for (time_ms, send) in records {
            out.put_u32_le((TIME_BYTES + send.encoded_len()) as u32);
            out.put_u64_le(*time_ms);
            send.encode(&mut out);
        }
        out.freeze()
    }

    /// Bytes that a record takes in the frame.
    pub fn record_len(send: &NewSend<'_>) -> usize {
        LENGTH_BYTES + TIME_BYTES + send.encoded_len()
    }
}

impl ImportRecord {
    fn decode(record: &Bytes) -> Result<Self, DecodeError> {
        let time_ms = Fields::new(record).u64("time_ms")?;
        if !(1..=COUNTER_MAX).contains(&time_ms) {
            return Err(DecodeError::Malformed { field: "time_ms" });
        }
        Ok(Self { time_ms, send: Send::decode(&record.slice(TIME_BYTES..))? })
    }
}

/// The `client_message_id` of an event that another system knows as `external_id`: a UUIDv8 of the first 16 bytes of
/// SHA-256("external-id" 0x00 id). So the same event, imported again, is the same event.
pub fn imported_id(external_id: &str) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(b"external-id\0");
    hash.update(external_id.as_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{ContentType, EventKind};

    fn record(log: &LogName, number: u64) -> (u64, NewSend<'_>) {
        let send = NewSend {
            client_message_id: imported_id(&number.to_string()),
            dseq: if number == 0 { 7 } else { 0 },
            kind: EventKind::MESSAGE,
            content_type: ContentType::Text,
            log,
            act_as: None,
            envelope: b"",
            body: b"hi",
        };
        (1_000 + number, send)
    }

    #[test]
    fn an_import_comes_back_as_it_went_and_a_cut_inside_a_record_does_not_pass() {
        let log = "c:tea".parse().unwrap();
        let body = Import::to_frame(1, &[record(&log, 0), record(&log, 1)]).slice(HEADER_BYTES..);
        let import = Import::decode(&body).unwrap();
        let seen: Vec<_> = import.records.iter().map(|record| (record.time_ms, record.send.dseq)).collect();
        assert_eq!(seen, [(1_000, 7), (1_001, 0)]);
        assert_eq!(Import::decode_place(&body), Some((log, 7)));
        for len in (0..body.len()).filter(|len| *len != body.len() / 2) {
            assert!(Import::decode(&body.slice(..len)).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_time_outside_its_range_is_refused() {
        let log = "c:tea".parse().unwrap();
        for time_ms in [0, COUNTER_MAX + 1] {
            let (_, send) = record(&log, 0);
            let body = Import::to_frame(1, &[(time_ms, send)]).slice(HEADER_BYTES..);
            assert_eq!(Import::decode(&body), Err(DecodeError::Malformed { field: "time_ms" }));
        }
    }

    #[test]
    fn an_external_id_is_always_the_same_uuid_of_version_8() {
        let id = imported_id("room-7/message-1");
        assert_eq!((id.get_version_num(), id), (8, imported_id("room-7/message-1")));
        assert_ne!(id, imported_id("room-7/message-2"));
    }
}
