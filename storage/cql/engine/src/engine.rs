//! The engine: one shard's logs on the cluster.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use antiphon_protocol::LogKey;
use antiphon_storage_contract::{Completion, Op, Outcome, StoreError, Token};

use crate::{
    bucket::{BucketId, Gone},
    cleanup::Cleanups,
    hydration::{Hydration, Progress},
    limits::{LOGS_IN_DOUBT_MAX, LOGS_KNOWN_MAX, REQUESTS_IN_FLIGHT_MAX},
    log::{Known, Log, State},
    reading::{Next, Reading, loaded},
    request::{Failure, Reply, Request, RequestId},
    writing::{Active, Step, Write, carried_out, needs_known, plan, put_records},
};

/// The owner's turn at the logs. A broker begins one each time it takes them over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Greater than that of every owner before; at least 1, below 2^31.
    pub number: u64,
    /// Timestamps of this term are greater; every earlier term's are at most this. Microseconds.
    pub stamps_after: i64,
    /// History generation of every log; see [`antiphon_protocol::Position`].
    pub epoch: u32,
}

/// What the engine has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests to the cluster.
    pub requests: u64,
    /// Requests that were given up.
    pub failures: u64,
    /// Appends to the cluster; each holds what waited for its log.
    pub appends: u64,
    /// Rows in them.
    pub rows: u64,
    /// Reads of rows by the broker.
    pub pages: u64,
    /// Partitions asked for them.
    pub page_partitions: u64,
    /// Times that were looked for.
    pub searches: u64,
    /// Requests for that.
    pub search_requests: u64,
    /// Partitions asked for that.
    pub search_partitions: u64,
    /// Buckets that were opened.
    pub buckets: u64,
    /// Logs that were taken up.
    pub hydrations: u64,
    /// Answers that lacked a row which must be there; every replica was asked then.
    pub misses: u64,
}

/// Whose answer a request brings.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Hydrate(LogKey, u64),
    Write(LogKey),
    Read(u64),
    Clean,
}

/// What leaves the engine.
#[derive(Debug)]
pub(crate) struct Outbox {
    term: Term,
    now: i64,
    last_stamp: i64,
    next_bucket: u32,
    requests: VecDeque<(RequestId, Request)>,
    in_flight: BTreeMap<RequestId, Purpose>,
    next_request: u64,
    completions: Vec<Completion>,
    counters: Counters,
}

impl Outbox {
    /// A timestamp above every one before.
    pub(crate) fn stamp(&mut self) -> i64 {
        self.last_stamp = self.now.max(self.last_stamp + 1);
        self.last_stamp
    }

    /// A name for a bucket, never given before.
    pub(crate) fn next_bucket(&mut self) -> BucketId {
        self.next_bucket += 1;
        self.counters.buckets += 1;
        BucketId::new(self.term.number, self.next_bucket)
    }

    /// Rows are about to be written together.
    pub(crate) fn count_append(&mut self, rows: usize) {
        self.counters.appends += 1;
        self.counters.rows += rows as u64;
    }

    fn ask(&mut self, request: Request, purpose: Purpose) {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.counters.requests += 1;
        self.in_flight.insert(id, purpose);
        self.requests.push_back((id, request));
    }

    fn complete(&mut self, token: Token, result: Result<Outcome, StoreError>) {
        self.completions.push(Completion { token, result });
    }
}

/// One shard's part of a store on a cluster.
///
/// Call [`Self::submit`] for operations and [`Self::answered`] for answers, then [`Self::poll_request`] until it has none,
/// then [`Self::poll_completions`]. Between calls nothing happens.
#[derive(Debug)]
pub struct Engine {
    out: Outbox,
    logs: BTreeMap<LogKey, Log>,
    /// Every known log once; the front is the next to be forgotten.
    clock: VecDeque<LogKey>,
    /// Logs with something to do.
    queue: VecDeque<LogKey>,
    readings: BTreeMap<u64, Reading>,
    next_reading: u64,
    /// Logs whose last append in this term has an unknown outcome.
    in_doubt: BTreeSet<LogKey>,
    /// Buckets of this term up to this number are in doubt, whatever their log.
    in_doubt_through: u32,
    cleanups: Cleanups,
}

