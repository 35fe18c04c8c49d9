//! A scenario whose result is figures: finds a broker, runs the load, prints what was measured.

use std::{
    error::Error,
    fmt::Display,
    fs::File,
    future::Future,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::{
    broker::Broker,
    machine::CoreArgs,
    target::{Target, TargetArgs},
};

/// How long a broker may take to stop between the preparation and the load.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// A load and what it measures.
pub trait Scenario: Args {
    /// The figures.
    type Report: Display + Serialize;

    /// Says what a broker of the run's own should be like.
    fn prefer(_: &mut TargetArgs) {}

    /// Brings about what the load finds there. If it did anything, a broker of the run's own is then started anew on the
    /// same data, so that what is measured holds nothing of it.
    fn prepare(&self, _: &Target) -> impl Future<Output = Result<bool, Box<dyn Error>>> {
        std::future::ready(Ok(false))
    }

    /// Runs the load against a broker.
    fn run(&self, target: &Arc<Target>) -> impl Future<Output = Result<Self::Report, Box<dyn Error>>>;

    /// Whether no promise was broken. A figure that misses a goal breaks none.
    fn holds(report: &Self::Report) -> bool;
}

/// A scenario with where it runs and where its figures go.
#[derive(Debug, Args)]
pub struct Measured<T: Args> {
    #[command(flatten)]
    load: T,
    #[command(flatten)]
    cores: CoreArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Also write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl<T: Scenario> Measured<T> {
    /// Runs it and tells the figures on `out`; false if a promise was broken.
    pub fn run(self, out: &mut impl Write) -> Result<bool, Box<dyn Error>> {
        let Self { load, cores, mut target, json } = self;
        T::prefer(&mut target);
        let report = measure(&load, cores, None, || Target::find(target))?;
        if let Some(path) = json {
            serde_json::to_writer_pretty(File::create(path)?, &report)?;
        }
        write!(out, "{report}")?;
        Ok(T::holds(&report))
    }
}

/// Finds or starts a broker, brings about what the load finds there, and runs it, both within a time if there is one.
pub(crate) fn measure<T: Scenario>(
    load: &T,
    cores: CoreArgs,
    time: Option<Duration>,
    find: impl FnOnce() -> Result<(Target, Option<Broker>), Box<dyn Error>>,
) -> Result<T::Report, Box<dyn Error>> {
    let (mut target, mut broker) = cores.around(find)??;
    let runtime = one_thread()?;
    let time = time.unwrap_or(Duration::MAX);
    let is_prepared = runtime.block_on(within(time, load.prepare(&target)))?;
    if let Some(broker) = broker.as_mut().filter(|_| is_prepared) {
        broker.stop(STOP_WITHIN)?;
        cores.around(|| broker.restart())??;
        target.restarted(broker);
    }
    runtime.block_on(within(time, load.run(&Arc::new(target))))
}

/// What a future comes to, or that it takes too long.
pub(crate) async fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, Box<dyn Error>>>,
) -> Result<T, Box<dyn Error>> {
    let done = tokio::time::timeout(time, work).await;
    done.map_err(|_| format!("it was not over after {} s", time.as_secs()))?
}

/// The generator is to cost one processor at most.
pub(crate) fn one_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
