//! Clients that this program cannot hold, as processes of their own: each works when it is told to, so that the server's
//! processor time is read at the moments at which nothing is under way, as with this program's own loads.
//!
//! A client says `ready` when nothing is under way, does the work when it gets a line, says `settled` when nothing is under
//! way again, and reports when it gets another line. It runs where this program does, on the generator's processor.

use std::{io, path::Path, process::Stdio, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

use super::live::Live;
use crate::{
    fanout::{FanoutReport, METRICS_AGE},
    report::LatencySummary,
    target::{Target, Usage},
};

/// What a client may take longer than the load does: connections, and copies that come late or not at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a client has no result.
#[derive(Debug, Error)]
pub enum DriverError {
    /// It cannot be run, or what it needs not be handed to it.
    #[error("{0} cannot be run")]
    Run(&'static str, #[source] io::Error),
    /// It takes too long.
    #[error("{0} did not come to `{1}` in time")]
    Late(&'static str, &'static str),
    /// It ended, and told why on standard error.
    #[error("{0} ended before it came to `{1}`")]
    Ended(&'static str, &'static str),
    /// Something else than what comes next.
    #[error("{0} said {1:?}")]
    Said(&'static str, String),
}

/// Whose processor time is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Watched<'a> {
    /// The broker's, which has a page of metrics, too.
    Broker(&'a Target),
    /// That of a process.
    Process(u32),
}

impl Watched<'_> {
    fn usage(self) -> Usage {
        match self {
            Self::Broker(target) => target.usage(),
            Self::Process(pid) => Usage::of_process(pid),
        }
    }

    /// Without metrics, which take a request.
    fn process_usage(self) -> Usage {
        match self {
            Self::Broker(target) => target.process_usage(),
            Self::Process(pid) => Usage::of_process(pid),
        }
    }
}

/// What a client is to do.
#[derive(Debug)]
pub(super) struct Errand {
    program: &'static str,
    command: Command,
    /// Length of the load.
    seconds: f64,
}

impl Errand {
    /// `program` is its name, for errors.
    pub(super) fn new(program: &'static str, path: &Path, work: &str, seconds: f64) -> Self {
        let mut command = Command::new(path);
        command.arg(work);
        Self { program, command, seconds }
    }

    /// Gives it an option.
    pub(super) fn option(mut self, name: &str, value: impl ToString) -> Self {
        self.command.arg(name).arg(value.to_string());
        self
    }

    /// Sends the client on it.
    pub(super) async fn run<T: DeserializeOwned>(self, watched: Watched<'_>) -> Result<Done<T>, DriverError> {
        let program = self.program;
        let mut conversation = Conversation::begin(program, self.command)?;
        let within = PATIENCE + Duration::from_secs_f64(self.seconds);
        conversation.hear("ready", within).await?;
        sleep(METRICS_AGE).await;
        let before = watched.usage();
        conversation.go_on().await?;
        conversation.hear("settled", within).await?;
        let after = watched.process_usage();
        // What should not come has this long to do so.
        sleep(METRICS_AGE).await;
        let page = watched.usage();
        conversation.go_on().await?;
        let line = conversation.line("its report", PATIENCE).await?;
        let said = serde_json::from_str(&line).map_err(|_| DriverError::Said(program, line))?;
        Ok(Done { said, before, after, page })
    }
}

/// What a client did, and the server meanwhile.
#[derive(Debug)]
pub(super) struct Done<T> {
    pub(super) said: T,
    pub(super) before: Usage,
    pub(super) after: Usage,
    /// Read when metrics had caught up.
    pub(super) page: Usage,
}

/// What a client says of a fan-out in one room.
#[derive(Debug, Deserialize)]
pub(super) struct FanoutSaid {
    messages: u64,
    delivered: u64,
    expected: u64,
    delivery: Option<LatencySummary>,
    lag: Option<LatencySummary>,
    broken: Option<String>,
}

impl Done<FanoutSaid> {
    pub(super) fn report(self, load: Live) -> FanoutReport {
        let Live { rooms, members, bytes, rate, .. } = load;
        let FanoutSaid { messages, delivered, expected, delivery, lag, broken } = self.said;
        let mut report =
            FanoutReport { rooms, members, bytes, rate, messages, delivered, expected, ..Default::default() };
        (report.delivery, report.lag, report.broken) = (delivery, lag, broken);
        report.apply(&self.before, &self.after, &self.page);
        report
    }
}

/// Lines to and from the process, which ends with this.
struct Conversation {
    program: &'static str,
    _process: Child,
    orders: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
}

impl Conversation {
    fn begin(program: &'static str, mut command: Command) -> Result<Self, DriverError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().map_err(|error| DriverError::Run(program, error))?;
        let (orders, told) = (process.stdin.take(), process.stdout.take());
        let (Some(orders), Some(told)) = (orders, told) else {
            return Err(DriverError::Run(program, io::Error::other("it has no pipes")));
        };
        Ok(Self { program, _process: process, orders, told: BufReader::new(told).lines() })
    }

    async fn hear(&mut self, word: &'static str, within: Duration) -> Result<(), DriverError> {
        let line = self.line(word, within).await?;
        if line == word { Ok(()) } else { Err(DriverError::Said(self.program, line)) }
    }

    async fn line(&mut self, what: &'static str, within: Duration) -> Result<String, DriverError> {
        let line = timeout(within, self.told.next_line()).await.map_err(|_| DriverError::Late(self.program, what))?;
        let line = line.map_err(|error| DriverError::Run(self.program, error))?;
        line.ok_or(DriverError::Ended(self.program, what))
    }

    async fn go_on(&mut self) -> Result<(), DriverError> {
        self.orders.write_all(b"go on\n").await.map_err(|error| DriverError::Run(self.program, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    fn script(lines: &str) -> Conversation {
        let mut command = Command::new("sh");
        command.arg("-c").arg(lines);
        Conversation::begin("a script", command).unwrap()
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
        assert!(matches!(heard, Err(DriverError::Ended(_, "ready"))), "{heard:?}");
        let heard = script("echo settled").hear("ready", SOON).await;
        assert!(matches!(heard, Err(DriverError::Said(..))), "{heard:?}");
        let heard = script("exec sleep 60").hear("ready", Duration::from_millis(10)).await;
        assert!(matches!(heard, Err(DriverError::Late(_, "ready"))), "{heard:?}");
    }

    #[tokio::test]
    async fn what_a_client_says_of_a_fan_out_becomes_a_report() {
        let said = r#"{"messages":2,"delivered":3,"expected":4,"delivery":null,"lag":null,"broken":"late","more":1}"#;
        let lines = format!("echo ready; read order; echo settled; read order; echo '{said}'");
        let errand = Errand::new("a script", Path::new("sh"), "-c", 0.0).option(&lines, "name");
        let done: Done<FanoutSaid> = errand.run(Watched::Process(std::process::id())).await.unwrap();
        assert!(done.after.cpu_ns >= done.before.cpu_ns && done.before.cpu_ns.is_some());
        assert_eq!((done.said.messages, done.said.delivered, done.said.expected), (2, 3, 4));
        assert_eq!(done.said.broken.as_deref(), Some("late"));
    }
}
