//! The server's side of RFC 6455: bytes <-> messages, without I/O. Headers are the library's; messages are put together
//! here, because what is written goes to many sockets as the same bytes.
//!
//! A server's messages are not masked, so one is laid out once, header and all, and shared.

use std::io::Cursor;

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// Longest header of a message without a mask.
const HEADER_BYTES_MAX: usize = 10;
/// Longest payload of a control frame.
const CONTROL_BYTES_MAX: usize = 125;

/// What a client has sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Of a text message; UTF-8.
    Text(Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    /// With the client's code, if it says one.
    Close(Option<u16>),
}

/// The client does not keep to RFC 6455, or to the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum WireError {
    #[error("a frame that RFC 6455 does not know")]
    Frame,
    #[error("a frame without a mask")]
    Unmasked,
    #[error("a message inside another one, or the rest of none")]
    Fragment,
    #[error("text that is not UTF-8")]
    Text,
    #[error("a message that is too long")]
    TooLong,
}

impl WireError {
    /// RFC 6455, section 7.4.1.
    pub(super) fn close_code(self) -> u16 {
        match self {
            Self::Frame | Self::Unmasked | Self::Fragment => 1_002,
            Self::Text => 1_007,
            Self::TooLong => 1_009,
        }
    }
}

/// What was read and is no whole message yet.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    unread: BytesMut,
    /// The beginning of a message in fragments.
    begun: Option<(Data, BytesMut)>,
}

impl Incoming {
    /// For what the socket gives next. Nothing is held for a socket from which nothing comes.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.unread
    }

    /// The next message, if it is there as a whole and has at most `bytes_max` bytes.
    pub(super) fn next(&mut self, bytes_max: usize) -> Result<Option<Message>, WireError> {
        while let Some((header, mut payload)) = self.next_frame(bytes_max)? {
            let mask = header.mask.ok_or(WireError::Unmasked)?;
            unmask(&mut payload, mask);
            match header.opcode {
                OpCode::Control(_) if !header.is_final => return Err(WireError::Frame),
                OpCode::Control(Control::Ping) => return Ok(Some(Message::Ping(payload.freeze()))),
                OpCode::Control(Control::Pong) => return Ok(Some(Message::Pong)),
                OpCode::Control(Control::Close) => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    return Ok(Some(Message::Close(code)));
                }
                OpCode::Data(data) => {
                    if let Some(message) = self.add(data, payload, header.is_final)? {
                        return Ok(Some(message));
                    }
                }
                OpCode::Control(Control::Reserved(_)) => return Err(WireError::Frame),
            }
        }
        Ok(None)
    }

    fn next_frame(&mut self, bytes_max: usize) -> Result<Option<(FrameHeader, BytesMut)>, WireError> {
        let mut cursor = Cursor::new(&self.unread[..]);
        let header = FrameHeader::parse(&mut cursor).map_err(|_| WireError::Frame)?;
        let Some((header, length)) = header else {
            self.forget_empty();
            return Ok(None);
        };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(WireError::Frame);
        }
        let is_control = matches!(header.opcode, OpCode::Control(_));
        let begun = self.begun.as_ref().map_or(0, |(_, begun)| begun.len());
        let most = if is_control { CONTROL_BYTES_MAX } else { bytes_max.saturating_sub(begun) };
        let length = usize::try_from(length).ok().filter(|length| *length <= most);
        let length = length.ok_or(if is_control { WireError::Frame } else { WireError::TooLong })?;
        let head = cursor.position() as usize;
        if self.unread.len() < head + length {
            self.unread.reserve(head + length - self.unread.len());
            return Ok(None);
        }
        self.unread.advance(head);
        Ok(Some((header, self.unread.split_to(length))))
    }

    /// A buffer of which everything is taken may still be in use as a message; the next bytes get one of their own.
    fn forget_empty(&mut self) {
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
    }

    fn add(&mut self, data: Data, payload: BytesMut, is_final: bool) -> Result<Option<Message>, WireError> {
        let (kind, whole) = match (data, self.begun.take()) {
            (Data::Continue, Some((kind, mut begun))) => {
                begun.unsplit(payload);
                (kind, begun)
            }
            (Data::Text | Data::Binary, None) => (data, payload),
            (Data::Reserved(_), _) => return Err(WireError::Frame),
            _ => return Err(WireError::Fragment),
        };
        if !is_final {
            self.begun = Some((kind, whole));
            return Ok(None);
        }
        let whole = whole.freeze();
        match kind {
            Data::Text if std::str::from_utf8(&whole).is_err() => Err(WireError::Text),
            Data::Text => Ok(Some(Message::Text(whole))),
            _ => Ok(Some(Message::Binary(whole))),
        }
    }
}

