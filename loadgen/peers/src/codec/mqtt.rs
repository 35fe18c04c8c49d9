//! MQTT 3.1.1 with quality of service 0, and 1 for clients that come back. <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html>

use bytes::{Buf, BufMut, BytesMut};

use super::{CodecError, Incoming, Keep, Position};

/// Longest packet that is understood, in bytes of its length's encoding.
const LENGTH_BYTES_MAX: usize = 4;
const PACKET_ID_BYTES: usize = 2;

/// One connection.
#[derive(Debug)]
pub struct Mqtt {
    client_id: String,
    /// The server keeps its session while it is away.
    is_lasting: bool,
}

impl Mqtt {
    pub(super) fn new(number: u64) -> Self {
        Self { client_id: format!("load{number}"), is_lasting: false }
    }

    pub(super) fn lasting(number: u64) -> Self {
        Self { is_lasting: true, ..Self::new(number) }
    }

    pub(super) fn greet(&self, out: &mut BytesMut) {
        const CLEAN_SESSION: u8 = 2;
        const KEEP_ALIVE_SECONDS: u16 = 0;
        let mut body = BytesMut::new();
        string(&mut body, b"MQTT");
        body.put_u8(4);
        body.put_u8(if self.is_lasting { 0 } else { CLEAN_SESSION });
        body.put_u16(KEEP_ALIVE_SECONDS);
        string(&mut body, self.client_id.as_bytes());
        packet(out, 0x10, &[&body]);
    }

    pub(super) fn subscribe(&self, subjects: &[String], out: &mut BytesMut) {
        let mut body = BytesMut::new();
        body.put_u16(1);
        for subject in subjects {
            string(&mut body, subject.as_bytes());
            body.put_u8(self.quality());
        }
        packet(out, 0x82, &[&body]);
    }

    pub(super) fn publish(&self, subject: &str, payload: &[u8], out: &mut BytesMut) {
        let mut topic = BytesMut::new();
        string(&mut topic, subject.as_bytes());
        packet(out, 0x30, &[&topic, payload]);
    }

    /// Of the service that it subscribes with.
    fn quality(&self) -> u8 {
        self.is_lasting.into()
    }

    pub(super) fn keep(&self, message: Keep<'_>, out: &mut BytesMut) {
        let mut head = BytesMut::new();
        string(&mut head, message.subject.as_bytes());
        head.put_u16(message.request as u16);
        packet(out, 0x32, &[&head, message.payload]);
    }

    pub(super) fn decode(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Result<Option<Incoming>, CodecError> {
        let Some((kind, header, length)) = fixed_header(input)? else { return Ok(None) };
        if input.len() < header + length {
            return Ok(None);
        }
        input.advance(header);
        let mut body = input.split_to(length);
        let refused = |what: &str, body: &[u8]| CodecError::Refused(format!("{what} {body:?}"));
        match kind {
            0x20 if body[..] == [0, 0] => Ok(Some(Incoming::Greeted)),
            0x20 if body[..] == [1, 0] => Ok(Some(Incoming::Resumed)),
            0x20 => Err(refused("CONNACK", &body)),
            0x90 if body.iter().skip(PACKET_ID_BYTES).all(|code| *code == self.quality()) => {
                Ok(Some(Incoming::Subscribed))
            }
            0x90 => Err(refused("SUBACK", &body)),
            0x40 if body.len() == PACKET_ID_BYTES => {
                let request = u64::from(body.get_u16());
                Ok(Some(Incoming::Kept { request: Some(request), position: Position(request.into()) }))
            }
            // One of quality 1 has a number, and is acknowledged.
            0x30 | 0x32 | 0x3a => {
                let has_number = kind != 0x30;
                let topic = body.get(..2).map(|bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
                let start = topic.map(|topic| topic + 2 + if has_number { PACKET_ID_BYTES } else { 0 });
                let start = start.filter(|start| *start <= body.len());
                let start = start.ok_or_else(|| CodecError::Unexpected(format!("PUBLISH {body:?}")))?;
                if has_number {
                    packet(out, 0x40, &[&body[start - PACKET_ID_BYTES..start]]);
                }
                Ok(Some(Incoming::Message(body.split_off(start).freeze())))
            }
            other => Err(CodecError::Unexpected(format!("a packet of type {other:#x}"))),
        }
    }
}

/// Type and flags, length of the header, and of what follows it.
fn fixed_header(input: &[u8]) -> Result<Option<(u8, usize, usize)>, CodecError> {
    let Some(kind) = input.first() else { return Ok(None) };
    let mut length = 0;
    for at in 0..LENGTH_BYTES_MAX {
        let Some(byte) = input.get(at + 1) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((*kind, at + 2, length)));
        }
    }
    Err(CodecError::Unexpected("a length of more than four bytes".into()))
}

