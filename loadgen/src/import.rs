//! A history comes in from another system: imported while the import and then the broker are killed, and once more.
//!
//! file -> import, killed -> import again, the broker killed (kill -9) and started meanwhile -> read -> import -> read
//!
//! Proven: every event of the file is in its log once, in the file's order, with its sender, time and text; the second
//! import changes no byte of any log.

use std::{
    error::Error,
    fmt,
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use antiphon_sdk::{Client, Event, LogName, Range};
use clap::Args;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};

use crate::{
    broker::Broker,
    history_file::{self, Expected},
    names::Names,
    run::run_name,
    target::{OwnBroker, Target},
    workload::WorkloadArgs,
};

/// Lines that are written to an import in one call.
const LINES_AT_ONCE: usize = 256;

/// How to import.
#[derive(Debug, Args)]
pub struct ImportArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    /// The broker's binary. Default: `antiphon` beside this program.
    #[arg(long, value_name = "PATH", env = "ANTIPHON")]
    antiphon: Option<PathBuf>,
    /// Its shards.
    #[arg(long, value_name = "N", default_value_t = 2)]
    shards: u32,
}

/// What happened.
#[derive(Debug, Default)]
pub struct ImportReport {
    conversations: usize,
    expected: usize,
    killed_after: usize,
    broker_killed_after: usize,
    found: usize,
    wrong: usize,
    took: Duration,
    is_same_again: bool,
    broken: Vec<String>,
}

impl ImportReport {
    /// Whether every promise was kept.
    pub fn holds(&self) -> bool {
        self.broken.is_empty() && self.found == self.expected && self.wrong == 0 && self.is_same_again
    }
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<30}{value}");
        row("conversations", &self.conversations)?;
        row("events in the file", &self.expected)?;
        row("import killed after", &format_args!("{} lines", self.killed_after))?;
        row("broker killed after", &format_args!("{} lines of the next one", self.broker_killed_after))?;
        row("events in the logs", &self.found)?;
        row("lost, repeated or changed", &self.wrong)?;
        row("the second import", &format_args!("{:.2} s", self.took.as_secs_f64()))?;
        row("logs after it", if self.is_same_again { &"the same" } else { &"CHANGED" })?;
        self.broken.iter().try_for_each(|broken| row("BROKEN", broken))?;
        row("promises", if self.holds() { &"kept" } else { &"BROKEN" })
    }
}

/// Where the run is.
struct Scene {
    target: Target,
    broker: Broker,
    program: PathBuf,
    file: PathBuf,
}

impl ImportArgs {
    /// Runs it and tells what happened on `out`; false if a promise was broken.
    pub fn run(self, out: &mut impl Write) -> Result<bool, Box<dyn Error>> {
        let home = tempfile::Builder::new().prefix("antiphon-import-").tempdir()?;
        let groups = self.workload.groups()?;
        let names = Names::new(run_name(), &groups);
        let file = home.path().join("history.jsonl");
        let mut writer = BufWriter::new(File::create(&file)?);
        let expected = history_file::write(&groups, &names, &mut writer)?;
        writer.flush()?;
        let own = OwnBroker { program: self.antiphon, shards: Some(self.shards), ..OwnBroker::new(home.path()) };
        let (target, broker) = Target::start_own(own)?;
        let program = broker.program().to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let scene = Scene { target, broker, program, file };
        let report = runtime.block_on(scene.go_through(&names, &expected))?;
        write!(out, "{report}")?;
        Ok(report.holds())
    }
}

impl Scene {
    async fn go_through(mut self, names: &Names, expected: &[Vec<Expected>]) -> Result<ImportReport, Box<dyn Error>> {
        let total = expected.iter().map(Vec::len).sum();
        let mut report = ImportReport { conversations: expected.len(), expected: total, ..Default::default() };
        let history = std::fs::read(&self.file)?;
        let lines: Vec<&[u8]> = history.split_inclusive(|byte| *byte == b'\n').collect();

        // What an import has not been given it cannot have done: both kills come in the middle, however fast it is.
        let mut first = self.import(Path::new("-"))?;
        feed(&mut first, &lines[..lines.len() / 4]).await?;
        first.kill().await?;
        report.killed_after = lines.len() / 4;

        let mut second = self.import(Path::new("-"))?;
        report.broker_killed_after = lines.len() / 2;
        feed(&mut second, &lines[..report.broker_killed_after]).await?;
        self.broker.restart()?;
        self.target.restarted(&self.broker);
        feed(&mut second, &lines[report.broker_killed_after..]).await?;
        ended(&mut second, &mut report).await?;

        let service = self.target.connect_service(&names.service()).await?;
        let before = self.read(&service, names, expected, Some(&mut report)).await?;
        let begin = Instant::now();
        ended(&mut self.import(&self.file)?, &mut report).await?;
        report.took = begin.elapsed();
        report.is_same_again = self.read(&service, names, expected, None).await? == before;
        service.close().await;
        Ok(report)
    }

    fn import(&self, file: &Path) -> std::io::Result<Child> {
        let data: &Path = &self.broker.ready().data;
        let mut command = Command::new(&self.program);
        command.arg("import").arg(file).arg("--data").arg(data).stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).spawn()
    }

    /// A hash over everything in all logs. What is not as it has to be is noted in `report`.
    async fn read(
        &self,
        service: &Client,
        names: &Names,
        expected: &[Vec<Expected>],
        mut report: Option<&mut ImportReport>,
    ) -> Result<u64, Box<dyn Error>> {
        let mut hasher = DefaultHasher::new();
        for (number, expected) in (0..).zip(expected) {
            let log = LogName::Conversation(names.conversation(number)?);
            let events = history(service, &log).await?;
            events.iter().for_each(|event| hash(event, &mut hasher));
            if let Some(report) = report.as_deref_mut() {
                let found: Vec<Expected> = events.iter().filter(|event| event.is_imported()).map(told).collect();
                report.found += found.len();
                report.wrong += found.len().abs_diff(expected.len())
                    + found.iter().zip(expected).filter(|(found, expected)| found != expected).count();
            }
        }
        Ok(hasher.finish())
    }
}

/// Writes lines to an import; waits while it does not take them.
async fn feed(import: &mut Child, lines: &[&[u8]]) -> std::io::Result<()> {
    let Some(stdin) = &mut import.stdin else { return Ok(()) };
    for some in lines.chunks(LINES_AT_ONCE) {
        stdin.write_all(&some.concat()).await?;
    }
    stdin.flush().await
}

/// Ends what an import reads, and waits for it.
async fn ended(import: &mut Child, report: &mut ImportReport) -> std::io::Result<()> {
    // `wait` closes what it reads first.
    let status = import.wait().await?;
    if !status.success() {
        report.broken.push(format!("an import ended with {status}"));
    }
    Ok(())
}

async fn history(client: &Client, log: &LogName) -> antiphon_sdk::Result<Vec<Event>> {
    let (mut events, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let range = Range { from, ..Range::all(log.clone()) };
        let page = client.history(range).await?;
        events.extend(page.events);
        next = page.next;
    }
    Ok(events)
}

fn told(event: &Event) -> Expected {
    Expected {
        kind: event.kind(),
        sender: event.sender().to_owned(),
        time_ms: event.time_ms(),
        text: event.text().unwrap_or_default(),
    }
}

fn hash(event: &Event, hasher: &mut DefaultHasher) {
    (event.seq(), event.event_id(), event.time_ms(), event.client_message_id(), event.kind().0).hash(hasher);
    (event.sender(), event.via(), event.envelope(), event.body()).hash(hasher);
}
