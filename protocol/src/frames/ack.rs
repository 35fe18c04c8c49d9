//! ACK: the event is durable at this position.
//!
//! ```text
//!  0 seq u64 | 8 msgno u64 | 16 time_ms u64 | 24 event_id [16] | 40 epoch u32 | 44 flags u32 (bit 0: duplicate)
//! ```

use bytes::Bytes;
use uuid::Uuid;

use super::{Fields, raw};
use crate::{error::DecodeError, frame_type::FrameType, ids::Position, row::Row};

const FLAG_DUPLICATE: u32 = 1;

/// Where a send ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Its place in the log.
    pub position: Position,
    /// Countable messages up to and including it.
    pub msgno: u64,
    /// The owner's wall clock at that moment, Unix milliseconds.
    pub time_ms: u64,
    /// Its id.
    pub event_id: Uuid,
    /// It had been stored before; this is the first answer again.
    pub duplicate: bool,
}

impl Ack {
    /// The answer for a stored row.
    pub fn of(row: &Row, epoch: u32, duplicate: bool) -> Self {
        Self {
            position: Position { epoch, seq: row.seq() },
            msgno: row.msgno(),
            time_ms: row.time_ms(),
            event_id: row.event_id(),
            duplicate,
        }
    }

    /// The whole ACK frame.
    pub fn to_frame(&self, request_id: u32) -> Bytes {
        let mut body = [0; 48];
        body[..8].copy_from_slice(&self.position.seq.to_le_bytes());
        body[8..16].copy_from_slice(&self.msgno.to_le_bytes());
        body[16..24].copy_from_slice(&self.time_ms.to_le_bytes());
        body[24..40].copy_from_slice(self.event_id.as_bytes());
        body[40..44].copy_from_slice(&self.position.epoch.to_le_bytes());
        body[44..].copy_from_slice(&if self.duplicate { FLAG_DUPLICATE } else { 0 }.to_le_bytes());
        raw(FrameType::Ack, request_id, &body)
    }

    /// Reads an ACK body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(body);
        let seq = fields.u64("seq")?;
        let msgno = fields.u64("msgno")?;
        let time_ms = fields.u64("time_ms")?;
        let event_id = Uuid::from_bytes(fields.array("event_id")?);
        let epoch = fields.u32("epoch")?;
        let duplicate = fields.u32("flags")? & FLAG_DUPLICATE != 0;
        Ok(Self { position: Position { epoch, seq }, msgno, time_ms, event_id, duplicate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::HEADER_BYTES;

    #[test]
    fn an_ack_comes_back_as_it_went_and_no_truncation_passes() {
        let ack = Ack {
            position: Position { epoch: 2, seq: 9 },
            msgno: 8,
            time_ms: 7,
            event_id: Uuid::from_u128(6),
            duplicate: true,
        };
        let frame = ack.to_frame(1);
        assert_eq!(Ack::decode(&frame[HEADER_BYTES..]), Ok(ack));
        for len in HEADER_BYTES..frame.len() {
            assert!(matches!(Ack::decode(&frame[HEADER_BYTES..len]), Err(DecodeError::Truncated { .. })));
        }
    }
}
