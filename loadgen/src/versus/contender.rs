//! One contender does the work once.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use antiphon_peers::{Certificate, Keeping, Peer, Server};
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
    /// The broker with a smaller load, where it is compared with itself.
    Smaller,
    /// The broker.
    Antiphon,
    /// The broker, too, driven by the client that shares nothing with this program.
    Stranger,
    /// Another server.
    Peer(Peer),
}

impl Contender {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "UDP floor",
            Self::Bare => "bare QUIC",
            Self::Smaller => "Antiphon (small)",
            Self::Antiphon => "Antiphon",
            Self::Stranger => "quic-go client",
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
            Contender::Peer(peer) => self.programs.contains_key(peer.name()),
            Contender::Stranger => self.stranger.is_some(),
            Contender::Floor | Contender::Bare | Contender::Smaller | Contender::Antiphon => true,
        }
    }

    /// Lets a contender do the work.
    pub fn measure(&self, contender: Contender, work: &Work) -> Result<Outcome, Box<dyn Error>> {
        match (contender, *work) {
            (Contender::Floor, Work::Live(live)) => self.floor(live),
            (Contender::Bare, Work::Live(live)) => self.bare(live),
            (Contender::Floor | Contender::Bare, _) => Err("this control is one of fan-outs".into()),
            (Contender::Antiphon | Contender::Smaller, Work::Growth(growth)) => {
                self.growth(growth, contender == Contender::Antiphon)
            }
            (Contender::Smaller, _) => Err("the broker is not compared with itself here".into()),
            (Contender::Antiphon, Work::Storm(load)) => Ok(self.antiphon(&StormArgs::from(load), None)?.into()),
            (Contender::Antiphon, Work::History(load)) => Ok(self.antiphon(&HistoryArgs::from(load), None)?.into()),
            (Contender::Antiphon, Work::Live(live)) => Ok(self.antiphon(&FanoutArgs::from(live), None)?.into()),
            (Contender::Antiphon, Work::Durable(load)) => Ok(self.antiphon(&PublishArgs::from(load), None)?.into()),
            (Contender::Antiphon, Work::Herd(load)) => {
                Ok(self.antiphon(&IdleArgs::from(load), Some(idle::CACHE_MIB))?.into())
            }
            (Contender::Stranger, work) => self.stranger(work),
            (Contender::Antiphon, Work::Browsers(load)) => Ok(self.gateway(load)?.into()),
            (Contender::Peer(peer), work) => self.peer(peer, work),
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
        let cpu_us = floor::measure(load)?;
        Ok(Outcome::new([(Measure::CpuUs, Some(cpu_us))]))
    }

    fn bare(&self, live: Live) -> Result<Outcome, Box<dyn Error>> {
        let load = self.control_load(live);
        let figures = bare::measure(load)?;
        Ok(Outcome::new([(Measure::CpuUs, Some(figures.cpu_us_per_delivery))]))
    }

    fn control_load(&self, live: Live) -> bare::Load {
        let Live { rooms, members, bytes, rate, seconds, warm_up, keeping, .. } = live;
        let CoreArgs { server_core, core } = self.cores;
        let (rooms, members, synced) = (rooms as usize, members as usize, keeping == Keeping::Synced);
        bare::Load { rooms, members, synced, bytes, rate, seconds, warm_up, server_core, core }
    }

    fn antiphon<S: Scenario>(&self, load: &S, cache_mib: Option<u32>) -> Result<S::Report, Box<dyn Error>> {
        let home = new_home()?;
        let own = self.own_broker(home.path(), cache_mib);
        measure(load, self.cores, Some(WITHIN), || {
            Target::start_own(own).map(|(target, broker)| (target, Some(broker)))
        })
    }

    fn gateway(&self, load: Browsers) -> Result<BrowsersReport, Box<dyn Error>> {
        let home = new_home()?;
        let (target, broker) = self.cores.around(|| Target::start_own(self.own_broker(home.path(), None)))??;
        one_thread()?.block_on(browsers::run_on_gateway(&target, broker, load))
    }

    /// A broker with one shard, as the peers have one thread or one processor; its gateway is in it.
    fn own_broker(&self, home: &Path, cache_mib: Option<u32>) -> OwnBroker {
        let file = |path: PathBuf| path.display().to_string();
        let (chain, key) = (file(self.certificate.chain()), file(self.certificate.key()));
        OwnBroker {
            program: Some(self.antiphon.clone()),
            shards: Some(1),
            cache_mib,
            args: ["--tls-certificate", &chain, "--tls-key", &key].map(str::to_owned).into(),
            ..OwnBroker::new(home)
        }
    }

    fn stranger(&self, work: Work) -> Result<Outcome, Box<dyn Error>> {
        let stranger = self.stranger.as_ref().ok_or("its program is not on this machine")?;
        let home = new_home()?;
        // Ends with the measurement.
        let (target, _broker) = self.cores.around(|| Target::start_own(self.own_broker(home.path(), None)))??;
        let runtime = one_thread()?;
        match work {
            Work::Live(load) => Ok(runtime.block_on(stranger.fanout(&target, &self.certificate, load))?.into()),
            Work::Durable(load) => Ok(runtime.block_on(stranger.publish(&target, &self.certificate, load))?.into()),
            Work::Herd(_) | Work::Storm(_) | Work::History(_) | Work::Growth(_) | Work::Browsers(_) => {
                Err("this client has no such work".into())
            }
        }
    }

    fn peer(&self, peer: Peer, work: Work) -> Result<Outcome, Box<dyn Error>> {
        let program = self.programs.get(peer.name()).ok_or("its program is not on this machine")?;
        let keeping = match work {
            Work::Live(live) => live.keeping,
            Work::Durable(_) | Work::History(_) => Keeping::Synced,
            Work::Herd(_) | Work::Growth(_) | Work::Browsers(_) => Keeping::Nothing,
            Work::Storm(_) => Storm::keeping(peer),
        };
        let server = self.cores.around(|| Server::start(program, &self.certificate, keeping))??;
        let client = self.certificate.client()?;
        let outcome = async {
            Ok::<Outcome, Box<dyn Error>>(match work {
                Work::Durable(load) if load.rate.is_some() => {
                    return Err("peers publish as much as they can".into());
                }
                Work::Live(load) if peer == Peer::MoqRelay => {
                    moq::fanout(&server, program, &self.certificate, load).await?.into()
                }
                Work::Live(load) => live::run(server, &client, load).await?.into(),
                Work::Durable(load) => durable::run(&server, &client, load).await?.into(),
                Work::Herd(load) => herd::run(&server, &client, load).await?.into(),
                Work::Storm(load) => storm::run(&server, &client, load).await?.into(),
                Work::History(load) => history::run(&server, &client, load).await?.into(),
                Work::Browsers(load) => browsers::run_on_peer(server, load).await?.into(),
                Work::Growth(_) => return Err("only the broker is compared with itself".into()),
            })
        };
        one_thread()?.block_on(within(WITHIN, outcome))
    }
}

fn new_home() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("antiphon-versus-").tempdir()
}
