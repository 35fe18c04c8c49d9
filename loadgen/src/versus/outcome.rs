//! What a measurement found.

use std::collections::BTreeMap;

use serde::Serialize;

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Processor time of the server per delivery, acknowledgement, message or session, as the row's title says, in
    /// microseconds.
    CpuUs,
    /// Acknowledgements per second.
    PerSecond,
    /// Memory of a connection, the kernel's included, in KiB.
    KibPerConnection,
    /// Times that a message is written as JSON.
    EncodingsPerMessage,
    /// Processor time of an idle connection in a second, in microseconds.
    IdleCpuUs,
    /// Processor time of a new connection, in microseconds.
    ConnectCpuUs,
    /// Until 99 of 100 sessions were back with everything, in seconds.
    RecoverySeconds,
    /// Messages that clients had missed, and got when they were back.
    MissedMessages,
    /// TLS sessions that went on on a new connection.
    ResumedSessions,
    /// Conversations that there were.
    Conversations,
    /// Times per message that a thread of the server went to sleep.
    WakeUps,
    /// Bytes over loopback per delivery, with the headers of all layers, those of what is published and of acknowledgements
    /// included.
    WireBytes,
    /// The same, packets.
    WirePackets,
    /// Memory of the server, in MiB.
    ResidentMib,
    /// Median from the planned send to the receipt, in milliseconds.
    P50Ms,
    /// The same, of 99 in 100.
    P99Ms,
    /// The same, of 999 in 1,000.
    P999Ms,
    /// How late the generator was, of 999 in 1,000, in milliseconds.
    LagP999Ms,
}

impl Measure {
    /// With its unit.
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuUs => "server CPU us",
            Self::PerSecond => "acks/s",
            Self::KibPerConnection => "KiB/connection",
            Self::EncodingsPerMessage => "JSON encodings/message",
            Self::IdleCpuUs => "idle CPU us/s/connection",
            Self::ConnectCpuUs => "CPU us/connect",
            Self::RecoverySeconds => "s until 99 % were back",
            Self::MissedMessages => "missed messages",
            Self::ResumedSessions => "TLS sessions resumed",
            Self::Conversations => "conversations",
            Self::WakeUps => "wake-ups/message",
            Self::WireBytes => "wire B/delivery",
            Self::WirePackets => "packets/delivery",
            Self::ResidentMib => "RSS MiB",
            Self::P50Ms => "p50 ms",
            Self::P99Ms => "p99 ms",
            Self::P999Ms => "p99.9 ms",
            Self::LagP999Ms => "generator lag p99.9 ms",
        }
    }

    /// It says nothing where the generator was late.
    pub fn is_latency(self) -> bool {
        matches!(self, Self::P50Ms | Self::P99Ms | Self::P999Ms)
    }

    /// Counts have no decimals.
    pub(super) fn digits(self) -> usize {
        match self {
            Self::PerSecond | Self::MissedMessages | Self::ResumedSessions | Self::Conversations | Self::WireBytes => 0,
            _ => 2,
        }
    }

    /// More of it is better.
    pub fn is_better_when_higher(self) -> bool {
        self == Self::PerSecond
    }
}

/// What one of them did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// What was measured.
    pub figures: BTreeMap<Measure, f64>,
    /// Deliveries or acknowledgements that came, each once and in order.
    pub done: u64,
    /// As many should have come.
    pub expected: u64,
    /// Why there is no result.
    pub broken: Option<String>,
}

impl Outcome {
    /// None, for this reason.
    pub fn broken(why: String) -> Self {
        Self { broken: Some(why), ..Self::default() }
    }

    /// Everything came once and in order.
    pub fn holds(&self) -> bool {
        self.broken.is_none() && self.done == self.expected
    }

    pub(super) fn new<const N: usize>(figures: [(Measure, Option<f64>); N]) -> Self {
        let figures = figures.into_iter().filter_map(|(measure, figure)| Some((measure, figure?))).collect();
        Self { figures, ..Self::default() }
    }
}
