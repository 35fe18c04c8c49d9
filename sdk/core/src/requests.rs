//! Requests without a command of their own: queued, answered, repeated when the broker asks for it.

use std::collections::{BTreeMap, VecDeque};

use antiphon_protocol::{
    Direction, FrameType, control, frames,
    header::HEADER_BYTES,
    limits::{FRAME_BYTES_MAX, SIGNAL_BYTES_MAX},
};
use bytes::Bytes;
use prost::Message as _;

use crate::{
    error::{Outcome, Refusal, RequestError, StopReason},
    input::{CommandId, NewSignal},
    limits::{REQUEST_ATTEMPTS_MAX, REQUESTS_IN_FLIGHT_MAX, REQUESTS_MAX},
    link::{Link, Pending},
    output::{Answer, Output},
    timers::Timer,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    InFlight,
    /// Refused for now; its timer runs.
    Waiting,
}

#[derive(Debug)]
struct Kept {
    frame_type: FrameType,
    body: Bytes,
    attempts: u32,
    state: State,
}

#[derive(Debug, Default)]
pub(crate) struct Requests {
    all: BTreeMap<CommandId, Kept>,
    queue: VecDeque<CommandId>,
    in_flight: usize,
}

impl Requests {
    pub(crate) fn add(&mut self, link: &mut Link, id: CommandId, frame_type: FrameType, body: Bytes) {
        if let Err(error) = self.check(frame_type, &body) {
            return link.emit(Output::Answer { id, result: Err(error) });
        }
        self.all.insert(id, Kept { frame_type, body, attempts: 0, state: State::Queued });
        self.queue.push_back(id);
        self.write(link);
    }

    fn check(&self, frame_type: FrameType, body: &Bytes) -> Result<(), RequestError> {
        use FrameType::{
            Auth, Bye, Cursor, Fetch, Hello, PresenceSubscribe, Send, SendBatch, Signal, Subscribe, Unsubscribe,
        };
        // A service moves others' cursors by requests; only one's own are merged.
        let is_own_cursor =
            frame_type == Cursor && control::Cursor::decode(body.clone()).is_ok_and(|cursor| cursor.act_as.is_empty());
        let own_command = matches!(
            frame_type,
            Hello | Auth | Bye | Send | SendBatch | Subscribe | Unsubscribe | Fetch | Signal | PresenceSubscribe
        );
        let too_long = body.len() + HEADER_BYTES > FRAME_BYTES_MAX;
        if own_command || is_own_cursor || too_long || frame_type.direction() == Direction::ToClient {
            Err(RequestError::NotARequest(frame_type.name()))
        } else if self.all.len() >= REQUESTS_MAX {
            Err(RequestError::QueueFull(self.all.len()))
        } else {
            Ok(())
        }
    }

    /// Writes what the window allows.
    pub(crate) fn write(&mut self, link: &mut Link) {
        while link.ready && self.in_flight < REQUESTS_IN_FLIGHT_MAX {
            let Some(id) = self.queue.pop_front() else { return };
            let Some(request) = self.all.get_mut(&id) else { continue };
            request.state = State::InFlight;
            request.attempts += 1;
            self.in_flight += 1;
            link.request(Pending::Request(id), |frame_id| frames::raw(request.frame_type, frame_id, &request.body));
        }
    }

    pub(crate) fn answered(&mut self, link: &mut Link, id: CommandId, answer: Answer) {
        if self.all.remove(&id).is_some() {
            self.in_flight -= 1;
            link.emit(Output::Answer { id, result: Ok(answer) });
        }
        self.write(link);
    }

    pub(crate) fn refused(&mut self, link: &mut Link, id: CommandId, refusal: Refusal) {
        let Some(request) = self.all.get_mut(&id) else { return };
        self.in_flight -= 1;
        let harmless = refusal.outcome == Outcome::NotApplied || request.may_be_repeated();
        if refusal.is_transient() && harmless && request.attempts < REQUEST_ATTEMPTS_MAX {
            request.state = State::Waiting;
            let delay = link.backoff(request.attempts - 1).max(refusal.retry_after.unwrap_or_default());
            link.set_timer(Timer::Request(id), delay);
        } else {
            self.all.remove(&id);
            link.emit(Output::Answer { id, result: Err(RequestError::Refused(refusal)) });
        }
        self.write(link);
    }

    /// The wait of a request is over.
    pub(crate) fn due(&mut self, link: &mut Link, id: CommandId) {
        if let Some(request) = self.all.get_mut(&id) {
            request.state = State::Queued;
            self.queue.push_back(id);
            self.write(link);
        }
    }

    /// The connection is lost: what was written has an unknown outcome, and is repeated only where that is harmless.
    pub(crate) fn down(&mut self, link: &mut Link) {
        self.in_flight = 0;
        let written: Vec<_> = self.all.iter().filter(|(_, r)| r.state == State::InFlight).map(|(id, _)| *id).collect();
        for id in written.into_iter().rev() {
            match self.all.get_mut(&id) {
                Some(request) if request.may_be_repeated() => {
                    request.state = State::Queued;
                    self.queue.push_front(id);
                }
                _ => {
                    self.all.remove(&id);
                    link.emit(Output::Answer { id, result: Err(RequestError::ConnectionLost) });
                }
            }
        }
    }

    pub(crate) fn stop(&mut self, link: &mut Link, reason: &StopReason) {
        self.queue.clear();
        for id in std::mem::take(&mut self.all).into_keys() {
            link.emit(Output::Answer { id, result: Err(RequestError::Stopped(reason.clone())) });
        }
    }
}

/// Writes a signal, or tells why not. It has no answer, so it takes no place among the requests.
pub(crate) fn signal(link: &mut Link, id: CommandId, signal: NewSignal) {
    let NewSignal { log, kind, data, ttl_ms } = signal;
    let result = if data.len() > SIGNAL_BYTES_MAX {
        Err(RequestError::TooLarge { field: "data", bytes: data.len(), max: SIGNAL_BYTES_MAX })
    } else if !link.ready {
        Err(RequestError::NotConnected)
    } else {
        let signal = control::Signal { log: log.to_string(), kind, data, ttl_ms };
        link.emit(Output::WriteSignal(frames::control(FrameType::Signal, 0, &signal)));
        Ok(())
    };
    link.emit(Output::Done { id, result });
}

impl Kept {
    /// Whether it comes to the same when it is carried out twice.
    fn may_be_repeated(&self) -> bool {
        matches!(self.frame_type, FrameType::ConversationGet | FrameType::Sync | FrameType::Import | FrameType::Cursor)
    }
}
