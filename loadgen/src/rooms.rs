//! Rooms of a fan-out: each has one publisher, and all of them keep one schedule.
//!
//! Where latencies are measured the publishers are on a thread that comes first ([`crate::front`]), so that a message does not
//! wait while hundreds of followers take in the last one; every server's are, in the same way.

use std::{
    error::Error,
    future::Future,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{runtime::Handle, sync::watch, task::JoinSet};

use crate::{
    chance::{Chance, Zipf},
    clock::Clock,
    follower::Plan,
    front::Front,
    report::Latencies,
};

/// Everybody's rooms are chosen alike.
const SEED: u64 = 1;

/// Which room gets a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Choice {
    /// One after the other.
    Turns,
    /// By Zipf's law: a few get most of them.
    Zipf,
}

impl Choice {
    /// When the messages of each room are due, from the beginning: all together one each `interval`.
    fn schedule(self, rooms: usize, count: u64, interval: Duration) -> Vec<Vec<Duration>> {
        let mut due = vec![Vec::new(); rooms];
        let (zipf, mut chance) = (Zipf::new(rooms), Chance::new(SEED));
        for number in 0..count {
            let room = match self {
                Self::Turns => (number % rooms as u64) as usize,
                Self::Zipf => zipf.draw(&mut chance),
            };
            due[room].push(interval * number as u32);
        }
        due
    }
}

/// Sends to one room.
pub(crate) trait Publish: Send + 'static {
    /// Sends the next message.
    fn write(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// Waits for what comes next and checks it. Cancel-safe.
    fn answer(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// Whether a message is not answered that will be.
    fn is_owed(&self) -> bool;

    /// Messages so far.
    fn sent(&self) -> u64;

    /// Position of the next message, once all so far are answered.
    fn next_position(&self) -> u64;
}

/// Sends messages when they are due after `start`, and waits for their answers. How late each was goes to `lag`.
async fn send<P: Publish>(
    publisher: &mut P,
    start: Instant,
    due: &[Duration],
    clock: &Clock,
    lag: &mut Latencies,
) -> Result<(), String> {
    for after in due {
        let due = start + *after;
        while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
            tokio::select! {
                slept = clock.sleep(wait) => slept.map_err(|error| error.to_string())?,
                answer = publisher.answer() => answer?,
            }
        }
        lag.record(due.elapsed());
        publisher.write().await?;
    }
    while publisher.is_owed() {
        publisher.answer().await?;
    }
    Ok(())
}

/// All rooms.
pub(crate) struct Rooms<P> {
    rooms: Vec<(P, watch::Sender<Option<Plan>>)>,
    /// From one message to the next, whichever their rooms.
    interval: Duration,
    /// Where messages are sent if each is sent at its moment.
    front: Option<Front>,
}

impl<P: Publish> Rooms<P> {
    pub(crate) fn new(rate: f64) -> Self {
        Self { rooms: Vec::new(), interval: Duration::from_secs_f64(1.0 / rate), front: None }
    }

    /// Whether each message is sent at its moment, not with what is due in the same millisecond.
    pub(crate) fn exact(self, is_exact: bool) -> io::Result<Self> {
        Ok(Self { front: is_exact.then(Front::start).transpose()?, ..self })
    }

    /// Where publishers send. Their connections have to be made there. Must be called within a Tokio runtime.
    pub(crate) fn senders(&self) -> Handle {
        self.front.as_ref().map_or_else(Handle::current, |front| front.handle().clone())
    }

    /// Messages per second from now on, over all rooms.
    pub(crate) fn set_rate(&mut self, rate: f64) {
        self.interval = Duration::from_secs_f64(1.0 / rate);
    }

    /// Adds a room, whose followers hear by `plan` when each message was due.
    pub(crate) fn add(&mut self, publisher: P, plan: watch::Sender<Option<Plan>>) {
        self.rooms.push((publisher, plan));
    }

