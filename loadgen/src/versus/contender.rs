//! One contender does the work once.

use std::{
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use antiphon_peers::{Certificate, Keeping, Peer, Security, Server};
use serde::{Serialize, Serializer};
use tempfile::TempDir;

use super::{
    Programs,
    browsers::{self, Browsers, BrowsersReport},
    durable,
    growth::Growth,
    herd, history,
    live::{self, Live},
    moq,
    outcome::{Measure, Outcome},
    rows::Work,
    storm::{self, Storm},
    stranger::Stranger,
};
use crate::{
    control::{bare, floor},
    fanout::FanoutArgs,
    history::HistoryArgs,
    idle::{self, IdleArgs},
    machine::CoreArgs,
    measured::{Scenario, measure, one_thread, within},
    publish::PublishArgs,
    spread::SpreadArgs,
    storm::StormArgs,
    target::{OwnBroker, Target},
};

/// How long one measurement may take: who hangs has no result.
const WITHIN: Duration = Duration::from_secs(300);

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// The kernel's part alone: datagrams without QUIC.
    Floor,
    /// A bare driver of `quinn-proto`.
    Bare,
    /// The same with a smaller load, where the broker is compared with itself.
    SmallerBare,
    /// The broker with a smaller load, where it is compared with itself.
    Smaller,
    /// The broker.
    Antiphon,
    /// The broker, too, driven by the client that shares nothing with this program.
    Stranger,
    /// Another server.
    Peer(Peer),
    /// The same without TLS.
    Plain(Peer),
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Floor => "UDP floor",
            Self::Bare => "bare QUIC",
            Self::SmallerBare => "bare QUIC (small)",
            Self::Smaller => "Antiphon (small)",
            Self::Antiphon => "Antiphon",
            Self::Stranger => "quic-go client",
            Self::Peer(peer) | Self::Plain(peer) => peer.name(),
        }
    }

    /// Whose program takes part, unless it is the broker's or this one's.
    pub fn peer(self) -> Option<Peer> {
        match self {
            Self::Peer(peer) | Self::Plain(peer) => Some(peer),
            Self::Floor | Self::Bare | Self::SmallerBare | Self::Smaller | Self::Antiphon | Self::Stranger => None,
        }
    }

    /// Who does the same with a smaller load.
    pub fn smaller(self) -> Option<Self> {
        match self {
            Self::Bare => Some(Self::SmallerBare),
            Self::Antiphon => Some(Self::Smaller),
            _ => None,
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => write!(f, "{} (plain)", self.name()),
            _ => f.pad(self.name()),
        }
    }
}

impl Serialize for Contender {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What all measurements share.
#[derive(Debug)]
pub struct Stand {
    /// Processors of servers and generator.
    pub cores: CoreArgs,
    /// The broker's binary.
    pub antiphon: PathBuf,
    /// Those of the peers that take part.
    pub programs: Programs,
    /// The client on another QUIC stack, if it was built.
    pub stranger: Option<Stranger>,
    /// Everybody's.
    pub certificate: Certificate,
}

impl Stand {
    /// Whether this contender takes part.
    pub fn has(&self, contender: Contender) -> bool {
        match contender {
            Contender::Peer(peer) | Contender::Plain(peer) => self.programs.contains_key(peer.name()),
            Contender::Stranger => self.stranger.is_some(),
            Contender::Floor | Contender::Bare | Contender::SmallerBare | Contender::Smaller | Contender::Antiphon => {
                true
            }
        }
    }

