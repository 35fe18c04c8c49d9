//! SEND_BATCH: up to a hundred events for one log, in order, each with a result of its own.
//!
//! ```text
//!  records, one after the other: length u32 | body of a SEND, `length` bytes
//! ```
//!
//! The batch has one `dseq`, that of its first record; it is zero in the others.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Fields, NewSend, Send};
use crate::{
    error::DecodeError,
    frame_type::FrameType,
    header::{HEADER_BYTES, Header},
    ids::LogName,
    limits::BATCH_RECORDS_MAX,
};

pub(super) const LENGTH_BYTES: usize = 4;

/// A decoded SEND_BATCH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendBatch {
    /// At least one, at most [`BATCH_RECORDS_MAX`], all of the same log.
    pub records: Vec<Send>,
}

impl SendBatch {
    /// Reads a SEND_BATCH body; envelopes and bodies are slices of it.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        Ok(Self { records: read_records(body, Send::decode, |send| send)? })
    }

    /// Log and `dseq` of a SEND_BATCH whose other fields may be wrong; `None` if these cannot be read either.
    pub fn decode_place(body: &[u8]) -> Option<(LogName, u64)> {
        Send::decode_place(body.get(LENGTH_BYTES..)?)
    }

    /// The whole SEND_BATCH frame of `records`, which must keep the rules above.
    pub fn to_frame(request_id: u32, records: &[NewSend<'_>]) -> Bytes {
        let length = records.iter().map(|record| LENGTH_BYTES + record.encoded_len()).sum();
        let mut out = BytesMut::with_capacity(HEADER_BYTES + length);
        out.put_slice(&Header::new(FrameType::SendBatch, request_id, length).encode());
        for record in records {
            out.put_u32_le(record.encoded_len() as u32);
            record.encode(&mut out);
        }
        out.freeze()
    }
}

/// Reads records, each behind its length; `send_of` is the SEND in one.
pub(super) fn read_records<T>(
    body: &Bytes,
    read: impl Fn(&Bytes) -> Result<T, DecodeError>,
    send_of: impl Fn(&T) -> &Send,
) -> Result<Vec<T>, DecodeError> {
    let mut records: Vec<T> = Vec::new();
    let mut rest = body.clone();
    while !rest.is_empty() {
        if records.len() == BATCH_RECORDS_MAX {
            let found = BATCH_RECORDS_MAX + 1;
            return Err(DecodeError::OverLimit { field: "records", found, max: BATCH_RECORDS_MAX });
        }
        let length = Fields::new(&rest).u32("length")? as usize;
        let mut record = rest.split_off(LENGTH_BYTES);
        if record.len() < length {
            return Err(DecodeError::Truncated { field: "record" });
        }
        rest = record.split_off(length);
        let record = read(&record)?;
        if let Some(first) = records.first() {
            check_follows(send_of(first), send_of(&record))?;
        }
        records.push(record);
    }
    if records.is_empty() { Err(DecodeError::Truncated { field: "records" }) } else { Ok(records) }
}

fn check_follows(first: &Send, record: &Send) -> Result<(), DecodeError> {
    if record.log != first.log {
        return Err(DecodeError::Malformed { field: "log" });
    }
    if record.dseq != 0 {
        return Err(DecodeError::Malformed { field: "dseq" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::row::{ContentType, EventKind};

    fn record(log: &LogName, number: u64) -> NewSend<'_> {
        NewSend {
            client_message_id: Uuid::from_u128(number.into()),
            dseq: if number == 0 { 7 } else { 0 },
            kind: EventKind::MESSAGE,
            content_type: ContentType::Text,
            log,
            act_as: None,
            envelope: b"",
            body: b"hi",
        }
    }

    fn body(records: &[NewSend<'_>]) -> Bytes {
        SendBatch::to_frame(1, records).slice(HEADER_BYTES..)
    }

    #[test]
    fn a_batch_comes_back_as_it_went_and_a_cut_inside_a_record_does_not_pass() {
        let log = "c:tea".parse().unwrap();
        let body = body(&[record(&log, 0), record(&log, 1)]);
        let batch = SendBatch::decode(&body).unwrap();
        assert_eq!(
            batch.records.iter().map(|r| (r.client_message_id.as_u128(), r.dseq)).collect::<Vec<_>>(),
            [(0, 7), (1, 0)]
        );
        for len in (0..body.len()).filter(|len| *len != body.len() / 2) {
            assert!(SendBatch::decode(&body.slice(..len)).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_batch_is_for_one_log_and_has_one_dseq() {
        let (tea, coffee) = ("c:tea".parse().unwrap(), "c:coffee".parse().unwrap());
        let other_log = SendBatch::decode(&body(&[record(&tea, 0), record(&coffee, 1)]));
        assert_eq!(other_log, Err(DecodeError::Malformed { field: "log" }));
        let two_dseq = SendBatch::decode(&body(&[record(&tea, 0), record(&tea, 0)]));
        assert_eq!(two_dseq, Err(DecodeError::Malformed { field: "dseq" }));
    }

    #[test]
    fn a_hundred_and_first_record_is_refused() {
        let log = "c:tea".parse().unwrap();
        let records: Vec<_> = (0..=BATCH_RECORDS_MAX as u64).map(|number| record(&log, number)).collect();
        let over = DecodeError::OverLimit { field: "records", found: 101, max: 100 };
        assert_eq!(SendBatch::decode(&body(&records)), Err(over));
        assert_eq!(SendBatch::decode(&body(&records[..100])).map(|batch| batch.records.len()), Ok(100));
    }
}
