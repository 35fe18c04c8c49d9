//! The same work by the broker, by other servers and by controls, in turn, on one machine, as ratios within each round.
//!
//! [`rows`] says what a comparison is; [`live`], [`latency`], [`durable`], [`herd`], [`storm`], [`history`], [`browsers`] and
//! [`growth`] which ones there are, with their goals, and drive the peers; the scenarios of this crate drive the broker,
//! [`browsers`] its gateway, and for [`stranger`] a client of another make does; that one and the client of [`moq`] are
//! processes, which [`driver`] tells when to work. [`contender`] has one of them do it once, [`outcome`] is what came of it,
//! [`table`] and [`plot`] tell that, and [`scene`] where it was measured; [`plan`] tells what would be. [`variants`] are rows
//! in which peers have it easier.
//!
//! Invariants: one server at a time, alone on its processor, started for this measurement and gone after it; all of them with
//! one certificate and TLS 1.3, but for browsers, where all are without, and the peers of some [`variants`]; every delivery
//! and acknowledgement is checked at its receiver, and a measurement with a wrong count has no result.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use antiphon_peers::{Certificate, Missing, Peer, Program};
use clap::Args;
use serde::Serialize;

use crate::{
    loopback::Traffic,
    machine::{self, CoreArgs},
};

pub mod browser;
pub mod browsers;
pub mod contender;
pub mod driver;
pub mod durable;
pub mod growth;
pub mod herd;
pub mod history;
pub mod latency;
pub mod live;
pub mod moq;
pub mod outcome;
pub mod plan;
pub mod plot;
pub mod rows;
pub mod scene;
pub mod storm;
pub mod stranger;
pub mod table;
pub mod variants;

use contender::{Contender, Stand};
use outcome::{Measure, Outcome};
use plan::Plan;
use rows::{Row, ScenarioName, Size};
use scene::Scene;
use stranger::Stranger;

/// How long the machine's other load is looked at before the first round.
const LOOK: Duration = Duration::from_secs(2);
/// How much of it there may be.
const FOREIGN_LOAD_MAX: f64 = 0.10;

/// What is compared, how, and where.
#[derive(Debug, Args)]
pub struct VersusArgs {
    /// The scenarios: S1, S2, S3, S4, S5, S6, S7, S9, growth. Default: all.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    scenario: Vec<ScenarioName>,
    /// The peers: nats, redis, mosquitto, ws, socket.io, uws, centrifugo, moq-relay. Default: all, but for the last two if
    /// they are not here.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Only the rows in which a client on another QUIC stack drives the broker, beside this program. Without it they are
    /// measured with the others, if that client was built.
    #[arg(long, conflicts_with = "peers")]
    stranger: bool,
    /// All rows of the scenarios, at full size: windows of 15 s, 5 rounds of the headline rows, 1 of the others. With --list
    /// they are told first, and how long they take.
    #[arg(long, conflicts_with = "quick")]
    all: bool,
    /// Windows of 8 s, 3 rounds, the headline rows only.
    #[arg(long)]
    quick: bool,
    /// Rounds of every row.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Length of a measurement.
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Followers of a fan-out and sessions of a herd, divided by this number: to try things out.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    divide: u32,
    /// Processor of the servers.
    #[arg(long, value_name = "N", default_value_t = 0)]
    server_core: usize,
    /// Processor of this program.
    #[arg(long, value_name = "N", default_value_t = 1)]
    core: usize,
    /// The broker's binary. Default: `antiphon` beside this program.
    #[arg(long, value_name = "PATH", env = "ANTIPHON")]
    antiphon: Option<PathBuf>,
    /// A folder with peers' programs, looked into before PATH.
    #[arg(long, value_name = "DIR", default_value = "target/peers")]
    programs: PathBuf,
    /// Measure although the machine does something else, too.
    #[arg(long)]
    busy: bool,
    /// Also draw each comparison, as ROW.svg in this folder.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Also write everything that was measured as JSON, after each row, so that one who ends the program has what was
    /// measured until then.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only tell the rows, who takes part in them, and how long that takes.
    #[arg(long)]
    list: bool,
}