    /// Lets a contender do the work.
    pub fn measure(&self, contender: Contender, work: &Work) -> Result<Outcome, Box<dyn Error>> {
        match (contender, *work) {
            (Contender::Floor, Work::Live(live)) => self.floor(live),
            (Contender::Bare, Work::Live(live)) => self.bare(live),
            (Contender::Bare, Work::Growth(Growth::Followers { large, .. })) => self.bare(large),
            (Contender::SmallerBare, Work::Growth(Growth::Followers { small, .. })) => self.bare(small),
            (Contender::Floor | Contender::Bare | Contender::SmallerBare, _) => {
                Err("this control is one of fan-outs".into())
            }
            (Contender::Antiphon | Contender::Smaller, Work::Growth(growth)) => {
                self.growth(growth, contender == Contender::Antiphon)
            }
            (Contender::Smaller, _) => Err("the broker is not compared with itself here".into()),
            (Contender::Antiphon, Work::Storm(load)) => Ok(self.antiphon(&StormArgs::from(load), None)?.into()),
            (Contender::Antiphon, Work::History(load)) => Ok(self.antiphon(&HistoryArgs::from(load), None)?.into()),
            (Contender::Antiphon, Work::Live(live)) => Ok(self.antiphon(&FanoutArgs::from(live), None)?.into()),
            (Contender::Antiphon, Work::Durable(load)) => Ok(self.antiphon(&PublishArgs::from(load), None)?.into()),
            (Contender::Antiphon, Work::Herd(load)) => {
                let time = WITHIN.max(load.within());
                Ok(self.antiphon_within(time, &IdleArgs::from(load), Some(idle::CACHE_MIB))?.into())
            }
            (Contender::Stranger, work) => self.stranger(work),
            (Contender::Antiphon, Work::Browsers(load)) => Ok(self.gateway(load)?.into()),
            (Contender::Peer(peer), work) => self.peer(peer, Security::Tls, work),
            (Contender::Plain(peer), work) => self.peer(peer, Security::Plain, work),
        }
    }

    fn growth(&self, growth: Growth, is_large: bool) -> Result<Outcome, Box<dyn Error>> {
        match growth {
            Growth::Followers { large, small } => {
                let live = if is_large { large } else { small };
                Ok(self.antiphon(&FanoutArgs::from(live), None)?.into())
            }
            Growth::Conversations { large, small } => {
                let spread = if is_large { large } else { small };
                Ok(self.antiphon(&SpreadArgs::from(spread), None)?.into())
            }
        }
    }

    fn floor(&self, live: Live) -> Result<Outcome, Box<dyn Error>> {
        let load = self.control_load(live);
        let floor::Figures { cpu_us_per_delivery, wire_per_delivery } = floor::measure(load)?;
        Ok(control_outcome(cpu_us_per_delivery, wire_per_delivery))
    }

    fn bare(&self, live: Live) -> Result<Outcome, Box<dyn Error>> {
        let load = self.control_load(live);
        let bare::Figures { cpu_us_per_delivery, wire_per_delivery, wake_ups_per_round, .. } = bare::measure(load)?;
        let mut outcome = control_outcome(cpu_us_per_delivery, wire_per_delivery);
        outcome.figures.insert(Measure::WakeUps, wake_ups_per_round);
        Ok(outcome)
    }

    fn control_load(&self, live: Live) -> bare::Load {
        let Live { rooms, members, bytes, rate, seconds, warm_up, keeping, .. } = live;
        let CoreArgs { server_core, core } = self.cores;
        let (rooms, members, synced) = (rooms as usize, members as usize, keeping == Keeping::Synced);
        bare::Load { rooms, members, synced, bytes, rate, seconds, warm_up, server_core, core }
    }

    fn antiphon<S: Scenario>(&self, load: &S, cache_mib: Option<u32>) -> Result<S::Report, Box<dyn Error>> {
        self.antiphon_within(WITHIN, load, cache_mib)
    }

    fn antiphon_within<S: Scenario>(
        &self,
        time: Duration,
        load: &S,
        cache_mib: Option<u32>,
    ) -> Result<S::Report, Box<dyn Error>> {
        let home = new_home()?;
        let own = self.own_broker(home.path(), cache_mib)?;
        measure(load, self.cores, Some(time), || Target::start_own(own).map(|(target, broker)| (target, Some(broker))))
    }

    fn gateway(&self, load: Browsers) -> Result<BrowsersReport, Box<dyn Error>> {
        let home = new_home()?;
        let (target, broker) = self.cores.around(|| Target::start_own(self.own_broker(home.path(), None)?))??;
        one_thread()?.block_on(browsers::run_on_gateway(&target, broker, load))
    }

