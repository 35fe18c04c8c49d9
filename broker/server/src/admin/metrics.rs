//! Counters of the shards, for Prometheus.
//!
//! A shard counts in plain fields of its own and publishes them once a second: no atomic, no lock and no label lookup
//! on the hot path.

use std::sync::OnceLock;

use antiphon_protocol::ErrorCode;
use antiphon_storage::embedded::{BOUNDS_US, Latencies};
use antiphon_storage_cql::times::{self, Kind, Spread};
use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use thiserror::Error;

macro_rules! shard_metrics {
    (
        counters { $($counter:ident = $counter_name:literal, $counter_help:literal;)+ }
        gauges { $($gauge:ident = $gauge_name:literal, $gauge_help:literal;)+ }
    ) => {
        /// What one shard counts. Counters only grow during a boot; gauges are the present values.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct ShardMetrics {
            $(#[doc = $counter_help] pub $counter: u64,)+
            $(#[doc = $gauge_help] pub $gauge: u64,)+
        }

        impl ShardMetrics {
            /// The name of every series, without labels.
            pub const NAMES: &'static [&'static str] = &[$($counter_name,)+ $($gauge_name,)+];
        }

        /// Hands a shard's numbers to the recorder, labelled with the shard. About once a second.
        pub fn publish(shard: u16, numbers: &ShardMetrics) {
            let shard = shard.to_string();
            $(counter!($counter_name, "shard" => shard.clone()).absolute(numbers.$counter);)+
            // Gauges are far below 2^53, where f64 stops being exact.
            $(gauge!($gauge_name, "shard" => shard.clone()).set(numbers.$gauge as f64);)+
        }

        fn describe() {
            $(describe_counter!($counter_name, $counter_help);)+
            $(describe_gauge!($gauge_name, $gauge_help);)+
        }
    };
}

shard_metrics! {
    counters {
        loop_turns = "antiphon_loop_turns_total", "Turns of the event loop.";
        loop_busy_us = "antiphon_loop_busy_us_total", "Time in turns of the event loop, microseconds; the rest is sleep.";
        datagrams_in = "antiphon_datagrams_in_total", "UDP datagrams received.";
        datagrams_out = "antiphon_datagrams_out_total", "UDP datagrams sent.";
        datagrams_forwarded = "antiphon_datagrams_forwarded_total", "UDP datagrams that another shard's socket received.";
        bytes_in = "antiphon_bytes_in_total", "UDP payload bytes received.";
        bytes_out = "antiphon_bytes_out_total", "UDP payload bytes sent.";
        handshakes_accepted = "antiphon_handshakes_accepted_total", "QUIC handshakes accepted.";
        handshakes_refused = "antiphon_handshakes_refused_total", "QUIC handshakes refused for lack of room.";
        retries_sent = "antiphon_retries_sent_total", "Address validations demanded (QUIC Retry).";
        sessions_authenticated = "antiphon_sessions_authenticated_total", "Sessions whose token was accepted.";
        tokens_refused = "antiphon_tokens_refused_total", "Tokens refused.";
        events_appended = "antiphon_events_appended_total", "Events made durable.";
        sends_deduplicated = "antiphon_sends_deduplicated_total", "Sends answered with their first position again.";
        requests_refused = "antiphon_requests_refused_total", "Requests answered with an error.";
        events_delivered = "antiphon_events_delivered_total", "Events put into sessions' outboxes.";
        events_crossed = "antiphon_events_crossed_total", "Of those, events whose log another shard owns.";
        pages_served = "antiphon_pages_served_total", "History pages served.";
        subscribers_behind = "antiphon_subscribers_behind_total", "Subscriptions told to pull because their outbox was full.";
        state_dropped = "antiphon_state_dropped_total", "Cursors and signals dropped for newer ones.";
        mailbox_full = "antiphon_mailbox_full_total", "Messages that waited because another shard's ring was full.";
        store_blocks = "antiphon_store_blocks_total", "Blocks written to the write-ahead log, or batches of rows to the cluster.";
        store_syncs = "antiphon_store_syncs_total", "Syncs of the write-ahead log.";
        store_bytes = "antiphon_store_bytes_total", "Bytes written to the write-ahead log.";
        store_requests = "antiphon_store_requests_total", "Requests to the store's cluster.";
        store_failures = "antiphon_store_failures_total", "Requests to the store's cluster that were given up.";
    }
    gauges {
        connections = "antiphon_connections", "QUIC connections open.";
        sessions = "antiphon_sessions", "Sessions authenticated and connected.";
        logs_loaded = "antiphon_logs_loaded", "Logs whose state is in memory.";
        outbox_bytes = "antiphon_outbox_bytes", "Bytes that wait to be written to connections.";
        loop_turn_us_max = "antiphon_loop_turn_us_max", "Longest turn of the event loop in the last second, microseconds.";
    }
}