fn packet(out: &mut BytesMut, kind: u8, parts: &[&[u8]]) {
    let mut length: usize = parts.iter().map(|part| part.len()).sum();
    out.put_u8(kind);
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        out.put_u8(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    parts.iter().for_each(|part| out.put_slice(part));
}

fn string(out: &mut BytesMut, text: &[u8]) {
    out.put_u16(text.len() as u16);
    out.put_slice(text);
}

#[cfg(test)]
mod tests {
    use super::{super::Codec, *};
    use crate::{codec::tests::decode_in_pieces, program::Peer};

    #[test]
    fn packets_come_however_the_bytes_are_cut() {
        let long = vec![b'x'; 300];
        let mut bytes = BytesMut::from(&b"\x20\x02\0\0\x90\x03\0\x01\0"[..]);
        let mqtt = Mqtt::new(1);
        mqtt.publish("room", b"hi", &mut bytes);
        mqtt.publish("room", &long, &mut bytes);
        for piece in 1..bytes.len() {
            let mut codec = Codec::new(Peer::Mosquitto, 7).unwrap();
            let expected = [
                Incoming::Greeted,
                Incoming::Subscribed,
                Incoming::Message(b"hi"[..].into()),
                Incoming::Message(long.clone().into()),
            ];
            assert_eq!(decode_in_pieces(&mut codec, &bytes, piece).0, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_client_that_comes_back_acknowledges_what_it_missed() {
        let (mut codec, mut out) = (Codec::lasting(Peer::Mosquitto, 5).unwrap(), BytesMut::new());
        codec.greet(&mut out);
        assert_eq!(&out[..], b"\x10\x11\0\x04MQTT\x04\0\0\0\0\x05load5");
        let mut bytes = BytesMut::from(&b"\x20\x02\x01\0\x90\x04\0\x01\x01\x01\x40\x02\0\x07"[..]);
        codec.keep(Keep { subject: "room", request: 9, payload: b"hi" }, &mut bytes);
        let (found, out) = decode_in_pieces(&mut codec, &bytes, 3);
        let expected = [
            Incoming::Resumed,
            Incoming::Subscribed,
            Incoming::Kept { request: Some(7), position: Position(7) },
            Incoming::Message(b"hi"[..].into()),
        ];
        assert_eq!(found, expected);
        assert_eq!(&out[..], b"\x40\x02\0\x09");
    }

    #[test]
    fn refusals_are_errors() {
        let refused = |bytes: &[u8]| {
            Codec::new(Peer::Mosquitto, 1)
                .unwrap()
                .decode(&mut BytesMut::from(bytes), &mut BytesMut::new())
                .unwrap_err()
        };
        assert!(matches!(refused(b"\x20\x02\0\x05"), CodecError::Refused(_)));
        assert!(matches!(refused(b"\x90\x03\0\x01\x80"), CodecError::Refused(_)));
        assert!(matches!(refused(b"\x30\x02\0\x09"), CodecError::Unexpected(_)));
        assert!(matches!(refused(b"\xf0\0"), CodecError::Unexpected(_)));
        assert!(matches!(refused(b"\x30\xff\xff\xff\xff\x01"), CodecError::Unexpected(_)));
    }

    #[test]
    fn the_first_packet_is_that_of_the_specification() {
        let mut out = BytesMut::new();
        Mqtt::new(5).greet(&mut out);
        assert_eq!(&out[..], b"\x10\x11\0\x04MQTT\x04\x02\0\0\0\x05load5");
    }
}