    /// A broker with one shard, as the peers have one thread or one processor; its gateway is in it. Like the peers it has no
    /// limit that a load could reach.
    fn own_broker(&self, home: &Path, cache_mib: Option<u32>) -> io::Result<OwnBroker> {
        let file = |path: PathBuf| path.display().to_string();
        let (chain, key) = (file(self.certificate.chain()), file(self.certificate.key()));
        let config = home.join("antiphon.toml");
        fs::write(&config, "development = true\n[limits]\nconnections_per_shard_max = 1_000_000\n")?;
        let config = file(config);
        Ok(OwnBroker {
            program: Some(self.antiphon.clone()),
            shards: Some(1),
            cache_mib,
            args: ["--config", &config, "--tls-certificate", &chain, "--tls-key", &key].map(str::to_owned).into(),
            ..OwnBroker::new(home)
        })
    }

    fn stranger(&self, work: Work) -> Result<Outcome, Box<dyn Error>> {
        let stranger = self.stranger.as_ref().ok_or("its program is not on this machine")?;
        let home = new_home()?;
        // Ends with the measurement.
        let (target, _broker) = self.cores.around(|| Target::start_own(self.own_broker(home.path(), None)?))??;
        let runtime = one_thread()?;
        match work {
            Work::Live(load) => Ok(runtime.block_on(stranger.fanout(&target, &self.certificate, load))?.into()),
            Work::Durable(load) => Ok(runtime.block_on(stranger.publish(&target, &self.certificate, load))?.into()),
            Work::Herd(_) | Work::Storm(_) | Work::History(_) | Work::Growth(_) | Work::Browsers(_) => {
                Err("this client has no such work".into())
            }
        }
    }

    fn peer(&self, peer: Peer, security: Security, work: Work) -> Result<Outcome, Box<dyn Error>> {
        let program = self.programs.get(peer.name()).ok_or("its program is not on this machine")?;
        let keeping = match work {
            Work::Live(live) => live.keeping,
            Work::Durable(load) => load.keeping,
            Work::History(_) => Keeping::Synced,
            Work::Herd(_) | Work::Growth(_) | Work::Browsers(_) => Keeping::Nothing,
            Work::Storm(_) => Storm::keeping(peer),
        };
        let server = self.cores.around(|| Server::start(program, &self.certificate, security, keeping))??;
        let client = self.certificate.client()?;
        let client = (security == Security::Tls).then_some(&client);
        let outcome = async {
            Ok::<Outcome, Box<dyn Error>>(match work {
                Work::Durable(load) if load.rate.is_some() => {
                    return Err("peers publish as much as they can".into());
                }
                Work::Live(load) if peer == Peer::MoqRelay => {
                    moq::fanout(&server, program, &self.certificate, load).await?.into()
                }
                Work::Live(load) => live::run(server, client, load).await?.into(),
                Work::Durable(load) => durable::run(&server, client, load).await?.into(),
                Work::Herd(load) => herd::run(&server, client, load).await?.into(),
                Work::Storm(load) => storm::run(&server, client.ok_or("storms are encrypted")?, load).await?.into(),
                Work::History(load) => history::run(&server, client, load).await?.into(),
                Work::Browsers(load) => browsers::run_on_peer(server, load).await?.into(),
                Work::Growth(_) => return Err("only the broker is compared with itself".into()),
            })
        };
        one_thread()?.block_on(within(WITHIN, outcome))
    }
}

fn control_outcome(cpu_us: f64, wire: Option<[f64; 2]>) -> Outcome {
    Outcome::new([
        (Measure::CpuUs, Some(cpu_us)),
        (Measure::WireBytes, wire.map(|[bytes, _]| bytes)),
        (Measure::WirePackets, wire.map(|[_, packets]| packets)),
    ])
}

fn new_home() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("antiphon-versus-").tempdir()
}
