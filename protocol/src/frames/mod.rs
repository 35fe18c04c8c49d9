//! Bodies of frames: hand-laid for the hot path, Protobuf for the rest.

mod ack;
mod batch;
mod import;
mod page;
mod send;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

pub use ack::Ack;
pub use batch::SendBatch;
pub use import::{Import, ImportRecord, imported_id};
pub use page::Page;
pub use send::{NewSend, Send};

use crate::{
    error::DecodeError,
    frame_type::{Class, FrameType},
    header::{HEADER_BYTES, Header},
    row::{NewRow, Row},
};

/// A frame whose body is the Protobuf message `body`.
pub fn control(frame_type: FrameType, id: u32, body: &impl Message) -> Bytes {
    let length = body.encoded_len();
    let mut out = BytesMut::with_capacity(HEADER_BYTES + length);
    out.put_slice(&Header::new(frame_type, id, length).encode());
    body.encode_raw(&mut out);
    out.freeze()
}

/// A frame whose body is `body`.
pub fn raw(frame_type: FrameType, id: u32, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES + body.len());
    out.put_slice(&Header::new(frame_type, id, body.len()).encode());
    out.put_slice(body);
    out.freeze()
}

/// EVENT: a row of the log with this handle. One encoding serves every reader.
pub fn event(handle: u32, row: &Row) -> Bytes {
    raw(FrameType::Event, handle, row.bytes())
}

/// EVENT of a row that is being made, and the row inside it: the frame's own bytes, not a copy.
pub fn new_event(handle: u32, new_row: &NewRow<'_>) -> (Bytes, Row) {
    let length = new_row.encoded_len();
    let mut out = BytesMut::with_capacity(HEADER_BYTES + length);
    out.put_slice(&Header::new(FrameType::Event, handle, length).encode());
    new_row.encode(&mut out);
    let frame = out.freeze();
    let row = Row::trusted(frame.slice(HEADER_BYTES..));
    (frame, row)
}

/// OPEN: first frame of a stream that the broker opens.
pub fn open(class: Class) -> Bytes {
    raw(FrameType::Open, class as u32, &[])
}

/// SKIP: the reader will not get positions `from..=to`.
pub fn skip(handle: u32, from: u64, to: u64) -> Bytes {
    raw(FrameType::Skip, handle, &[from.to_le_bytes(), to.to_le_bytes()].concat())
}

/// Reads the body of SKIP: first and last position skipped.
pub fn decode_skip(body: &[u8]) -> Result<(u64, u64), DecodeError> {
    let mut fields = Fields::new(body);
    Ok((fields.u64("from")?, fields.u64("to")?))
}

/// Reads a request. It must be exactly what an encoder of this version writes, so that a client learns at once that the
/// broker would have ignored something it asked for. The lengths alone would not do: repeated numbers that are not packed
/// can take as many bytes as packed ones.
pub fn decode_request<M: Message + Default>(body: &Bytes) -> Result<M, DecodeError> {
    let message = M::decode(body.clone()).map_err(|_| DecodeError::Malformed { field: "body" })?;
    let is_canonical = message.encoded_len() == body.len() && message.encode_to_vec() == *body;
    if is_canonical { Ok(message) } else { Err(DecodeError::UnknownFields) }
}

/// Reads an answer; fields of a later version are ignored.
pub fn decode_answer<M: Message + Default>(body: &Bytes) -> Result<M, DecodeError> {
    M::decode(body.clone()).map_err(|_| DecodeError::Malformed { field: "body" })
}

/// Reads fixed fields in order; an error names the first one that is missing.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated { field })?;
        self.rest = rest;
        Ok(*array)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    fn bytes(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated { field })?;
        self.rest = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control, decoder::Decoder, limits::FRAME_BYTES_MAX};

    #[test]
    fn a_control_frame_comes_back_as_it_went() {
        let hello =
            control::Hello { versions: vec![1], token: "t".into(), device: "phone".into(), ..Default::default() };
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        decoder.push(super::control(FrameType::Hello, 9, &hello));
        let frame = decoder.next_frame().unwrap().unwrap();
        assert_eq!((frame.frame_type, frame.id), (FrameType::Hello, 9));
        assert_eq!(decode_request::<control::Hello>(&frame.body), Ok(hello));
    }

    #[test]
    fn a_request_with_an_unknown_field_is_refused_and_an_answer_is_not() {
        // Field 15, varint 1.
        let body = Bytes::from_static(&[0x78, 1]);
        assert_eq!(decode_request::<control::Auth>(&body), Err(DecodeError::UnknownFields));
        assert_eq!(decode_answer::<control::Auth>(&body), Ok(control::Auth::default()));
        let cut = Bytes::from_static(&[0x0a, 5, b'a']);
        assert_eq!(decode_request::<control::Auth>(&cut), Err(DecodeError::Malformed { field: "body" }));
    }

    #[test]
    fn a_skip_names_its_first_and_last_position() {
        let frame = skip(3, 10, 12);
        assert_eq!(decode_skip(&frame[HEADER_BYTES..]), Ok((10, 12)));
        assert_eq!(decode_skip(&frame[HEADER_BYTES..20]), Err(DecodeError::Truncated { field: "to" }));
    }
}
