//! The client: dispatch of the shell's inputs to the part that they concern. What the broker says is in `incoming`.

use antiphon_protocol::{Decoder, DeviceId, limits::FRAME_BYTES_MAX};

use crate::{
    connection::{Connection, Step},
    cursors::Cursors,
    error::{RequestError, SendError, StopReason},
    input::{Command, Input},
    link::Link,
    output::{ConnectionState, DetachReason, Item, Output, SendState},
    pages::Pages,
    presence::Watch,
    receipts::Receipts,
    requests::{self, Requests},
    sends::Outbox,
    streams::Streams,
    subscriptions::Subscriptions,
    time::Time,
    timers::Timer,
};

/// Bounds of the outbox. A message that would exceed one fails with `QueueFull`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Messages that are not acknowledged yet.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { messages: 4_096, bytes: 16 << 20 }
    }
}

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The installation or tab.
    pub device: Option<DeviceId>,
    /// Name and version, for the broker's logs.
    pub client_name: String,
    /// Ask for digests of every conversation of which the user is a member.
    pub follow_mine: bool,
    /// Bounds of the outbox.
    pub outbox: OutboxLimits,
    /// Source of all randomness: sender instance, message ids, jitter. Must differ at every start.
    pub seed: [u8; 32],
}

/// One client of one broker. See the crate's documentation for how a shell drives it.
#[derive(Debug)]
pub struct Client {
    pub(crate) link: Link,
    pub(crate) connection: Connection,
    pub(crate) control: Decoder,
    pub(crate) streams: Streams,
    pub(crate) outbox: Outbox,
    pub(crate) receipts: Receipts,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) pages: Pages,
    pub(crate) requests: Requests,
    pub(crate) cursors: Cursors,
    pub(crate) watch: Watch,
    stopped: Option<StopReason>,
}

impl Client {
    /// A client that wants to connect: its first outputs are there at once.
    pub fn new(config: Config) -> Self {
        let mut link = Link::new(config.seed);
        let outbox = Outbox::new(config.outbox);
        let sender_instance = link.random_id();
        let mut connection = Connection::new(config, sender_instance);
        connection.begin(&mut link);
        Self {
            link,
            connection,
            control: Decoder::new(FRAME_BYTES_MAX),
            streams: Streams::default(),
            outbox,
            receipts: Receipts::default(),
            subscriptions: Subscriptions::default(),
            pages: Pages::default(),
            requests: Requests::default(),
            cursors: Cursors::default(),
            watch: Watch::default(),
            stopped: None,
        }
    }

