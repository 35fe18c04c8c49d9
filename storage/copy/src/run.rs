//! The copy of a whole store.

use std::time::{Duration, Instant};

use antiphon_protocol::LogKey;
use antiphon_storage::embedded::FatalHook;
use antiphon_storage_cql::StandingHook;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use thiserror::Error;

use crate::{
    log::{Copied, LogError, copy_log},
    note::{Note, Totals},
    side::{Place, Side, SideError, Told},
};

/// Logs that are copied at once.
const LOGS_IN_FLIGHT: usize = 32;
/// After so many logs, or such a time, it is noted how far the copy has come.
const NOTE_EVERY_LOGS: u64 = 256;
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// What is told while a copy runs.
#[derive(Clone)]
pub struct Hooks {
    /// Called once when the data directory cannot go on; must log and end the process.
    pub fatal: FatalHook,
    /// Called when the keyspace is another broker's, and when it is the copier's.
    pub standing: StandingHook,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// How far a copy has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Logs of the source that are done, earlier attempts included.
    pub done: u64,
    /// Logs of the source.
    pub of: u64,
    /// What was copied and compared.
    pub totals: Totals,
}

/// A copy that is whole.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// What both stores hold.
    pub totals: Totals,
    /// History generation of every log, in both.
    pub epoch: u32,
    /// Logs that earlier attempts had copied already.
    pub resumed_after: u64,
}

/// Why a copy is not whole. The same call goes on with it, unless this says that the destination is of no use.
#[derive(Debug, Error)]
pub enum CopyError {
    /// The source.
    #[error("the source: {0}")]
    Source(#[source] SideError),
    /// The destination.
    #[error("the destination: {0}")]
    Destination(#[source] SideError),
    /// A log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It was begun from elsewhere.
    #[error("the destination holds an unfinished copy of another source, {noted}; this source is {source_name}")]
    OtherSource {
        /// What was noted.
        noted: String,
        /// What was given.
        source_name: String,
    },
    /// Somebody has written something else into the note.
    #[error("what the destination notes of its unfinished copy cannot be read; start with an empty one")]
    Note,
    /// The epochs differ.
    #[error("the destination is in epoch {destination} and the source in {source_epoch}; start with an empty one")]
    Epoch {
        /// Of the destination.
        destination: u32,
        /// Of the source.
        source_epoch: u32,
    },
    /// There is no runtime.
    #[error("the copy cannot be started: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Copies everything from one place to another, or goes on with a copy that was interrupted, and compares what is there
/// then. Blocks the calling thread, which must not be a runtime's.
///
/// The destination must be empty or hold an unfinished copy of the same source. If the source was in use since, the copy
/// begins anew and writes what differs.
pub fn copy(from: &Place, to: &Place, hooks: &Hooks, progress: &mut dyn FnMut(Progress)) -> Result<Report, CopyError> {
    let told = || Told { fatal: hooks.fatal.clone(), standing: hooks.standing.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let source = Side::source(from, told(), &runtime).map_err(CopyError::Source)?;
    let destination = Side::destination(to, source.epoch, told(), &runtime);
    let (destination, note) = destination.map_err(CopyError::Destination)?;
    let (note, done) = resume(note, &source)?;
    if destination.epoch != source.epoch {
        return Err(CopyError::Epoch { destination: destination.epoch, source_epoch: source.epoch });
    }
    runtime.block_on(async {
        tokio::select! {
            never = source.port.serve() => match never {},
            never = destination.port.serve() => match never {},
            report = Run { source: &source, destination: &destination, note, done }.whole(progress) => report,
        }
    })
}

/// Where to begin, and how many logs lie before.
fn resume(noted: Option<String>, source: &Side) -> Result<(Note, u64), CopyError> {
    let fresh =
        Note { source: source.name.clone(), generation: source.generation, after: None, totals: Totals::default() };
    let Some(noted) = noted else { return Ok((fresh, 0)) };
    let noted = Note::parse(&noted).ok_or(CopyError::Note)?;
    if noted.source != source.name {
        return Err(CopyError::OtherSource { noted: noted.source, source_name: source.name.clone() });
    }
    // Somebody else may have written to the source in between.
    if noted.generation + 1 != source.generation {
        return Ok((fresh, 0));
    }
    let done = noted.totals.logs;
    Ok((Note { generation: source.generation, ..noted }, done))
}

struct Run<'a> {
    source: &'a Side,
    destination: &'a Side,
    note: Note,
    done: u64,
}

impl Run<'_> {
    async fn whole(mut self, progress: &mut dyn FnMut(Progress)) -> Result<Report, CopyError> {
        let resumed_after = self.done;
        // At once, so that this attempt counts as the last one even if it is interrupted now.
        self.write_note().await?;
        let of = self.done + self.count().await.map_err(CopyError::Source)?;
        let outcome = self.logs(of, progress).await;
        if let Err(error) = outcome {
            // What is done need not be done again; if this fails too, a little more is.
            let _ = self.write_note().await;
            return Err(error);
        }
        self.destination.finish().await.map_err(CopyError::Destination)?;
        Ok(Report { totals: self.note.totals, epoch: self.source.epoch, resumed_after })
    }

    async fn count(&self) -> Result<u64, SideError> {
        let (mut count, mut after) = (0, self.note.after);
        loop {
            let page = self.source.logs_after(after).await?;
            let Some(last) = page.last() else { return Ok(count) };
            (count, after) = (count + page.len() as u64, Some(*last));
        }
    }

    async fn logs(&mut self, of: u64, progress: &mut dyn FnMut(Progress)) -> Result<(), CopyError> {
        let (source, destination) = (self.source, self.destination);
        let pages = stream::try_unfold(self.note.after, async |after| {
            let page = source.logs_after(after).await.map_err(CopyError::Source)?;
            Ok::<_, CopyError>(page.last().copied().map(|last| (stream::iter(page).map(Ok), Some(last))))
        });
        let one = async |log: LogKey| {
            let copied = copy_log(&source.port, &destination.port, log).await?;
            Ok::<(LogKey, Option<Copied>), CopyError>((log, copied))
        };
        // In the order of the source, so that everything before the last one is done.
        let mut copied = std::pin::pin!(pages.try_flatten().map_ok(one).try_buffered(LOGS_IN_FLIGHT));
        let mut noted = Instant::now();
        while let Some((log, copied)) = copied.try_next().await? {
            self.done += 1;
            self.note.after = Some(log);
            if let Some(copied) = copied {
                self.note.totals.add(copied);
            }
            progress(Progress { done: self.done, of, totals: self.note.totals });
            if self.done.is_multiple_of(NOTE_EVERY_LOGS) || noted.elapsed() >= NOTE_EVERY {
                self.write_note().await?;
                noted = Instant::now();
            }
        }
        Ok(())
    }

    async fn write_note(&self) -> Result<(), CopyError> {
        self.destination.note(&self.note.to_text()).await.map_err(CopyError::Destination)
    }
}