    /// Sends `count` messages to rooms by choice, and tells the followers when they are due if `is_measured`. How late the
    /// generator was.
    pub(crate) async fn send(
        &mut self,
        count: u64,
        choice: Choice,
        is_measured: bool,
    ) -> Result<Latencies, Box<dyn Error>> {
        let schedule = choice.schedule(self.rooms.len(), count, self.interval);
        let (start, mut sending, senders) = (Instant::now(), JoinSet::new(), self.senders());
        for ((mut publisher, plan), due) in self.rooms.drain(..).zip(schedule) {
            let due: Arc<[Duration]> = due.into();
            if is_measured {
                plan.send_replace(Some(Plan { first: publisher.next_position(), start, due: due.clone() }));
            }
            let is_exact = self.front.is_some();
            let work = async move {
                let mut lag = Latencies::default();
                let clock = if is_exact { Clock::exact() } else { Ok(Clock::Coarse) };
                let sent = match clock {
                    Ok(clock) => send(&mut publisher, start, &due, &clock, &mut lag).await,
                    Err(error) => Err(error.to_string()),
                };
                (publisher, plan, lag, sent)
            };
            sending.spawn_on(work, &senders);
        }
        let mut all = Latencies::default();
        while let Some(room) = sending.join_next().await {
            let (publisher, plan, lag, sent) = room?;
            sent?;
            all.add(&lag);
            self.rooms.push((publisher, plan));
        }
        Ok(all)
    }

    /// Messages so far.
    pub(crate) fn sent(&self) -> u64 {
        self.rooms.iter().map(|(publisher, _)| publisher.sent()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers nothing.
    struct Silent(u64);

    impl Publish for Silent {
        async fn write(&mut self) -> Result<(), String> {
            self.0 += 1;
            Ok(())
        }

        async fn answer(&mut self) -> Result<(), String> {
            std::future::pending().await
        }

        fn is_owed(&self) -> bool {
            false
        }

        fn sent(&self) -> u64 {
            self.0
        }

        fn next_position(&self) -> u64 {
            self.0 + 1
        }
    }

    #[tokio::test]
    async fn the_rooms_share_one_schedule() {
        check_schedule(Rooms::new(1_000.0)).await;
        check_schedule(Rooms::new(1_000.0).exact(true).unwrap()).await;
    }

    async fn check_schedule(mut rooms: Rooms<Silent>) {
        let mut followed = Vec::new();
        for _ in 0..3 {
            let (plan, plans) = watch::channel(None);
            followed.push(plans);
            rooms.add(Silent(0), plan);
        }
        rooms.send(4, Choice::Turns, false).await.unwrap();
        assert!(followed.iter().all(|plan| plan.borrow().is_none()));
        rooms.send(8, Choice::Turns, true).await.unwrap();
        assert_eq!(rooms.sent(), 12);
        let plans: Vec<Plan> = followed.iter().map(|plan| plan.borrow().clone().unwrap()).collect();
        let mut due: Vec<Duration> = plans.iter().flat_map(|plan| plan.due.to_vec()).collect();
        due.sort_unstable();
        assert_eq!(due, (0..8).map(Duration::from_millis).collect::<Vec<_>>());
        assert!(
            plans.iter().flat_map(|plan| plan.due.windows(2)).all(|two| two[1] - two[0] == Duration::from_millis(3))
        );
        // Positions go on where each room was.
        assert_eq!(plans.iter().map(|plan| plan.first).sum::<u64>(), 3 + 4);
    }

    #[test]
    fn by_zipfs_law_a_few_rooms_get_most_and_everybodys_schedule_is_the_same() {
        let schedule = || Choice::Zipf.schedule(1_000, 10_000, Duration::from_millis(1));
        let rooms = schedule();
        assert_eq!(rooms, schedule());
        assert_eq!(rooms.iter().map(Vec::len).sum::<usize>(), 10_000);
        assert!(rooms[0].len() > 1_000 && rooms[0].is_sorted(), "{}", rooms[0].len());
        assert!(rooms[..10].iter().map(Vec::len).sum::<usize>() > 3_000);
    }
}
