//! What a run is summed up in: a table for people, JSON for programs, and whether the promises held.

use std::{fmt, time::Duration};

use antiphon_checker::Verdict;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Above this the generator itself was too slow, and its latencies say nothing about the broker.
pub const LAG_P999_MS_MAX: f64 = 1.0;

/// Times from a planned moment to an event, in microseconds up to an hour, three digits each.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

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
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Counts what another one counted too.
    pub fn add(&mut self, other: &Self) {
        // Invariant: both have the same bounds and digits, and only other ones are refused.
        let _ = self.0.add(&other.0);
    }

    /// The figures, or `None` if nothing was counted.
    pub fn summary(&self) -> Option<LatencySummary> {
        let ms = |us: u64| us as f64 / 1e3;
        (!self.0.is_empty()).then(|| LatencySummary {
            p50_ms: ms(self.0.value_at_quantile(0.50)),
            p99_ms: ms(self.0.value_at_quantile(0.99)),
            p999_ms: ms(self.0.value_at_quantile(0.999)),
            max_ms: ms(self.0.max()),
        })
    }
}

/// Quantiles, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// Half are below.
    pub p50_ms: f64,
    /// 99 of 100 are below.
    pub p99_ms: f64,
    /// 999 of 1,000 are below.
    pub p999_ms: f64,
    /// The worst.
    pub max_ms: f64,
}

/// What the broker used up, where it can be known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ServerFigures {
    /// CPU time of all its threads per copy delivered, in microseconds.
    pub cpu_us_per_delivery: Option<f64>,
    /// Synced writes per 1,000 acknowledged messages.
    pub fsyncs_per_1000_messages: Option<f64>,
    /// Part of the deliveries whose session lives on another shard than the log.
    pub cross_shard_share: Option<f64>,
    /// Datagrams that reached another shard than their connection's.
    pub datagrams_forwarded: Option<f64>,
    /// Resident memory at the end, in KiB.
    pub rss_kib: Option<u64>,
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BrokenRule {
    /// The promise.
    pub rule: String,
    /// How often it was broken.
    pub count: u64,
    /// The first cases.
    pub examples: Vec<String>,
}

/// A run, summed up.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Which scenario.
    pub scenario: &'static str,
    /// Everything random followed from it.
    pub seed: u64,
    /// Conversations in use.
    pub conversations: u64,
    /// Sessions, each on a connection of its own.
    pub sessions: u64,
    /// Of these, on QUIC, on binary and on JSON sockets.
    pub carriers: [u64; 3],
    /// From the first planned send to the last.
    pub seconds: f64,
    /// Messages per second that were offered.
    pub offered_per_second: f64,
    /// Messages that the schedule has.
    pub planned: u64,
    /// Messages sent.
    pub sent: u64,
    /// Of these, acknowledged.
    pub acked: u64,
    /// Of these, refused.
    pub refused: u64,
    /// Of these, without an answer.
    pub unknown: u64,
    /// Copies of events that reached members.
    pub delivered: u64,
    /// Copies that should have reached members.
    pub expected: u64,
    /// Acknowledged messages that are gone, and copies that never came.
    pub lost: u64,
    /// Messages stored twice, and copies that came twice.
    pub duplicated: u64,
    /// Copies that came after later ones.
    pub out_of_order: u64,
    /// Streams that began anew, openly.
    pub resets: u64,
    /// Rounds of things that were broken on purpose meanwhile.
    pub faults: u64,
    /// Times that a client's socket moved to another port.
    pub moves: u64,
    /// Times that nodes of the store's cluster were harmed.
    pub node_faults: u64,
    /// Times that the logs moved to the other engine.
    pub copies: u64,
    /// Of these, killed on their way and finished by another.
    pub copies_interrupted: u64,
    /// Of these, copied back and found the same.
    pub copies_compared: u64,
    /// Times that a broker was overtaken.
    pub takeovers: u64,
    /// Longest time from the pause of the active broker to the readiness of the other.
    pub takeover_seconds_max: Option<f64>,
    /// What the logs are on, if not the data directory.
    pub store: Option<String>,
    /// Whether fewer timeouts were forged than it takes to show anything.
    pub forged_too_few: bool,
    /// Connections that were cut on purpose.
    pub cuts: u64,
    /// Times that the broker was killed.
    pub kills: u64,
    /// Of these, while the store began a segment of its log.
    pub kills_at_rotation: u64,
    /// Of these, while the store wrote a table of its index.
    pub kills_at_flush: u64,
    /// Kills of a gateway in a process of its own.
    pub gateway_kills: u64,
    /// Whether kills have to have fallen on both, as in a run of many.
    pub kills_must_hit: bool,
    /// Times that a session lost its connection and made another.
    pub reconnects: u64,
    /// Whether a lost connection is a broken promise, as when clients only changed their address.
    pub connections_must_last: bool,
    /// The longest time from a kill of the broker to its readiness.
    pub restart_seconds_max: Option<f64>,
    /// From the planned send to the receipt at a member.
    pub delivery: Option<LatencySummary>,
    /// From the planned send to the acknowledgement.
    pub ack: Option<LatencySummary>,
    /// From the planned send to the actual one: the generator's own delay.
    pub lag: Option<LatencySummary>,
    /// What the broker used up.
    pub server: ServerFigures,
    /// Whether the whole history of every log was read at the end, and everything judged against it.
    pub checked: bool,
    /// Promises that were broken.
    pub broken: Vec<BrokenRule>,
}

