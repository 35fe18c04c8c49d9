//! Messages of a socket: whole frames, joined and split, as bytes or, in tests, as lines of another form.

#[cfg(feature = "test-hooks")]
use std::sync::Arc;

use antiphon_protocol::{
    Class, FrameType,
    header::{HEADER_BYTES, Header},
    limits::FRAME_BYTES_MAX,
};
use bytes::{Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Message;

#[cfg(feature = "test-hooks")]
use super::MessageCodec;

/// Frames that are joined into one message; one alone may be longer. As much as a client may say before WELCOME.
const MESSAGE_BYTES: usize = 16 << 10;

/// How the messages of a socket are written.
#[derive(Debug, Clone, Default)]
pub(super) enum Form {
    #[default]
    Binary,
    #[cfg(feature = "test-hooks")]
    Text(Arc<dyn MessageCodec>),
}

/// A frame of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// `None` for a type that this version does not know.
    pub(super) frame_type: Option<FrameType>,
    pub(super) id: u32,
    /// With its header.
    pub(super) bytes: Bytes,
}

impl Frame {
    /// The stream that it would have come on. What is unknown is for the core to judge, wherever it comes.
    pub(super) fn class(&self) -> Class {
        self.frame_type.map_or(Class::Control, FrameType::class)
    }

    pub(super) fn body(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }
}

impl Form {
    pub(super) fn protocol(&self) -> &'static str {
        match self {
            Self::Binary => "antiphon.bin.v1",
            #[cfg(feature = "test-hooks")]
            Self::Text(codec) => codec.protocol(),
        }
    }

    /// Takes frames off the front of `frames`, as many as one message should hold; at least one.
    pub(super) fn message(&self, frames: &mut Vec<Bytes>) -> Result<Message, String> {
        let mut bytes = 0;
        let fits = |frame: &&Bytes| {
            bytes += frame.len();
            bytes <= MESSAGE_BYTES
        };
        let count = frames.iter().take_while(fits).count().clamp(1, frames.len().max(1));
        let mut taken = frames.drain(..count.min(frames.len()));
        match self {
            Self::Binary if taken.len() == 1 => Ok(Message::Binary(taken.next().unwrap_or_default())),
            Self::Binary => {
                let mut joined = BytesMut::with_capacity(MESSAGE_BYTES);
                taken.for_each(|frame| joined.extend_from_slice(&frame));
                Ok(Message::Binary(joined.freeze()))
            }
            #[cfg(feature = "test-hooks")]
            Self::Text(codec) => {
                let lines: Result<Vec<_>, _> = taken.map(|frame| codec.encode(&frame)).collect();
                Ok(Message::Text(lines?.join("\n").into()))
            }
        }
    }

    /// The frames of a message.
    pub(super) fn frames(&self, message: Message) -> Result<Vec<Frame>, String> {
        match (self, message) {
            (Self::Binary, Message::Binary(bytes)) => cut(bytes),
            #[cfg(feature = "test-hooks")]
            (Self::Text(codec), Message::Text(text)) => {
                let lines = text.as_str().split('\n').filter(|line| !line.trim().is_empty());
                let frames: Result<Vec<_>, _> = lines.map(|line| codec.decode(line).and_then(cut)).collect();
                Ok(frames?.concat())
            }
            _ => Err("a message is not of the socket's sub-protocol".into()),
        }
    }
}

/// Whole frames, end to end.
fn cut(mut bytes: Bytes) -> Result<Vec<Frame>, String> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let header = *bytes.first_chunk().ok_or("a frame is cut short")?;
        let header = Header::decode(header, FRAME_BYTES_MAX).map_err(|error| error.to_string())?;
        let length = HEADER_BYTES + header.length as usize;
        if length > bytes.len() {
            return Err("a frame is cut short".into());
        }
        let frame_type = FrameType::from_number(header.type_number);
        frames.push(Frame { frame_type, id: header.id, bytes: bytes.split_to(length) });
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::frames;

    use super::*;

    #[test]
    fn a_message_is_cut_into_frames_of_their_classes() {
        let parts = [
            frames::raw(FrameType::Ack, 3, b"abc"),
            frames::raw(FrameType::Event, 7, b""),
            frames::raw(FrameType::Page, 4, b"xy"),
        ];
        let cut = Form::Binary.frames(Message::Binary(parts.concat().into())).unwrap();
        let seen: Vec<_> = cut.iter().map(|frame| (frame.class(), frame.id, frame.bytes.clone())).collect();
        let classes = [(Class::Control, 3), (Class::Events, 7), (Class::Backfill, 4)];
        let expected: Vec<_> = classes.into_iter().zip(parts).map(|((class, id), bytes)| (class, id, bytes)).collect();
        assert_eq!(seen, expected);
        assert_eq!(&cut[2].body()[..], b"xy");
    }

    #[test]
    fn what_is_cut_short_or_of_another_form_is_refused_and_what_is_unknown_is_not() {
        let frame = frames::raw(FrameType::Ack, 3, b"abc");
        for length in [1, 11, 14] {
            assert!(Form::Binary.frames(Message::Binary(frame.slice(..length))).is_err());
        }
        assert!(Form::Binary.frames(Message::Text("{}".into())).is_err());
        let unknown = Bytes::from_static(&[0, 0, 0, 0, 0xff, 1, 0, 0, 0, 0, 0, 0]);
        let frames = Form::Binary.frames(Message::Binary(unknown)).unwrap();
        assert_eq!((frames[0].frame_type, frames[0].class()), (None, Class::Control));
    }

    #[test]
    fn small_frames_are_joined_and_long_ones_go_alone() {
        let of = |length| Bytes::from(vec![0; length]);
        let mut frames = vec![of(10), of(20), of(MESSAGE_BYTES), of(2 * MESSAGE_BYTES), of(1)];
        let mut lengths = Vec::new();
        while !frames.is_empty() {
            lengths.push(Form::Binary.message(&mut frames).unwrap().len());
        }
        assert_eq!(lengths, [30, MESSAGE_BYTES, 2 * MESSAGE_BYTES, 1]);
    }
}
