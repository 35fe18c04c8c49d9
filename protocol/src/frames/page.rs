//! PAGE: consecutive rows of one log, as stored.
//!
//! ```text
//!  0 next u64 | 8 head u64 | 16 floor u64 | 24 epoch u32 | 28 rows u32 | 32 rows, unchanged
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::Fields;
use crate::{
    error::DecodeError,
    frame_type::FrameType,
    header::{HEADER_BYTES, Header},
    row::Row,
};

const FIXED_BYTES: usize = 32;

/// A page of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where to go on: the next `from` when reading forward, the next `to` when reading backward; 0 when the range is
    /// exhausted.
    pub next: u64,
    /// Last position of the log when the page was read.
    pub head: u64,
    /// First position that still exists.
    pub floor: u64,
    /// History generation.
    pub epoch: u32,
    /// The rows, in the direction of the read.
    pub rows: Vec<Row>,
}

impl Page {
    /// The whole PAGE frame.
    pub fn to_frame(&self, request_id: u32) -> Bytes {
        let length = FIXED_BYTES + self.rows.iter().map(|row| row.bytes().len()).sum::<usize>();
        let mut out = BytesMut::with_capacity(HEADER_BYTES + length);
        out.put_slice(&Header::new(FrameType::Page, request_id, length).encode());
        out.put_u64_le(self.next);
        out.put_u64_le(self.head);
        out.put_u64_le(self.floor);
        out.put_u32_le(self.epoch);
        out.put_u32_le(self.rows.len() as u32);
        for row in &self.rows {
            out.put_slice(row.bytes());
        }
        out.freeze()
    }

    /// Reads a PAGE body; the rows are slices of it.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let (mut page, count, mut rest) = Self::decode_head(body)?;
        for _ in 0..count {
            page.rows.push(Row::split_first(&mut rest).map_err(|_| DecodeError::Malformed { field: "rows" })?);
        }
        if rest.is_empty() { Ok(page) } else { Err(DecodeError::Malformed { field: "rows" }) }
    }

    /// Reads what comes before the rows: the page without them, how many they are, and their bytes, still unread.
    pub fn decode_head(body: &Bytes) -> Result<(Self, u32, Bytes), DecodeError> {
        let mut fields = Fields::new(body);
        let (next, head, floor) = (fields.u64("next")?, fields.u64("head")?, fields.u64("floor")?);
        let (epoch, count) = (fields.u32("epoch")?, fields.u32("rows")?);
        Ok((Self { next, head, floor, epoch, rows: Vec::new() }, count, body.slice(FIXED_BYTES..)))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        ids::UserId,
        row::{ContentType, EventKind, NewRow},
    };

    #[test]
    fn a_page_comes_back_as_it_went_and_no_truncation_passes() {
        let ann = UserId::new("ann").unwrap();
        let row = |seq| {
            NewRow {
                seq,
                msgno: seq,
                time_ms: 0,
                event_id: Uuid::from_u128(seq.into()),
                client_message_id: Uuid::nil(),
                kind: EventKind::MESSAGE,
                content_type: ContentType::Text,
                sender: &ann,
                via: None,
                envelope: b"",
                body: b"hi",
            }
            .to_row()
        };
        let page = Page { next: 3, head: 9, floor: 1, epoch: 1, rows: vec![row(1), row(2)] };
        let body = page.to_frame(4).slice(HEADER_BYTES..);
        assert_eq!(Page::decode(&body), Ok(page));
        for len in 0..body.len() {
            assert!(Page::decode(&body.slice(..len)).is_err(), "{len} bytes");
        }
    }
}
