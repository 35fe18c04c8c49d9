//! A Cassandra cluster for one run, which the run's broker keeps its logs on, and what can be done to its nodes.

use std::{path::Path, process::Command, sync::Arc};

use antiphon_cql_testing::{Cluster, ControlError, LaunchError, Options, Proxy, WriteTimeouts, write_timeouts};
use thiserror::Error;

/// Heap of a node when several share a machine, in MiB.
const HEAP_MIB_OF_MANY: u32 = 384;
const KEYSPACE: &str = "loadgen";

/// A cluster that ends with this value.
#[derive(Debug)]
pub struct Cassandra {
    // Before the cluster, so that it ends first.
    forger: Option<Forger>,
    cluster: Cluster,
    copies: usize,
}

/// Stands between the cluster and the broker and answers some writes with timeouts.
#[derive(Debug)]
struct Forger {
    proxy: Proxy,
    percent: u8,
    counts: Arc<WriteTimeouts>,
}

/// Why there is none.
#[derive(Debug, Error)]
pub enum CassandraError {
    /// It did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A node did not do as it was told.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The broker's program could not make its tables.
    #[error("`antiphon schema apply` failed: {0}")]
    Schema(String),
}

impl Cassandra {
    /// Starts `nodes` nodes, each of which keeps every row, and makes the tables with the broker's own program. From then
    /// on `forged_percent` of a hundred writes are answered with a timeout; every other of those is carried out.
    pub fn start(nodes: usize, forged_percent: Option<u8>, program: &Path) -> Result<Self, CassandraError> {
        let options = Options::default().nodes(nodes).proxied(forged_percent.is_some());
        let options = if nodes > 1 { options.heap_mib(HEAP_MIB_OF_MANY) } else { options };
        let cluster = Cluster::start(options)?;
        let forger = forged_percent.map(|percent| Forger::start(&cluster, percent)).transpose()?;
        let cassandra = Self { forger, cluster, copies: nodes };
        cassandra.apply_schema(program, &cassandra.environment())?;
        Ok(cassandra)
    }

    /// Makes the tables of the keyspace that `environment` names, with the broker's own program.
    pub fn apply_schema(&self, program: &Path, environment: &[(String, String)]) -> Result<(), CassandraError> {
        let failed = |error: &dyn std::fmt::Display| CassandraError::Schema(error.to_string());
        let mut apply = Command::new(program);
        apply.args(["schema", "apply"]).env("ANTIPHON_LOG_FILTER", "warn");
        apply.envs(environment.iter().map(|(name, value)| (name, value)));
        let output = apply.output().map_err(|error| failed(&error))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(failed(&String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// The variables with which a broker finds it.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.environment_of(KEYSPACE)
    }

    /// The variables with which a broker finds another keyspace of it.
    pub fn environment_of(&self, keyspace: &str) -> Vec<(String, String)> {
        let contact_points = match &self.forger {
            Some(forger) => forger.proxy.contact_points().to_vec(),
            None => self.cluster.contact_points(),
        };
        let contact_points: Vec<String> = contact_points.iter().map(ToString::to_string).collect();
        let variable = |name: &str, value: String| (format!("ANTIPHON_STORE_{name}"), value);
        let mut variables = vec![
            variable("ENGINE", "cassandra".into()),
            variable("CONTACT_POINTS", contact_points.join(",")),
            variable("KEYSPACE", keyspace.into()),
            variable("REPLICATION_FACTOR", self.copies.to_string()),
        ];
        if self.copies < 3 {
            variables.push(variable("ACCEPT", "low-replication".into()));
        }
        variables
    }

    /// What it is and what it was made to say, for a report.
    pub fn describe(&self) -> String {
        let cluster = format!("{}, {} nodes", self.cluster.version(), self.cluster.nodes().len());
        match &self.forger {
            Some(forger) => format!("{cluster}, {}", forger.describe()),
            None => cluster,
        }
    }

    /// Whether as many writes timed out as it was told.
    pub fn forged_enough(&self) -> bool {
        self.forger.as_ref().is_none_or(Forger::forged_enough)
    }

    /// Does harm to nodes.
    pub fn harm(&self, harm: Harm) -> Result<(), CassandraError> {
        let node = |n| self.cluster.node(n);
        match harm {
            Harm::Kill => node(1).kill()?,
            Harm::Pause => node(2).pause()?,
            Harm::LoseMajority => {
                node(2).pause()?;
                node(3).pause()?;
            }
        }
        Ok(())
    }

    /// Takes the harm back, and waits until every node is answered by all others.
    pub fn heal(&self, harm: Harm) -> Result<(), CassandraError> {
        let node = |n| self.cluster.node(n);
        match harm {
            Harm::Kill => node(1).start()?,
            Harm::Pause => node(2).resume()?,
            Harm::LoseMajority => {
                node(2).resume()?;
                node(3).resume()?;
            }
        }
        Ok(())
    }
}

impl Forger {
    fn start(cluster: &Cluster, percent: u8) -> Result<Self, LaunchError> {
        let (judge, counts) = write_timeouts(percent, 1);
        Ok(Self { proxy: cluster.proxy(judge)?, percent, counts })
    }

    fn describe(&self) -> String {
        let (writes, done, undone) = (self.counts.writes(), self.counts.done(), self.counts.undone());
        format!("of {writes} writes {} were answered with a forged timeout, {done} of them carried out", done + undone)
    }

    /// Dice may fall short by chance, but not by half.
    fn forged_enough(&self) -> bool {
        let (done, undone) = (self.counts.done(), self.counts.undone());
        let expected = self.counts.writes() * u64::from(self.percent) / 100;
        done >= expected / 4 && undone >= expected / 4
    }
}

/// What happens to nodes of a cluster of three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// `kill -9` of one, which is started again on its data.
    Kill,
    /// One stands still (SIGSTOP).
    Pause,
    /// Two of three stand still: nothing can be written.
    LoseMajority,
}

impl Harm {
    /// Every one, in the order in which they come.
    pub const ALL: [Self; 3] = [Self::Kill, Self::Pause, Self::LoseMajority];
}
