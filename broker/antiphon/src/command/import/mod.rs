//! `antiphon import`: histories of another system, line by line.
//!
//! The lines of one conversation go to one worker, in their order; workers go on side by side, so that many
//! conversations share each flush to disk. Everything is named by ids of the other system, so nothing has to be
//! remembered about an import that was interrupted.

mod line;
mod worker;

use std::{
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, BufRead, BufReader, IsTerminal},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_core::claims::{Abilities, Ability, ActorKind, Grant, GrantPattern, Scope};
use tokio::{sync::mpsc, task::JoinSet};

use self::{
    line::{Line, LineError},
    worker::{Job, Report, Totals, Worker},
};
use crate::{cli::Import, connect::connect_as, failure::Failure};

/// Conversations that are worked on at once.
const WORKERS: usize = 16;
/// Lines that wait for a worker; then reading waits.
const WAITING_LINES: usize = 128;
/// Longest line, in bytes: a body of the largest size, as base64 or with every character escaped.
const LINE_BYTES_MAX: usize = 1 << 20;
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_secs(1);

pub(crate) async fn run(import: Import) -> Result<(), Failure> {
    let client = Arc::new(
        connect_as(&import.connection, "import", |request| {
            request.kind = ActorKind::Service;
            let can: Abilities = [Ability::Manage].into_iter().collect();
            request.grants = GrantPattern::new("c:*").map(|on| Grant { on, can }).into_iter().collect();
            request.scopes = [Scope::ActAs].into_iter().collect();
        })
        .await?,
    );
    let report = Arc::new(Report::default());
    let mut workers = JoinSet::new();
    let queues: Vec<mpsc::Sender<Job>> = (0..WORKERS)
        .map(|_| {
            let (queue, jobs) = mpsc::channel(WAITING_LINES);
            workers.spawn(Worker::new(client.clone(), report.clone()).run(jobs));
            queue
        })
        .collect();
    let read = read_lines(&import.file, &queues, &report).await;
    drop(queues);
    while let Some(ended) = workers.join_next().await {
        ended.map_err(|error| Failure::Runtime(io::Error::other(error)))??;
    }
    client.close().await;
    read?;
    let totals = report.totals();
    println!("{totals}");
    if totals.refused > 0 { Err(Failure::NotImported(totals.refused)) } else { Ok(()) }
}

/// Hands every line to the worker of its conversation. A worker that has ended will say why.
async fn read_lines(path: &Path, queues: &[mpsc::Sender<Job>], report: &Report) -> Result<(), Failure> {
    let failed = |source| Failure::File { path: path.to_owned(), source };
    let mut reader = open(path).map_err(failed)?;
    let mut shown = Instant::now();
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        if io::Read::take(&mut reader, limit).read_until(b'\n', &mut text).map_err(failed)? == 0 {
            return Ok(());
        }
        if text.len() > LINE_BYTES_MAX {
            return Err(failed(io::Error::other(format!("line {number} is longer than {LINE_BYTES_MAX} bytes"))));
        }
        let text = std::str::from_utf8(&text).map_err(|error| LineError::Json(error.to_string()));
        match text.map(str::trim).and_then(|text| if text.is_empty() { Ok(None) } else { Line::parse(text).map(Some) })
        {
            Ok(None) => {}
            Ok(Some(line)) => {
                let mut hasher = DefaultHasher::new();
                line.conversation().hash(&mut hasher);
                let queue = &queues[(hasher.finish() % queues.len() as u64) as usize];
                if queue.send(Job { number, line }).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => report.refuse(number, &error),
        }
        if shown.elapsed() >= PROGRESS && io::stderr().is_terminal() {
            shown = Instant::now();
            eprint!("\rline {number}: {}", report.totals());
        }
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    match path.to_str() {
        Some("-") => Ok(Box::new(BufReader::new(io::stdin()))),
        _ => Ok(Box::new(BufReader::new(File::open(path)?))),
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { conversations, new, there, cursors, refused } = self;
        write!(
            f,
            "{conversations} conversations, {new} events imported, {there} there already, {cursors} cursors, \
             {refused} lines refused"
        )
    }
}