/// RFC 6455, section 5.3.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let mut words = payload.chunks_exact_mut(4);
    for word in &mut words {
        word.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    words.into_remainder().iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

/// A message of the server that is being laid out: room for its header, then the payload.
pub(crate) fn begin(payload_bytes: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(HEADER_BYTES_MAX + payload_bytes);
    out.resize(HEADER_BYTES_MAX, 0);
    out
}

/// The text message that [`begin`] began.
pub(crate) fn text(message: BytesMut) -> Bytes {
    finish(message, OpCode::Data(Data::Text))
}

/// The binary message that [`begin`] began.
pub(crate) fn binary(message: BytesMut) -> Bytes {
    finish(message, OpCode::Data(Data::Binary))
}

/// A Ping without payload.
pub(super) fn ping() -> Bytes {
    finish(begin(0), OpCode::Control(Control::Ping))
}

/// The answer to a Ping.
pub(super) fn pong(payload: &[u8]) -> Bytes {
    let mut message = begin(payload.len());
    message.extend_from_slice(payload);
    finish(message, OpCode::Control(Control::Pong))
}

/// The last frame.
pub(super) fn close(code: u16) -> Bytes {
    let mut message = begin(size_of::<u16>());
    message.extend_from_slice(&code.to_be_bytes());
    finish(message, OpCode::Control(Control::Close))
}

fn finish(mut message: BytesMut, opcode: OpCode) -> Bytes {
    let payload_bytes = (message.len() - HEADER_BYTES_MAX) as u64;
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let begin = HEADER_BYTES_MAX - header.len(payload_bytes);
    // Invariant: the room is as long as the header says it is, so writing it cannot fail.
    let _ = header.format(payload_bytes, &mut &mut message[begin..HEADER_BYTES_MAX]);
    message.freeze().slice(begin..)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    fn client(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader { opcode, is_final, mask: Some(MASK), ..FrameHeader::default() };
        let mut out = Vec::new();
        header.format(payload.len() as u64, &mut out).unwrap();
        let mut masked = payload.to_vec();
        unmask(&mut masked, MASK);
        out.extend(masked);
        out
    }

    fn data(kind: Data, payload: &[u8]) -> Vec<u8> {
        client(OpCode::Data(kind), true, payload)
    }

    fn read(bytes: &[u8], bytes_max: usize) -> Result<Vec<Message>, WireError> {
        let mut incoming = Incoming::default();
        incoming.buffer().extend_from_slice(bytes);
        std::iter::from_fn(|| incoming.next(bytes_max).transpose()).collect()
    }

    #[test]
    fn messages_come_out_whole_however_the_bytes_come() {
        let long = "long ".repeat(20_000);
        let bytes = [
            data(Data::Text, b"one"),
            client(OpCode::Data(Data::Text), false, "gr\u{fc}".as_bytes()[..3].as_ref()),
            client(OpCode::Control(Control::Ping), true, b"there?"),
            client(OpCode::Data(Data::Continue), true, &"gr\u{fc}\u{df}".as_bytes()[3..]),
            data(Data::Binary, &[0; 300]),
            data(Data::Text, long.as_bytes()),
            client(OpCode::Control(Control::Close), true, &1_001_u16.to_be_bytes()),
        ]
        .concat();
        let expected = [
            Message::Text(Bytes::from_static(b"one")),
            Message::Ping(Bytes::from_static(b"there?")),
            Message::Text(Bytes::from_static("gr\u{fc}\u{df}".as_bytes())),
            Message::Binary(Bytes::from(vec![0; 300])),
            Message::Text(Bytes::from(long)),
            Message::Close(Some(1_001)),
        ];
        assert_eq!(read(&bytes, 1 << 20).unwrap(), expected);
        for step in [1, 2, 7, 1_000] {
            let (mut incoming, mut seen) = (Incoming::default(), Vec::new());
            for part in bytes.chunks(step) {
                incoming.buffer().extend_from_slice(part);
                while let Some(message) = incoming.next(1 << 20).unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, expected, "in steps of {step}");
            assert_eq!(incoming.buffer().capacity(), 0, "nothing is held for a socket from which nothing comes");
        }
    }

    #[test]
    fn what_rfc_6455_forbids_ends_the_socket() {
        let mut unmasked = data(Data::Text, b"hi");
        unmasked[1] &= 0x7f;
        let mut reserved = data(Data::Text, b"hi");
        reserved[0] |= 0x40;
        let cases = [
            (unmasked, WireError::Unmasked),
            (reserved, WireError::Frame),
            (client(OpCode::Data(Data::Reserved(3)), true, b""), WireError::Frame),
            (client(OpCode::Control(Control::Ping), false, b""), WireError::Frame),
            (client(OpCode::Control(Control::Ping), true, &[0; 126]), WireError::Frame),
            (client(OpCode::Data(Data::Continue), true, b"rest of none"), WireError::Fragment),
            ([client(OpCode::Data(Data::Text), false, b"a"), data(Data::Text, b"b")].concat(), WireError::Fragment),
            (data(Data::Text, &[0xff]), WireError::Text),
            (data(Data::Binary, &[0; 101]), WireError::TooLong),
            (
                [
                    client(OpCode::Data(Data::Text), false, &[b'a'; 60]),
                    client(OpCode::Data(Data::Continue), true, &[b'a'; 41]),
                ]
                .concat(),
                WireError::TooLong,
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read(&bytes, 100), Err(expected), "{bytes:?}");
        }
        // The length alone is enough.
        let mut huge = data(Data::Binary, &[0; 70_000]);
        huge.truncate(20);
        assert_eq!(read(&huge, 100), Err(WireError::TooLong));
    }

    #[test]
    fn what_is_written_has_the_shortest_header() {
        for (length, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut message = begin(length);
            message.extend_from_slice(&vec![b'x'; length]);
            let bytes = text(message);
            let mut cursor = Cursor::new(&bytes[..]);
            let (header, found) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert_eq!((found, cursor.position()), (length as u64, head), "{length}");
            assert_eq!((header.is_final, header.mask, bytes.len()), (true, None, length + head as usize));
        }
        assert_eq!(&close(1_000)[..], [0x88, 2, 3, 0xe8]);
        assert_eq!((&ping()[..], &pong(b"x")[..]), (&[0x89, 0][..], &[0x8a, 1, b'x'][..]));
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut state = 7_u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            let _ = read(&bytes, 1_000);
        }
    }
}
