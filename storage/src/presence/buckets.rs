//! Token buckets of this process.

use std::collections::BTreeMap;

use antiphon_storage_contract::presence::{Payer, Take};

/// Buckets that are kept. Further ones: those that are full again are forgotten, then the whole table, which lets
/// everybody do once more what the full bucket holds.
const BUCKETS_MAX: usize = 1 << 16;

/// Thousandths of a token: whole milliseconds give whole numbers of them.
type Millitokens = u64;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    held: Millitokens,
    at_ms: u64,
    /// When it is full again, so that nothing is lost by forgetting it.
    full_at_ms: u64,
}

/// Rate limits by payer and kind.
#[derive(Debug, Clone, Default)]
pub struct Buckets {
    buckets: BTreeMap<(Payer, &'static str), Bucket>,
}

impl Buckets {
    /// Takes at `now_ms`, or says how long to wait. `take` has been checked.
    pub fn take(&mut self, now_ms: u64, take: &Take) -> Option<u64> {
        let (rate, full, cost) = (u64::from(take.per_second), millitokens(take.burst), millitokens(take.cost));
        let key = (take.payer.clone(), take.kind);
        self.make_room(now_ms, &key);
        let fresh = Bucket { held: full, at_ms: now_ms, full_at_ms: now_ms };
        let bucket = self.buckets.entry(key).or_insert(fresh);
        let elapsed_ms = now_ms.saturating_sub(bucket.at_ms);
        // One token a second is one millitoken a millisecond.
        bucket.held = bucket.held.saturating_add(elapsed_ms.saturating_mul(rate)).min(full);
        bucket.at_ms = bucket.at_ms.max(now_ms);
        let retry_after_ms = cost.checked_sub(bucket.held).filter(|missing| *missing > 0);
        if retry_after_ms.is_none() {
            bucket.held -= cost;
        }
        bucket.full_at_ms = bucket.at_ms + (full - bucket.held).div_ceil(rate);
        retry_after_ms.map(|missing| missing.div_ceil(rate))
    }

    fn make_room(&mut self, now_ms: u64, key: &(Payer, &'static str)) {
        if self.buckets.len() >= BUCKETS_MAX && !self.buckets.contains_key(key) {
            self.buckets.retain(|_, bucket| bucket.full_at_ms > now_ms);
            if self.buckets.len() >= BUCKETS_MAX {
                self.buckets.clear();
            }
        }
    }
}

fn millitokens(tokens: u32) -> Millitokens {
    u64::from(tokens) * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(user: u32, cost: u32) -> Take {
        let tenant = antiphon_protocol::TenantId::new(&format!("t{user}")).unwrap();
        Take { payer: Payer::Tenant(tenant), kind: "send", cost, per_second: 2, burst: 4 }
    }

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_its_rate() {
        let mut buckets = Buckets::default();
        assert_eq!(buckets.take(1_000, &take(1, 3)), None);
        assert_eq!(buckets.take(1_000, &take(1, 2)), Some(500));
        assert_eq!(buckets.take(1_499, &take(1, 2)), Some(1));
        assert_eq!(buckets.take(1_500, &take(1, 2)), None);
        assert_eq!(buckets.take(1_000_000, &take(1, 4)), None);
        assert_eq!(buckets.take(1_000_000, &take(1, 1)), Some(500));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut buckets = Buckets::default();
        assert_eq!(buckets.take(9_000, &take(1, 4)), None);
        assert_eq!(buckets.take(1_000, &take(1, 1)), Some(500));
        assert_eq!(buckets.take(9_000, &take(1, 1)), Some(500));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_full_buckets_first() {
        let mut buckets = Buckets::default();
        for user in 0..BUCKETS_MAX as u32 {
            assert_eq!(buckets.take(0, &take(user, 1)), None);
        }
        assert_eq!(buckets.take(400, &take(7, 4)), Some(100), "all are kept as long as none is full");
        assert_eq!(buckets.take(500, &take(u32::MAX, 1)), None);
        assert_eq!(buckets.buckets.len(), 1);
    }
}
