//! SEND: append one event. The same body is one record of SEND_BATCH.
//!
//! ```text
//!  0 client_message_id [16] | 16 dseq u64 | 24 kind u8 | 25 content_type u8 | 26 log_len u8 | 27 act_as_len u8
//! 28 envelope_len u16 | 30 zero u16 | 32 log, act_as, envelope, body (the rest)
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::Fields;
use crate::{
    error::DecodeError,
    frame_type::FrameType,
    header::{HEADER_BYTES, Header},
    ids::{LogName, UserId},
    limits::{BODY_BYTES_MAX, ENVELOPE_BYTES_MAX},
    row::{ContentType, EventKind},
};

const FIXED_BYTES: usize = 32;

/// A decoded SEND. Envelope and body are slices of the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// The sender's id of this event, the same in every retry.
    pub client_message_id: Uuid,
    /// Order of the sends of one sender instance to one log, from 1; 0 = not ordered.
    pub dseq: u64,
    /// What happens.
    pub kind: EventKind,
    /// How to read the body.
    pub content_type: ContentType,
    /// Where it is appended.
    pub log: LogName,
    /// The user for whom a service acts.
    pub act_as: Option<UserId>,
    /// FlatBuffers `Envelope`, not yet verified, or empty.
    pub envelope: Bytes,
    /// The body.
    pub body: Bytes,
}

impl Send {
    /// Reads a SEND body.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(body);
        let client_message_id = Uuid::from_bytes(fields.array("client_message_id")?);
        let dseq = fields.u64("dseq")?;
        let kind = EventKind(fields.u8("kind")?);
        let content_type = ContentType::from_number(fields.u8("content_type")?)
            .filter(|content_type| *content_type != ContentType::Control)
            .ok_or(DecodeError::Malformed { field: "content_type" })?;
        let (log_len, act_as_len) = (fields.u8("log_len")?, fields.u8("act_as_len")?);
        let envelope_len = usize::from(fields.u16("envelope_len")?);
        if fields.u16("zero")? != 0 {
            return Err(DecodeError::Malformed { field: "zero" });
        }
        check_len("envelope", envelope_len, ENVELOPE_BYTES_MAX)?;
        let log = name(fields.bytes(log_len.into(), "log")?, "log")?;
        let act_as = match act_as_len {
            0 => None,
            len => Some(name(fields.bytes(len.into(), "act_as")?, "act_as")?),
        };
        fields.bytes(envelope_len, "envelope")?;
        let body_at = body.len() - fields.rest.len();
        check_len("body", fields.rest.len(), BODY_BYTES_MAX)?;
        let (envelope, body) = (body.slice(body_at - envelope_len..body_at), body.slice(body_at..));
        Ok(Self { client_message_id, dseq, kind, content_type, log, act_as, envelope, body })
    }

    /// Log and `dseq` of a SEND whose other fields may be wrong; `None` if these cannot be read either.
    pub fn decode_place(body: &[u8]) -> Option<(LogName, u64)> {
        let dseq = u64::from_le_bytes(*body.get(16..)?.first_chunk()?);
        let log_len = usize::from(*body.get(26)?);
        let log = body.get(FIXED_BYTES..FIXED_BYTES + log_len)?;
        Some((name(log, "log").ok()?, dseq))
    }
}

fn check_len(field: &'static str, found: usize, max: usize) -> Result<(), DecodeError> {
    if found > max { Err(DecodeError::OverLimit { field, found, max }) } else { Ok(()) }
}

fn name<T: std::str::FromStr<Err = crate::ids::InvalidId>>(
    bytes: &[u8],
    field: &'static str,
) -> Result<T, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed { field })?;
    text.parse().map_err(|source| DecodeError::InvalidId { field, source })
}

/// A SEND that is being made.
#[derive(Debug, Clone)]
pub struct NewSend<'a> {
    /// See [`Send::client_message_id`].
    pub client_message_id: Uuid,
    /// See [`Send::dseq`].
    pub dseq: u64,
    /// See [`Send::kind`].
    pub kind: EventKind,
    /// See [`Send::content_type`].
    pub content_type: ContentType,
    /// See [`Send::log`].
    pub log: &'a LogName,
    /// See [`Send::act_as`].
    pub act_as: Option<&'a UserId>,
    /// At most [`ENVELOPE_BYTES_MAX`] bytes.
    pub envelope: &'a [u8],
    /// At most [`BODY_BYTES_MAX`] bytes.
    pub body: &'a [u8],
}

