//! Page requests: the application's and those that subscriptions pull. At most four are in flight.

use std::collections::{BTreeMap, VecDeque};

use antiphon_protocol::{
    FrameType, LogName, Position,
    control::{self, fetch::View},
    frames::{self, Page as Rows},
    limits::PAGES_IN_FLIGHT_MAX,
};

use crate::{
    error::{Refusal, RequestError, StopReason},
    event::Event,
    input::{CommandId, Direction, Range, SubscriptionId},
    limits::{REQUEST_ATTEMPTS_MAX, REQUESTS_MAX},
    link::{Link, Pending},
    message::Messages,
    output::{Output, Page},
    timers::Timer,
};

/// Who wants a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Application(CommandId),
    /// The application, which wants messages as they stand.
    Messages(CommandId),
    /// A pull of a subscription; the number tells it from earlier pulls.
    Pull(SubscriptionId, u64),
}

#[derive(Debug)]
struct Job {
    owner: Owner,
    range: Range,
    attempts: u32,
}

/// What a pull gets.
#[derive(Debug)]
pub(crate) struct Pulled {
    pub(crate) id: SubscriptionId,
    pub(crate) pull: u64,
    pub(crate) result: Result<Rows, Refusal>,
}

#[derive(Debug, Default)]
pub(crate) struct Pages {
    queue: VecDeque<Job>,
    in_flight: BTreeMap<u32, Job>,
    /// The application's jobs that were refused for now; their timers run.
    waiting: BTreeMap<CommandId, Job>,
}

impl Pages {
    pub(crate) fn fetch(&mut self, link: &mut Link, id: CommandId, range: Range) {
        match self.room() {
            Ok(()) => self.push(link, Owner::Application(id), range),
            Err(error) => link.emit(Output::Page { id, result: Err(error) }),
        }
    }

    pub(crate) fn fetch_messages(&mut self, link: &mut Link, id: CommandId, range: Range) {
        match self.room() {
            Ok(()) => self.push(link, Owner::Messages(id), range),
            Err(error) => link.emit(Output::Messages { id, result: Err(error) }),
        }
    }

    fn room(&self) -> Result<(), RequestError> {
        let kept = self.queue.len() + self.in_flight.len() + self.waiting.len();
        if kept >= REQUESTS_MAX { Err(RequestError::QueueFull(kept)) } else { Ok(()) }
    }

    /// A subscription pulls the positions `from..to`. There is at most one such job per subscription.
    pub(crate) fn pull(&mut self, link: &mut Link, owner: (SubscriptionId, u64), log: &LogName, from: u64, to: u64) {
        let range = Range { from, to, ..Range::all(log.clone()) };
        self.push(link, Owner::Pull(owner.0, owner.1), range);
    }

    fn push(&mut self, link: &mut Link, owner: Owner, range: Range) {
        self.queue.push_back(Job { owner, range, attempts: 0 });
        self.write(link);
    }

    /// Writes what the window allows.
    pub(crate) fn write(&mut self, link: &mut Link) {
        while link.ready && self.in_flight.len() < PAGES_IN_FLIGHT_MAX {
            let Some(mut job) = self.queue.pop_front() else { return };
            job.attempts += 1;
            let fetch = control::Fetch {
                log: job.range.log.to_string(),
                from: job.range.from,
                to: job.range.to,
                limit: job.range.limit,
                backward: job.range.direction == Direction::Backward,
                view: match job.owner {
                    Owner::Messages(_) => View::Messages.into(),
                    Owner::Application(_) | Owner::Pull(..) => View::Events.into(),
                },
                at_ms: job.range.at_ms,
            };
            let request = link.request(Pending::Page, |id| frames::control(FrameType::Fetch, id, &fetch));
            self.in_flight.insert(request, job);
        }
    }

    /// A PAGE. Returns it if a subscription pulled it.
    pub(crate) fn answered(&mut self, link: &mut Link, request: u32, rows: Rows) -> Option<Pulled> {
        let job = self.in_flight.remove(&request)?;
        self.write(link);
        match job.owner {
            Owner::Pull(id, pull) => Some(Pulled { id, pull, result: Ok(rows) }),
            Owner::Application(id) => {
                link.emit(Output::Page { id, result: Ok(page(rows)) });
                None
            }
            // Rows are no answer to a request for messages.
            Owner::Messages(_) => None,
        }
    }

    /// A MESSAGES_PAGE.
    pub(crate) fn messages_answered(&mut self, link: &mut Link, request: u32, messages: Messages) {
        let Some(job) = self.in_flight.remove(&request) else { return };
        self.write(link);
        if let Owner::Messages(id) = job.owner {
            link.emit(Output::Messages { id, result: Ok(messages) });
        }
    }

    /// A refusal. Returns it if a subscription pulled; the application's job is repeated if that may help.
    pub(crate) fn refused(&mut self, link: &mut Link, request: u32, refusal: Refusal) -> Option<Pulled> {
        let job = self.in_flight.remove(&request)?;
        self.write(link);
        match job.owner {
            Owner::Pull(id, pull) => return Some(Pulled { id, pull, result: Err(refusal) }),
            Owner::Application(id) | Owner::Messages(id)
                if refusal.is_transient() && job.attempts < REQUEST_ATTEMPTS_MAX =>
            {
                let delay = link.backoff(job.attempts - 1).max(refusal.retry_after.unwrap_or_default());
                link.set_timer(Timer::Page(id), delay);
                self.waiting.insert(id, job);
            }
            Owner::Application(_) | Owner::Messages(_) => job.owner.fail(link, RequestError::Refused(refusal)),
        }
        None
    }

    /// The wait of an application's job is over.
    pub(crate) fn due(&mut self, link: &mut Link, id: CommandId) {
        if let Some(job) = self.waiting.remove(&id) {
            self.queue.push_back(job);
            self.write(link);
        }
    }

    /// A subscription no longer pulls.
    pub(crate) fn cancel(&mut self, id: SubscriptionId) {
        self.queue.retain(|job| !matches!(job.owner, Owner::Pull(owner, _) if owner == id));
    }

    /// The connection is lost: the application's jobs are repeated, pulls begin anew with their subscriptions.
    pub(crate) fn down(&mut self) {
        for job in std::mem::take(&mut self.in_flight).into_values().rev() {
            self.queue.push_front(job);
        }
        self.queue.retain(|job| !matches!(job.owner, Owner::Pull(..)));
    }

    pub(crate) fn stop(&mut self, link: &mut Link, reason: &StopReason) {
        self.down();
        let waiting = std::mem::take(&mut self.waiting).into_values();
        for job in std::mem::take(&mut self.queue).into_iter().chain(waiting) {
            job.owner.fail(link, RequestError::Stopped(reason.clone()));
        }
    }
}

impl Owner {
    /// Tells the application; a subscription is told elsewhere.
    fn fail(self, link: &mut Link, error: RequestError) {
        match self {
            Self::Application(id) => link.emit(Output::Page { id, result: Err(error) }),
            Self::Messages(id) => link.emit(Output::Messages { id, result: Err(error) }),
            Self::Pull(..) => {}
        }
    }
}

fn page(rows: Rows) -> Page {
    let head = Position { epoch: rows.epoch, seq: rows.head };
    Page {
        events: rows.rows.into_iter().map(|row| Event::new(rows.epoch, row)).collect(),
        next: (rows.next > 0).then_some(rows.next),
        head,
        floor: rows.floor,
    }
}
