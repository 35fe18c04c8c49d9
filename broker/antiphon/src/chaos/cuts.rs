//! The times at which nothing passes, for all clients at once.

use std::time::Duration;

use tokio::sync::watch;

use super::delay::Chance;

/// Between two cuts everything passes for so many times a cut's length on average, from half of that to one and a half.
const BETWEEN: u32 = 6;
/// The stream of chance; those of the directions count up from 0.
const STREAM: u64 = u64::MAX;

/// Says when cuts begin and end.
#[derive(Debug)]
pub(super) struct Cuts {
    length: Option<Duration>,
    chance: Chance,
    is_cut: watch::Sender<bool>,
}

impl Cuts {
    /// With `None` there are none.
    pub(super) fn new(length: Option<Duration>, seed: u64) -> (Self, watch::Receiver<bool>) {
        let (is_cut, receiver) = watch::channel(false);
        (Self { length, chance: Chance::new(seed, STREAM), is_cut }, receiver)
    }

    /// Does not end.
    pub(super) async fn run(mut self) {
        let Some(length) = self.length else {
            // The sender must live on.
            return std::future::pending().await;
        };
        let between = length * BETWEEN;
        loop {
            tokio::time::sleep(self.chance.between(between / 2, between * 3 / 2)).await;
            tracing::info!(length_ms = length.as_millis() as u64, "--chaos: cut");
            self.is_cut.send_replace(true);
            tokio::time::sleep(length).await;
            tracing::info!("--chaos: the cut is over");
            self.is_cut.send_replace(false);
        }
    }
}