impl Engine {
    /// An owner's engine at the beginning of its term.
    pub fn new(term: Term) -> Self {
        Self {
            out: Outbox {
                term,
                now: 0,
                last_stamp: term.stamps_after,
                next_bucket: 0,
                requests: VecDeque::new(),
                in_flight: BTreeMap::new(),
                next_request: 0,
                completions: Vec::new(),
                counters: Counters::default(),
            },
            logs: BTreeMap::new(),
            clock: VecDeque::new(),
            queue: VecDeque::new(),
            readings: BTreeMap::new(),
            next_reading: 0,
            in_doubt: BTreeSet::new(),
            in_doubt_through: 0,
            cleanups: Cleanups::default(),
        }
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.out.counters
    }

    /// The greatest timestamp so far, microseconds.
    pub fn last_stamp(&self) -> i64 {
        self.out.last_stamp
    }

    /// Begins an operation.
    pub fn submit(&mut self, op: Op, token: Token) {
        match &op {
            Op::GetRecord { .. } | Op::ScanRecords { .. } => self.begin_read(Reading::new(op, token)),
            Op::Load { .. } | Op::Read { .. } | Op::FindTime { .. } | Op::FindDuplicate { .. } => {
                let key = op.log();
                self.out.counters.pages += u64::from(matches!(op, Op::Read { .. }));
                self.out.counters.searches += u64::from(matches!(op, Op::FindTime { .. }));
                self.log(key).reads.push_back((op, token));
                self.enqueue(key);
            }
            _ => {
                let key = op.log();
                self.log(key).writes.push_back((op, token));
                self.enqueue(key);
            }
        }
    }

    /// The next request to carry out, if there is one and not too many are under way. `now_us` is the wall clock, Unix
    /// microseconds; it may jump.
    pub fn poll_request(&mut self, now_us: i64) -> Option<(RequestId, Request)> {
        self.out.now = now_us;
        loop {
            if self.out.in_flight.len() - self.out.requests.len() >= REQUESTS_IN_FLIGHT_MAX {
                return None;
            }
            if let Some(next) = self.out.requests.pop_front() {
                return Some(next);
            }
            if let Some(key) = self.queue.pop_front() {
                self.advance(key);
            } else if let Some(request) = self.cleanups.next() {
                self.out.ask(request, Purpose::Clean);
            } else {
                return None;
            }
        }
    }

    /// Takes in what came of a request.
    pub fn answered(&mut self, id: RequestId, result: Result<Reply, Failure>) {
        let Some(purpose) = self.out.in_flight.remove(&id) else { return };
        self.out.counters.failures += u64::from(result.is_err());
        match purpose {
            Purpose::Hydrate(key, attempt) => self.hydrated(key, attempt, result),
            Purpose::Write(key) => self.written(key, result),
            Purpose::Read(number) => self.read(number, result),
            Purpose::Clean => self.cleanups.take(result.ok()),
        }
    }

