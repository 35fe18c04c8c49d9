//! The task that owns the sans-IO client: inputs from the network, the application and the clock; outputs performed.

use std::{
    collections::BTreeSet,
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};

use antiphon_protocol::UserId;
use antiphon_sdk_core::{
    self as core, Command, CommandId, ConnectionState, Digest, Input, Output, SubscriptionId, Time, Token,
    limits::PRESENCE_WATCHED_MAX,
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{Duration, Instant},
};

use crate::{
    Carrier, Config, Endpoint, Error, Presences, Result, TokenProvider,
    call::Call,
    client::Attention,
    queues::Queues,
    transport::{Cause, FromBroker, FromControl, Link, Route, RouteNews, Ways},
    waiters::Waiters,
};

/// Things of one kind taken in before the outputs are performed.
const BATCH_MAX: usize = 64;

type Pending<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// What woke the driver.
enum Wake {
    Call(Option<Call>),
    Control(Option<FromControl>),
    Broker(FromBroker),
    Written,
    Connected(std::result::Result<Link, Cause>),
    Better,
    Token(std::result::Result<Token, String>),
    Attention,
    Timeout,
}

/// Where news goes that nobody asked for by a call.
pub(crate) struct News {
    pub(crate) state: watch::Sender<ConnectionState>,
    pub(crate) carrier: watch::Sender<Option<Carrier>>,
    pub(crate) digests: broadcast::Sender<Digest>,
    pub(crate) presences: watch::Sender<Presences>,
}

pub(crate) struct Driver {
    core: core::Client,
    started: Instant,
    provider: TokenProvider,
    route: Route,
    calls: mpsc::Receiver<Call>,
    attention: Arc<Attention>,
    news: News,
    link: Option<Link>,
    token: Pending<std::result::Result<Token, String>>,
    waiters: Waiters,
    queues: Queues,
    last_id: u64,
    closing: bool,
}

impl Driver {
    pub(crate) fn new(
        config: Config,
        endpoint: &Endpoint,
        calls: mpsc::Receiver<Call>,
        attention: Arc<Attention>,
        news: News,
    ) -> Result<Self> {
        let core_config = core::Config {
            device: config.device.clone(),
            client_name: config.client_name.clone(),
            follow_mine: config.follow_mine,
            outbox: config.outbox,
            seed: random_seed()?,
        };
        Ok(Self {
            core: core::Client::new(core_config),
            started: Instant::now(),
            route: Route::new(Ways::new(&config, endpoint)?),
            provider: config.token,
            calls,
            attention,
            news,
            link: None,
            token: None,
            waiters: Waiters::default(),
            queues: Queues::default(),
            last_id: 0,
            closing: false,
        })
    }

    /// Runs until the client has stopped.
    pub(crate) async fn run(mut self) {
        loop {
            while let Some(output) = self.core.poll_output() {
                self.perform(output);
            }
            if self.core.is_stopped() {
                return self.hand_over_the_rest().await;
            }
            self.attention.waits_for_room.store(self.queues.has_kept(), Ordering::Release);
            // Room that was made before the flag was set would go unnoticed without this.
            self.queues.flush();
            let wake = self.wake().await;
            self.take(wake);
        }
    }

    /// The client has stopped: what did not fit the queues is still the application's.
    async fn hand_over_the_rest(mut self) {
        self.calls.close();
        self.waiters = Waiters::default();
        loop {
            self.attention.waits_for_room.store(self.queues.has_kept(), Ordering::Release);
            self.queues.flush();
            self.queues.take_dropped();
            if !self.queues.is_stalled() {
                return;
            }
            self.attention.notify.notified().await;
        }
    }