impl NewSend<'_> {
    /// The whole SEND frame.
    pub fn to_frame(&self, request_id: u32) -> Bytes {
        let length = self.encoded_len();
        let mut out = BytesMut::with_capacity(HEADER_BYTES + length);
        out.put_slice(&Header::new(FrameType::Send, request_id, length).encode());
        self.encode(&mut out);
        out.freeze()
    }

    /// Bytes of the body of the frame.
    pub fn encoded_len(&self) -> usize {
        let act_as = self.act_as.map_or(0, |user| user.as_str().len());
        FIXED_BYTES + self.log.to_string().len() + act_as + self.envelope.len() + self.body.len()
    }

    /// Appends the body of the frame.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let log = self.log.to_string();
        let act_as = self.act_as.map_or("", |user| user.as_str());
        out.put_slice(self.client_message_id.as_bytes());
        out.put_u64_le(self.dseq);
        out.put_u8(self.kind.0);
        out.put_u8(self.content_type as u8);
        out.put_u8(log.len() as u8);
        out.put_u8(act_as.len() as u8);
        out.put_u16_le(self.envelope.len() as u16);
        out.put_u16_le(0);
        out.put_slice(log.as_bytes());
        out.put_slice(act_as.as_bytes());
        out.put_slice(self.envelope);
        out.put_slice(self.body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Bytes {
        let log = "c:lobby".parse().unwrap();
        let send = NewSend {
            client_message_id: Uuid::from_u128(5),
            dseq: 2,
            kind: EventKind::MESSAGE,
            content_type: ContentType::Text,
            log: &log,
            act_as: Some(&UserId::new("ann").unwrap()),
            envelope: b"env",
            body: b"hello",
        };
        send.to_frame(1).slice(HEADER_BYTES..)
    }

    #[test]
    fn a_send_comes_back_as_it_went() {
        let send = Send::decode(&frame()).unwrap();
        assert_eq!((send.client_message_id, send.dseq), (Uuid::from_u128(5), 2));
        assert_eq!((send.log.to_string(), send.act_as.unwrap().as_str()), ("c:lobby".into(), "ann"));
        assert_eq!((&send.envelope[..], &send.body[..]), (&b"env"[..], &b"hello"[..]));
    }

    #[test]
    fn a_truncation_before_the_body_is_refused_by_the_name_of_the_missing_field() {
        let body = frame();
        let fixed_and_names = body.len() - b"hello".len();
        for len in 0..fixed_and_names {
            assert!(matches!(Send::decode(&body.slice(..len)), Err(DecodeError::Truncated { .. })), "{len} bytes");
        }
        assert_eq!(Send::decode(&body.slice(..20)), Err(DecodeError::Truncated { field: "dseq" }));
    }

    #[test]
    fn the_place_of_a_send_is_read_although_the_rest_is_wrong() {
        let mut body = frame().to_vec();
        body[25] = 9;
        assert!(Send::decode(&Bytes::from(body.clone())).is_err());
        assert_eq!(Send::decode_place(&body), Some(("c:lobby".parse().unwrap(), 2)));
        assert_eq!(Send::decode_place(&body[..FIXED_BYTES + 3]), None);
    }

    #[test]
    fn fields_outside_their_range_are_refused() {
        let with = |at: usize, byte: u8| {
            let mut body = frame().to_vec();
            body[at] = byte;
            Send::decode(&Bytes::from(body))
        };
        assert_eq!(with(25, 9), Err(DecodeError::Malformed { field: "content_type" }));
        assert_eq!(with(25, 3), Err(DecodeError::Malformed { field: "content_type" }));
        assert_eq!(with(30, 1), Err(DecodeError::Malformed { field: "zero" }));
        let envelope_len = Err(DecodeError::OverLimit { field: "envelope", found: 0xff03, max: ENVELOPE_BYTES_MAX });
        assert_eq!(with(29, 0xff), envelope_len);
        assert!(matches!(with(32, b'x'), Err(DecodeError::InvalidId { field: "log", .. })));
    }
}
