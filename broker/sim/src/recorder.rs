//! Listens to every application and tells the checker what it saw; judges at once what needs no history.

use antiphon_checker::{
    At, Attempt, Author, Checker, Instance, Log, Outcome, Row, Subscriber, User, Verdict, body_hash,
};
use antiphon_protocol::{Action, ErrorCode, LogName};
use antiphon_sdk_core::{
    Attached, ConnectionState, DetachReason, Event, From, Item, Output, Page, Receipt, RequestError, ResetReason,
    SendError, SendState, StopReason, SubscriptionId,
};
use antiphon_sdk_core::{CommandId, Outcome as Applied};
use uuid::Uuid;

use crate::{
    fading,
    person::{Asked, LogIndex, Outgoing, Person, Reader, Standing},
    stage::{ClientIndex, Stage},
    tokens::{MANAGER, OPEN_PREFIX},
};

/// The checker's number of the manager.
const MANAGER_NUMBER: u32 = 1_000;

/// Keeps the record of a run.
#[derive(Debug)]
pub(crate) struct Recorder {
    checker: Checker,
    /// Every log of the world.
    pub(crate) logs: Vec<LogName>,
    /// Newest position of each log that anybody has heard of.
    pub(crate) heads: Vec<u64>,
    /// Every client's application.
    pub(crate) people: Vec<Person>,
    /// What was wrong at once.
    pub(crate) violations: Vec<String>,
    instances: u32,
    subscribers: u32,
}

impl Recorder {
    /// Nothing has happened yet.
    pub(crate) fn new(logs: Vec<LogName>) -> Self {
        let heads = vec![0; logs.len()];
        Self {
            checker: Checker::new(),
            logs,
            heads,
            people: Vec::new(),
            violations: Vec::new(),
            instances: 0,
            subscribers: 0,
        }
    }

    /// Whether every user may read and write the log.
    pub(crate) fn is_open(&self, log: LogIndex) -> bool {
        self.logs[log.0].to_string().starts_with(OPEN_PREFIX)
    }

    /// Whether the log's events go after a while.
    pub(crate) fn is_fading(&self, log: LogIndex) -> bool {
        self.logs[log.0].to_string().starts_with(fading::PREFIX)
    }

    /// Adds an application.
    pub(crate) fn join(&mut self, user: u32) -> ClientIndex {
        let instance = self.next_instance();
        self.people.push(Person::new(user, instance));
        ClientIndex(self.people.len() - 1)
    }

    /// The application's process ends and another one begins: what was not answered stays unknown.
    pub(crate) fn restart(&mut self, at: At, client: ClientIndex) {
        let instance = self.next_instance();
        let person = &mut self.people[client.0];
        for outgoing in std::mem::take(&mut person.outgoing).into_values() {
            if let Some(op) = outgoing.op {
                self.checker.complete(at, op, Outcome::Unknown);
                person.lost.push(outgoing);
            }
        }
        person.readers.clear();
        person.asked.clear();
        person.requests.clear();
        person.standing = Standing::Connecting;
        person.life += 1;
        person.instance = instance;
    }

    fn next_instance(&mut self) -> Instance {
        self.instances += 1;
        Instance(self.instances)
    }

    fn next_subscriber(&mut self) -> Subscriber {
        self.subscribers += 1;
        Subscriber(self.subscribers)
    }

    /// A subscription was asked for.
    pub(crate) fn subscribe(&mut self, client: ClientIndex, id: SubscriptionId, log: LogIndex, from: From) {
        let subscriber = self.next_subscriber();
        let reader = Reader { subscriber, log, from, last: None, head: 0, is_attached: false };
        self.people[client.0].readers.insert(id, reader);
    }

    /// Notes something that should never be.
    pub(crate) fn violation(&mut self, stage: &mut Stage, client: Option<ClientIndex>, what: String) {
        let who = client.map_or_else(|| "world".to_owned(), |client| format!("client {}", client.0));
        let what = format!("at {:.6} s, {who}: {what}", stage.now.0 as f64 / 1e9);
        stage.saw(|| format!("VIOLATION {what}"));
        self.violations.push(what);
    }

