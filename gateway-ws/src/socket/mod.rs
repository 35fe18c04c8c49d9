//! One WebSocket: what its session waits for, and what waits to be written to it.

mod close;
mod session;
mod upgrade;
pub(crate) mod wire;
mod writing;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use antiphon_edge::{Outbox, Overflow};
use antiphon_protocol::{
    Class, ErrorCode, FrameType, RawFrame,
    control::{self, error::Outcome},
    frames,
    header::HEADER_BYTES,
    limits::REQUESTS_IN_FLIGHT_MAX,
};
use bytes::Bytes;
use tokio::{net::TcpStream, sync::Notify};

pub(crate) use upgrade::upgrade;
use writing::{Flushed, Writing};

use crate::{
    json,
    metrics::Counters,
    reader::{Delivered, Reader},
    shown::Shown,
};

/// Bytes of a session's requests without an answer. More: the socket is not read.
const UNANSWERED_BYTES_MAX: usize = 256 << 10;

/// How frames are written on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// `antiphon.json.v1`
    Json,
    /// `antiphon.bin.v1`
    Binary,
}

/// What a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The client's HELLO; again after RESUME.
    AwaitHello { is_again: bool },
    /// The broker's WELCOME, or its farewell.
    AwaitWelcome,
    /// Requests.
    Established,
    /// Another trunk.
    Lost,
    /// The last frames to be written, then the end.
    Over(Option<ErrorCode>),
}

/// A request without an answer.
#[derive(Debug, Clone, Copy)]
struct Pending {
    kind: FrameType,
    bytes: usize,
}

/// A socket as its trunk and its own task see it, both on the same thread: what comes down the trunk is written at once, by
/// whoever read it there, and the task is woken only for what is more than that.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    carrier: Carrier,
    counters: Arc<Counters>,
    state: Mutex<State>,
    /// The phase is another, an answer came, or the socket takes nothing more for now.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    outbox: Outbox,
    writing: Writing,
    /// Somebody will flush.
    is_flushed_soon: bool,
    pending: BTreeMap<u32, Pending>,
    pending_bytes: usize,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, carrier: Carrier, counters: Arc<Counters>) -> Self {
        let state = State {
            phase: Phase::AwaitHello { is_again: false },
            outbox: Outbox::default(),
            writing: Writing::default(),
            is_flushed_soon: false,
            pending: BTreeMap::new(),
            pending_bytes: 0,
        };
        Self { stream, carrier, counters, state: Mutex::new(state), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done where a thread could panic in here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, code: Option<ErrorCode>) {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Over(_)) {
            state.phase = Phase::Over(code);
        }
        drop(state);
        self.changed.notify_one();
    }

    fn phase(&self) -> Phase {
        self.lock().phase
    }

    fn set_phase(&self, phase: Phase) {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Over(_)) {
            state.phase = phase;
        }
    }

    /// Whether the client's next frame may be looked at.
    fn may_read(&self) -> bool {
        let state = self.lock();
        match state.phase {
            Phase::AwaitHello { .. } => true,
            Phase::Established => {
                !state.outbox.is_control_full()
                    && state.pending.len() < REQUESTS_IN_FLIGHT_MAX
                    && state.pending_bytes < UNANSWERED_BYTES_MAX
            }
            Phase::AwaitWelcome | Phase::Lost | Phase::Over(_) => false,
        }
    }

    /// Notes a request, so that its answer can be told apart.
    fn asked(&self, id: u32, kind: FrameType, bytes: usize) {
        let mut state = self.lock();
        state.pending_bytes += bytes;
        if let Some(before) = state.pending.insert(id, Pending { kind, bytes }) {
            state.pending_bytes -= before.bytes;
        }
    }

    /// Writes what waits, as far as the socket takes it.
    fn write(&self) -> Flushed {
        let mut state = self.lock();
        let State { outbox, writing, .. } = &mut *state;
        let flushed = writing.flush(&self.stream, outbox, &self.counters);
        state.is_flushed_soon = false;
        flushed
    }

    /// Adds a frame of WebSocket's own.
    fn say_raw(&self, frame: Bytes) {
        self.lock().outbox.push(Class::Control, frame);
    }

    /// Adds the last frame, behind everything that waits.
    fn say_last(&self, frame: Bytes) {
        let mut state = self.lock();
        let State { outbox, writing, .. } = &mut *state;
        writing.take_all(outbox);
        writing.add(frame);
    }

    /// Adds a frame of the gateway's own.
    fn say(&self, frame: &Bytes) {
        let mut message = wire::begin(2 * frame.len());
        let own = match self.carrier {
            Carrier::Binary => {
                message.extend_from_slice(frame);
                Some(wire::binary(message))
            }
            Carrier::Json => {
                let written = raw(frame).and_then(|raw| json::encode(&raw, None, &mut message).ok());
                written.map(|()| wire::text(message))
            }
        };
        if let Some(own) = own {
            self.say_raw(own);
        }
    }

    /// Refuses a request, or with id 0 says why the session ends.
    fn refuse(&self, id: u32, code: ErrorCode, field: &str, message: &str) {
        let error = control::Error {
            number: code as u32,
            code: code.code().to_owned(),
            outcome: Outcome::NotApplied.into(),
            field: field.to_owned(),
            message: message.to_owned(),
            ..control::Error::default()
        };
        self.say(&frames::control(FrameType::Error, id, &error));
        if id == 0 {
            self.end(Some(code));
        }
    }
}

