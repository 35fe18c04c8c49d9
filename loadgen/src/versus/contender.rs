//! One contender does the work once.

use std::{collections::BTreeMap, error::Error, fmt, path::PathBuf};

use antiphon_peers::{Certificate, Keeping, Peer, Program, Server};
use serde::{Serialize, Serializer};

use super::{
    durable, herd, live,
    rows::{Herd, Live, Work},
};
use crate::{
    control::{bare, floor},
    fanout::{FanoutArgs, FanoutReport},
    idle::{self, IdleArgs, IdleReport},
    machine::CoreArgs,
    measured::{Scenario, measure, one_thread},
    publish::{PublishArgs, PublishReport},
    target::{OwnBroker, Target},
};

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// The kernel's part alone: datagrams without QUIC.
    Floor,
    /// A bare driver of `quinn-proto`.
    Bare,
    /// The broker.
    Antiphon,
    /// Another server.
    Peer(Peer),
}

impl Contender {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "UDP floor",
            Self::Bare => "bare QUIC",
            Self::Antiphon => "Antiphon",
            Self::Peer(peer) => peer.name(),
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Contender {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Processor time of the server per delivery or acknowledgement, in microseconds.
    CpuUs,
    /// Acknowledgements per second.
    PerSecond,
    /// Memory of a connection, the kernel's included, in KiB.
    KibPerConnection,
    /// Processor time of an idle connection in a second, in microseconds.
    IdleCpuUs,
    /// Processor time of a new connection, in microseconds.
    ConnectCpuUs,
    /// Times per message that a thread of the server went to sleep.
    WakeUps,
    /// Memory of the server, in MiB.
    ResidentMib,
    /// Median from the planned send to the receipt, in milliseconds.
    P50Ms,
    /// The same, of 99 in 100.
    P99Ms,
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
            Self::IdleCpuUs => "idle CPU us/s/connection",
            Self::ConnectCpuUs => "CPU us/connect",
            Self::WakeUps => "wake-ups/message",
            Self::ResidentMib => "RSS MiB",
            Self::P50Ms => "p50 ms",
            Self::P99Ms => "p99 ms",
            Self::LagP999Ms => "generator lag p99.9 ms",
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

    fn new<const N: usize>(figures: [(Measure, Option<f64>); N]) -> Self {
        let figures = figures.into_iter().filter_map(|(measure, figure)| Some((measure, figure?))).collect();
        Self { figures, ..Self::default() }
    }
}

/// What all measurements share.
#[derive(Debug)]
pub struct Stand {
    /// Processors of servers and generator.
    pub cores: CoreArgs,
    /// The broker's binary.
    pub antiphon: PathBuf,
    /// The peers' programs, by name.
    pub programs: BTreeMap<&'static str, Program>,
    /// Everybody's.
    pub certificate: Certificate,
}

impl Stand {
    /// Whether this contender takes part.
    pub fn has(&self, contender: Contender) -> bool {
        match contender {
            Contender::Peer(peer) => self.programs.contains_key(peer.name()),
            _ => true,
        }
    }

    /// Lets a contender do the work.
    pub fn measure(&self, contender: Contender, work: &Work) -> Result<Outcome, Box<dyn Error>> {
        match (contender, *work) {
            (Contender::Floor, Work::Live(live)) => self.floor(live),
            (Contender::Bare, Work::Live(live)) => self.bare(live),
            (Contender::Floor | Contender::Bare, _) => Err("this control is one of fan-outs".into()),
            (Contender::Antiphon, Work::Live(live)) => Ok(self.antiphon(&FanoutArgs::from(live), None)?.into()),
            (Contender::Antiphon, Work::Durable(load)) => Ok(self.antiphon(&PublishArgs::from(load), None)?.into()),
            (Contender::Antiphon, Work::Herd(load)) => {
                Ok(self.antiphon(&IdleArgs::from(load), Some(idle::CACHE_MIB))?.into())
            }
            (Contender::Peer(peer), work) => self.peer(peer, work),
        }
    }

    fn floor(&self, live: Live) -> Result<Outcome, Box<dyn Error>> {
        let load = self.control_load(live);
        let cpu_us = floor::measure(load)?;
        Ok(Outcome::new([(Measure::CpuUs, Some(cpu_us))]))
    }

