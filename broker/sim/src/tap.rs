//! Watches the broker's streams from outside the SDK: which attachments stand, and how many rows come to make up for
//! what an application lacks.

use std::collections::BTreeMap;

use antiphon_protocol::{Decoder, FrameType, RawFrame, Row, control::Attach, frames::Page, limits::FRAME_BYTES_MAX};
use antiphon_sdk_core::{Output, StreamId};
use bytes::Bytes;
use prost::Message;

/// What was seen of one client's connections.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    decoders: BTreeMap<StreamId, Decoder>,
    /// First live position of each attached log.
    live_from: BTreeMap<u32, u64>,
    /// Rows that came as part of a hand-over or of a page, less those that the application asked for.
    fetched: i64,
    /// Of the last attachment: whether what it owed came with it.
    pub(crate) inlined: bool,
}

impl Tap {
    /// Bytes of a stream, before the SDK sees them.
    pub(crate) fn bytes(&mut self, stream: StreamId, bytes: &Bytes) {
        let decoder = self.decoders.entry(stream).or_insert_with(|| Decoder::new(FRAME_BYTES_MAX));
        decoder.push(bytes.clone());
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = decoder.next_frame() {
            frames.push(frame);
        }
        frames.iter().for_each(|frame| self.frame(frame));
    }

    fn frame(&mut self, frame: &RawFrame) {
        match frame.frame_type {
            FrameType::Attach => {
                if let Ok(attach) = Attach::decode(&frame.body[..]) {
                    self.inlined = attach.inlined;
                    self.live_from.insert(attach.handle, attach.live_from);
                }
            }
            FrameType::Event => {
                let live_from = self.live_from.get(&frame.id).copied().unwrap_or_default();
                if Row::new(frame.body.clone()).is_ok_and(|row| row.seq() < live_from) {
                    self.fetched += 1;
                }
            }
            FrameType::Page => {
                self.fetched += Page::decode(&frame.body).map_or(0, |page| page.rows.len() as i64);
            }
            _ => {}
        }
    }

    /// What the SDK tells the application: a page that was asked for makes up for nothing.
    pub(crate) fn note(&mut self, output: &Output) {
        if let Output::Page { result: Ok(page), .. } = output {
            self.fetched -= page.events.len() as i64;
        }
    }

    /// The connection is gone, and its streams with it.
    pub(crate) fn connection_ended(&mut self) {
        self.decoders.clear();
        self.live_from.clear();
    }

    /// Rows that came to make up for what was missed, since the last call.
    pub(crate) fn take_fetched(&mut self) -> u64 {
        u64::try_from(std::mem::take(&mut self.fetched)).unwrap_or_default()
    }
}
