//! What every part of the client works with: outputs, requests that wait for an answer, deadlines, randomness, time.

use std::{collections::BTreeMap, collections::VecDeque, time::Duration};

use antiphon_protocol::LogName;
use bytes::Bytes;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use uuid::{Builder, Uuid};

use crate::{
    input::{CommandId, SubscriptionId},
    limits::{BACKOFF_MAX, BACKOFF_MIN},
    output::Output,
    time::Time,
    timers::{Timer, Timers},
};

/// Whose answer a request waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pending {
    Hello,
    Authenticate,
    Bye,
    Subscribe(SubscriptionId, LogName),
    Unsubscribe,
    Page,
    Cursor(LogName),
    Send(LogName),
    Request(CommandId),
    Presence,
}

#[derive(Debug)]
pub(crate) struct Link {
    /// The time of the input that is being handled.
    pub(crate) now: Time,
    pub(crate) timers: Timers,
    /// Whether requests may be written: between WELCOME and GOAWAY.
    pub(crate) ready: bool,
    /// Whether the broker takes batches on this connection.
    pub(crate) batches: bool,
    outputs: VecDeque<Output>,
    pending: BTreeMap<u32, Pending>,
    last_request: u32,
    /// The last request before a RESUME: its answers, and those before, may still come.
    late: Option<u32>,
    rng: ChaCha8Rng,
    /// The broker's clock, as WELCOME said it and when.
    server_clock: (Time, u64),
}

impl Link {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            now: Time::default(),
            timers: Timers::default(),
            ready: false,
            batches: false,
            outputs: VecDeque::new(),
            pending: BTreeMap::new(),
            last_request: 0,
            late: None,
            rng: ChaCha8Rng::from_seed(seed),
            server_clock: (Time::default(), 0),
        }
    }

    pub(crate) fn emit(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Writes a request, whose frame `encode` makes from its id.
    pub(crate) fn request(&mut self, pending: Pending, encode: impl FnOnce(u32) -> Bytes) -> u32 {
        loop {
            self.last_request = self.last_request.wrapping_add(1);
            if self.last_request != 0 && !self.pending.contains_key(&self.last_request) {
                break;
            }
        }
        let id = self.last_request;
        self.pending.insert(id, pending);
        self.emit(Output::Write(encode(id)));
        id
    }

    /// Takes the request that an answer is for; None for an answer that nobody waits for.
    pub(crate) fn answered(&mut self, request: u32) -> Option<Pending> {
        self.pending.remove(&request)
    }

    /// Whether every request has its answer.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Forgets what a lost connection would have answered.
    pub(crate) fn down(&mut self) {
        (self.ready, self.batches, self.late) = (false, false, None);
        self.pending.clear();
    }

    /// The transport outlives the connection, and may still bring what the broker said on it.
    pub(crate) fn expect_late_answers(&mut self) {
        self.late = Some(self.last_request);
    }

    /// Whether a request was written before a RESUME on this transport.
    pub(crate) fn is_late(&self, request: u32) -> bool {
        self.late.is_some_and(|late| late.wrapping_sub(request) <= u32::MAX / 2)
    }

    pub(crate) fn set_timer(&mut self, timer: Timer, delay: Duration) {
        self.timers.set(timer, self.now.after(delay));
    }

    /// A random wait before attempt `attempt` + 1: half to all of a time that doubles with each attempt.
    pub(crate) fn backoff(&mut self, attempt: u32) -> Duration {
        let whole = BACKOFF_MIN.saturating_mul(1 << attempt.min(16)).min(BACKOFF_MAX);
        whole / 2 + self.jitter(whole / 2)
    }

    /// A random part of `most`.
    pub(crate) fn jitter(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.rng.next_u64() % most.saturating_add(1))
    }

    pub(crate) fn set_server_clock(&mut self, server_time_ms: u64) {
        self.server_clock = (self.now, server_time_ms);
    }

    /// The broker's clock now, Unix milliseconds.
    pub(crate) fn server_time_ms(&self) -> u64 {
        let (at, server_time_ms) = self.server_clock;
        server_time_ms + self.now.since(at).as_micros() as u64 / 1_000
    }

    /// A UUIDv7 by the broker's clock.
    pub(crate) fn message_id(&mut self) -> Uuid {
        let random = self.random();
        Builder::from_unix_timestamp_millis(self.server_time_ms(), &random).into_uuid()
    }

    /// A UUIDv4.
    pub(crate) fn random_id(&mut self) -> Uuid {
        Builder::from_random_bytes(self.random()).into_uuid()
    }

    fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}
