//! Conversations that keep their events for the shortest time only, and what that comes to.

use std::time::Duration;

use antiphon_protocol::limits::RETENTION_MIN_S;
use antiphon_sdk_core::Event;
use uuid::Uuid;

use crate::stage::Stage;

/// Their logs begin so.
pub(crate) const PREFIX: &str = "c:fading-";
/// For how long they keep their events, seconds.
pub(crate) const KEPT_S: u32 = RETENTION_MIN_S;
/// For how long a row outlives that at most while its conversation is in use and the store works.
pub(crate) const REMOVAL_MAX: Duration = Duration::from_secs(11);

/// Whether a send with this id may repeat one whose row is gone. Nobody makes ids of the future here, so no id in a row
/// that is gone is younger than what is kept.
pub(crate) fn is_old(stage: &Stage, id: Uuid) -> bool {
    (id.as_u128() >> 80) as u64 + kept_ms() < now_ms(stage)
}

/// A row that should have gone.
pub(crate) fn overdue(stage: &Stage, events: &[Event]) -> Option<u64> {
    let kept_ms = kept_ms() + REMOVAL_MAX.as_millis() as u64;
    events.iter().find(|event| event.time_ms() + kept_ms < now_ms(stage)).map(Event::seq)
}

fn kept_ms() -> u64 {
    u64::from(KEPT_S) * 1_000
}

fn now_ms(stage: &Stage) -> u64 {
    stage.now.unix_us() / 1_000
}