    /// An application hears something.
    pub(crate) fn hear(&mut self, stage: &mut Stage, client: ClientIndex, output: Output) {
        match output {
            Output::State(state) => self.state(stage, client, state),
            Output::Send { id, state } => self.send(stage, client, id, state),
            Output::Subscription { id, item } => self.item(stage, client, id, item),
            Output::Page { id, result } => self.page(stage, client, id, result),
            Output::Answer { id, result } => {
                self.people[client.0].requests.remove(&id);
                if let Err(error) = result {
                    stage.saw(|| format!("client {} request {} failed: {error}", client.0, id.0));
                }
            }
            // The transport's, not the application's.
            Output::Connect | Output::Write(_) | Output::Close | Output::NeedToken | Output::Digest(_) => {}
            // Ephemeral: nothing is promised of it.
            Output::WriteSignal(_) | Output::Done { .. } | Output::Presence(_) => {}
            // Nobody asks for these here.
            Output::Messages { .. } => {}
        }
    }

    fn state(&mut self, stage: &mut Stage, client: ClientIndex, state: ConnectionState) {
        let person = &mut self.people[client.0];
        person.standing = match &state {
            ConnectionState::Connecting => Standing::Connecting,
            ConnectionState::Ready(_) => Standing::Ready,
            ConnectionState::Waiting { .. } | ConnectionState::Stopped(_) => Standing::Waiting,
        };
        if person.standing != Standing::Ready {
            person.readers.values_mut().for_each(|reader| reader.is_attached = false);
        }
        stage.saw(|| match &state {
            ConnectionState::Ready(session) => format!("client {} is ready, resumed {}", client.0, session.resumed),
            other => format!("client {} {other:?}", client.0),
        });
        if let ConnectionState::Stopped(reason) = state
            && reason != StopReason::Closed
        {
            self.violation(stage, Some(client), format!("an honest client was stopped: {reason}"));
        }
    }

    // ---- sends ----

    fn send(&mut self, stage: &mut Stage, client: ClientIndex, id: CommandId, state: SendState) {
        match state {
            SendState::Sending { client_message_id } => self.sending(stage, client, id, client_message_id),
            SendState::Sent(receipt) => self.sent(stage, client, id, receipt),
            SendState::Failed(error) => self.failed(stage, client, id, &error),
            SendState::Queued | SendState::Delivered | SendState::Read => {}
        }
    }

    fn sending(&mut self, stage: &mut Stage, client: ClientIndex, id: CommandId, message: Uuid) {
        let Some(log) = self.people[client.0].outgoing.get(&id).map(|outgoing| outgoing.log) else { return };
        // Where a sender can be removed and added again, a message whose refusal was lost may be stored after later
        // ones: no order is promised there.
        let instance = if self.is_open(log) { self.people[client.0].instance } else { self.next_instance() };
        let person = &mut self.people[client.0];
        let Some(outgoing) = person.outgoing.get_mut(&id) else { return };
        outgoing.id = Some(message);
        let author = Author { user: User(person.user), message: message.as_u128() };
        let attempt = Attempt { log: Log(log.0 as u32), author, instance, hash: outgoing.hash };
        outgoing.op = Some(self.checker.invoke(At(stage.now.0), attempt));
        stage.saw(|| format!("client {} sends {message} to log {}", client.0, log.0));
    }

    fn sent(&mut self, stage: &mut Stage, client: ClientIndex, id: CommandId, receipt: Receipt) {
        let Some(outgoing) = self.people[client.0].outgoing.remove(&id) else { return };
        let seq = receipt.position.seq;
        stage.tally.acked += 1;
        stage.tally.duplicates += u64::from(receipt.duplicate);
        stage.saw(|| {
            let id = receipt.client_message_id;
            format!("client {} has {id} at {seq} of log {}, repeated {}", client.0, outgoing.log.0, receipt.duplicate)
        });
        self.know(outgoing.log, seq);
        match outgoing.op {
            Some(op) => self.checker.complete(At(stage.now.0), op, Outcome::Ok { seq }),
            None => self.violation(stage, Some(client), "a message was acknowledged that was not sent".into()),
        }
    }

