//! The streams that the broker opens: bytes -> frames, each on the stream of its class.

use std::collections::BTreeMap;

use antiphon_protocol::{Class, Decoder, FrameType, RawFrame, limits::FRAME_BYTES_MAX};
use bytes::Bytes;

use crate::input::StreamId;

/// Streams that may be open at once: one per class, and room for those of later versions.
const STREAMS_MAX: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: BTreeMap<StreamId, Stream>,
}

#[derive(Debug)]
struct Stream {
    decoder: Decoder,
    class: Announced,
}

/// What a stream's OPEN said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announced {
    NotYet,
    Known(Class),
    /// A class of a later version: read and thrown away.
    Unknown,
}

impl Streams {
    /// Forgets the streams of a connection that is over.
    pub(crate) fn down(&mut self) {
        self.open.clear();
    }

    pub(crate) fn ended(&mut self, id: StreamId) {
        self.open.remove(&id);
    }

    /// Adds bytes. The error says what the broker did wrong.
    pub(crate) fn push(&mut self, id: StreamId, bytes: Bytes) -> Result<(), String> {
        if self.open.len() >= STREAMS_MAX && !self.open.contains_key(&id) {
            return Err(format!("the broker opened more than {STREAMS_MAX} streams"));
        }
        let stream = self
            .open
            .entry(id)
            .or_insert_with(|| Stream { decoder: Decoder::new(FRAME_BYTES_MAX), class: Announced::NotYet });
        if stream.class != Announced::Unknown {
            stream.decoder.push(bytes);
        }
        Ok(())
    }

    /// The next whole frame of a stream. The error says what the broker did wrong.
    pub(crate) fn next_frame(&mut self, id: StreamId) -> Result<Option<RawFrame>, String> {
        let Some(stream) = self.open.get_mut(&id) else { return Ok(None) };
        stream.next_frame()
    }
}

impl Stream {
    fn next_frame(&mut self) -> Result<Option<RawFrame>, String> {
        loop {
            if self.class == Announced::Unknown {
                return Ok(None);
            }
            let Some(frame) = self.decoder.next_frame().map_err(|error| error.to_string())? else { return Ok(None) };
            match self.class {
                Announced::Known(class) if frame.frame_type.class() == class && frame.frame_type != FrameType::Open => {
                    return Ok(Some(frame));
                }
                Announced::NotYet if frame.frame_type == FrameType::Open => {
                    self.class = Class::from_number(frame.id).map_or(Announced::Unknown, Announced::Known);
                }
                _ => return Err(format!("{} came on the wrong stream", frame.frame_type.name())),
            }
        }
    }
}