    async fn wake(&mut self) -> Wake {
        let timeout = self.core.poll_timeout().map(|at| self.started + Duration::from_micros(at.0));
        let stalled = self.queues.is_stalled();
        let (mut control, mut broker, mut write) = (None, None, None);
        if let Some(link) = &mut self.link {
            link.from_broker.set_stalled(stalled);
            control = Some(&mut link.from_control);
            broker = (!stalled).then_some(&mut link.from_broker);
            write = Some(&mut link.writer).filter(|writer| writer.has_unwritten());
        }
        tokio::select! {
            chunk = async { match control { Some(rx) => rx.recv().await, None => pending().await } } => {
                Wake::Control(chunk)
            }
            () = async { match write { Some(writer) => writer.write().await, None => pending().await } } => {
                Wake::Written
            }
            Some(chunk) = async { match broker { Some(rx) => rx.recv().await, None => pending().await } } => {
                Wake::Broker(chunk)
            }
            call = self.calls.recv(), if !self.closing => Wake::Call(call),
            news = self.route.news() => match news {
                RouteNews::Connected(link) => Wake::Connected(link),
                RouteNews::Better => Wake::Better,
            },
            token = ready(&mut self.token) => Wake::Token(token),
            () = self.attention.notify.notified() => Wake::Attention,
            () = async { match timeout { Some(at) => tokio::time::sleep_until(at).await, None => pending().await } } => {
                Wake::Timeout
            }
        }
    }