impl Report {
    /// No promise was broken and nothing is missing.
    pub fn holds(&self) -> bool {
        let connections_lasted = !self.connections_must_last
            || (self.reconnects == 0 && self.server.datagrams_forwarded.is_none_or(|forwarded| forwarded == 0.0));
        let nothing_is_missing = self.lost == 0 && self.delivered == self.expected && self.sent == self.planned;
        let kills_hit = !self.kills_must_hit || (self.kills_at_rotation > 0 && self.kills_at_flush > 0);
        self.broken.is_empty() && nothing_is_missing && connections_lasted && kills_hit && !self.forged_too_few
    }

    /// Takes over what the checker counted and found.
    pub fn apply(&mut self, verdict: &Verdict) {
        let counts = verdict.counts;
        (self.sent, self.acked) = (counts.invoked, counts.acked);
        (self.refused, self.unknown) = (counts.refused, counts.unknown);
        (self.delivered, self.lost) = (counts.delivered, counts.lost);
        (self.duplicated, self.out_of_order, self.resets) = (counts.duplicated, counts.out_of_order, counts.resets);
        self.broken = verdict
            .findings
            .iter()
            .map(|(rule, finding)| BrokenRule {
                rule: rule.to_string(),
                count: finding.count,
                examples: finding.examples.iter().map(ToString::to_string).collect(),
            })
            .collect();
    }

    fn latency_is_void(&self) -> bool {
        self.lag.is_some_and(|lag| lag.p999_ms > LAG_P999_MS_MAX)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<30}{value}");
        row("scenario", &self.scenario)?;
        row("seed", &self.seed)?;
        row("conversations", &self.conversations)?;
        row("sessions", &self.sessions)?;
        if let [quic, binary, json] = self.carriers
            && binary + json > 0
        {
            row("on QUIC, WebSocket, JSON", &format_args!("{quic}, {binary}, {json}"))?;
        }
        if let Some(store) = &self.store {
            row("store", store)?;
        }
        row("seconds", &format_args!("{:.1}", self.seconds))?;
        row("offered messages/s", &format_args!("{:.0}", self.offered_per_second))?;
        row("sent", &format_args!("{} of {}", self.sent, self.planned))?;
        row("acked", &self.acked)?;
        row("refused", &self.refused)?;
        row("unknown", &self.unknown)?;
        row("delivered", &format_args!("{} of {}", self.delivered, self.expected))?;
        row("lost", &self.lost)?;
        row("duplicated", &self.duplicated)?;
        row("out of order", &self.out_of_order)?;
        row("resets", &self.resets)?;
        row("connections lost", &self.reconnects)?;
        if self.faults > 0 {
            row("fault rounds", &self.faults)?;
            row("socket moves, cuts, kills", &format_args!("{}, {}, {}", self.moves, self.cuts, self.kills))?;
        }
        if self.node_faults > 0 {
            row("faults of nodes", &self.node_faults)?;
        }
        if self.copies > 0 {
            let Self { copies, copies_interrupted, copies_compared, .. } = self;
            row("moves, interrupted, compared", &format_args!("{copies}, {copies_interrupted}, {copies_compared}"))?;
        }
        if let Some(seconds) = self.takeover_seconds_max {
            row("takeovers, the longest", &format_args!("{}, {seconds:.1} s", self.takeovers))?;
        }
        if self.gateway_kills > 0 {
            row("kills of the gateway", &self.gateway_kills)?;
        }
        if self.kills > 0 {
            let Self { kills_at_rotation, kills_at_flush, .. } = self;
            row("kills at a rotation, a flush", &format_args!("{kills_at_rotation}, {kills_at_flush}"))?;
        }
        if let Some(seconds) = self.restart_seconds_max {
            row("longest restart", &format_args!("{seconds:.2} s"))?;
        }
        let void = if self.latency_is_void() { "  (void: the generator lagged)" } else { "" };
        let latencies = [("delivery latency", self.delivery, void), ("ack latency", self.ack, void)];
        for (name, summary, note) in latencies.into_iter().chain([("generator lag", self.lag, "")]) {
            if let Some(LatencySummary { p50_ms, p99_ms, p999_ms, .. }) = summary {
                let value = format!("p50 {p50_ms:.2} ms  p99 {p99_ms:.2} ms  p99.9 {p999_ms:.2} ms{note}");
                row(name, &value)?;
            }
        }
        let ServerFigures {
            cpu_us_per_delivery,
            fsyncs_per_1000_messages,
            cross_shard_share,
            datagrams_forwarded,
            rss_kib,
        } = self.server;
        row("server CPU us/delivery", &OrUnknown(cpu_us_per_delivery))?;
        row("fsyncs per 1,000 messages", &OrUnknown(fsyncs_per_1000_messages))?;
        row("deliveries across shards", &OrUnknown(cross_shard_share.map(|share| share * 100.0)).percent())?;
        row("datagrams at a wrong shard", &OrUnknown(datagrams_forwarded))?;
        row("server memory MiB", &OrUnknown(rss_kib.map(|kib| kib as f64 / 1024.0)))?;
        for BrokenRule { rule, count, examples } in &self.broken {
            row("BROKEN", &format_args!("{rule} ({count} times)"))?;
            for example in examples {
                row("", example)?;
            }
        }
        row(
            "promises",
            &match (self.checked, self.holds()) {
                (_, false) => "BROKEN",
                (true, true) => "kept",
                (false, true) => "kept as far as readers can tell; histories were not read",
            },
        )
    }
}

