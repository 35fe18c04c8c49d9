//! The thread that talks to Redis: performs what the ledger begins, and feeds it answers, news and the time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError, atomic::Ordering},
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
    prelude::{Client, ClientLike, Error, ErrorKind, EventInterface},
    types::{Message, Value},
};
use tokio::{
    sync::{broadcast, mpsc},
    task::{JoinError, JoinSet},
    time::MissedTickBehavior,
};
use uuid::Uuid;

use crate::{
    config::Timing,
    counters::Counters,
    handle::Shared,
    keys::{BUCKETS, Keys},
    ledger::{Change, Ledger, Turn},
    script::Script,
    store::Door,
    turn,
};

/// Signals that are being sent. Further ones wait in [`SIGNALS_MAX`].
const SIGNALS_UNDER_WAY_MAX: usize = 256;
/// What became of something under way.
enum Done {
    Turn { turn: Turn, result: Result<Value, Error> },
    Taken { handle: u64, token: Token, take: Take, result: Result<Value, Error> },
    Sent(Result<(), Error>),
    Subscribed(Result<(), Error>),
    SubscribedToNews { attempt: u64, result: Result<(), Error> },
}

pub(crate) struct Driver {
    client: Client,
    keys: Keys,
    timing: Timing,
    door: Arc<Door>,
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
    was_stale: bool,
    begun: Instant,
    scripts: Arc<(Script, Script)>,
    done: mpsc::UnboundedSender<Done>,
    results: mpsc::UnboundedReceiver<Done>,
}

impl Driver {
    pub(crate) fn new(client: Client, keys: Keys, timing: Timing, door: Arc<Door>) -> Self {
        // Unbounded in type; bounded by what may be under way at once.
        let (done, results) = mpsc::unbounded_channel();
        let process = Uuid::new_v4().simple().to_string();
        let ledger = Ledger::new(timing, process, 0, door.counters.clone());
        Self {
            client,
            keys,
            timing,
            door,
            ledger,
            handles: BTreeMap::new(),
            last_handle: 0,
            local_buckets: Buckets::default(),
            signals: VecDeque::new(),
            signals_under_way: 0,
            takes_under_way: 0,
            subscribing: 0,
            resubscribe_at_ms: 0,
            last_error: None,
            was_stale: false,
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
    pub(crate) async fn run(&mut self) {
        let mut received = self.client.message_rx();
        let mut reconnected = self.client.reconnect_rx();
        let mut failed = self.client.error_rx();
        let _connection = self.client.connect();
        let mut ticks = tokio::time::interval(self.timing.tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let notify = self.door.notify.clone();
        while !self.door.is_closed.load(Ordering::Relaxed) {
            tokio::select! {
                Some(done) = self.results.recv() => self.finish(done),
                // A connection that was made again has forgotten its subscriptions.
                event = reconnected.recv() => {
                    if event.is_ok() {
                        Counters::add(&self.door.counters.reconnects, 1);
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

    /// Tells the journal whether answers are right, once when it changes.
    fn say_health(&mut self) {
        let is_stale = self.ledger.is_stale();
        if std::mem::replace(&mut self.was_stale, is_stale) == is_stale {
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
        let arrivals = std::mem::take(&mut *self.door.arrivals.lock().unwrap_or_else(PoisonError::into_inner));
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
        Counters::add(&self.door.counters.signals_dropped, dropped + over as u64);
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
                Counters::add(&self.door.counters.signals_dropped, u64::from(result.is_err()));
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
        let counters = &self.door.counters;
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
        Counters::add(&self.door.counters.takes_local, 1);
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
            Counters::add(&self.door.counters.news_missed, 1);
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