    /// Moves the completions that are ready into `completions`, oldest first.
    pub fn poll_completions(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.out.completions);
    }

    fn log(&mut self, key: LogKey) -> &mut Log {
        if self.clock.len() >= LOGS_KNOWN_MAX && !self.logs.contains_key(&key) {
            self.forget_one();
            self.forget_one();
        }
        let clock = &mut self.clock;
        let log = self.logs.entry(key).or_insert_with(|| {
            clock.push_back(key);
            Log::default()
        });
        log.is_recently_used = true;
        log
    }

    fn forget_one(&mut self) {
        let Some(key) = self.clock.pop_front() else { return };
        let Some(log) = self.logs.get_mut(&key) else { return };
        if log.is_quiet() && !log.is_recently_used {
            self.logs.remove(&key);
        } else {
            log.is_recently_used = false;
            self.clock.push_back(key);
        }
    }

    fn enqueue(&mut self, key: LogKey) {
        if let Some(log) = self.logs.get_mut(&key)
            && !log.is_queued
        {
            log.is_queued = true;
            self.queue.push_back(key);
        }
    }

    /// Begins what a log can begin now.
    fn advance(&mut self, key: LogKey) {
        let Some(log) = self.logs.get_mut(&key) else { return };
        log.is_queued = false;
        let wants_known = !log.reads.is_empty() || log.writes.front().is_some_and(|(op, _)| needs_known(op));
        if matches!(log.state, State::Unknown) && wants_known {
            self.hydrate(key);
        }
        self.begin_reads(key);
        self.begin_write(key);
    }

    fn hydrate(&mut self, key: LogKey) {
        self.out.counters.hydrations += 1;
        let attempt = self.out.counters.hydrations;
        for request in Hydration::first_requests(key) {
            self.out.ask(request, Purpose::Hydrate(key, attempt));
        }
        self.log(key).state = State::Loading(Box::new(Hydration::new(attempt)));
    }

    fn hydrated(&mut self, key: LogKey, attempt: u64, result: Result<Reply, Failure>) {
        let Some(Log { state: State::Loading(hydration), .. }) = self.logs.get_mut(&key) else { return };
        // The other answer of an attempt that failed.
        if hydration.attempt() != attempt {
            return;
        }
        let progress = result.map_err(unavailable).and_then(|reply| hydration.take(key, reply));
        match progress {
            Ok(Progress::Waits) => {}
            Ok(Progress::Asks(request)) => self.out.ask(request, Purpose::Hydrate(key, attempt)),
            Ok(Progress::Finished(known, ended)) => self.take_up(key, known, ended),
            Err(error) => self.fail(key, &error),
        }
    }

    /// A log is known now.
    fn take_up(&mut self, key: LogKey, mut known: Box<Known>, ended: Vec<Gone>) {
        let newest = known.buckets.newest().map(|bucket| bucket.id);
        if newest.is_some_and(|newest| newest.term() > self.out.term.number) {
            return self.fail(key, &StoreError::Unavailable("another owner has taken the log over".into()));
        }
        known.is_in_doubt = newest.is_some_and(|newest| {
            newest.term() < self.out.term.number
                || newest.number() <= self.in_doubt_through
                || self.in_doubt.contains(&key)
        });
        if !known.is_in_doubt {
            known.unsettled = Vec::new();
            // While it is in doubt, a majority may not know of the bucket that covers these.
            for gone in ended {
                self.cleanups.add(key, gone, self.out.last_stamp);
            }
        }
        if let Some(log) = self.logs.get_mut(&key) {
            log.state = State::Known(known);
        }
        self.enqueue(key);
    }

    /// The log cannot be taken up, or its last append is in doubt: refuses everything that waits.
    fn fail(&mut self, key: LogKey, error: &StoreError) {
        let Some(log) = self.logs.get_mut(&key) else { return };
        log.state = State::Unknown;
        for (_, token) in log.writes.drain(..).chain(log.reads.drain(..)) {
            self.out.complete(token, Err(error.clone()));
        }
    }

    fn begin_write(&mut self, key: LogKey) {
        loop {
            let Some(log) = self.logs.get_mut(&key) else { return };
            if log.active.is_some() {
                return;
            }
            let is_next_known = log.writes.front().is_some_and(|(op, _)| needs_known(op));
            let step = match &mut log.state {
                State::Known(known) => plan(key, known, &mut log.writes, &mut self.out),
                _ if log.writes.is_empty() || is_next_known => return,
                _ => put_records(key, &mut log.writes, &mut self.out),
            };
            match step {
                Step::Idle => return,
                Step::Answer(result) => {
                    if let Some((_, token)) = log.writes.pop_front() {
                        self.out.complete(token, result);
                    }
                }
                Step::Start(write, requests) => {
                    log.active = Some(Active { write, outstanding: requests.len(), failure: None });
                    if requests.is_empty() {
                        self.finish_write(key);
                    }
                    for request in requests {
                        self.out.ask(request, Purpose::Write(key));
                    }
                }
            }
        }
    }

    fn written(&mut self, key: LogKey, result: Result<Reply, Failure>) {
        let Some(log) = self.logs.get_mut(&key) else { return };
        let Some(active) = &mut log.active else { return };
        active.outstanding -= 1;
        let result = result.map_err(unavailable);
        if let (Write::Open(opening), State::Known(known)) = (&mut active.write, &log.state) {
            let next = result.and_then(|reply| opening.take(reply)).map(|()| {
                let at = self.out.stamp();
                opening.next(key, known, at)
            });
            match next {
                Ok(Some(Ok(request))) => {
                    active.outstanding += 1;
                    return self.out.ask(request, Purpose::Write(key));
                }
                Ok(None) => {}
                Ok(Some(Err(error))) | Err(error) => active.failure = Some(error),
            }
        } else if let Err(error) = result {
            active.failure.get_or_insert(error);
        }
        if active.outstanding == 0 {
            self.finish_write(key);
        }
    }

    /// Every request of a log's write has its answer.
    fn finish_write(&mut self, key: LogKey) {
        let Some(log) = self.logs.get_mut(&key) else { return };
        let Some(Active { write, failure, .. }) = log.active.take() else { return };
        let result = failure.map_or(Ok(Outcome::Done), Err);
        for token in write.tokens() {
            self.out.complete(*token, result.clone());
        }
        match result {
            Ok(_) => {
                if write.leaves_doubt() {
                    self.in_doubt.remove(&key);
                }
                if let State::Known(known) = &mut log.state {
                    let at = self.out.stamp();
                    for gone in carried_out(write, known) {
                        self.cleanups.add(key, gone, at);
                    }
                }
            }
            Err(error) if write.leaves_doubt() => {
                self.doubt(key);
                self.fail(key, &error);
            }
            // What was submitted after it may rest on it.
            Err(error) => {
                for (_, token) in log.writes.drain(..) {
                    self.out.complete(token, Err(error.clone()));
                }
            }
        }
        self.enqueue(key);
    }

    fn doubt(&mut self, key: LogKey) {
        if self.in_doubt.len() >= LOGS_IN_DOUBT_MAX {
            self.in_doubt.clear();
            self.in_doubt_through = self.out.next_bucket;
        }
        self.in_doubt.insert(key);
    }

    /// Begins the reads that waited for a log to be known.
    fn begin_reads(&mut self, key: LogKey) {
        let Some(log) = self.logs.get_mut(&key) else { return };
        if log.readable().is_none() {
            return;
        }
        let State::Known(known) = &mut log.state else { return };
        let mut reads = std::mem::take(&mut log.reads);
        // What was just read to take the log up answers the first one who asks for it.
        if let Some(fresh) = known.fresh.take()
            && let Some(at) = reads.iter().position(|(op, _)| matches!(op, Op::Load { .. }))
            && let Some((_, token)) = reads.remove(at)
        {
            let outcome = loaded(known, self.out.term.epoch, fresh.checkpoint, fresh.tail);
            self.out.complete(token, Ok(outcome));
        }
        for (op, token) in reads {
            self.begin_read(Reading::new(op, token));
        }
    }

    fn begin_read(&mut self, reading: Reading) {
        let number = self.next_reading;
        self.next_reading += 1;
        self.readings.insert(number, reading);
        self.go_on_reading(number);
    }

    fn go_on_reading(&mut self, number: u64) {
        let Some(reading) = self.readings.get_mut(&number) else { return };
        let known = self.logs.get(&reading.op.log()).and_then(Log::readable);
        match reading.next(known, self.out.term.epoch) {
            Next::Asks(request) => {
                let (counters, is_other) = (&mut self.out.counters, reading.changes_partition(&request));
                match reading.op {
                    Op::Read { .. } => counters.page_partitions += 1,
                    Op::FindTime { .. } => {
                        counters.search_requests += 1;
                        counters.search_partitions += u64::from(is_other);
                    }
                    _ => {}
                }
                self.out.ask(request, Purpose::Read(number));
            }
            Next::Answers(result) => {
                self.out.complete(reading.token, result);
                self.readings.remove(&number);
            }
            Next::Waits => {
                if let Some(Reading { op, token, .. }) = self.readings.remove(&number) {
                    let key = op.log();
                    self.log(key).reads.push_back((op, token));
                    self.enqueue(key);
                }
            }
        }
    }

    fn read(&mut self, number: u64, result: Result<Reply, Failure>) {
        let Some(reading) = self.readings.get_mut(&number) else { return };
        let known = self.logs.get(&reading.op.log()).and_then(Log::readable);
        let result = result.map_err(unavailable);
        let finished = match result {
            Ok(reply) => reading.take(reply, known),
            Err(error) => Some(Err(error)),
        };
        self.out.counters.misses += u64::from(reading.has_missed());
        match finished {
            Some(result) => {
                self.out.complete(reading.token, result);
                self.readings.remove(&number);
            }
            None => self.go_on_reading(number),
        }
    }
}

fn unavailable(failure: Failure) -> StoreError {
    StoreError::Unavailable(failure.0)
}
