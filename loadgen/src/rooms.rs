//! Rooms of a fan-out: each has one publisher, and all of them keep one schedule, room after room.

use std::{
    error::Error,
    future::Future,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};

use crate::{follower::Plan, report::Latencies};

/// Sends to one room.
pub(crate) trait Publish: Send + 'static {
    /// Sends `count` messages, one each `interval` from `start` on, and waits for their answers, if there are any. How late
    /// each was sent goes to `lag`.
    fn send(
        &mut self,
        start: Instant,
        interval: Duration,
        count: u64,
        lag: &mut Latencies,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Messages so far.
    fn sent(&self) -> u64;

    /// Position of the next message, once all so far are answered.
    fn next_position(&self) -> u64;
}

/// All rooms.
pub(crate) struct Rooms<P> {
    rooms: Vec<(P, watch::Sender<Option<Plan>>)>,
    /// From one message to the next, whichever their rooms.
    interval: Duration,
}

impl<P: Publish> Rooms<P> {
    pub(crate) fn new(rate: f64) -> Self {
        Self { rooms: Vec::new(), interval: Duration::from_secs_f64(1.0 / rate) }
    }

    /// Adds a room, whose followers hear by `plan` when each message was due.
    pub(crate) fn add(&mut self, publisher: P, plan: watch::Sender<Option<Plan>>) {
        self.rooms.push((publisher, plan));
    }

    /// Sends `count` messages over all rooms, and tells the followers when they are due if `is_measured`. How late the
    /// generator was.
    pub(crate) async fn send(&mut self, count: u64, is_measured: bool) -> Result<Latencies, Box<dyn Error>> {
        let (start, rooms) = (Instant::now(), self.rooms.len() as u64);
        let interval = self.interval * rooms as u32;
        let mut sending = JoinSet::new();
        for (number, (mut publisher, plan)) in (0..).zip(self.rooms.drain(..)) {
            let start = start + self.interval * number as u32;
            let share = count / rooms + u64::from(number < count % rooms);
            if is_measured {
                plan.send_replace(Some(Plan { first: publisher.next_position(), start, interval }));
            }
            sending.spawn(async move {
                let mut lag = Latencies::default();
                let sent = publisher.send(start, interval, share, &mut lag).await;
                (publisher, plan, lag, sent)
            });
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

    /// Notes when each message is due.
    struct Noting {
        sent: u64,
        due: Vec<Instant>,
    }

    impl Publish for Noting {
        async fn send(
            &mut self,
            start: Instant,
            interval: Duration,
            count: u64,
            _: &mut Latencies,
        ) -> Result<(), String> {
            self.due.extend((0..count).map(|number| start + interval * number as u32));
            self.sent += count;
            Ok(())
        }

        fn sent(&self) -> u64 {
            self.sent
        }

        fn next_position(&self) -> u64 {
            self.sent + 1
        }
    }

    #[tokio::test]
    async fn the_rooms_share_one_schedule() {
        let mut rooms = Rooms::new(100.0);
        let mut plans = Vec::new();
        for _ in 0..3 {
            let (plan, followed) = watch::channel(None);
            plans.push(followed);
            rooms.add(Noting { sent: 0, due: Vec::new() }, plan);
        }
        rooms.send(4, false).await.unwrap();
        assert!(plans.iter().all(|plan| plan.borrow().is_none()));
        rooms.rooms.iter_mut().for_each(|(publisher, _)| publisher.due.clear());
        rooms.send(8, true).await.unwrap();
        assert_eq!(rooms.sent(), 12);
        let mut due: Vec<Instant> = rooms.rooms.iter().flat_map(|(publisher, _)| publisher.due.clone()).collect();
        due.sort();
        assert_eq!(due.len(), 8);
        assert!(due.windows(2).all(|two| two[1] - two[0] == Duration::from_millis(10)));
        // Positions go on where they were.
        let firsts: Vec<u64> = plans.iter().map(|plan| plan.borrow().unwrap().first).collect();
        assert_eq!(firsts.iter().sum::<u64>(), 3 + 4, "{firsts:?}");
    }
}