/// All that was measured.
#[derive(Debug, Serialize)]
struct Record<'a> {
    scene: &'a Scene,
    rows: &'a [(Row, Rounds)],
}

impl Record<'_> {
    /// Replaces the file as a whole: whenever this program ends, the file is one that can be read.
    fn write(&self, path: &Path) -> io::Result<()> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let mut file = BufWriter::new(File::create(&part)?);
        serde_json::to_writer_pretty(&mut file, self)?;
        file.flush()?;
        fs::rename(part, path)
    }
}

/// The peers' programs, by name.
pub type Programs = BTreeMap<&'static str, Program>;

/// What each contender did, round by round.
pub type Rounds = Vec<BTreeMap<Contender, Outcome>>;

impl VersusArgs {
    /// Runs it and tells the tables on `out`, each when it is whole; false if a measurement has no result.
    pub fn run(self, out: &mut impl Write) -> Result<bool, Box<dyn Error>> {
        if self.list {
            write!(out, "{}", self.plan())?;
            return Ok(true);
        }
        // Peers inherit it, too. What it could not be raised to shows as connections that are refused.
        let _ = antiphon_sys::rlimit::raise_open_files();
        let stranger = self.find_stranger()?;
        let rows = self.rows(stranger.is_some());
        let (programs, left_out) = self.find_programs(&rows)?;
        let traffic = Traffic::read()?;
        let foreign_load = machine::load(LOOK)?;
        let foreign_bytes = (Traffic::read()? - traffic).bytes as f64 / LOOK.as_secs_f64();
        if foreign_load > FOREIGN_LOAD_MAX && !self.busy {
            let percent = foreign_load * 100.0;
            return Err(
                format!("{percent:.0} % of the processors is busy with something else: wait, or say --busy").into()
            );
        }
        let cores = CoreArgs { server_core: Some(self.server_core), core: Some(self.core) };
        let antiphon = self.antiphon.clone().map_or_else(crate::target::beside_this_program, Ok)?;
        let scene = Scene::look(&antiphon, programs.values(), stranger.as_ref(), cores, (foreign_load, foreign_bytes))?;
        write!(out, "{scene}")?;
        left_out.iter().try_for_each(|missing| writeln!(out, "- Left out: {missing}"))?;
        let stand = Stand { cores, antiphon, programs, stranger, certificate: Certificate::make()? };
        let mut measured = Vec::new();
        let record = |rows: &[(Row, Rounds)]| match &self.json {
            Some(path) => Record { scene: &scene, rows }.write(path),
            None => Ok(()),
        };
        // A file that cannot be written is told now.
        record(&measured)?;
        for row in rows {
            let rounds = measure(&row, &stand, self.rounds.unwrap_or(row.rounds));
            let table = table::Table { row: &row, rounds: &rounds };
            write!(out, "{table}")?;
            out.flush()?;
            if let Some(dir) = &self.plots {
                fs::create_dir_all(dir)?;
                fs::write(dir.join(row.name).with_extension("svg"), plot::Plot(&table).to_string())?;
            }
            measured.push((row, rounds));
            record(&measured)?;
        }
        let mut outcomes = measured.iter().flat_map(|(_, rounds)| rounds).flat_map(BTreeMap::values);
        Ok(outcomes.all(Outcome::holds))
    }

    /// Of whatever could be on a machine.
    fn plan(&self) -> Plan {
        Plan { rows: self.rows(true), rounds: self.rounds, peers: self.peers.iter().map(|peer| peer.name()).collect() }
    }

    /// The programs of all peers that were asked for, or of those in the rows, and which of these are left out. What is
    /// missing otherwise is named at once.
    fn find_programs(&self, rows: &[Row]) -> Result<(Programs, Vec<Missing>), Box<dyn Error>> {
        let is_asked = |peer: &Peer| match &*self.peers {
            [] => rows.iter().flat_map(|row| &row.contenders).any(|contender| contender.peer() == Some(*peer)),
            peers => peers.contains(peer),
        };
        let (mut found, mut left_out, mut missing) = (Programs::new(), Vec::new(), Vec::new());
        for peer in Peer::ALL.into_iter().filter(is_asked) {
            match Program::find(peer, &self.programs) {
                Ok(program) => _ = found.insert(peer.name(), program),
                Err(error) if peer.may_be_missing() && self.peers.is_empty() => left_out.push(error),
                Err(error) => missing.push(error.to_string()),
            }
        }
        if missing.is_empty() { Ok((found, left_out)) } else { Err(missing.join("\n").into()) }
    }

