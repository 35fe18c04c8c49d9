//! The broker's work, driven by a client that shares nothing with this program: `bench/stranger`, written from the
//! specification on another QUIC stack, with that stack's defaults.
//!
//! The broker is the same, alone on its processor, and the client sits on the generator's. It says `ready` when nothing is
//! under way, does the work when it gets a line, and says `settled` when nothing is under way again; the broker's processor
//! time is read at these two moments, as with this program's own load. If both cost the broker the same, its figures are
//! not those of a client that flatters it.

use std::{
    error::Error,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use antiphon_peers::{Certificate, Keeping, Missing, program};
use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

use super::{
    contender::Contender,
    durable::Durable,
    live::Live,
    outcome::Measure,
    rows::{Bound, Goal, Row, Size, Work},
};
use crate::{
    fanout::{FanoutReport, METRICS_AGE},
    merge::Group,
    names::{Names, Seat},
    publish::PublishReport,
    report::LatencySummary,
    rooms::Choice,
    target::{Target, Usage},
};

const PROGRAM: &str = "antiphon-stranger";
/// What it may take longer than the load does: connections, and copies that come late or not at all.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Why it has no result.
#[derive(Debug, Error)]
pub enum StrangerError {
    /// It cannot be run, or its tokens cannot be handed to it.
    #[error("{PROGRAM} cannot be run")]
    Run(#[from] io::Error),
    /// It takes too long.
    #[error("{PROGRAM} did not come to `{0}` in time")]
    Late(&'static str),
    /// It ended, and told why on standard error.
    #[error("{PROGRAM} ended before it came to `{0}`")]
    Ended(&'static str),
    /// Something else than what comes next.
    #[error("{PROGRAM} said {0:?}")]
    Said(String),
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
        let options = [("-rate", rate), ("-bytes", bytes as f64), ("-seconds", seconds), ("-warm-up", warm_up)];
        let errand = Errand { work: "fanout", options: &options, seconds: seconds + warm_up };
        let done: Done<FanoutSaid> = self.drive(target, certificate, tokens(target, &names, seats)?, errand).await?;
        let FanoutSaid { messages, delivered, expected, delivery, lag, broken } = done.said;
        let mut report =
            FanoutReport { rooms, members, bytes, rate, messages, delivered, expected, ..Default::default() };
        (report.delivery, report.lag, report.broken) = (delivery, lag, broken);
        report.apply(&done.before, &done.after, &done.page);
        Ok(report)
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
        let options = [
            ("-in-flight", in_flight as f64),
            ("-rate", rate.unwrap_or_default()),
            ("-bytes", bytes as f64),
            ("-seconds", seconds),
            ("-warm-up", warm_up),
        ];
        let errand = Errand { work: "publish", options: &options, seconds: seconds + warm_up };
        let done: Done<PublishSaid> = self.drive(target, certificate, tokens(target, &names, seats)?, errand).await?;
        let PublishSaid { acks, seconds, lag, broken } = done.said;
        let mut report = PublishReport { connections, in_flight, bytes, rate, acks, lag, broken, ..Default::default() };
        report.apply(&done.before, &Usage { metrics: done.page.metrics, ..done.after }, seconds);
        Ok(report)
    }

    async fn drive<T: DeserializeOwned>(
        &self,
        target: &Target,
        certificate: &Certificate,
        tokens: String,
        errand: Errand<'_>,
    ) -> Result<Done<T>, StrangerError> {
        let home = tempfile::Builder::new().prefix("antiphon-stranger-").tempdir()?;
        let file = home.path().join("tokens");
        OpenOptions::new().create_new(true).write(true).mode(0o600).open(&file)?.write_all(tokens.as_bytes())?;
        let mut command = Command::new(&self.path);
        command.arg(errand.work).arg("-address").arg(target.address().to_string());
        command.arg("-certificate").arg(certificate.chain()).arg("-tokens").arg(&file);
        for (name, value) in errand.options {
            command.arg(name).arg(value.to_string());
        }
        let mut conversation = Conversation::begin(command)?;
        let within = PATIENCE + Duration::from_secs_f64(errand.seconds);
        conversation.hear("ready", within).await?;
        sleep(METRICS_AGE).await;
        let before = target.usage();
        conversation.go_on().await?;
        conversation.hear("settled", within).await?;
        let after = target.process_usage();
        // What should not come has this long to do so.
        sleep(METRICS_AGE).await;
        let page = target.usage();
        conversation.go_on().await?;
        let line = conversation.line("its report", PATIENCE).await?;
        let said = serde_json::from_str(&line).map_err(|_| StrangerError::Said(line))?;
        Ok(Done { said, before, after, page })
    }
}

/// A token for each seat, on a line of its own.
fn tokens(target: &Target, names: &Names, seats: impl Iterator<Item = Seat>) -> Result<String, Box<dyn Error>> {
    let mut lines = String::new();
    for seat in seats {
        lines.push_str(&target.user_token(names.user(seat)?.as_str()));
        lines.push('\n');
    }
    Ok(lines)
}

/// What it is to do.
struct Errand<'a> {
    work: &'static str,
    options: &'a [(&'static str, f64)],
    /// Length of the load.
    seconds: f64,
}

