//! The carrier of a trunk: eight bytes before each frame, so that many sessions share a connection. SPEC section 15.
//!
//! ```text
//!  0  channel u32    0 = the trunk itself
//!  4  flags   u8     bit 0: for the group of the frame's handle
//!  5  zero    3 bytes
//! ```

use bytes::Bytes;

use crate::{
    cutter::Cutter,
    decoder::RawFrame,
    error::DecodeError,
    frame_type::FrameType,
    header::{FLAG_OPTIONAL, HEADER_BYTES, Header},
};

/// Bytes of a prefix.
pub const PREFIX_BYTES: usize = 8;

const FLAG_GROUP: u8 = 1;

/// Whom a frame of a trunk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The session; in a frame for a group, the one that does not get it.
    pub channel: u32,
    /// For every channel that the frame's handle is attached to.
    pub is_group: bool,
}

impl Prefix {
    /// For one session.
    pub fn channel(channel: u32) -> Self {
        Self { channel, is_group: false }
    }

    /// For the whole group.
    pub const GROUP: Self = Self { channel: 0, is_group: true };

    /// The eight bytes.
    pub const fn encode(self) -> [u8; PREFIX_BYTES] {
        let [c0, c1, c2, c3] = self.channel.to_le_bytes();
        [c0, c1, c2, c3, if self.is_group { FLAG_GROUP } else { 0 }, 0, 0, 0]
    }

    fn decode(bytes: [u8; PREFIX_BYTES]) -> Self {
        let [c0, c1, c2, c3, flags, ..] = bytes;
        Self { channel: u32::from_le_bytes([c0, c1, c2, c3]), is_group: flags & FLAG_GROUP != 0 }
    }
}

/// A frame with its prefix. Its type may be unknown, so that an edge hands on what it does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Whom it is for.
    pub prefix: Prefix,
    /// Its header.
    pub header: Header,
    /// The header's bytes.
    pub header_bytes: Bytes,
    /// The body's bytes.
    pub body: Bytes,
}

impl Carried {
    /// The frame without its prefix; `None` if it is of an unknown type that may be ignored.
    pub fn to_raw(&self) -> Result<Option<RawFrame>, DecodeError> {
        match FrameType::from_number(self.header.type_number) {
            Some(frame_type) => Ok(Some(RawFrame { frame_type, id: self.header.id, body: self.body.clone() })),
            None if self.header.flags & FLAG_OPTIONAL != 0 => Ok(None),
            None => Err(DecodeError::UnknownType(self.header.type_number)),
        }
    }
}

/// Cuts one QUIC stream of a trunk into frames.
#[derive(Debug)]
pub struct TrunkDecoder {
    cutter: Cutter,
    pending: Option<(Prefix, Header, Bytes)>,
    frame_bytes_max: usize,
}

impl TrunkDecoder {
    /// A decoder that refuses frames longer than `frame_bytes_max`, header included and prefix not.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { cutter: Cutter::default(), pending: None, frame_bytes_max }
    }

    /// Adds bytes in the order of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        self.cutter.push(chunk);
    }

    /// Bytes that wait for the rest of their frame.
    pub fn buffered(&self) -> usize {
        self.cutter.buffered()
    }

    /// The next whole frame, if it is here. After an error the stream cannot be read further.
    pub fn next_frame(&mut self) -> Result<Option<Carried>, DecodeError> {
        let (prefix, header, header_bytes) = match self.pending.take() {
            Some(pending) => pending,
            None => match self.cutter.take(PREFIX_BYTES + HEADER_BYTES) {
                Some(bytes) => self.read_heads(&bytes)?,
                None => return Ok(None),
            },
        };
        match self.cutter.take(header.length as usize) {
            Some(body) => Ok(Some(Carried { prefix, header, header_bytes, body })),
            None => {
                self.pending = Some((prefix, header, header_bytes));
                Ok(None)
            }
        }
    }

    fn read_heads(&self, bytes: &Bytes) -> Result<(Prefix, Header, Bytes), DecodeError> {
        let mut prefix = [0; PREFIX_BYTES];
        let mut header = [0; HEADER_BYTES];
        prefix.copy_from_slice(&bytes[..PREFIX_BYTES]);
        header.copy_from_slice(&bytes[PREFIX_BYTES..]);
        let header = Header::decode(header, self.frame_bytes_max)?;
        Ok((Prefix::decode(prefix), header, bytes.slice(PREFIX_BYTES..)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{frames, limits::FRAME_BYTES_MAX};

    fn carried(channel: u32, body: &[u8]) -> Vec<u8> {
        [&Prefix::channel(channel).encode()[..], &frames::raw(FrameType::Send, channel, body)].concat()
    }

    #[test]
    fn any_cut_of_the_stream_gives_the_same_frames() {
        let stream = [carried(1, b"hello"), carried(2, b""), carried(3, &[7; 300])].concat();
        for step in 1..stream.len() {
            let mut decoder = TrunkDecoder::new(FRAME_BYTES_MAX);
            let mut frames = Vec::new();
            for chunk in stream.chunks(step) {
                decoder.push(Bytes::copy_from_slice(chunk));
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push((frame.prefix.channel, frame.header.id, frame.body.len()));
                }
            }
            assert_eq!(frames, [(1, 1, 5), (2, 2, 0), (3, 3, 300)], "chunks of {step}");
            assert_eq!(decoder.buffered(), 0);
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_by_its_header_alone() {
        let mut decoder = TrunkDecoder::new(100);
        decoder.push(Bytes::from(carried(1, &[0; 89])).slice(..20));
        assert_eq!(decoder.next_frame(), Err(DecodeError::FrameTooLarge { bytes: 101, max: 100 }));
    }

    #[test]
    fn a_frame_of_an_unknown_type_is_carried_and_not_read() {
        let mut unknown = carried(1, b"abc");
        unknown[PREFIX_BYTES + 4] = 0xff;
        let mut decoder = TrunkDecoder::new(100);
        decoder.push(Bytes::from(unknown.clone()));
        let frame = decoder.next_frame().unwrap().unwrap();
        assert_eq!(frame.to_raw(), Err(DecodeError::UnknownType(0xff)));
        assert_eq!([frame.header_bytes, frame.body].concat(), unknown[PREFIX_BYTES..]);
    }
}
