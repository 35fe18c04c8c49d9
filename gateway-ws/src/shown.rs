//! A frame of the broker in the forms of the sockets that it is for: each is made once, when the first socket needs it.

use antiphon_protocol::{FrameType, RawFrame, trunk::Carried};
use bytes::{Bytes, BytesMut};

use crate::{
    json::{self, EncodeError},
    metrics::Counters,
};

/// A frame and its forms.
#[derive(Debug)]
pub(crate) struct Shown<'a> {
    carried: &'a Carried,
    counters: &'a Counters,
    binary: Option<Bytes>,
    json: Option<Bytes>,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(carried: &'a Carried, counters: &'a Counters) -> Self {
        Self { carried, counters, binary: None, json: None }
    }

    pub(crate) fn kind(&self) -> Option<FrameType> {
        FrameType::from_number(self.carried.header.type_number)
    }

    pub(crate) fn id(&self) -> u32 {
        self.carried.header.id
    }

    /// Whether the header's id is that of a request.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(
            self.kind(),
            Some(
                FrameType::Ok
                    | FrameType::Error
                    | FrameType::Welcome
                    | FrameType::Attach
                    | FrameType::Ack
                    | FrameType::BatchAck
                    | FrameType::Page
                    | FrameType::MessagesPage
            )
        )
    }

    /// As it came, without its prefix.
    pub(crate) fn binary(&mut self) -> Bytes {
        self.binary
            .get_or_insert_with(|| Bytes::from([&self.carried.header_bytes[..], &self.carried.body].concat()))
            .clone()
    }

    /// As it came, cut into its parts; `None` for what is of a later version.
    pub(crate) fn raw(&self) -> Option<RawFrame> {
        Some(RawFrame { frame_type: self.kind()?, id: self.id(), body: self.carried.body.clone() })
    }

    /// As a line. `answers` is the request that an OK is for.
    pub(crate) fn json(&mut self, answers: Option<FrameType>) -> Result<Bytes, EncodeError> {
        if let Some(json) = &self.json {
            return Ok(json.clone());
        }
        let Some(frame) = self.raw() else {
            // Of a later version, and optional: there is nothing that JSON could say.
            return Ok(Bytes::new());
        };
        let mut line = BytesMut::with_capacity(2 * frame.body.len() + 128);
        json::encode(&frame, answers, &mut line)?;
        self.counters.json_rendered.one_more();
        Ok(self.json.insert(line.freeze()).clone())
    }
}
