//! Incremental decoder: chunks in, frames out.
//!
//! Invariants: a length is checked before anything is allocated for it; a caller that takes every frame after each push
//! buffers less than one frame plus one chunk.

use bytes::Bytes;

use crate::{
    cutter::Cutter,
    error::DecodeError,
    frame_type::FrameType,
    header::{FLAG_OPTIONAL, HEADER_BYTES, Header},
};

/// A frame as it came: known type, id, undecoded body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// Its type.
    pub frame_type: FrameType,
    /// Request id or log handle.
    pub id: u32,
    /// The body's exact bytes.
    pub body: Bytes,
}

/// Cuts one QUIC stream into frames.
#[derive(Debug)]
pub struct Decoder {
    cutter: Cutter,
    header: Option<Header>,
    frame_bytes_max: usize,
}

impl Decoder {
    /// A decoder that refuses frames longer than `frame_bytes_max`, header included.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { cutter: Cutter::default(), header: None, frame_bytes_max }
    }

    /// Changes the limit, as after authentication.
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
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
    pub fn next_frame(&mut self) -> Result<Option<RawFrame>, DecodeError> {
        loop {
            let header = match self.header.take() {
                Some(header) => header,
                None => match self.cutter.take(HEADER_BYTES) {
                    Some(bytes) => self.decode_header(&bytes)?,
                    None => return Ok(None),
                },
            };
            let Some(body) = self.cutter.take(header.length as usize) else {
                self.header = Some(header);
                return Ok(None);
            };
            if let Some(frame_type) = FrameType::from_number(header.type_number) {
                return Ok(Some(RawFrame { frame_type, id: header.id, body }));
            }
            if header.flags & FLAG_OPTIONAL == 0 {
                return Err(DecodeError::UnknownType(header.type_number));
            }
        }
    }

    fn decode_header(&self, bytes: &[u8]) -> Result<Header, DecodeError> {
        let mut array = [0; HEADER_BYTES];
        array.copy_from_slice(bytes);
        Header::decode(array, self.frame_bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FRAME_BYTES_MAX;

    fn frame(id: u32, body: &[u8]) -> Vec<u8> {
        [&Header::new(FrameType::Send, id, body.len()).encode()[..], body].concat()
    }

    #[test]
    fn any_cut_of_the_stream_gives_the_same_frames() {
        let stream = [frame(1, b"hello"), frame(2, b""), frame(3, &[7; 300])].concat();
        for step in 1..stream.len() {
            let mut decoder = Decoder::new(FRAME_BYTES_MAX);
            let mut frames = Vec::new();
            for chunk in stream.chunks(step) {
                decoder.push(Bytes::copy_from_slice(chunk));
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push((frame.id, frame.body.len()));
                }
            }
            assert_eq!(frames, [(1, 5), (2, 0), (3, 300)], "chunks of {step}");
            assert_eq!(decoder.buffered(), 0);
        }
    }

    #[test]
    fn a_frame_within_one_chunk_is_not_copied() {
        let chunk = Bytes::from([frame(1, b"hello"), frame(2, b"again")].concat());
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        decoder.push(chunk.clone());
        let first = decoder.next_frame().unwrap().unwrap();
        assert_eq!(first.body.as_ptr(), chunk[HEADER_BYTES..].as_ptr());
    }

    #[test]
    fn a_frame_that_comes_byte_by_byte_holds_none_of_the_datagrams_it_came_in() {
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        for byte in &frame(1, &[7; 300])[..300] {
            let datagram = Bytes::from(vec![*byte; 1_200]);
            decoder.push(datagram.slice(..1));
            assert_eq!(decoder.next_frame(), Ok(None));
            assert!(datagram.is_unique(), "after {} bytes", decoder.buffered());
        }
        assert!(decoder.cutter.capacity() <= 2 * 300);
    }

    #[test]
    fn an_unknown_type_is_refused_unless_it_is_optional() {
        let mut unknown = frame(1, b"abc");
        unknown[4] = 0xff;
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        decoder.push(Bytes::from(unknown.clone()));
        assert_eq!(decoder.next_frame(), Err(DecodeError::UnknownType(0xff)));

        unknown[5] = FLAG_OPTIONAL;
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        decoder.push(Bytes::from([unknown, frame(2, b"x")].concat()));
        assert_eq!(decoder.next_frame().unwrap().map(|f| f.id), Some(2));
    }

    #[test]
    fn an_announced_length_over_the_limit_is_refused_from_the_header_alone() {
        let mut decoder = Decoder::new(100);
        decoder.push(Bytes::copy_from_slice(&Header::new(FrameType::Send, 1, 89).encode()));
        assert_eq!(decoder.next_frame(), Err(DecodeError::FrameTooLarge { bytes: 101, max: 100 }));
    }
}
