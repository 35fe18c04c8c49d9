//! A frame of the broker in the forms of the sockets that it is for: each is made once, when the first socket needs it.

use antiphon_protocol::{FrameType, RawFrame, trunk::Carried};
use bytes::Bytes;

use crate::{
    json::{self, EncodeError},
    metrics::Counters,
    socket::wire,
};

/// A frame and its forms.
#[derive(Debug)]
pub(crate) struct Shown<'a> {
    carried: &'a Carried,
    counters: &'a Counters,
    binary: Option<Bytes>,
    binary_message: Option<Bytes>,
    text_message: Option<Bytes>,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(carried: &'a Carried, counters: &'a Counters) -> Self {
        Self { carried, counters, binary: None, binary_message: None, text_message: None }
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

    /// As a binary WebSocket message.
    pub(crate) fn binary_message(&mut self) -> Bytes {
        let carried = self.carried;
        let lay_out = || {
            let mut message = wire::begin(carried.header_bytes.len() + carried.body.len());
            message.extend_from_slice(&carried.header_bytes);
            message.extend_from_slice(&carried.body);
            wire::binary(message)
        };
        self.binary_message.get_or_insert_with(lay_out).clone()
    }

    /// As a WebSocket message of one line; `None` for what is of a later version. `answers` is the request that an OK is
    /// for.
    pub(crate) fn text_message(&mut self, answers: Option<FrameType>) -> Result<Option<Bytes>, EncodeError> {
        if let Some(message) = &self.text_message {
            return Ok(Some(message.clone()));
        }
        let Some(frame) = self.raw() else { return Ok(None) };
        let mut message = wire::begin(2 * frame.body.len() + 128);
        json::encode(&frame, answers, &mut message)?;
        self.counters.json_rendered.one_more();
        Ok(Some(self.text_message.insert(wire::text(message)).clone()))
    }
}
