//! Frames of the native protocol, version 4, as far as a proxy must understand them: the header, which statement a request
//! names, and the error that stands for a write that timed out.

use std::io::{self, Read};

use crate::wire::{ANSWER, HEADER_BYTES, Reader, put_string};

/// The server refuses longer ones.
const BODY_BYTES_MAX: u32 = 256 << 20;

const ERROR: u8 = 0x00;
const RESULT: u8 = 0x08;
const PREPARE: u8 = 0x09;
const EXECUTE: u8 = 0x0A;
const BATCH: u8 = 0x0D;
const RESULT_PREPARED: u32 = 4;
const BATCHED_BY_ID: u8 = 1;

const WRITE_TIMEOUT: u32 = 0x1100;
const QUORUM: u16 = 4;

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    header: [u8; HEADER_BYTES],
    pub(super) body: Vec<u8>,
}

/// What a proxy cares about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// A statement is to be prepared.
    Prepare(&'a [u8]),
    /// A prepared statement, or a batch whose first statement is this one, is to be carried out.
    Execute {
        id: &'a [u8],
        is_batch: bool,
    },
    /// The statement is prepared and has this id.
    Prepared(&'a [u8]),
    Other,
}

impl Frame {
    /// The next one; an error at the end of the stream.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header)?;
        let [.., a, b, c, d] = header;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length > BODY_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a frame of the native protocol"));
        }
        let mut body = vec![0; length as usize];
        from.read_exact(&mut body)?;
        Ok(Self { header, body })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        [&self.header[..], &self.body].concat()
    }

    /// What joins an answer with its request.
    pub(super) fn stream(&self) -> [u8; 2] {
        [self.header[2], self.header[3]]
    }

    pub(super) fn kind(&self) -> Kind<'_> {
        self.known_kind().unwrap_or(Kind::Other)
    }

    fn known_kind(&self) -> Option<Kind<'_>> {
        let mut body = Reader(&self.body);
        match self.header[4] {
            PREPARE => Some(Kind::Prepare(body.long()?)),
            EXECUTE => Some(Kind::Execute { id: body.short()?, is_batch: false }),
            BATCH => {
                // The kind of the batch, how many statements, and how the first one is named.
                let [_, _, _, by] = body.take()?;
                let id = if by == BATCHED_BY_ID { body.short()? } else { return None };
                Some(Kind::Execute { id, is_batch: true })
            }
            RESULT if body.u32()? == RESULT_PREPARED => Some(Kind::Prepared(body.short()?)),
            _ => None,
        }
    }

    /// The answer to this request that a coordinator gives when too few replicas have answered in time.
    pub(super) fn write_timeout(&self, write_type: &str) -> Self {
        let mut body = WRITE_TIMEOUT.to_be_bytes().to_vec();
        put_string(&mut body, "forged by a proxy");
        body.extend(QUORUM.to_be_bytes());
        let (received, required) = (1_u32, 2_u32);
        body.extend(received.to_be_bytes());
        body.extend(required.to_be_bytes());
        put_string(&mut body, write_type);
        let [a, b, c, d] = (body.len() as u32).to_be_bytes();
        let [high, low] = self.stream();
        Self { header: [self.header[0] | ANSWER, 0, high, low, ERROR, a, b, c, d], body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, body: &[u8]) -> Frame {
        let [a, b, c, d] = (body.len() as u32).to_be_bytes();
        let bytes = [&[4, 0, 1, 2, opcode, a, b, c, d][..], body].concat();
        let frame = Frame::read(&mut &bytes[..]).unwrap();
        assert_eq!(frame.bytes(), bytes);
        frame
    }

    #[test]
    fn requests_name_their_statement() {
        assert_eq!(frame(PREPARE, b"\0\0\0\x03SEL").kind(), Kind::Prepare(b"SEL"));
        assert_eq!(frame(EXECUTE, b"\0\x02idrest").kind(), Kind::Execute { id: b"id", is_batch: false });
        assert_eq!(frame(BATCH, b"\x01\0\x02\x01\0\x02idrest").kind(), Kind::Execute { id: b"id", is_batch: true });
        assert_eq!(frame(RESULT, b"\0\0\0\x04\0\x02idrest").kind(), Kind::Prepared(b"id"));
        assert_eq!(frame(RESULT, b"\0\0\0\x01").kind(), Kind::Other);
        assert_eq!(frame(EXECUTE, b"\0\x09id").kind(), Kind::Other, "a malformed one is for the server to refuse");
    }

    #[test]
    fn a_forged_timeout_answers_its_request() {
        let bytes = frame(EXECUTE, b"\0\x02id").write_timeout("SIMPLE").bytes();
        let expected =
            b"\x84\0\x01\x02\0\0\0\0\x29\0\0\x11\0\0\x11forged by a proxy\0\x04\0\0\0\x01\0\0\0\x02\0\x06SIMPLE";
        assert_eq!(bytes, expected);
    }
}
