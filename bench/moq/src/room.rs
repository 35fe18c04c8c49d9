//! The room: connections, its track, and the schedule.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moq_net::{
    Client, Session, Timestamp, broadcast, origin,
    track::{self, Subscription},
};
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};

use crate::{
    Failure, Fanout,
    dialer::{Dialer, spawn_origin},
    follower::{Plan, Tally, follow},
    order::NUMBER_BYTES,
    report::{Latencies, Report},
};

const BROADCAST: &str = "room";
const TRACK: &str = "messages";
/// Nobody finds a message too old before a measurement is over: without this the newest one is all that has to come, and
/// what nobody has read for half a minute is forgotten. The relay is told the same.
const AGE_MAX: Duration = Duration::from_secs(600);
/// Connections that are opened at once.
const OPENING_MAX: usize = 64;
/// How long deliveries may stand still before the run is over.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// A publisher and its followers, all connected.
pub(crate) struct Room {
    track: track::Producer,
    members: u32,
    body: Vec<u8>,
    interval: Duration,
    sent: u64,
    tally: Arc<Tally>,
    lag: Latencies,
    dialer: Arc<Dialer>,
    // End when they are dropped.
    _publisher: (Session, broadcast::Producer),
}

impl Room {
    /// Returns when every follower's subscription is accepted.
    pub(crate) async fn open(load: &Fanout) -> Result<Self, Failure> {
        let dialer = Arc::new(Dialer::new(load, load.members as usize + 1)?);
        let origin = spawn_origin(AGE_MAX);
        let session = dialer.open(0, Client::new().with_publisher(&origin)).await?;
        let broadcast = origin.create_broadcast(BROADCAST)?;
        let track = broadcast.create_track(TRACK, track::Info::default().with_max_age(AGE_MAX))?;
        broadcast.announce(origin::Route::default())?;

        let (tally, mut opening) = (Arc::new(Tally::default()), JoinSet::new());
        for member in 0..load.members as usize {
            if opening.len() == OPENING_MAX {
                opening.join_next().await.transpose()?.transpose()?;
            }
            opening.spawn(add_follower(dialer.clone(), member + 1, tally.clone()));
        }
        while let Some(opened) = opening.join_next().await {
            opened??;
        }
        Ok(Self {
            track,
            members: load.members,
            body: vec![b'x'; load.bytes.max(NUMBER_BYTES)],
            interval: Duration::from_secs_f64(1.0 / load.rate),
            sent: 0,
            tally,
            lag: Latencies::default(),
            dialer,
            _publisher: (session, broadcast),
        })
    }

    /// Publishes so many messages, each when it is due, whatever came of the others.
    pub(crate) async fn send(&mut self, messages: u64, is_measured: bool) -> Result<(), Failure> {
        let plan = || Plan { first: self.sent + 1, start: Instant::now(), interval: self.interval };
        let own = (!is_measured).then(plan);
        let tally = self.tally.clone();
        let plan = own.as_ref().unwrap_or_else(|| tally.plan.get_or_init(plan));
        for after in 0..messages {
            let due = plan.due(after);
            sleep_until(due.into()).await;
            if is_measured {
                self.lag.record(due.elapsed());
            }
            self.sent += 1;
            self.body[..NUMBER_BYTES].copy_from_slice(&self.sent.to_be_bytes());
            self.track.write_frame(Timestamp::now(), &self.body[..])?;
        }
        Ok(())
    }

    /// Waits until every copy has come, or none comes any more.
    pub(crate) async fn settle(&self) {
        let (mut seen, mut moved) = (0, Instant::now());
        while moved.elapsed() < PATIENCE {
            let delivered = self.tally.delivered();
            if delivered >= self.sent * u64::from(self.members) {
                return;
            }
            if delivered > seen {
                (seen, moved) = (delivered, Instant::now());
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Of the last so many messages. Ends the connections.
    pub(crate) async fn end(self, messages: u64) -> Report {
        let members = u64::from(self.members);
        let (all, expected) = (self.sent * members, messages * members);
        let report = Report {
            messages,
            delivered: (self.tally.delivered() + expected).saturating_sub(all),
            expected,
            delivery: self.tally.latencies().summary(),
            lag: self.lag.summary(),
            broken: self.tally.fault(),
        };
        self.dialer.close().await;
        report
    }
}

async fn add_follower(dialer: Arc<Dialer>, number: usize, tally: Arc<Tally>) -> Result<(), Failure> {
    let origin = spawn_origin(AGE_MAX);
    let session = dialer.open(number, Client::new().with_subscriber(origin.clone())).await?;
    let broadcast = origin.consume().routed_broadcast(BROADCAST).await?;
    let subscription = Subscription::default().with_max_age(AGE_MAX);
    let track = broadcast.track(TRACK)?.subscribe(subscription).await?;
    tokio::spawn(async move {
        follow(track, &tally).await;
        // Until here they keep the subscription.
        drop((session, origin, broadcast));
    });
    Ok(())
}