    fn take(&mut self, wake: Wake) {
        match wake {
            Wake::Call(None) => {
                self.closing = true;
                self.command(Command::Close);
            }
            Wake::Call(Some(call)) => {
                self.call(call);
                for _ in 1..BATCH_MAX {
                    let Ok(call) = self.calls.try_recv() else { break };
                    self.call(call);
                }
            }
            Wake::Control(chunk) => self.control(chunk),
            Wake::Broker(chunk) => self.broker(chunk),
            Wake::Written => {}
            Wake::Connected(result) => self.connected(result),
            Wake::Better => self.input(Input::Move),
            Wake::Token(result) => {
                self.token = None;
                self.input(match result {
                    Ok(token) => Input::Token(token),
                    Err(cause) => Input::TokenFailed { cause },
                });
            }
            Wake::Attention => self.attend(),
            Wake::Timeout => self.input(Input::Timeout),
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn input(&mut self, input: Input) {
        self.core.handle(self.now(), input);
    }

    fn command(&mut self, command: Command) {
        self.input(Input::Command(command));
    }

    fn connected(&mut self, result: std::result::Result<Link, Cause>) {
        match result {
            Ok(link) => {
                self.news.carrier.send_replace(Some(link.carrier()));
                self.link = Some(link);
                self.input(Input::Connected);
            }
            Err(cause) => self.lost(cause),
        }
    }

    fn control(&mut self, chunk: Option<FromControl>) {
        match chunk {
            Some(FromControl::Bytes(bytes)) => self.input(Input::Control(bytes)),
            Some(FromControl::Ended(cause)) => self.lost(cause),
            None => self.lost("the connection's reader has ended".into()),
        }
    }

    fn lost(&mut self, cause: Cause) {
        self.link = None;
        self.input(Input::Disconnected { cause: cause.text, close_code: cause.close_code });
    }

    fn broker(&mut self, first: FromBroker) {
        let mut taken = 0;
        let mut next = Some(first);
        while let Some(from_broker) = next {
            match from_broker {
                FromBroker::Bytes(stream, bytes) => self.input(Input::Stream(stream, bytes)),
                FromBroker::Ended(stream) => self.input(Input::StreamEnded(stream)),
            }
            // Items are handed over chunk by chunk, so that a full queue stops the reading at once.
            while let Some(output) = self.core.poll_output() {
                self.perform(output);
            }
            taken += 1;
            // What is taken out of the channel has to be handled, so nothing more is taken then.
            if self.queues.is_stalled() || taken == BATCH_MAX {
                return;
            }
            next = self.link.as_mut().and_then(|link| link.from_broker.try_recv());
        }
    }

    fn attend(&mut self) {
        self.queues.flush();
        if self.attention.dropped.swap(false, Ordering::AcqRel) {
            self.unsubscribe_dropped();
        }
    }

    fn unsubscribe_dropped(&mut self) {
        for id in self.queues.take_dropped() {
            self.command(Command::Unsubscribe(id));
        }
    }

    fn call(&mut self, call: Call) {
        self.last_id += 1;
        let id = CommandId(self.last_id);
        match call {
            Call::Send { message, reply } => {
                self.waiters.sends.insert(id, reply);
                self.command(Command::Send { id, message });
            }
            Call::SendQueued { message, follower } => {
                self.waiters.followers.insert(id, follower);
                self.command(Command::Send { id, message });
            }
            Call::SendBatch { messages } => {
                let mut batch = Vec::with_capacity(messages.len());
                for (message, reply) in messages {
                    self.last_id += 1;
                    let id = CommandId(self.last_id);
                    self.waiters.sends.insert(id, reply);
                    batch.push((id, message));
                }
                self.command(Command::SendBatch(batch));
            }
            Call::Messages { range, reply } => {
                self.waiters.messages.insert(id, reply);
                self.command(Command::FetchMessages { id, range });
            }
            Call::Subscribe { log, from, items, reply } => {
                // A call that was given up while its answer was on its way tells nobody; its log must be free again.
                self.unsubscribe_dropped();
                let id = SubscriptionId(self.last_id);
                self.queues.add(id, items, reply);
                self.command(Command::Subscribe { id, log, from });
            }
            Call::Fetch { range, reply } => {
                self.waiters.pages.insert(id, reply);
                self.command(Command::Fetch { id, range });
            }
            Call::Cursor { log, delivered, read } => self.command(Command::Cursor { log, delivered, read }),
            Call::Signal { signal, reply } => {
                self.waiters.done.insert(id, reply);
                self.command(Command::Signal { id, signal });
            }
            Call::WatchPresence { users, reply } => {
                self.forget_unwatched(&users);
                self.waiters.done.insert(id, reply);
                self.command(Command::WatchPresence { id, users });
            }
            Call::Request { frame_type, body, reply } => {
                self.waiters.answers.insert(id, reply);
                self.command(Command::Request { id, frame_type, body });
            }
            Call::RenewToken => self.command(Command::RenewToken),
            #[cfg(feature = "test-hooks")]
            Call::Kill => {
                if self.link.is_some() {
                    self.lost("the connection was killed by a test".into());
                }
            }
            Call::Close => self.command(Command::Close),
        }
    }

    fn forget_unwatched(&self, users: &BTreeSet<UserId>) {
        // A list that is too long is refused, and the one before stays.
        if users.len() > PRESENCE_WATCHED_MAX {
            return;
        }
        self.news.presences.send_if_modified(|presences| {
            let before = presences.len();
            presences.retain(|user, _| users.contains(user));
            presences.len() < before
        });
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Connect => self.connect(),
            Output::Write(bytes) => {
                if let Some(link) = &mut self.link {
                    link.writer.push(bytes);
                }
            }
            Output::WriteSignal(bytes) => {
                if let Some(link) = &mut self.link {
                    link.writer.push_signal(bytes);
                }
            }
            Output::Close => {
                self.route.give_up();
                self.link = None;
            }
            Output::NeedToken => self.token = Some(self.provider.provide()),
            Output::State(state) => {
                tracing::debug!(?state, "connection state");
                let stands = matches!(state, ConnectionState::Ready(_));
                self.news.state.send_replace(state);
                if stands {
                    self.route.session_stands();
                    // A better way may have been found before there was a session to leave the other with.
                    if self.route.has_better() {
                        self.input(Input::Move);
                    }
                }
            }
            Output::Send { id, state } => self.waiters.send_state(id, state),
            Output::Subscription { id, item } => {
                if !self.queues.push(id, item) {
                    self.command(Command::Unsubscribe(id));
                }
            }
            Output::Page { id, result } => self.waiters.page(id, result),
            Output::Messages { id, result } => self.waiters.messages(id, result),
            Output::Answer { id, result } => self.waiters.answer(id, result),
            Output::Done { id, result } => self.waiters.done(id, result),
            Output::Digest(digest) => {
                // Nobody may be listening.
                let _ = self.news.digests.send(digest);
            }
            Output::Presence(presence) => {
                self.news.presences.send_modify(|presences| drop(presences.insert(presence.user.clone(), presence)));
            }
        }
    }

    fn connect(&mut self) {
        self.link = None;
        self.route.connect();
    }
}

/// Resolves with the future in `slot`, or never.
async fn ready<T>(slot: &mut Pending<T>) -> T {
    match slot {
        Some(future) => future.await,
        None => pending().await,
    }
}

fn random_seed() -> Result<[u8; 32]> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| Error::Endpoint(std::io::Error::other("no randomness")))?;
    Ok(seed)
}