    fn bare(&self, live: Live) -> Result<Outcome, Box<dyn Error>> {
        let load = self.control_load(live);
        let figures = bare::measure(load)?;
        Ok(Outcome::new([(Measure::CpuUs, Some(figures.cpu_us_per_delivery))]))
    }

    fn control_load(&self, live: Live) -> bare::Load {
        let Live { members, bytes, rate, seconds, warm_up, .. } = live;
        let CoreArgs { server_core, core } = self.cores;
        bare::Load { members: members as usize, bytes, rate, seconds, warm_up, server_core, core }
    }

    /// A broker with one shard, as the peers have one thread or one processor.
    fn antiphon<S: Scenario>(&self, load: &S, cache_mib: Option<u32>) -> Result<S::Report, Box<dyn Error>> {
        let home = tempfile::Builder::new().prefix("antiphon-versus-").tempdir()?;
        let file = |path: PathBuf| path.display().to_string();
        let (chain, key) = (file(self.certificate.chain()), file(self.certificate.key()));
        let own = OwnBroker {
            program: Some(self.antiphon.clone()),
            shards: Some(1),
            cache_mib,
            args: ["--tls-certificate", &chain, "--tls-key", &key].map(str::to_owned).into(),
            ..OwnBroker::new(home.path())
        };
        measure(load, self.cores, || Target::start_own(own).map(|(target, broker)| (target, Some(broker))))
    }

    fn peer(&self, peer: Peer, work: Work) -> Result<Outcome, Box<dyn Error>> {
        let program = self.programs.get(peer.name()).ok_or("its program is not on this machine")?;
        let keeping = match work {
            Work::Live(live) => live.keeping,
            Work::Durable(_) => Keeping::Synced,
            Work::Herd(_) => Keeping::Nothing,
        };
        let server = self.cores.around(|| Server::start(program, &self.certificate, keeping))??;
        let client = self.certificate.client()?;
        let runtime = one_thread()?;
        match work {
            Work::Live(load) => Ok(runtime.block_on(live::run(server, &client, load))?.into()),
            Work::Durable(load) => Ok(runtime.block_on(durable::run(&server, &client, load))?.into()),
            Work::Herd(load) => Ok(runtime.block_on(herd::run(&server, &client, load))?.into()),
        }
    }
}

impl From<FanoutReport> for Outcome {
    fn from(report: FanoutReport) -> Self {
        let mut outcome = Self::new([
            (Measure::CpuUs, report.cpu_us_per_delivery),
            (Measure::WakeUps, report.wake_ups_per_message),
            (Measure::ResidentMib, report.resident_kib.map(|kib| kib as f64 / 1024.0)),
            (Measure::P50Ms, report.delivery.map(|delivery| delivery.p50_ms)),
            (Measure::P99Ms, report.delivery.map(|delivery| delivery.p99_ms)),
            (Measure::LagP999Ms, report.lag.map(|lag| lag.p999_ms)),
        ]);
        (outcome.done, outcome.expected, outcome.broken) = (report.delivered, report.expected, report.broken);
        outcome
    }
}

impl From<PublishReport> for Outcome {
    fn from(report: PublishReport) -> Self {
        let mut outcome = Self::new([
            (Measure::PerSecond, Some(report.acks_per_second)),
            (Measure::CpuUs, report.cpu_us_per_ack),
            (Measure::ResidentMib, report.resident_kib.map(|kib| kib as f64 / 1024.0)),
        ]);
        (outcome.done, outcome.expected, outcome.broken) = (report.acks, report.acks, report.broken);
        outcome
    }
}

impl From<IdleReport> for Outcome {
    fn from(report: IdleReport) -> Self {
        let mut outcome = Self::new([
            (Measure::KibPerConnection, Some(report.kib_per_connection + report.kernel_kib_per_connection)),
            (Measure::IdleCpuUs, report.idle_cpu_us_per_second),
            (Measure::ConnectCpuUs, report.cpu_us_per_connect),
        ]);
        outcome.done = report.connections as u64;
        outcome.expected = outcome.done;
        outcome
    }
}

impl From<Herd> for IdleArgs {
    fn from(herd: Herd) -> Self {
        let Herd { connections, subscriptions, seconds } = herd;
        Self::new(connections, subscriptions, seconds.round() as u64)
    }
}
