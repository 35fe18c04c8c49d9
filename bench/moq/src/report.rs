//! What came of it, in the words of `antiphon-loadgen`.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Times from a planned moment to an event, in microseconds up to an hour, three digits each.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        const HIGHEST_US: u64 = 3_600_000_000;
        // Invariant: 1 < highest/2 and 3 digits are what the library accepts; it has no other cause to refuse.
        #[expect(clippy::unwrap_used, reason = "constant and valid bounds")]
        Self(Histogram::new_with_bounds(1, HIGHEST_US, 3).unwrap())
    }
}

impl Latencies {
    /// Counts one; what exceeds an hour counts as an hour.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// The figures, or `None` if nothing was counted.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let ms = |us: u64| us as f64 / 1e3;
        (!self.0.is_empty()).then(|| Summary {
            p50_ms: ms(self.0.value_at_quantile(0.50)),
            p99_ms: ms(self.0.value_at_quantile(0.99)),
            p999_ms: ms(self.0.value_at_quantile(0.999)),
            max_ms: ms(self.0.max()),
        })
    }
}

/// Quantiles, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
}

/// The measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Messages.
    pub(crate) messages: u64,
    /// Copies that came, each the next one of its follower.
    pub(crate) delivered: u64,
    /// Copies that should have come.
    pub(crate) expected: u64,
    /// From the planned send to the receipt in its order.
    pub(crate) delivery: Option<Summary>,
    /// From the planned send to the actual one.
    pub(crate) lag: Option<Summary>,
    /// What went wrong first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broken: Option<String>,
}

impl Report {
    /// Everything came once and in order.
    pub(crate) fn holds(&self) -> bool {
        self.broken.is_none() && self.delivered == self.expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_what_versus_reads() {
        let mut lag = Latencies::default();
        assert!(lag.summary().is_none());
        lag.record(Duration::from_millis(2));
        let mut report =
            Report { messages: 1, delivered: 2, expected: 2, delivery: None, lag: lag.summary(), broken: None };
        assert!(report.holds());
        let line = serde_json::to_string(&report).unwrap();
        assert!(line.contains(r#""delivered":2,"expected":2,"delivery":null,"lag":{"p50_ms":2.0"#), "{line}");
        assert!(!line.contains("broken"), "{line}");
        report.delivered = 1;
        assert!(!report.holds());
    }
}
