//! All followed logs: frames of the wire -> subscriptions, and what they want -> frames.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_protocol::{
    FrameType, LogName, Row,
    control::{self, subscribe},
    frames,
};

use crate::{
    error::{Refusal, StopReason},
    input::{From, SubscriptionId},
    link::{Link, Pending},
    output::{Cursor, DetachReason, Item, Output, Signal},
    pages::{Pages, Pulled},
    subscription::{Next, Phase, Subscription},
    timers::Timer,
};

/// A frame for the log with this handle.
#[derive(Debug)]
pub(crate) enum FromLog {
    Event(Row),
    Skip { first: u64, last: u64 },
    Behind,
    Detach(DetachReason),
    Cursor(Cursor),
    Signal(Signal),
}

#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    all: BTreeMap<SubscriptionId, Subscription>,
    by_log: BTreeMap<LogName, SubscriptionId>,
    by_handle: BTreeMap<u32, SubscriptionId>,
    /// Logs whose SUBSCRIBE is unanswered though the application wants it no more. The next one has to wait, because
    /// a session follows a log once.
    orphans: BTreeSet<LogName>,
    pulls: u64,
    /// Empty between inputs; kept for its allocation.
    items: Vec<Item>,
}

impl Subscriptions {
    pub(crate) fn add(&mut self, link: &mut Link, id: SubscriptionId, log: LogName, from: From) {
        if self.by_log.contains_key(&log) {
            let item = Item::Detached(DetachReason::AlreadySubscribed);
            return link.emit(Output::Subscription { id, item });
        }
        self.by_log.insert(log.clone(), id);
        self.all.insert(id, Subscription::new(log, from));
        self.subscribe(link, id);
    }

    pub(crate) fn remove(&mut self, link: &mut Link, pages: &mut Pages, id: SubscriptionId) {
        let Some(subscription) = self.all.get(&id) else { return };
        if let Some(handle) = subscription.attached_handle() {
            unsubscribe(link, handle);
        }
        if matches!(subscription.phase, Phase::Subscribing) {
            self.orphans.insert(subscription.log.clone());
        }
        self.end(link, pages, id, DetachReason::Unsubscribed);
    }

    /// A session stands: subscribes what is not subscribed.
    pub(crate) fn ready(&mut self, link: &mut Link) {
        let ids: Vec<SubscriptionId> = self.all.keys().copied().collect();
        ids.into_iter().for_each(|id| self.subscribe(link, id));
    }

    /// The connection is lost; the last positions are what remains.
    pub(crate) fn down(&mut self, link: &mut Link) {
        self.by_handle.clear();
        self.orphans.clear();
        for (id, subscription) in &mut self.all {
            subscription.phase = Phase::Idle;
            link.timers.cancel(&Timer::Subscription(*id));
        }
    }

    pub(crate) fn stop(&mut self, link: &mut Link, reason: &StopReason) {
        for id in std::mem::take(&mut self.all).into_keys() {
            let item = Item::Detached(DetachReason::Stopped(reason.clone()));
            link.emit(Output::Subscription { id, item });
        }
        self.by_log.clear();
        self.by_handle.clear();
    }

    /// The wait of a subscription is over.
    pub(crate) fn due(&mut self, link: &mut Link, id: SubscriptionId) {
        if let Some(subscription) = self.all.get_mut(&id) {
            subscription.phase = Phase::Idle;
            self.subscribe(link, id);
        }
    }

    fn subscribe(&mut self, link: &mut Link, id: SubscriptionId) {
        let Some(subscription) = self.all.get_mut(&id) else { return };
        let idle = matches!(subscription.phase, Phase::Idle);
        if !link.ready || !idle || self.orphans.contains(&subscription.log) {
            return;
        }
        subscription.phase = Phase::Subscribing;
        let from = match (subscription.last, subscription.from) {
            (Some(last), _) | (None, From::Position(last)) => {
                subscribe::From::After(control::Position { epoch: last.epoch, seq: last.seq })
            }
            (None, From::Tail) => subscribe::From::Tail(true),
            (None, From::Last(rows)) => subscribe::From::Last(rows),
            (None, From::Start) => subscribe::From::Last(u32::MAX),
        };
        let body = control::Subscribe { log: subscription.log.to_string(), from: Some(from) };
        let pending = Pending::Subscribe(id, subscription.log.clone());
        link.request(pending, |request| frames::control(FrameType::Subscribe, request, &body));
    }

    /// ATTACH, for the request of this subscription.
    pub(crate) fn attach(
        &mut self,
        link: &mut Link,
        pages: &mut Pages,
        (id, log): (SubscriptionId, LogName),
        attach: &control::Attach,
    ) {
        if self.orphans.remove(&log) {
            unsubscribe(link, attach.handle);
            return self.subscribe_log(link, &log);
        }
        let Some(subscription) = self.all.get_mut(&id) else { return };
        self.pulls += 1;
        let mut items = Vec::new();
        let next = subscription.attach(attach, self.pulls, &mut items);
        self.by_handle.insert(attach.handle, id);
        emit(link, id, &mut items);
        self.follow(link, pages, id, next);
    }

    fn subscribe_log(&mut self, link: &mut Link, log: &LogName) {
        if let Some(id) = self.by_log.get(log).copied() {
            self.subscribe(link, id);
        }
    }