    /// The client on another QUIC stack: it takes a compiler that not every machine has, so its rows may be left out.
    fn find_stranger(&self) -> Result<Option<Stranger>, Box<dyn Error>> {
        match Stranger::find(&self.programs) {
            Ok(stranger) => Ok(Some(stranger)),
            Err(missing) if self.stranger => Err(missing.into()),
            Err(missing) => {
                eprintln!("without the rows of a client on another QUIC stack: {missing}");
                Ok(None)
            }
        }
    }

    fn rows(&self, has_stranger: bool) -> Vec<Row> {
        let scenarios = if self.scenario.is_empty() { ScenarioName::ALL.to_vec() } else { self.scenario.clone() };
        let (seconds, rounds) = if self.all { (15.0, 5) } else { (8.0, 3) };
        let size = Size { seconds: self.seconds.unwrap_or(seconds), rounds, is_full: self.all, divide: self.divide };
        let rows = scenarios.into_iter().flat_map(|scenario| rows::of(scenario, size));
        let is_strangers = |row: &Row| row.contenders.contains(&Contender::Stranger);
        rows.filter(|row| if is_strangers(row) { has_stranger } else { !self.stranger }).collect()
    }
}

/// Every contender in turn, as often as there are rounds. A contender without a result is told on standard error and has
/// none in this round.
fn measure(row: &Row, stand: &Stand, rounds: u32) -> Rounds {
    let mut measured = Rounds::new();
    for number in 1..=rounds {
        let mut round = BTreeMap::new();
        for contender in row.contenders.iter().copied().filter(|contender| stand.has(*contender)) {
            let outcome = match stand.measure(contender, &row.work) {
                Ok(outcome) => outcome,
                Err(error) => Outcome::broken(error.to_string()),
            };
            eprintln!("{} round {number} {contender}: {}", row.name, told(row.headline, &outcome));
            round.insert(contender, outcome);
        }
        measured.push(round);
    }
    measured
}

fn told(headline: Measure, outcome: &Outcome) -> String {
    let Outcome { done, expected, broken, figures } = outcome;
    match (broken, figures.get(&headline)) {
        (Some(broken), _) => format!("NO RESULT: {broken}"),
        (None, _) if done != expected => format!("NO RESULT: {done} of {expected}"),
        (None, Some(figure)) => format!("{figure:.2} {}", headline.name()),
        (None, None) => "was not measured".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> Scene {
        Scene {
            processor: "any".into(),
            processors: 2,
            kernel: "6.1".into(),
            memory_gib: 24.0,
            server_core: Some(0),
            core: Some(1),
            foreign_load: 0.0,
            foreign_bytes_per_second: 0.0,
            versions: Vec::new(),
        }
    }

    #[test]
    fn what_was_measured_so_far_can_be_read() {
        let home = tempfile::tempdir().unwrap();
        let (path, scene) = (home.path().join("versus.json"), scene());
        let size = Size { seconds: 8.0, rounds: 1, is_full: false, divide: 1 };
        let round = BTreeMap::from([(Contender::Antiphon, Outcome::new([(Measure::CpuUs, Some(5.0))]))]);
        let mut rows = Vec::new();
        for count in 0..2 {
            Record { scene: &scene, rows: &rows }.write(&path).unwrap();
            let found: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(found["rows"].as_array().unwrap().len(), count, "{found}");
            rows.push((rows::of(ScenarioName::S1, size).remove(0), vec![round.clone()]));
        }
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(Record { scene: &scene, rows: &rows }.write(&home.path().join("none").join("versus.json")).is_err());
    }
}
