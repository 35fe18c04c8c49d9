//! Rooms of a fan-out: each has one publisher, and all of them keep one schedule, room after room.

use std::{
    error::Error,
    future::Future,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{follower::Plan, report::Latencies};

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

/// Sends `count` messages, one each `interval` from `start` on, and waits for their answers. How late each was goes to `lag`.
async fn send<P: Publish>(
    publisher: &mut P,
    start: Instant,
    interval: Duration,
    count: u64,
    lag: &mut Latencies,
) -> Result<(), String> {
    for number in 0..count {
        let due = start + interval * number as u32;
        while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
            tokio::select! {
                () = sleep(wait) => {}
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
                let sent = send(&mut publisher, start, interval, share, &mut lag).await;
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
        let mut rooms = Rooms::new(1_000.0);
        let mut followed = Vec::new();
        for _ in 0..3 {
            let (plan, plans) = watch::channel(None);
            followed.push(plans);
            rooms.add(Silent(0), plan);
        }
        rooms.send(4, false).await.unwrap();
        assert!(followed.iter().all(|plan| plan.borrow().is_none()));
        rooms.send(8, true).await.unwrap();
        assert_eq!(rooms.sent(), 12);
        let plans: Vec<Plan> = followed.iter().map(|plan| plan.borrow().unwrap()).collect();
        let mut starts: Vec<Instant> = plans.iter().map(|plan| plan.start).collect();
        starts.sort();
        assert!(starts.windows(2).all(|two| two[1] - two[0] == Duration::from_millis(1)));
        assert!(plans.iter().all(|plan| plan.interval == Duration::from_millis(3)));
        // Positions go on where each room was.
        assert_eq!(plans.iter().map(|plan| plan.first).sum::<u64>(), 3 + 4);
    }
}