impl Reader for Socket {
    fn deliver(&self, class: Class, shown: &mut Shown<'_>) -> Result<Delivered, Overflow> {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Over(_) | Phase::Lost) {
            return Ok(Delivered::Done);
        }
        let (kind, id) = (shown.kind(), shown.id());
        let answered = if shown.is_answer() { state.answered(id) } else { None };
        if kind == Some(FrameType::Welcome) {
            state.phase = Phase::Established;
        }
        let message = match self.carrier {
            Carrier::Binary => Ok(Some(shown.binary_message())),
            Carrier::Json => shown.text_message(answered.map(|pending| pending.kind)),
        };
        match message {
            Ok(None) => return Ok(Delivered::Done),
            Ok(Some(message)) if kind == Some(FrameType::Event) => state.outbox.push_event(message)?,
            Ok(Some(message)) => state.outbox.push(class, message),
            Err(error) => {
                // The client cannot know what it missed, so it does not go on.
                tracing::error!(%error, kind = ?kind, "a frame has no JSON form");
                state.phase = Phase::Over(Some(ErrorCode::Internal));
                self.changed.notify_one();
                return Ok(Delivered::Done);
            }
        }
        if shown.is_answer() {
            // The next request may be looked at.
            self.changed.notify_one();
        }
        // A socket that takes nothing is written to by its own task, once it takes something.
        let is_told = std::mem::replace(&mut state.is_flushed_soon, true) || state.writing.is_blocked();
        Ok(if is_told { Delivered::Done } else { Delivered::Waits })
    }

    fn flush(&self) {
        if self.write() != Flushed::All {
            self.changed.notify_one();
        }
    }

    fn ended(&self, code: Option<ErrorCode>) {
        self.end(code);
    }

    /// With the trunk its handles are gone: answers that wait are still true, but what belongs to a handle would come after
    /// RESUME, which overtakes it, and could be taken for that of a new one.
    fn lost(&self) {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Over(_)) {
            state.phase = Phase::Lost;
            state.outbox.forget_streams();
            state.pending.clear();
            state.pending_bytes = 0;
        }
        drop(state);
        self.changed.notify_one();
    }
}

impl State {
    fn answered(&mut self, id: u32) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.pending_bytes -= pending.bytes;
        Some(pending)
    }
}

/// A whole frame as its parts.
fn raw(frame: &Bytes) -> Option<RawFrame> {
    let frame_type = FrameType::from_number(*frame.get(4)?)?;
    let id = u32::from_le_bytes(*frame.get(8..HEADER_BYTES)?.first_chunk()?);
    Some(RawFrame { frame_type, id, body: frame.slice(HEADER_BYTES..) })
}
