//! Who follows a room: what each receives is put in order, counted, and timed from the planned send.

use std::{
    error::Error,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use moq_net::track::Subscriber;

use crate::{
    Failure,
    order::{Order, number},
    report::Latencies,
};

/// When each message of the measurement was to be sent.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Number of the first message.
    pub(crate) first: u64,
    /// When the measurement began.
    pub(crate) start: Instant,
    /// From one message to the next.
    pub(crate) interval: Duration,
}

impl Plan {
    /// When the message `after` so many others is due.
    pub(crate) fn due(&self, after: u64) -> Instant {
        self.start + self.interval.mul_f64(after as f64)
    }

    fn due_of(&self, number: u64) -> Option<Instant> {
        number.checked_sub(self.first).map(|after| self.due(after))
    }
}

/// What all followers of a room share.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Copies that came, each the next one of its follower.
    delivered: AtomicU64,
    /// Once the measurement has begun.
    pub(crate) plan: OnceLock<Plan>,
    latencies: Mutex<Latencies>,
    fault: Mutex<Option<String>>,
}

impl Tally {
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    pub(crate) fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What went wrong first.
    pub(crate) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A copy came in its place.
    fn note(&self, number: u64, came: Instant) {
        if let Some(due) = self.plan.get().and_then(|plan| plan.due_of(number)) {
            self.latencies().record(came.saturating_duration_since(due));
        }
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    fn blame(&self, what: &dyn Error) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| what.to_string());
    }
}

/// Reads a track until it ends, which it does only if something goes wrong.
pub(crate) async fn follow(mut track: Subscriber, tally: &Tally) {
    if let Err(error) = read(&mut track, tally).await {
        tally.blame(&*error);
    }
}

async fn read(track: &mut Subscriber, tally: &Tally) -> Result<(), Failure> {
    let mut order = Order::default();
    loop {
        // As they arrive: a group that is overtaken is not left out.
        let mut group = track.recv_group().await?.ok_or("the track has ended")?;
        let frame = group.read_frame().await?.ok_or("a group is empty")?;
        order.push(number(&frame.payload, group.sequence)?, ())?;
        while let Some((number, ())) = order.pop() {
            tally.note(number, Instant::now());
        }
        if group.read_frame().await?.is_some() {
            return Err("a group has two messages".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use moq_net::{Timestamp, broadcast, track::Subscription};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    async fn followed(numbers: &[(u64, u64)]) -> Tally {
        let broadcast = broadcast::Info::new().produce();
        let track = broadcast.create_track("messages", moq_net::track::Info::default().with_max_age(DAY)).unwrap();
        let follower = track.subscribe(Subscription::default().with_max_age(DAY));
        for (sequence, number) in numbers {
            let mut group = track.create_group(moq_net::group::Info { sequence: *sequence }).unwrap();
            group.write_frame(Timestamp::now(), number.to_be_bytes().to_vec()).unwrap();
            group.finish().unwrap();
        }
        track.finish().unwrap();
        let tally = Tally::default();
        let plan = Plan { first: 2, start: Instant::now(), interval: Duration::from_millis(1) };
        tally.plan.set(plan).unwrap();
        follow(follower, &tally).await;
        tally
    }

    #[tokio::test]
    async fn messages_that_overtake_each_other_count_in_their_order() {
        let tally = followed(&[(0, 1), (2, 3), (1, 2), (3, 4)]).await;
        assert_eq!(tally.delivered(), 4);
        assert_eq!(tally.fault().unwrap(), "the track has ended");
        assert!(tally.latencies().summary().is_some());
    }

    #[tokio::test]
    async fn what_comes_after_a_gap_does_not_count() {
        let tally = followed(&[(0, 1), (2, 3), (3, 4)]).await;
        assert_eq!(tally.delivered(), 1);
        assert!(tally.latencies().summary().is_none());
    }

    #[tokio::test]
    async fn a_message_in_the_place_of_another_is_a_fault() {
        let tally = followed(&[(0, 1), (1, 1)]).await;
        assert_eq!(tally.delivered(), 1);
        assert_eq!(tally.fault().unwrap(), "message 1 came in group 1");
    }
}
