//! Frames of the broker, from a stream of the trunk to the sockets that they are for.

use std::sync::Arc;

use antiphon_edge::{Overflow, Recipients};
use antiphon_protocol::{
    Class, DecodeError, ErrorCode, FrameType,
    limits::FRAME_BYTES_MAX,
    trunk::{Carried, TrunkDecoder},
};
use quinn::RecvStream;
use thiserror::Error;

use super::{Table, table::Inner};
use crate::shown::Shown;

/// Bytes taken from a stream in one read.
const READ_BYTES_MAX: usize = 256 << 10;

/// Why a stream is of no more use.
#[derive(Debug, Error)]
pub(super) enum StreamError {
    #[error("the trunk cannot be read: {0}")]
    Read(#[from] quinn::ReadError),
    #[error("the broker sent what cannot be read: {0}")]
    Decode(#[from] DecodeError),
    #[error("the broker has ended the stream")]
    Finished,
    #[error("the broker refuses this edge: {0}")]
    Refused(String),
}

/// Reads a stream until the trunk ends.
pub(super) async fn read(table: Arc<Table>, mut stream: RecvStream) -> Result<(), StreamError> {
    let mut decoder = TrunkDecoder::new(FRAME_BYTES_MAX);
    while let Some(chunk) = stream.read_chunk(READ_BYTES_MAX, true).await? {
        decoder.push(chunk.bytes);
        let mut inner = table.lock();
        while let Some(carried) = decoder.next_frame()? {
            inner.hand(&carried)?;
        }
    }
    Err(StreamError::Finished)
}

impl Inner {
    /// Gives a frame to the sockets that it is for; each form of it is made once.
    fn hand(&mut self, carried: &Carried) -> Result<(), StreamError> {
        let kind = FrameType::from_number(carried.header.type_number);
        let class = kind.map_or(Class::Events, FrameType::class);
        let counters = Arc::clone(&self.counters);
        counters.frames_from_broker.one_more();
        let mut shown = Shown::new(carried, &counters);
        let mut lagging = Vec::new();
        match self.groups.route(carried)? {
            Recipients::Nobody => {}
            Recipients::Edge => return edge_frame(carried),
            Recipients::Channel(channel) => {
                counters.frames_out.one_more();
                if let Some(reader) = self.readers.get(&channel)
                    && let Err(Overflow) = reader.deliver(class, &mut shown)
                {
                    lagging.push(channel);
                }
            }
            Recipients::Group(group) => {
                for channel in group {
                    counters.frames_out.one_more();
                    if let Some(reader) = self.readers.get(&channel)
                        && let Err(Overflow) = reader.deliver(class, &mut shown)
                    {
                        lagging.push(channel);
                    }
                }
            }
            Recipients::Last(channel) => {
                if let Some(reader) = self.readers.remove(&channel) {
                    reader.ended(ErrorCode::from_number(carried.header.id));
                }
            }
        }
        for channel in lagging {
            self.lag(carried.header.id, channel);
        }
        Ok(())
    }
}

/// A frame for the edge itself: the first of a stream, or a farewell.
fn edge_frame(carried: &Carried) -> Result<(), StreamError> {
    match FrameType::from_number(carried.header.type_number) {
        Some(FrameType::Error) => {
            let error: antiphon_protocol::control::Error = antiphon_protocol::frames::decode_answer(&carried.body)?;
            Err(StreamError::Refused(format!("{}: {}", error.code, error.message)))
        }
        _ => Ok(()),
    }
}