/// Hands over how long a shard's syncs took, in the form of a histogram: the recorder has no way to take over counts that
/// were made elsewhere, and Prometheus reads this the same.
pub fn publish_sync_times(shard: u16, times: &Latencies) {
    const NAMES: [&str; 3] =
        ["antiphon_store_sync_seconds_bucket", "antiphon_store_sync_seconds_count", "antiphon_store_sync_seconds_sum"];
    publish_histogram(NAMES, ("shard", &shard.to_string()), (&BOUNDS_US, &times.counts), times.sum_us);
}

/// The same for the requests to the store's cluster, by their kind.
pub(crate) fn publish_request_times(kind: Kind, times: &Spread) {
    const NAMES: [&str; 3] = [
        "antiphon_store_request_seconds_bucket",
        "antiphon_store_request_seconds_count",
        "antiphon_store_request_seconds_sum",
    ];
    publish_histogram(NAMES, ("kind", kind.name()), (&times::BOUNDS_US, &times.counts), times.sum_us);
}

/// The series of buckets, count and sum; the last of the counts, which are not cumulated, has no bound.
fn publish_histogram(
    [buckets, count, sum]: [&'static str; 3],
    (label, value): (&'static str, &str),
    (bounds_us, counts): (&[u64], &[u64]),
    sum_us: u64,
) {
    let mut so_far = 0;
    for (at, inside) in counts.iter().enumerate() {
        so_far += inside;
        let le = bounds_us.get(at).map_or_else(|| "+Inf".to_owned(), |us| (*us as f64 / 1e6).to_string());
        counter!(buckets, &[(label, value.to_owned()), ("le", le)]).absolute(so_far);
    }
    counter!(count, label => value.to_owned()).absolute(so_far);
    gauge!(sum, label => value.to_owned()).set(sum_us as f64 / 1e6);
}

/// Hands over the refusals of all shards: a series for each code, from the beginning.
pub(crate) fn publish_refusals(refusals: &[(ErrorCode, u64)]) {
    for (code, count) in refusals {
        counter!("antiphon_refusals_total", "code" => code.code()).absolute(*count);
    }
}

/// Hands over when the certificate that is served ends; `None` leaves what was known before.
pub fn publish_certificate_end(unix_seconds: Option<i64>) {
    if let Some(seconds) = unix_seconds {
        gauge!("antiphon_certificate_expires_seconds").set(seconds as f64);
    }
}

/// The metrics of the process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

fn describe_more() {
    describe_counter!(
        "antiphon_store_sync_seconds_bucket",
        "Syncs, or durable writes, that took at most `le` seconds."
    );
    describe_counter!("antiphon_store_sync_seconds_count", "Syncs, or durable writes.");
    describe_gauge!("antiphon_store_sync_seconds_sum", "Time that syncs, or durable writes, took, seconds.");
    describe_counter!(
        "antiphon_store_request_seconds_bucket",
        "Requests to the store's cluster that took at most `le` seconds, answered or not."
    );
    describe_counter!(
        "antiphon_store_request_seconds_count",
        "Requests to the store's cluster, repeated ones each time."
    );
    describe_gauge!("antiphon_store_request_seconds_sum", "Time that requests to the store's cluster took, seconds.");
    describe_counter!("antiphon_refusals_total", "Requests refused and connections closed for an error, by code.");
    describe_gauge!("antiphon_certificate_expires_seconds", "When the served certificate ends, Unix seconds.");
}

/// Another recorder was installed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("another library has installed its own metrics recorder in this process")]
pub struct ForeignRecorder;

impl Metrics {
    /// Installs the recorder on the first call; later calls return the same one.
    pub fn install() -> Result<Self, ForeignRecorder> {
        static INSTALLED: OnceLock<Result<Metrics, ForeignRecorder>> = OnceLock::new();
        INSTALLED
            .get_or_init(|| {
                let recorder = PrometheusBuilder::new().build_recorder();
                let handle = recorder.handle();
                metrics::set_global_recorder(recorder).map_err(|_| ForeignRecorder)?;
                describe();
                describe_more();
                Ok(Self(handle))
            })
            .clone()
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Frees what rendering no longer needs. About once a second.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_histograms_and_refusals_have_their_code() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let mut times = Latencies { sum_us: 1_500_000, ..Latencies::default() };
        (times.counts[0], times.counts[1], times.counts[15]) = (3, 2, 1);
        let mut asked = Spread { sum_us: 2_000, ..Spread::default() };
        (asked.counts[1], asked.counts[15]) = (4, 1);
        metrics::with_local_recorder(&recorder, || {
            publish_sync_times(1, &times);
            publish_request_times(Kind::Write, &asked);
            publish_refusals(&[(ErrorCode::NotFound, 3), (ErrorCode::Internal, 0)]);
        });
        let text = handle.render();
        for line in [
            r#"antiphon_store_sync_seconds_bucket{shard="1",le="0.000064"} 3"#,
            r#"antiphon_store_sync_seconds_bucket{shard="1",le="0.000128"} 5"#,
            r#"antiphon_store_sync_seconds_bucket{shard="1",le="1.048576"} 5"#,
            r#"antiphon_store_sync_seconds_bucket{shard="1",le="+Inf"} 6"#,
            r#"antiphon_store_sync_seconds_count{shard="1"} 6"#,
            r#"antiphon_store_sync_seconds_sum{shard="1"} 1.5"#,
            r#"antiphon_store_request_seconds_bucket{kind="write",le="0.000512"} 0"#,
            r#"antiphon_store_request_seconds_bucket{kind="write",le="8.388608"} 4"#,
            r#"antiphon_store_request_seconds_bucket{kind="write",le="+Inf"} 5"#,
            r#"antiphon_store_request_seconds_count{kind="write"} 5"#,
            r#"antiphon_store_request_seconds_sum{kind="write"} 0.002"#,
            r#"antiphon_refusals_total{code="not_found"} 3"#,
            r#"antiphon_refusals_total{code="internal"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn every_number_of_a_shard_is_rendered_with_its_label() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            publish(0, &ShardMetrics { events_appended: 7, connections: 3, ..ShardMetrics::default() });
            publish(1, &ShardMetrics { events_appended: 9, ..ShardMetrics::default() });
            publish(0, &ShardMetrics { events_appended: 8, connections: 2, ..ShardMetrics::default() });
        });
        let text = handle.render();
        for line in [
            r#"antiphon_events_appended_total{shard="0"} 8"#,
            r#"antiphon_events_appended_total{shard="1"} 9"#,
            r#"antiphon_connections{shard="0"} 2"#,
            "# TYPE antiphon_events_appended_total counter",
            "# TYPE antiphon_connections gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        for name in ShardMetrics::NAMES {
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            assert!(text.contains(&format!("{name}{{shard=\"1\"}} ")), "{name}");
        }
    }
}
