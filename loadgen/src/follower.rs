//! Followers of a load: what each receives is checked by its position, counted, and timed from the planned send.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_protocol::{FrameType, Row};
use tokio::{sync::watch, time::sleep};

use crate::{report::Latencies, wire::FrameReader};

/// How long deliveries may stand still before the run is over.
const PATIENCE: Duration = Duration::from_secs(15);

/// Copies that came, over all followers.
#[derive(Debug, Default)]
pub struct Tally {
    /// Each was the next one of its follower.
    pub delivered: AtomicU64,
}

impl Tally {
    /// Counts a copy that came in its place; one that the plan has is timed, too.
    pub(crate) fn note(&self, seq: u64, plan: &watch::Receiver<Option<Plan>>, latencies: &mut Latencies) {
        if let Some(due) = plan.borrow().as_ref().and_then(|plan| plan.due(seq)) {
            latencies.record(due.elapsed());
        }
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }
}

/// When each position of the measurement was to be sent.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Position of the first message.
    pub first: u64,
    /// When the measurement began.
    pub start: Instant,
    /// From then to each message.
    pub due: Arc<[Duration]>,
}

impl Plan {
    /// Of a position of the measurement.
    pub(crate) fn due(&self, seq: u64) -> Option<Instant> {
        let number = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        Some(self.start + *self.due.get(number)?)
    }
}

/// Why a follower follows no longer.
#[derive(Debug, Clone)]
pub enum End {
    /// The connection ended, as it does when the run is over.
    Closed(String),
    /// Something came that must not come, whenever that was.
    Wrong(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Closed(why) | Self::Wrong(why)) = self;
        f.write_str(why)
    }
}

impl Error for End {}

/// Reads a stream of events until it ends, and checks each by its position; `next` is the one that must come first.
/// Latencies are those of the positions that the plan has.
pub async fn follow(
    mut events: FrameReader,
    mut next: u64,
    plan: watch::Receiver<Option<Plan>>,
    tally: Arc<Tally>,
) -> (Latencies, End) {
    let mut latencies = Latencies::default();
    loop {
        let frame = match events.next().await {
            Ok(frame) => frame,
            Err(error) => return (latencies, End::Closed(error.to_string())),
        };
        let row = match frame.frame_type {
            FrameType::Event => Row::new(frame.body).map_err(|error| error.to_string()),
            other => Err(format!("a subscriber got {} where position {next} was expected", other.name())),
        };
        match row {
            Ok(row) if row.seq() == next => tally.note(next, &plan, &mut latencies),
            Ok(row) => return (latencies, End::Wrong(format!("position {} came instead of {next}", row.seq()))),
            Err(error) => return (latencies, End::Wrong(error)),
        }
        next += 1;
    }
}

/// Waits until `expected` copies have come, or none comes any more.
pub(crate) async fn settle(tally: &Tally, expected: u64) {
    let (mut seen, mut moved) = (0, Instant::now());
    while moved.elapsed() < PATIENCE {
        let delivered = tally.delivered.load(Ordering::Relaxed);
        if delivered >= expected {
            return;
        }
        if delivered > seen {
            (seen, moved) = (delivered, Instant::now());
        }
        sleep(Duration::from_millis(2)).await;
    }
}
