//! The frame header: twelve bytes, little-endian, before every frame on every QUIC stream.
//!
//! ```text
//!  0  length u32    bytes of the body that follows
//!  4  type   u8     see `frame_type`
//!  5  flags  u8     bit 0: a receiver that does not know the type ignores the frame
//!  6  zero   u16
//!  8  id     u32    request id, or the handle of a log
//! ```

use crate::{error::DecodeError, frame_type::FrameType, limits::FRAME_BYTES_MAX};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 12;

/// Set on a frame that a receiver may ignore when it does not know its type.
pub const FLAG_OPTIONAL: u8 = 1;

/// A decoded header whose length is within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body.
    pub length: u32,
    /// Number of the frame's type; may be unknown.
    pub type_number: u8,
    /// See [`FLAG_OPTIONAL`].
    pub flags: u8,
    /// Request id in requests and their answers; log handle in deliveries; otherwise zero.
    pub id: u32,
}

impl Header {
    /// The header of a frame of known type.
    pub fn new(frame_type: FrameType, id: u32, length: usize) -> Self {
        debug_assert!(length + HEADER_BYTES <= FRAME_BYTES_MAX);
        Self { length: length as u32, type_number: frame_type as u8, flags: 0, id }
    }

    /// The twelve bytes.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&self.length.to_le_bytes());
        out[4] = self.type_number;
        out[5] = self.flags;
        out[8..].copy_from_slice(&self.id.to_le_bytes());
        out
    }

    /// Reads a header and checks its length against `frame_bytes_max`, header included.
    pub fn decode(bytes: [u8; HEADER_BYTES], frame_bytes_max: usize) -> Result<Self, DecodeError> {
        let [l0, l1, l2, l3, type_number, flags, zero0, zero1, i0, i1, i2, i3] = bytes;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let total = (length as usize).saturating_add(HEADER_BYTES);
        if total > frame_bytes_max {
            return Err(DecodeError::FrameTooLarge { bytes: total, max: frame_bytes_max });
        }
        if (zero0, zero1) != (0, 0) {
            return Err(DecodeError::Malformed { field: "header.zero" });
        }
        Ok(Self { length, type_number, flags, id: u32::from_le_bytes([i0, i1, i2, i3]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_twelve_known_bytes() {
        let header = Header::new(FrameType::Send, 0x0102_0304, 0x0506);
        assert_eq!(header.encode(), [6, 5, 0, 0, FrameType::Send as u8, 0, 0, 0, 4, 3, 2, 1]);
        assert_eq!(Header::decode(header.encode(), FRAME_BYTES_MAX), Ok(header));
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_allocated() {
        let header = Header { length: u32::MAX, type_number: 1, flags: 0, id: 0 };
        let refused = Header::decode(header.encode(), 1_000);
        assert_eq!(refused, Err(DecodeError::FrameTooLarge { bytes: u32::MAX as usize + 12, max: 1_000 }));
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        let mut bytes = Header::new(FrameType::Send, 1, 1).encode();
        bytes[6] = 1;
        assert_eq!(Header::decode(bytes, FRAME_BYTES_MAX), Err(DecodeError::Malformed { field: "header.zero" }));
    }
}
