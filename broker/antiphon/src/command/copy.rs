//! `antiphon copy`: everything from one store to the other, compared, and resumed where it was interrupted.

use std::{
    io::{self, Write as _},
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_server::config::{Config, Overrides, StoreSettings};
use antiphon_storage_copy::{Hooks, Place, Progress, Report, copy};
use antiphon_storage_cql::Standing;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    cli::{Copy, Engine},
    failure::Failure,
    logging,
};

pub(crate) fn run(command: &Copy) -> Result<(), Failure> {
    if command.from == command.to {
        let problem = "is where everything is already; name the other engine".into();
        return Err(Failure::Argument { argument: "--to", problem });
    }
    let overrides = Overrides { data_dir: command.data.clone(), ..Overrides::default() };
    let config = Config::load(command.config.as_deref(), std::env::vars(), overrides, 1)?;
    let StoreSettings::Cql(settings) = &config.store else {
        return Err(Failure::Argument {
            argument: "store.engine",
            problem: "the configuration names no cluster; set it to \"scylla\" or \"cassandra\"".into(),
        });
    };
    logging::start(&config.log);
    let cluster = settings.store_config()?;
    let place = |engine| match engine {
        Engine::Embedded => Place::Embedded(config.data_dir.clone()),
        Engine::Scylla => Place::Cluster(Box::new(cluster.clone())),
    };
    let mut shown = Shown::new();
    let began = Instant::now();
    let report = copy(&place(command.from), &place(command.to), &hooks(), &mut |progress| shown.show(progress));
    shown.end();
    tell(&report?, began.elapsed()).map_err(Failure::Output)
}

fn hooks() -> Hooks {
    Hooks {
        fatal: Arc::new(|error| {
            tracing::error!(%error, "the data directory cannot be written; the process ends");
            process::exit(1);
        }),
        standing: Arc::new(|standing| match standing {
            Standing::StandingBy { active } => eprintln!("waiting until the keyspace is free; now: {active}"),
            Standing::Active { .. } => {}
            Standing::Overtaken => tracing::error!("a broker has taken the keyspace over"),
        }),
    }
}

/// One fact a line, for people and for programs. Equal digests mean equal stores.
fn tell(report: &Report, took: Duration) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let totals = &report.totals;
    writeln!(out, "logs: {}", totals.logs)?;
    writeln!(out, "rows: {}", totals.rows)?;
    writeln!(out, "records: {}", totals.records)?;
    writeln!(out, "bytes: {}", totals.bytes)?;
    writeln!(out, "epoch: {}", report.epoch)?;
    writeln!(out, "digest: {}", totals.digest)?;
    if report.resumed_after > 0 {
        writeln!(out, "resumed after: {} logs", report.resumed_after)?;
    }
    writeln!(out, "copied and compared in {:.1} s; the source is as it was", took.as_secs_f64())?;
    out.flush()
}

/// How far it has come: a bar on a terminal, else a line now and then.
struct Shown {
    bar: ProgressBar,
    last_line: Instant,
}

const LINE_EVERY: Duration = Duration::from_secs(10);

impl Shown {
    fn new() -> Self {
        let bar = ProgressBar::new(0);
        // Invariant: the template is a constant that a test reads.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        Self { bar, last_line: Instant::now() }
    }

    fn show(&mut self, progress: Progress) {
        self.bar.set_length(progress.of);
        self.bar.set_position(progress.done);
        self.bar.set_message(format!("{} rows, {} records", progress.totals.rows, progress.totals.records));
        if self.bar.is_hidden() && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!("{} of {} logs, {} rows", progress.done, progress.of, progress.totals.rows);
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

const TEMPLATE: &str = "{wide_bar} {pos}/{len} logs, {msg}, {eta} left";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_one() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
