//! Frames of the broker, from a stream of the trunk to the sockets that they are for.

use std::sync::Arc;

use antiphon_edge::{Overflow, Recipients};
use antiphon_protocol::{
    Class, DecodeError, ErrorCode, FrameType,
    limits::FRAME_BYTES_MAX,
    trunk::{Carried, TrunkDecoder},
};
use bytes::Bytes;
use quinn::RecvStream;
use thiserror::Error;

use super::{Table, table::Inner};
use crate::{
    reader::{Delivered, Reader},
    shown::Shown,
};

/// Pieces of a stream that are taken in one read: one for each packet that came meanwhile.
const PIECES_MAX: usize = 32;
/// Sockets that are written to before others of the worker have their turn.
const FLUSHES_PER_TURN: usize = 128;

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
    let mut pieces = [const { Bytes::new() }; PIECES_MAX];
    while let Some(count) = stream.read_chunks(&mut pieces).await? {
        pieces[..count].iter_mut().for_each(|piece| decoder.push(std::mem::take(piece)));
        let waiting = hand_all(&table, &mut decoder)?;
        flush(waiting).await;
    }
    Err(StreamError::Finished)
}

/// Hands out every frame that is there; returns the readers that wait to be flushed.
fn hand_all(table: &Table, decoder: &mut TrunkDecoder) -> Result<Vec<Arc<dyn Reader>>, StreamError> {
    let (mut inner, mut waiting) = (table.lock(), Vec::new());
    while let Some(carried) = decoder.next_frame()? {
        inner.hand(&carried, &mut waiting)?;
    }
    Ok(waiting)
}

/// Writes to each socket once for all frames of a burst. The next burst waits, and so the broker learns of a worker that is
/// too slow.
async fn flush(waiting: Vec<Arc<dyn Reader>>) {
    for some in waiting.chunks(FLUSHES_PER_TURN) {
        some.iter().for_each(|reader| reader.flush());
        if some.len() == FLUSHES_PER_TURN {
            tokio::task::yield_now().await;
        }
    }
}

impl Inner {
    /// Gives a frame to the sockets that it is for; each form of it is made once.
    fn hand(&mut self, carried: &Carried, waiting: &mut Vec<Arc<dyn Reader>>) -> Result<(), StreamError> {
        let kind = FrameType::from_number(carried.header.type_number);
        let class = kind.map_or(Class::Events, FrameType::class);
        let counters = Arc::clone(&self.counters);
        counters.frames_from_broker.one_more();
        let mut shown = Shown::new(carried, &counters);
        let mut lagging = Vec::new();
        let readers = &mut self.readers;
        let mut deliver = |channel| {
            counters.frames_out.one_more();
            let Some(reader) = readers.get(&channel) else { return };
            match reader.deliver(class, &mut shown) {
                Ok(Delivered::Done) => {}
                Ok(Delivered::Waits) => waiting.push(Arc::clone(reader)),
                Err(Overflow) => lagging.push(channel),
            }
        };
        match self.groups.route(carried)? {
            Recipients::Nobody => {}
            Recipients::Edge => return edge_frame(carried),
            Recipients::Channel(channel) => deliver(channel),
            Recipients::Group(group) => group.for_each(deliver),
            Recipients::Last(channel) => {
                if let Some(reader) = readers.remove(&channel) {
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