/// What it did, and the broker meanwhile.
struct Done<T> {
    said: T,
    before: Usage,
    after: Usage,
    /// Read when its metrics had caught up.
    page: Usage,
}

#[derive(Debug, Deserialize)]
struct FanoutSaid {
    messages: u64,
    delivered: u64,
    expected: u64,
    delivery: Option<LatencySummary>,
    lag: Option<LatencySummary>,
    broken: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PublishSaid {
    acks: u64,
    seconds: f64,
    lag: Option<LatencySummary>,
    broken: Option<String>,
}

/// Lines to and from the process, which ends with this.
struct Conversation {
    _process: Child,
    orders: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
}

impl Conversation {
    fn begin(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn()?;
        let (orders, told) = (process.stdin.take(), process.stdout.take());
        let (Some(orders), Some(told)) = (orders, told) else { return Err(io::Error::other("it has no pipes")) };
        Ok(Self { _process: process, orders, told: BufReader::new(told).lines() })
    }

    async fn hear(&mut self, word: &'static str, within: Duration) -> Result<(), StrangerError> {
        let line = self.line(word, within).await?;
        if line == word { Ok(()) } else { Err(StrangerError::Said(line)) }
    }

    async fn line(&mut self, what: &'static str, within: Duration) -> Result<String, StrangerError> {
        let line = timeout(within, self.told.next_line()).await.map_err(|_| StrangerError::Late(what))?;
        line?.ok_or(StrangerError::Ended(what))
    }

    async fn go_on(&mut self) -> io::Result<()> {
        self.orders.write_all(b"go on\n").await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    fn script(lines: &str) -> Conversation {
        let mut command = Command::new("sh");
        command.arg("-c").arg(lines);
        Conversation::begin(command).unwrap()
    }

    #[tokio::test]
    async fn the_client_works_when_it_is_told_to() {
        let mut conversation = script("echo ready; read order; echo settled; read order; echo \"$order\"");
        conversation.hear("ready", SOON).await.unwrap();
        conversation.go_on().await.unwrap();
        conversation.hear("settled", SOON).await.unwrap();
        conversation.go_on().await.unwrap();
        assert_eq!(conversation.line("its report", SOON).await.unwrap(), "go on");
    }

    #[tokio::test]
    async fn a_client_that_does_something_else_has_no_result() {
        let heard = script("exit 1").hear("ready", SOON).await;
        assert!(matches!(heard, Err(StrangerError::Ended("ready"))), "{heard:?}");
        let heard = script("echo settled").hear("ready", SOON).await;
        assert!(matches!(heard, Err(StrangerError::Said(_))), "{heard:?}");
        let heard = script("exec sleep 60").hear("ready", Duration::from_millis(10)).await;
        assert!(matches!(heard, Err(StrangerError::Late("ready"))), "{heard:?}");
    }

    #[test]
    fn a_missing_client_is_told_with_how_to_build_it() {
        if let Err(missing) = Stranger::find(Path::new("/nonexistent")) {
            assert!(missing.to_string().contains("bench/stranger/build"), "{missing}");
        }
    }
}