    /// Takes an input. `now` must not go back. Afterwards the shell takes all outputs.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.link.now = self.link.now.max(now);
        match input {
            Input::Connected => self.connection.connected(&mut self.link),
            Input::Disconnected { cause, close_code } => {
                let step = self.connection.disconnected(&mut self.link, cause, close_code);
                self.follow(step);
            }
            Input::Move => self.connection.move_over(&mut self.link),
            Input::Control(bytes) => self.control(bytes),
            Input::Stream(stream, bytes) => self.stream(stream, bytes),
            Input::StreamEnded(stream) => self.streams.ended(stream),
            Input::Token(token) => {
                let step = self.connection.token(&mut self.link, token);
                self.follow(step);
            }
            Input::TokenFailed { cause } => self.connection.token_failed(&mut self.link, cause),
            Input::Timeout => self.timeouts(),
            Input::Command(command) => self.command(command),
        }
        let step = self.connection.leave_when_settled(&mut self.link);
        self.follow(step);
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.link.next_output()
    }

    /// When to pass in [`Input::Timeout`], if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.link.timers.next()
    }

    /// Whether the client has stopped for good.
    pub fn is_stopped(&self) -> bool {
        self.connection.is_stopped()
    }

    // ---- commands ----

    fn command(&mut self, command: Command) {
        if let Some(reason) = self.stopped.clone() {
            return self.refuse(command, reason);
        }
        let link = &mut self.link;
        match command {
            Command::Send { id, message } => self.outbox.add(link, id, message),
            Command::SendBatch(messages) => self.outbox.add_batch(link, messages),
            Command::Subscribe { id, log, from } => self.subscriptions.add(link, id, log, from),
            Command::Unsubscribe(id) => self.subscriptions.remove(link, &mut self.pages, id),
            Command::Fetch { id, range } => self.pages.fetch(link, id, range),
            Command::FetchMessages { id, range } => self.pages.fetch_messages(link, id, range),
            Command::Cursor { log, delivered, read } => self.cursors.advance(link, log, delivered, read),
            Command::Signal { id, signal } => requests::signal(link, id, signal),
            Command::WatchPresence { id, users } => self.watch.set(link, id, users),
            Command::Request { id, frame_type, body } => self.requests.add(link, id, frame_type, body),
            Command::RenewToken => self.connection.token_due(link),
            Command::Close => {
                let step = self.connection.close(link);
                self.follow(step);
            }
        }
    }

    fn refuse(&mut self, command: Command, reason: StopReason) {
        let failed = |id, reason| Output::Send { id, state: SendState::Failed(SendError::Stopped(reason)) };
        self.link.emit(match command {
            Command::SendBatch(messages) => {
                return messages.into_iter().for_each(|(id, _)| self.link.emit(failed(id, reason.clone())));
            }
            Command::Send { id, .. } => failed(id, reason),
            Command::Subscribe { id, .. } => {
                Output::Subscription { id, item: Item::Detached(DetachReason::Stopped(reason)) }
            }
            Command::Fetch { id, .. } => Output::Page { id, result: Err(RequestError::Stopped(reason)) },
            Command::FetchMessages { id, .. } => Output::Messages { id, result: Err(RequestError::Stopped(reason)) },
            Command::Signal { id, .. } | Command::WatchPresence { id, .. } => {
                Output::Done { id, result: Err(RequestError::Stopped(reason)) }
            }
            Command::Request { id, .. } => Output::Answer { id, result: Err(RequestError::Stopped(reason)) },
            Command::Unsubscribe(_) | Command::Cursor { .. } | Command::RenewToken | Command::Close => return,
        });
    }

    // ---- time and the connection ----

    fn timeouts(&mut self) {
        while let Some(timer) = self.link.timers.pop_due(self.link.now) {
            let link = &mut self.link;
            match timer {
                Timer::Connection => {
                    let step = self.connection.timeout(link);
                    self.follow(step);
                }
                Timer::Token => self.connection.token_due(link),
                Timer::Sends(log) => self.outbox.due(link, &log),
                Timer::Subscription(id) => self.subscriptions.due(link, id),
                Timer::Cursor(log) => self.cursors.due(link, &log),
                Timer::Presence => self.watch.due(link),
                Timer::Request(id) => self.requests.due(link, id),
                Timer::Page(id) => self.pages.due(link, id),
            }
        }
    }

    pub(crate) fn follow(&mut self, step: Step) {
        let link = &mut self.link;
        match step {
            Step::Stay => {}
            Step::Ready => {
                // Subscriptions first: an application sees the echo of what it sends again.
                self.subscriptions.ready(link);
                self.outbox.write(link);
                self.cursors.ready(link, |log| self.subscriptions.follows(log));
                self.watch.ready(link);
                self.requests.write(link);
                self.pages.write(link);
            }
            Step::Down | Step::Resume => {
                link.down();
                if step == Step::Resume {
                    link.expect_late_answers();
                } else {
                    self.control = Decoder::new(FRAME_BYTES_MAX);
                    self.streams.down();
                }
                self.subscriptions.down(link);
                self.outbox.down(link);
                self.requests.down(link);
                self.watch.down(link);
                self.pages.down();
            }
            Step::Stopped(reason) => {
                link.down();
                link.timers.cancel_all();
                self.subscriptions.stop(link, &reason);
                self.outbox.stop(link, &reason);
                self.requests.stop(link, &reason);
                self.watch.stop(link, &reason);
                self.pages.stop(link, &reason);
                link.emit(Output::State(ConnectionState::Stopped(reason.clone())));
                self.stopped = Some(reason);
            }
        }
    }

    pub(crate) fn broken(&mut self, fault: String) {
        let step = self.connection.broken(&mut self.link, fault);
        self.follow(step);
    }
}