    fn failed(&mut self, stage: &mut Stage, client: ClientIndex, id: CommandId, error: &SendError) {
        let Some(Outgoing { op, log, id: message, .. }) = self.people[client.0].outgoing.remove(&id) else { return };
        stage.saw(|| format!("client {} send {} failed: {error}", client.0, id.0));
        let is_expired =
            matches!(error, SendError::Refused(refusal) if refusal.known() == Some(ErrorCode::DedupeExpired));
        let may_be_expired = is_expired && self.is_fading(log) && message.is_some_and(|id| fading::is_old(stage, id));
        let outcome = match error {
            // An earlier attempt of the same send may have been stored in a row that is gone.
            _ if is_expired => Outcome::Unknown,
            SendError::Refused(refusal) if refusal.outcome == Applied::NotApplied => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        if let Some(op) = op {
            self.checker.complete(At(stage.now.0), op, outcome);
        }
        // A member may have been removed; everything else is the broker's fault or the SDK's.
        let may_be_removed =
            !self.is_open(log) && matches!(error, SendError::Refused(refusal) if refusal.action() == Action::Forbidden);
        if !may_be_removed && !may_be_expired {
            self.violation(stage, Some(client), format!("an honest message failed: {error}"));
        }
    }

    fn know(&mut self, log: LogIndex, seq: u64) {
        self.heads[log.0] = self.heads[log.0].max(seq);
    }

    // ---- subscriptions ----

    fn item(&mut self, stage: &mut Stage, client: ClientIndex, id: SubscriptionId, item: Item) {
        let Some(reader) = self.people[client.0].readers.get_mut(&id) else { return };
        let (subscriber, log) = (reader.subscriber, reader.log);
        let checked = Log(log.0 as u32);
        match item {
            Item::Attached(attached) => self.attached(stage, client, id, &attached),
            Item::Event(event) => {
                let seq = event.seq();
                reader.last = Some(seq);
                self.people[client.0].kept.insert(log, seq);
                self.know(log, seq);
                stage.tally.delivered += 1;
                stage.saw(|| format!("client {} gets {seq} of log {}", client.0, log.0));
                self.checker.deliver(At(stage.now.0), subscriber, checked, row(&event));
            }
            Item::Skipped { first, last } => {
                reader.last = Some(last.seq);
                self.checker.skip(subscriber, checked, first.seq..=last.seq);
            }
            Item::Reset { reason, after } => {
                reader.last = Some(after.seq);
                stage.tally.resets += 1;
                self.checker.reset(subscriber, checked, after.seq + 1);
                if self.is_fading(log) && reason == ResetReason::HistoryGone {
                    self.know(log, after.seq);
                } else {
                    self.violation(stage, Some(client), format!("log {} was reset: {reason:?}", log.0));
                }
            }
            Item::Detached(reason) => self.detached(stage, client, id, &reason),
            Item::Cursor(_) | Item::Signal(_) => {}
        }
    }

    fn attached(&mut self, stage: &mut Stage, client: ClientIndex, id: SubscriptionId, attached: &Attached) {
        let Some(reader) = self.people[client.0].readers.get_mut(&id) else { return };
        let (after, head) = (attached.after.seq, attached.head.seq);
        let (log, before) = (reader.log, reader.last);
        let expected = before.unwrap_or(match reader.from {
            From::Tail => head,
            From::Position(position) => position.seq,
            From::Last(rows) => head.saturating_sub(rows.into()),
            From::Start => 0,
        });
        (reader.last, reader.head, reader.is_attached) = (Some(after), head, true);
        if before.is_none() {
            self.checker.subscribe(reader.subscriber, Log(log.0 as u32), after + 1);
        } else {
            stage.tally.resumed += 1;
        }
        stage.tally.missed += head.saturating_sub(expected);
        stage.saw(|| format!("client {} attached to log {} after {after}, head {head}", client.0, log.0));
        let is_fading = self.is_fading(log);
        // The newest rows may be of such as saw nothing more of it, or have gone before anybody saw them.
        self.know(log, head);
        if after != expected && !(is_fading && after > expected) {
            self.violation(stage, Some(client), format!("log {} goes on after {after}, not {expected}", log.0));
        }
        if head < after {
            self.violation(stage, Some(client), format!("log {} ends at {head}, before {after}", log.0));
        }
    }

    fn detached(&mut self, stage: &mut Stage, client: ClientIndex, id: SubscriptionId, reason: &DetachReason) {
        let Some(reader) = self.people[client.0].readers.remove(&id) else { return };
        stage.saw(|| format!("client {} detached from log {}: {reason:?}", client.0, reader.log.0));
        let is_open = self.is_open(reader.log);
        let wrong = match reason {
            DetachReason::Unsubscribed | DetachReason::Stopped(_) => false,
            // A removed member has had everything up to the removal, and nothing after it.
            DetachReason::Removed { last } => is_open || reader.last.is_some_and(|got| got != *last),
            DetachReason::Refused(refusal) => is_open || refusal.action() != Action::Forbidden,
            DetachReason::Deleted { .. } | DetachReason::AlreadySubscribed => true,
        };
        if wrong {
            let (log, last) = (reader.log.0, reader.last);
            self.violation(stage, Some(client), format!("log {log} ended after {last:?}: {reason:?}"));
        }
    }

    // ---- pages ----

    fn page(&mut self, stage: &mut Stage, client: ClientIndex, id: CommandId, result: Result<Page, RequestError>) {
        let Some(asked) = self.people[client.0].asked.remove(&id) else { return };
        match result {
            Ok(page) => self.page_came(stage, client, asked, page),
            Err(error) => {
                stage.saw(|| format!("client {} page {} failed: {error}", client.0, id.0));
                let is_allowed = match &error {
                    RequestError::Refused(refusal) => {
                        refusal.action() == Action::Retry
                            || (refusal.action() == Action::Forbidden && !self.is_open(asked.log))
                    }
                    _ => false,
                };
                if !is_allowed {
                    self.violation(stage, Some(client), format!("an honest page request failed: {error}"));
                }
            }
        }
    }

    /// Each page is a reader of its own: contiguous, and the same rows as everybody's.
    fn page_came(&mut self, stage: &mut Stage, client: ClientIndex, asked: Asked, mut page: Page) {
        let (now, log) = (At(stage.now.0), Log(asked.log.0 as u32));
        if asked.is_backward {
            page.events.reverse();
        }
        stage.saw(|| format!("client {} has a page of {} rows of log {}", client.0, page.events.len(), log.0));
        let first = page.events.first().map(Event::seq);
        if let Some(first) = first {
            let subscriber = self.next_subscriber();
            self.checker.subscribe(subscriber, log, first);
            for event in &page.events {
                self.know(asked.log, event.seq());
                self.checker.deliver(now, subscriber, log, row(event));
            }
        }
        let begins_late = !asked.is_backward && asked.from > 0 && first.is_some_and(|first| first != asked.from);
        if begins_late && !(self.is_fading(asked.log) && first > Some(asked.from)) {
            self.violation(stage, Some(client), format!("a page from {} begins at {first:?}", asked.from));
        }
        let is_of_date = |event: &Event| asked.at_ms == 0 || (event.time_ms() >= asked.at_ms) != asked.is_backward;
        if let Some(event) = page.events.iter().find(|event| !is_of_date(event)) {
            let (seq, at_ms) = (event.seq(), asked.at_ms);
            self.violation(stage, Some(client), format!("row {seq} lies on the other side of {at_ms} ms"));
        }
        // Of a log whose newest rows may be gone nobody knows the end.
        if !self.is_fading(asked.log) {
            self.checker.read_head(log, At(asked.at.0), now, page.head.seq);
        }
    }

    // ---- the end ----

    /// Everybody has waited until nothing more came.
    pub(crate) fn settle(&mut self) {
        for reader in self.people.iter().flat_map(|person| person.readers.values()) {
            self.checker.settle(reader.subscriber, Log(reader.log.0 as u32));
        }
    }

    /// The whole history of a log, as read at the end. One that is not whole is one reader's part of it.
    pub(crate) fn history(&mut self, stage: &mut Stage, log: LogIndex, events: &[Event]) {
        let checked = Log(log.0 as u32);
        if !self.is_fading(log) {
            return self.checker.history(checked, events.iter().map(row));
        }
        let subscriber = self.next_subscriber();
        self.checker.subscribe(subscriber, checked, events.first().map_or(1, Event::seq));
        events.iter().for_each(|event| self.checker.deliver(At(stage.now.0), subscriber, checked, row(event)));
        if let Some(seq) = fading::overdue(stage, events) {
            self.violation(stage, None, format!("row {seq} of log {} should be gone", log.0));
        }
    }

    /// Judges the run.
    pub(crate) fn finish(self) -> (Verdict, Vec<String>) {
        (self.checker.finish(), self.violations)
    }
}

/// The name of a user.
pub(crate) fn user_name(user: u32) -> String {
    if user == MANAGER_NUMBER { MANAGER.to_owned() } else { format!("u{user}") }
}

fn row(event: &Event) -> Row {
    let user = event.sender().strip_prefix('u').and_then(|number| number.parse().ok()).unwrap_or(MANAGER_NUMBER);
    let author = event.client_message_id().map(|id| Author { user: User(user), message: id.as_u128() });
    Row { seq: event.seq(), author, hash: body_hash(&event.body()) }
}

/// The number of the manager's user.
pub(crate) fn manager() -> u32 {
    MANAGER_NUMBER
}
