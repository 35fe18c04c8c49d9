//! The broker's work, driven by a client that shares nothing with this program: `bench/stranger`, written from the
//! specification on another QUIC stack, with that stack's defaults.
//!
//! The broker is the same, alone on its processor, and the client is told when to work ([`super::driver`]). If both cost the
//! broker the same, its figures are not those of a client that flatters it.

use std::{
    error::Error,
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use antiphon_peers::{Certificate, Keeping, Missing, program};
use serde::Deserialize;
use tempfile::TempDir;

use super::{
    contender::Contender,
    driver::{Done, Errand, FanoutSaid, Watched},
    durable::Durable,
    live::Live,
    outcome::Measure,
    rows::{Bound, Goal, Row, Size, Work},
};
use crate::{
    fanout::FanoutReport,
    merge::Group,
    names::{Names, Seat},
    publish::PublishReport,
    report::LatencySummary,
    rooms::Choice,
    target::{Target, Usage},
};

const PROGRAM: &str = "antiphon-stranger";

const CONTENDERS: [Contender; 2] = [Contender::Antiphon, Contender::Stranger];
const GOALS: &[Goal] = &[Goal { measure: Measure::CpuUs, against: Contender::Stranger, bound: Bound::Alike(1.3) }];

/// The fan-out of S1, at the rate that both clients hold.
pub fn live_row(size: Size) -> Row {
    let (members, rate) = ((500 / size.divide).max(1), 50.0);
    let (seconds, keeping, choice) = (size.seconds, Keeping::Nothing, Choice::Turns);
    Row {
        name: "S1-stranger",
        title: format!("live fan-out, 1 -> {members}, 200 bytes, {rate} messages a second, by two clients in turn"),
        work: Work::Live(Live {
            rooms: 1,
            members,
            bytes: 200,
            rate,
            seconds,
            warm_up: 2.0,
            keeping,
            choice,
            exact: false,
        }),
        contenders: CONTENDERS.into(),
        headline: Measure::CpuUs,
        goals: GOALS,
        rounds: size.rounds,
    }
}

/// The publishing of S3, at a rate that both clients hold with ease: what an acknowledgement costs depends on how many
/// messages arrive together, and that would otherwise follow from how fast a client is, or from how late.
pub fn durable_row(size: Size) -> Row {
    let (connections, in_flight, rate) = (10, 50, 20_000.0);
    let (keeping, seconds) = (Keeping::Synced, size.seconds);
    let load = Durable { connections, in_flight, bytes: 200, keeping, rate: Some(rate), seconds, warm_up: 2.0 };
    Row {
        name: "S3-stranger",
        title: format!(
            "durable publish, {connections} connections x {in_flight} in flight, 200 bytes, {rate} messages a second, \
             synced, by two clients in turn"
        ),
        work: Work::Durable(load),
        contenders: CONTENDERS.into(),
        headline: Measure::CpuUs,
        goals: GOALS,
        rounds: size.rounds,
    }
}

/// The client's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    path: PathBuf,
    /// Of the QUIC stack.
    pub version: String,
}

impl Stranger {
    /// Looks for it as for the peers' programs.
    pub fn find(folder: &Path) -> Result<Self, Missing> {
        let path = program::find(PROGRAM, folder, "bench/stranger/build makes it (Go 1.26)")?;
        let said = std::process::Command::new(&path).arg("version").output();
        let version = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default();
        Ok(Self { path, version })
    }

    /// Lets it do a fan-out in one room.
    pub async fn fanout(
        &self,
        target: &Target,
        certificate: &Certificate,
        load: Live,
    ) -> Result<FanoutReport, Box<dyn Error>> {
        let Live { rooms, members, bytes, rate, seconds, warm_up, .. } = load;
        if rooms != 1 {
            return Err("it has one room".into());
        }
        // The last one only sends, as in this program's own fan-out.
        let groups = [Group { members: members + 1, messages: Vec::new() }];
        let names = Names::new(format!("fan{}", std::process::id()), &groups);
        let seats = (0..=members).map(|member| Seat { group: 0, member });
        let tokens = Tokens::write(target, &names, seats)?;
        let errand = self.errand("fanout", target, certificate, &tokens, seconds + warm_up);
        let errand = errand.option("-rate", rate).option("-bytes", bytes);
        let errand = errand.option("-seconds", seconds).option("-warm-up", warm_up);
        let done: Done<FanoutSaid> = errand.run(Watched::Broker(target)).await?;
        Ok(done.report(load))
    }

    /// Lets it publish at a rate.
    pub async fn publish(
        &self,
        target: &Target,
        certificate: &Certificate,
        load: Durable,
    ) -> Result<PublishReport, Box<dyn Error>> {
        let Durable { connections, in_flight, bytes, rate, seconds, warm_up, .. } = load;
        let groups = vec![Group { members: 1, messages: Vec::new() }; connections];
        let names = Names::new(format!("pub{}", std::process::id()), &groups);
        let seats = (0..connections as u32).map(|group| Seat { group, member: 0 });
        let tokens = Tokens::write(target, &names, seats)?;
        let errand = self.errand("publish", target, certificate, &tokens, seconds + warm_up);
        let errand = errand.option("-in-flight", in_flight).option("-rate", rate.unwrap_or_default());
        let errand = errand.option("-bytes", bytes).option("-seconds", seconds).option("-warm-up", warm_up);
        let done: Done<PublishSaid> = errand.run(Watched::Broker(target)).await?;
        let PublishSaid { acks, seconds, lag, broken } = done.said;
        let mut report = PublishReport { connections, in_flight, bytes, rate, acks, lag, broken, ..Default::default() };
        report.apply(&done.before, &Usage { metrics: done.page.metrics, ..done.after }, seconds);
        Ok(report)
    }

    fn errand(&self, work: &str, target: &Target, certificate: &Certificate, tokens: &Tokens, seconds: f64) -> Errand {
        let errand = Errand::new(PROGRAM, &self.path, work, seconds).option("-address", target.address());
        errand.option("-certificate", certificate.chain().display()).option("-tokens", tokens.file().display())
    }
}

/// A token for each seat, on a line of its own, in a file that goes away with this.
struct Tokens(TempDir);

impl Tokens {
    fn write(target: &Target, names: &Names, seats: impl Iterator<Item = Seat>) -> Result<Self, Box<dyn Error>> {
        let mut lines = String::new();
        for seat in seats {
            lines.push_str(&target.user_token(names.user(seat)?.as_str()));
            lines.push('\n');
        }
        let tokens = Self(tempfile::Builder::new().prefix("antiphon-stranger-").tempdir()?);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(tokens.file())?;
        file.write_all(lines.as_bytes())?;
        Ok(tokens)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("tokens")
    }
}

#[derive(Debug, Deserialize)]
struct PublishSaid {
    acks: u64,
    seconds: f64,
    lag: Option<LatencySummary>,
    broken: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_client_is_told_with_how_to_build_it() {
        if let Err(missing) = Stranger::find(Path::new("/nonexistent")) {
            assert!(missing.to_string().contains("bench/stranger/build"), "{missing}");
        }
    }
}