/// A figure with one decimal, or that it is not known.
struct OrUnknown(Option<f64>);

impl OrUnknown {
    fn percent(&self) -> String {
        self.0.map_or_else(|| self.to_string(), |share| format!("{share:.1} %"))
    }
}

impl fmt::Display for OrUnknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(figure) => write!(f, "{figure:.1}"),
            None => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_checker::{At, Checker, Log, Row, Subscriber, body_hash};

    use super::*;

    fn report() -> Report {
        Report { scenario: "replay", seed: 1, conversations: 1, sessions: 2, ..Report::default() }
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.summary(), None);
        (1..=1_000).for_each(|ms| latencies.record(Duration::from_millis(ms)));
        let summary = latencies.summary().unwrap();
        let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.002;
        assert!(near(summary.p50_ms, 500.0) && near(summary.p99_ms, 990.0), "{summary:?}");
        assert!(near(summary.p999_ms, 999.0) && near(summary.max_ms, 1_000.0), "{summary:?}");
        latencies.record(Duration::from_secs(1 << 40));
        assert!(near(latencies.summary().unwrap().max_ms, 3_600_000.0));
    }

    #[test]
    fn a_broken_promise_is_printed_and_decides() {
        let mut checker = Checker::new();
        let (reader, log) = (Subscriber(1), Log(0));
        checker.subscribe(reader, log, 1);
        let row = Row { seq: 2, author: None, hash: body_hash(b"x") };
        checker.deliver(At(1), reader, log, row);
        checker.history(log, [Row { seq: 1, ..row }, row]);
        let mut report = report();
        report.apply(&checker.finish());
        report.expected = 1;
        assert!(!report.holds());
        assert_eq!((report.lost, report.broken.len()), (1, 1));
        let table = report.to_string();
        assert!(table.contains("never got positions 1 to 1") && table.contains("promises                      BROKEN"));
        assert!(serde_json::to_string(&report).unwrap().contains(r#""rule":"streams are contiguous""#));
    }

    #[test]
    fn missing_copies_decide_even_without_a_checker() {
        let mut report = report();
        assert!(report.holds());
        report.expected = 1;
        assert!(!report.holds());
    }

    #[test]
    fn where_connections_must_last_a_lost_one_decides() {
        let mut report = Report { connections_must_last: true, ..report() };
        assert!(report.holds());
        report.server.datagrams_forwarded = Some(1.0);
        assert!(!report.holds());
        report.server.datagrams_forwarded = Some(0.0);
        report.reconnects = 1;
        assert!(!report.holds());
        report.connections_must_last = false;
        assert!(report.holds());
    }

    #[test]
    fn where_kills_must_hit_rotations_and_flushes_each_one_decides() {
        let mut report = Report { kills_must_hit: true, kills_at_rotation: 1, ..report() };
        assert!(!report.holds());
        report.kills_at_flush = 1;
        assert!(report.holds());
        report.kills_at_rotation = 0;
        assert!(!report.holds());
    }

    #[test]
    fn a_generator_that_lags_voids_its_latencies() {
        let mut report = report();
        let summary = LatencySummary { p50_ms: 1.0, p99_ms: 2.0, p999_ms: 3.0, max_ms: 4.0 };
        (report.delivery, report.lag) = (Some(summary), Some(summary));
        assert_eq!(report.to_string().matches("void").count(), 1);
        report.lag = Some(LatencySummary { p999_ms: 0.5, ..summary });
        assert!(!report.to_string().contains("void"));
    }
}