    /// SUBSCRIBE was refused.
    pub(crate) fn refused(
        &mut self,
        link: &mut Link,
        pages: &mut Pages,
        (id, log): (SubscriptionId, LogName),
        refusal: Refusal,
    ) {
        if self.orphans.remove(&log) {
            return self.subscribe_log(link, &log);
        }
        let Some(subscription) = self.all.get_mut(&id) else { return };
        if !refusal.is_transient() {
            return self.end(link, pages, id, DetachReason::Refused(refusal));
        }
        subscription.phase = Phase::Backoff;
        let delay = link.backoff(subscription.fruitless).max(refusal.retry_after.unwrap_or_default());
        subscription.fruitless += 1;
        link.set_timer(Timer::Subscription(id), delay);
    }

    /// The log that a handle stands for, and the epoch of its positions.
    pub(crate) fn followed(&self, handle: u32) -> Option<(&LogName, u32)> {
        let subscription = self.all.get(self.by_handle.get(&handle)?)?;
        Some((&subscription.log, subscription.last?.epoch))
    }

    /// Whether the application follows this log.
    pub(crate) fn follows(&self, log: &LogName) -> bool {
        self.by_log.contains_key(log)
    }

    /// A frame for a handle. One that is not attached (any more) is ignored.
    pub(crate) fn frame(&mut self, link: &mut Link, pages: &mut Pages, handle: u32, frame: FromLog) {
        let Some(id) = self.by_handle.get(&handle).copied() else { return };
        let Some(subscription) = self.all.get_mut(&id) else { return };
        let mut items = std::mem::take(&mut self.items);
        let next = match frame {
            FromLog::Event(row) => subscription.event(row, &mut items),
            FromLog::Skip { first, last } => subscription.skip(first, last, &mut items),
            FromLog::Behind => {
                self.by_handle.remove(&handle);
                subscription.behind()
            }
            FromLog::Detach(reason) => {
                self.by_handle.remove(&handle);
                subscription.detach(reason)
            }
            FromLog::Cursor(cursor) => {
                items.push(Item::Cursor(cursor));
                Next::Nothing
            }
            FromLog::Signal(signal) => {
                items.push(Item::Signal(signal));
                Next::Nothing
            }
        };
        emit(link, id, &mut items);
        self.items = items;
        self.follow(link, pages, id, next);
    }

    /// A pull's PAGE, or its refusal.
    pub(crate) fn pulled(&mut self, link: &mut Link, pages: &mut Pages, pulled: Pulled) {
        let Some(subscription) = self.all.get_mut(&pulled.id) else { return };
        if !matches!(&subscription.phase, Phase::Pulling(pull) if pull.number == pulled.pull) {
            return;
        }
        let mut items = Vec::new();
        let next = match pulled.result {
            Ok(page) => subscription.page(page, &mut items),
            Err(refusal) => subscription.page_refused(refusal, &mut items),
        };
        emit(link, pulled.id, &mut items);
        self.follow(link, pages, pulled.id, next);
    }

    fn follow(&mut self, link: &mut Link, pages: &mut Pages, id: SubscriptionId, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Pull { from, to } => {
                if let Some(Subscription { log, phase: Phase::Pulling(pull), .. }) = self.all.get(&id) {
                    pages.pull(link, (id, pull.number), log, from, to);
                }
            }
            Next::Detach { handle } => {
                self.by_handle.remove(&handle);
                unsubscribe(link, handle);
            }
            Next::Repair { handle } => {
                if let Some(handle) = handle {
                    self.by_handle.remove(&handle);
                    unsubscribe(link, handle);
                }
                self.repair(link, pages, id);
            }
            Next::Over(reason) => self.end(link, pages, id, reason),
        }
    }

    /// Subscribes again after the last position: at once, unless the last repair brought nothing.
    fn repair(&mut self, link: &mut Link, pages: &mut Pages, id: SubscriptionId) {
        pages.cancel(id);
        let Some(subscription) = self.all.get_mut(&id) else { return };
        let fruitless = subscription.fruitless;
        subscription.fruitless += 1;
        if fruitless == 0 {
            subscription.phase = Phase::Idle;
            return self.subscribe(link, id);
        }
        subscription.phase = Phase::Backoff;
        let delay = link.backoff(fruitless - 1);
        link.set_timer(Timer::Subscription(id), delay);
    }

    fn end(&mut self, link: &mut Link, pages: &mut Pages, id: SubscriptionId, reason: DetachReason) {
        let Some(subscription) = self.all.remove(&id) else { return };
        // A refused pull leaves its handle attached.
        if let (Some(handle), DetachReason::Refused(_)) = (subscription.attached_handle(), &reason) {
            unsubscribe(link, handle);
        }
        self.by_log.remove(&subscription.log);
        self.by_handle.retain(|_, owner| *owner != id);
        pages.cancel(id);
        link.timers.cancel(&Timer::Subscription(id));
        link.emit(Output::Subscription { id, item: Item::Detached(reason) });
    }
}

fn unsubscribe(link: &mut Link, handle: u32) {
    if link.ready {
        let body = control::Unsubscribe { handle };
        link.request(Pending::Unsubscribe, |id| frames::control(FrameType::Unsubscribe, id, &body));
    }
}

fn emit(link: &mut Link, id: SubscriptionId, items: &mut Vec<Item>) {
    for item in items.drain(..) {
        link.emit(Output::Subscription { id, item });
    }
}
