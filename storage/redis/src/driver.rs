//! The thread that talks to Redis: performs what the ledger begins, and feeds it answers, news and the time.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use antiphon_protocol::LogKey;
use antiphon_storage::{
    Token,
    presence::{Answer, Buckets, QUESTIONS_MAX, Question, SIGNALS_MAX, Take},
};
use bytes::Bytes;
use fred::{
    interfaces::PubsubInterface,
    prelude::{Builder, Client, ClientLike, Error, ErrorKind, EventInterface, ReconnectPolicy},
    types::{Message, Value, config::UnresponsiveConfig},
};
use thiserror::Error;
use tokio::{
    sync::{Notify, broadcast, mpsc},
    task::{JoinError, JoinSet},
    time::MissedTickBehavior,
};
use uuid::Uuid;

use crate::{
    config::{ConfigError, RECONNECT_AFTER_MAX, RedisConfig, Timing},
    handle::{RedisHandle, Shared, Wake},
    keys::{BUCKETS, Keys},
    ledger::{Change, Ledger, Turn},
    script::Script,
    turn,
};

/// Signals that are being sent. Further ones wait in [`SIGNALS_MAX`].
const SIGNALS_UNDER_WAY_MAX: usize = 256;
/// News and signals that were received and not looked at. More: they are counted as missed, and everything is read again.
const RECEIVED_MAX: usize = 1 << 16;

/// Why the store cannot be started. A Redis that is away is no reason.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration is of no use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something else of the client.
    #[error("the client of Redis: {0}")]
    Client(String),
    /// No thread, or no runtime on it.
    #[error("the thread of the presence store: {0}")]
    Thread(#[from] std::io::Error),
}

/// What the store did, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Whether answers may be wrong now.
    pub is_stale: AtomicBool,
    /// Turns that were answered.
    pub turns: AtomicU64,
    /// Turns that failed; what they stated is stated again.
    pub turns_failed: AtomicU64,
    /// Connections that were made again.
    pub reconnects: AtomicU64,
    /// Signals that were not sent.
    pub signals_dropped: AtomicU64,
    /// Rate limits that this process decided alone.
    pub takes_local: AtomicU64,
    /// Times that news came faster than they were looked at.
    pub news_missed: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// What the outside and the driver share.
#[derive(Default)]
struct Desk {
    notify: Arc<Notify>,
    arrivals: Mutex<Vec<Arc<Shared>>>,
    is_closed: AtomicBool,
    counters: Arc<Counters>,
}

/// This process's part of the presence that several processes share.
pub struct RedisPresence {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for RedisPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPresence").field("counters", &self.desk.counters).finish_non_exhaustive()
    }
}

