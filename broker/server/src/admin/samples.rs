//! The last ten minutes, a sample a second: what the operators' view draws.

use std::collections::VecDeque;

use antiphon_storage::embedded::Latencies;
use serde_json::{Value, json};

use super::board::{Rates, Slot};

/// Samples that are kept; the oldest gives way.
pub(super) const SAMPLES_MAX: usize = 600;

/// All shards together, in one second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    time_ms: u64,
    rates: Rates,
    sessions: u64,
    sync_p50_us: Option<u64>,
    sync_p99_us: Option<u64>,
}

/// A ring of samples, bounded.
#[derive(Debug, Default)]
pub(super) struct Samples(VecDeque<Sample>);

impl Samples {
    /// Adds what the shards say now.
    pub(super) fn take(&mut self, slots: &[Slot], time_ms: u64) {
        let (mut rates, mut syncs, mut sessions) = (Rates::default(), Latencies::default(), 0);
        for slot in slots {
            rates.add(slot.rates);
            syncs.add(&slot.recent_syncs);
            sessions += slot.report.numbers.sessions;
        }
        if self.0.len() >= SAMPLES_MAX {
            self.0.pop_front();
        }
        let (sync_p50_us, sync_p99_us) = (syncs.percentile_us(50), syncs.percentile_us(99));
        self.0.push_back(Sample { time_ms, rates, sessions, sync_p50_us, sync_p99_us });
    }

    /// Those after this time, oldest first.
    pub(super) fn to_json(&self, after_ms: u64) -> Value {
        let rounded = |rate: f64| (rate * 10.0).round() / 10.0;
        let sample = |sample: &Sample| {
            json!({
                "time_ms": sample.time_ms,
                "appended": rounded(sample.rates.appended),
                "delivered": rounded(sample.rates.delivered),
                "refused": rounded(sample.rates.refused),
                "behind": rounded(sample.rates.behind),
                "sessions": sample.sessions,
                "sync_p50_us": sample.sync_p50_us,
                "sync_p99_us": sample.sync_p99_us,
            })
        };
        self.0.iter().filter(|sample| sample.time_ms > after_ms).map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_the_sum_of_the_shards_and_the_oldest_gives_way() {
        let mut slots = [Slot::default(), Slot::default()];
        for (slot, count) in slots.iter_mut().zip([3_u32, 4]) {
            slot.rates.appended = f64::from(count) + 0.04;
            slot.report.numbers.sessions = u64::from(count);
            slot.recent_syncs.counts[0] = u64::from(count);
        }
        slots[1].recent_syncs.counts[4] = 1;
        let mut samples = Samples::default();
        (1..=700).for_each(|time_ms| samples.take(&slots, time_ms));
        let all = samples.to_json(0);
        assert_eq!((all.as_array().unwrap().len(), &all[0]["time_ms"]), (SAMPLES_MAX, &101.into()));
        assert_eq!((&all[0]["appended"], &all[0]["sessions"]), (&7.1.into(), &7.into()));
        assert_eq!(all[0]["sync_p99_us"], 1_024);
        assert_eq!(samples.to_json(698).as_array().unwrap().len(), 2);
        samples.take(&[], 701);
        assert_eq!(samples.to_json(700)[0]["sync_p50_us"], Value::Null, "no sync, no time");
    }
}