impl RedisPresence {
    /// Starts the thread. Handles may be made at once, also while Redis is away.
    pub fn start(config: &RedisConfig) -> Result<Self, StartError> {
        let client = client(config)?;
        let desk = Arc::new(Desk::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (keys, timing, shared) = (Keys::new(config.namespace.clone()), config.timing, desk.clone());
        let thread = std::thread::Builder::new().name("presence".into()).spawn(move || {
            runtime.block_on(async { Driver::new(client, keys, timing, shared).run().await });
            // What is under way is of no use to anybody any more.
            runtime.shutdown_background();
        })?;
        Ok(Self { desk, thread: Some(thread) })
    }

    /// A handle, for one shard. `wake` is called on the driver's thread when it has events.
    pub fn handle(&self, wake: Arc<dyn Fn() + Send + Sync>) -> RedisHandle {
        let shared = Shared::new(wake as Wake, self.desk.notify.clone());
        self.desk.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(shared.clone());
        self.desk.notify.notify_one();
        RedisHandle::new(shared)
    }

    /// What it did so far.
    pub fn counters(&self) -> Arc<Counters> {
        self.desk.counters.clone()
    }
}

impl Drop for RedisPresence {
    fn drop(&mut self) {
        self.desk.is_closed.store(true, Ordering::Relaxed);
        self.desk.notify.notify_one();
        // A panic of the thread was printed by it.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn client(config: &RedisConfig) -> Result<Client, StartError> {
    let timing = config.timing;
    let max_delay_ms = RECONNECT_AFTER_MAX.as_millis() as u32;
    let mut builder = Builder::from_config(config.to_client()?);
    builder.set_policy(ReconnectPolicy::new_exponential(0, 20, max_delay_ms, 2));
    builder.with_performance_config(|performance| {
        performance.default_command_timeout = timing.command_timeout;
        performance.broadcast_channel_capacity = RECEIVED_MAX;
    });
    builder.with_connection_config(|connection| {
        connection.connection_timeout = timing.command_timeout;
        connection.internal_command_timeout = timing.command_timeout;
        // Whoever asked asks again; a command that is sent twice by itself would be one too many.
        connection.max_command_attempts = 1;
        connection.reconnect_on_auth_error = true;
        connection.unresponsive =
            UnresponsiveConfig { max_timeout: Some(timing.stale_after), interval: timing.command_timeout };
    });
    builder.build().map_err(|error| StartError::Client(error.to_string()))
}

/// What became of something under way.
enum Done {
    Turn { turn: Turn, result: Result<Value, Error> },
    Taken { handle: u64, token: Token, take: Take, result: Result<Value, Error> },
    Sent(Result<(), Error>),
    Subscribed(Result<(), Error>),
    SubscribedToNews { attempt: u64, result: Result<(), Error> },
}

struct Driver {
    client: Client,
    keys: Keys,
    timing: Timing,
    desk: Arc<Desk>,
    ledger: Ledger,
    handles: BTreeMap<u64, Arc<Shared>>,
    last_handle: u64,
    local_buckets: Buckets,
    signals: VecDeque<(LogKey, Bytes)>,
    signals_under_way: usize,
    takes_under_way: usize,
    /// Number of the last attempt to subscribe to news; an older one's result is of no interest.
    subscribing: u64,
    resubscribe_at_ms: u64,
    last_error: Option<Error>,
    begun: Instant,
    scripts: Arc<(Script, Script)>,
    done: mpsc::UnboundedSender<Done>,
    results: mpsc::UnboundedReceiver<Done>,
}

impl Driver {
    fn new(client: Client, keys: Keys, timing: Timing, desk: Arc<Desk>) -> Self {
        // Unbounded in type; bounded by what may be under way at once.
        let (done, results) = mpsc::unbounded_channel();
        Self {
            client,
            keys,
            timing,
            desk,
            ledger: Ledger::new(timing, Uuid::new_v4().simple().to_string(), 0),
            handles: BTreeMap::new(),
            last_handle: 0,
            local_buckets: Buckets::default(),
            signals: VecDeque::new(),
            signals_under_way: 0,
            takes_under_way: 0,
            subscribing: 0,
            resubscribe_at_ms: 0,
            last_error: None,
            begun: Instant::now(),
            scripts: Arc::new((Script::turn(), Script::take())),
            done,
            results,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Until the store is dropped.
    async fn run(&mut self) {
        let mut received = self.client.message_rx();
        let mut reconnected = self.client.reconnect_rx();
        let mut failed = self.client.error_rx();
        let _connection = self.client.connect();
        let mut ticks = tokio::time::interval(self.timing.tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let notify = self.desk.notify.clone();
        while !self.desk.is_closed.load(Ordering::Relaxed) {
            tokio::select! {
                Some(done) = self.results.recv() => self.finish(done),
                // A connection that was made again has forgotten its subscriptions.
                event = reconnected.recv() => {
                    if event.is_ok() {
                        Counters::add(&self.desk.counters.reconnects, 1);
                    }
                    self.ledger.set_subscribed(false);
                    self.subscribe_to_news();
                    self.subscribe_to_signals();
                }
                failure = failed.recv() => {
                    if let Ok((error, _)) = failure {
                        self.last_error = Some(error);
                    }
                }
                message = received.recv() => self.receive(message),
                _ = ticks.tick() => self.tick(),
                () = notify.notified() => self.take_inboxes(),
            }
            self.begin();
            self.say_health();
        }
    }

    /// Tells metrics and the journal whether answers are right, once when it changes.
    fn say_health(&mut self) {
        let is_stale = self.ledger.is_stale();
        if self.desk.counters.is_stale.swap(is_stale, Ordering::Relaxed) == is_stale {
            return;
        }
        match (is_stale, self.last_error.take()) {
            (true, Some(error)) => tracing::warn!(%error, "presence is unknown: Redis is away"),
            (true, None) => tracing::warn!("presence is unknown: Redis does not answer"),
            (false, _) => tracing::info!("presence is known again"),
        }
    }

    fn tick(&mut self) {
        let now_ms = self.now_ms();
        self.ledger.tick(now_ms);
        if self.resubscribe_at_ms <= now_ms {
            self.subscribe_to_news();
            // A cluster that moves a slot drops its subscriptions without a word.
            if self.client.is_clustered() || !self.ledger.is_subscribed() {
                self.subscribe_to_signals();
            }
        }
    }

    fn take_inboxes(&mut self) {
        let arrivals = std::mem::take(&mut *self.desk.arrivals.lock().unwrap_or_else(PoisonError::into_inner));
        for shared in arrivals {
            self.last_handle += 1;
            self.ledger.attach(self.last_handle, shared.clone());
            self.handles.insert(self.last_handle, shared);
        }
        let handles: Vec<(u64, Arc<Shared>)> = self.handles.iter().map(|(id, shared)| (*id, shared.clone())).collect();
        for (id, shared) in handles {
            let inbox = shared.take_inbox();
            for (seat, look) in inbox.seats {
                self.ledger.state(id, seat, look);
            }
            for (user, is_watched) in inbox.watches {
                match is_watched {
                    true => self.ledger.watch(id, user),
                    false => self.ledger.unwatch(id, &user),
                }
            }
            for (log, is_subscribed) in inbox.subscriptions {
                let change = match is_subscribed {
                    true => self.ledger.subscribe(id, log),
                    false => self.ledger.unsubscribe(id, log),
                };
                change.into_iter().for_each(|change| self.change_subscription(change));
            }
            for (token, question) in inbox.questions {
                match question {
                    Question::Take(take) => self.take(id, token, take),
                    question => self.ledger.ask(id, token, question),
                }
            }
            self.queue_signals(inbox.signals, inbox.signals_dropped);
            if inbox.is_detached {
                self.handles.remove(&id);
                let ended = self.ledger.detach(id);
                ended.into_iter().for_each(|change| self.change_subscription(change));
            }
        }
    }

    fn queue_signals(&mut self, signals: VecDeque<(LogKey, Bytes)>, dropped: u64) {
        self.signals.extend(signals);
        let over = self.signals.len().saturating_sub(SIGNALS_MAX);
        // While the store is away nobody hears them, and afterwards they are old.
        let over = if self.ledger.is_stale() { self.signals.len() } else { over };
        self.signals.drain(..over);
        Counters::add(&self.desk.counters.signals_dropped, dropped + over as u64);
    }

    /// Begins what may begin.
    fn begin(&mut self) {
        let now_ms = self.now_ms();
        while let Some(turn) = self.ledger.begin_turn(now_ms) {
            let fresh_id = Uuid::new_v4().simple().to_string();
            let arguments =
                turn::arguments(&self.timing, self.ledger.process(), turn.number, fresh_id, &turn.statements);
            let key = self.keys.bucket(turn.bucket);
            let (client, scripts) = (self.client.clone(), self.scripts.clone());
            self.spawn(async move {
                let result = scripts.0.call(&client, key, arguments).await;
                Done::Turn { turn, result }
            });
        }
        while self.signals_under_way < SIGNALS_UNDER_WAY_MAX
            && let Some((log, payload)) = self.signals.pop_front()
        {
            self.signals_under_way += 1;
            let (client, channel) = (self.client.clone(), self.keys.signals(log));
            self.spawn(async move { Done::Sent(client.spublish(channel, Value::Bytes(payload)).await) });
        }
    }

    fn spawn(&self, work: impl Future<Output = Done> + Send + 'static) {
        let done = self.done.clone();
        tokio::spawn(async move {
            // Nobody listens once the store is dropped.
            let _ = done.send(work.await);
        });
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Turn { turn, result } => self.finish_turn(&turn, result),
            Done::Taken { handle, token, take, result } => self.finish_take(handle, token, &take, result),
            Done::Sent(result) => {
                self.signals_under_way -= 1;
                Counters::add(&self.desk.counters.signals_dropped, u64::from(result.is_err()));
            }
            // The next attempt at all of them comes soon.
            Done::Subscribed(result) => {
                if result.is_err() {
                    self.resubscribe_at_ms = self.now_ms() + self.timing.beat.as_millis() as u64;
                }
            }
            Done::SubscribedToNews { attempt, result } => self.finish_subscribing(attempt, result),
        }
    }

    fn finish_turn(&mut self, turn: &Turn, result: Result<Value, Error>) {
        let answer = result.map_err(|error| self.last_error = Some(error)).ok();
        let parsed = answer.as_ref().and_then(|answer| turn::parse_answer(answer, &turn.statements));
        if let (Some(answer), None) = (&answer, &parsed) {
            tracing::debug!(?answer, "a turn that was late, or is not understood");
        }
        let counters = &self.desk.counters;
        Counters::add(if parsed.is_some() { &counters.turns } else { &counters.turns_failed }, 1);
        self.ledger.answered(self.now_ms(), turn.bucket, turn.number, parsed);
    }

    fn take(&mut self, handle: u64, token: Token, take: Take) {
        if self.ledger.is_stale() || self.takes_under_way >= QUESTIONS_MAX {
            return self.take_local(handle, token, &take);
        }
        self.takes_under_way += 1;
        let key = self.keys.rate(&take);
        let arguments = [take.cost, take.per_second, take.burst].map(|n| Value::from(i64::from(n))).to_vec();
        let (client, scripts) = (self.client.clone(), self.scripts.clone());
        self.spawn(async move {
            let result = scripts.1.call(&client, key, arguments).await;
            Done::Taken { handle, token, take, result }
        });
    }

    fn finish_take(&mut self, handle: u64, token: Token, take: &Take, result: Result<Value, Error>) {
        self.takes_under_way -= 1;
        let retry = result.ok().and_then(|answer| answer.as_string());
        let verdict =
            retry.and_then(|retry| if retry.is_empty() { Some(None) } else { Some(Some(retry.parse().ok()?)) });
        match verdict {
            Some(retry_after_ms) => {
                self.ledger.answer(handle, token, Ok(Answer::Verdict { retry_after_ms, is_local: false }));
            }
            None => self.take_local(handle, token, take),
        }
    }

    fn take_local(&mut self, handle: u64, token: Token, take: &Take) {
        Counters::add(&self.desk.counters.takes_local, 1);
        let retry_after_ms = self.local_buckets.take(self.now_ms(), take);
        self.ledger.answer(handle, token, Ok(Answer::Verdict { retry_after_ms, is_local: true }));
    }

    fn change_subscription(&self, change: Change) {
        let client = self.client.clone();
        match change {
            Change::Begins(log) => {
                let channel = self.keys.signals(log);
                self.spawn(async move { Done::Subscribed(client.ssubscribe(channel).await) });
            }
            Change::Ends(log) => {
                let channel = self.keys.signals(log);
                self.spawn(async move { Done::Subscribed(client.sunsubscribe(channel).await) });
            }
        }
    }

    /// Asks for the news of every bucket, whether or not they come already.
    fn subscribe_to_news(&mut self) {
        self.resubscribe_at_ms = self.now_ms() + self.timing.resubscribe.as_millis() as u64;
        self.subscribing += 1;
        let attempt = self.subscribing;
        let channels: Vec<String> = (0..BUCKETS).map(|bucket| self.keys.news(bucket)).collect();
        let client = self.client.clone();
        self.spawn(async move { Done::SubscribedToNews { attempt, result: subscribe(&client, channels).await } });
    }

    /// Asks for the signals of every log with subscribers.
    fn subscribe_to_signals(&self) {
        let channels: Vec<String> = self.ledger.subscriptions().map(|log| self.keys.signals(log)).collect();
        let client = self.client.clone();
        self.spawn(async move { Done::Subscribed(subscribe(&client, channels).await) });
    }

    fn finish_subscribing(&mut self, attempt: u64, result: Result<(), Error>) {
        if attempt != self.subscribing {
            return;
        }
        match result {
            Ok(()) if self.ledger.is_subscribed() => {}
            Ok(()) => self.ledger.set_subscribed(true),
            Err(error) => {
                self.last_error = Some(error);
                self.ledger.set_subscribed(false);
                self.resubscribe_at_ms = self.now_ms() + self.timing.beat.as_millis() as u64;
            }
        }
    }

    fn receive(&mut self, message: Result<Message, broadcast::error::RecvError>) {
        let Ok(message) = message else {
            Counters::add(&self.desk.counters.news_missed, 1);
            return self.ledger.missed_news();
        };
        let payload = message.value.as_bytes().map(Bytes::copy_from_slice).unwrap_or_default();
        if let Some(bucket) = self.keys.parse_news(&message.channel) {
            let news = std::str::from_utf8(&payload).ok().and_then(turn::parse_news);
            match news {
                Some(news) => self.ledger.news(bucket, news),
                None => tracing::debug!(channel = %message.channel, "news that are not understood"),
            }
        } else if let Some(log) = self.keys.parse_signals(&message.channel)
            && let Some(change) = self.ledger.signal(log, &payload)
        {
            self.change_subscription(change);
        }
    }
}

/// Each channel is in a slot of its own, so each has a command of its own; many are under way at once.
async fn subscribe(client: &Client, channels: Vec<String>) -> Result<(), Error> {
    const AT_ONCE: usize = 128;
    let mut under_way = JoinSet::new();
    let mut outcome = Ok(());
    for channel in channels {
        if under_way.len() >= AT_ONCE {
            outcome = outcome.and(joined(under_way.join_next().await));
        }
        let client = client.clone();
        under_way.spawn(async move { client.ssubscribe(channel).await });
    }
    while !under_way.is_empty() {
        outcome = outcome.and(joined(under_way.join_next().await));
    }
    outcome
}

fn joined(result: Option<Result<Result<(), Error>, JoinError>>) -> Result<(), Error> {
    match result {
        Some(Err(stopped)) => Err(Error::new(ErrorKind::Canceled, stopped.to_string())),
        Some(Ok(result)) => result,
        None => Ok(()),
    }
}
