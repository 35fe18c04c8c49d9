//! What happens to a run while it runs: the broker is killed, sockets move, connections are cut.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_sdk::{Client, Endpoint};
use clap::Args;
use thiserror::Error;
use tokio::{sync::watch, task::JoinError, time::sleep};

use crate::{
    broker::{Broker, BrokerError},
    cassandra::{Cassandra, CassandraError, Harm},
    chance::Chance,
    gateway::{Gateway, GatewayError},
    moving::{MoveError, Moved, Mover},
    session::stopped,
    store_watch::{Moment, StoreWatch},
};

/// How long a kill waits for the moment that it is aimed at. Then it falls anyhow.
const AIM_PATIENCE: Duration = Duration::from_secs(5);

/// How long a takeover, and then the end of the broker that was overtaken, may take.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(60);
/// When at the latest a copy is killed on its way, for the first time.
const COPY_PATIENCE: Duration = Duration::from_secs(2);
/// The exit code of a broker that was overtaken.
const EXIT_OVERTAKEN: i32 = 75;

/// How often something happens.
#[derive(Debug, Clone, Copy, Args)]
pub struct FaultArgs {
    /// How many times.
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Mean time between two, in milliseconds; each wait is random, from half of it to one and a half.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(2..))]
    pub every_ms: u64,
    /// Connections that one round of cuts ends.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    pub victims: u32,
    /// Among cuts: kill the broker too in every N-th round; 0 = never. Needs a broker of the run's own.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub kill_every: u32,
    /// Among faults of nodes: how long one lasts, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub outage_ms: u64,
    /// Kill the gateway too, in so many of the first rounds. It then runs as a process of its own: `antiphon-gateway`
    /// beside the broker's binary. Needs a broker of the run's own, and a carrier that goes through the gateway.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub gateway_kills: u32,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// `kill -9` of the broker, and a new start on the same data.
    Kill,
    /// Every UDP socket of the clients moves to another port.
    Rebind,
    /// Connections of clients end without a word.
    Cut,
    /// The active broker stands still beyond its lease, another one takes over, the first one goes on.
    Takeover,
    /// Nodes of the store's cluster are killed, stand still, or lose their majority, in turn.
    Nodes,
    /// The broker is killed, its logs move to the cluster or back, and it goes on there; the last time when everything has
    /// been sent.
    Copy,
}

/// Faults to come.
#[derive(Debug, Clone, Copy)]
pub struct FaultPlan {
    /// What is done.
    pub kind: FaultKind,
    /// How often.
    pub args: FaultArgs,
    /// Waits and victims follow from it.
    pub seed: u64,
}

/// What can be broken.
#[derive(Debug)]
pub struct Victims {
    /// The broker, if it is the run's own.
    pub broker: Option<Broker>,
    /// The gateway, if it is a process of its own.
    pub gateway: Option<Gateway>,
    /// A broker on the same cluster that stands by.
    pub standby: Option<Broker>,
    /// The cluster that the logs are on, if it is the run's own.
    pub cassandra: Option<Arc<Cassandra>>,
    /// Sockets of clients.
    pub endpoints: Vec<Endpoint>,
    /// Clients.
    pub clients: Vec<Client>,
}

/// What was done.
#[derive(Debug, Default)]
pub struct FaultsDone {
    /// Rounds that took place.
    pub rounds: u32,
    /// Sockets that moved to another port.
    pub moves: u64,
    /// Connections that were cut.
    pub cuts: u64,
    /// From each kill to the new broker's readiness.
    pub restarts: Vec<Duration>,
    /// Kills that fell while the store began a segment of its log.
    pub kills_at_rotation: u64,
    /// Kills that fell while the store wrote a table of its index.
    pub kills_at_flush: u64,
    /// Kills of the gateway.
    pub gateway_kills: u64,
    /// Times that nodes of the store's cluster were harmed.
    pub node_faults: u64,
    /// Times that a broker was overtaken, and the longest that took.
    pub takeovers: Vec<Duration>,
    /// Times that the logs moved to the other engine.
    pub copies: Vec<Moved>,
    /// The broker that stands by.
    pub standby: Option<Broker>,
    /// The broker, which runs.
    pub broker: Option<Broker>,
    /// The gateway, which runs.
    pub gateway: Option<Gateway>,
}

/// Why faults cannot go on.
#[derive(Debug, Error)]
pub enum FaultError {
    /// Somebody else's broker is not killed.
    #[error("only a broker that this program started can be killed: leave --broker out")]
    NotOurs,
    /// The broker did not come back.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The gateway did not come back.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// A broker that was overtaken goes on, or ended otherwise.
    #[error("the broker that was overtaken did not end with exit code {EXIT_OVERTAKEN}")]
    NotOvertaken,
    /// There are no nodes to harm.
    #[error("only nodes that this program started can be harmed: give --cassandra 3")]
    NoCluster,
    /// A node did not come back.
    #[error(transparent)]
    Cassandra(#[from] CassandraError),
    /// The logs did not move.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// A socket could not be moved, or a client has stopped.
    #[error("a client could not be disturbed")]
    Client(#[from] antiphon_sdk::Error),
    /// A task of the generator ended by itself.
    #[error("a task of the load generator failed")]
    Task(#[from] JoinError),
    /// The load ended first.
    #[error("the load ended after {done} of {wanted} rounds: raise --messages or lower --rate")]
    TooShort {
        /// Rounds that took place.
        done: u64,
        /// Rounds that were asked for.
        wanted: u32,
    },
}

impl FaultPlan {
    /// Carries the plan out, until all rounds are done or `stop` says true.
    pub async fn run(self, victims: Victims, mut stop: watch::Receiver<bool>) -> Result<FaultsDone, FaultError> {
        let Victims { mut broker, mut gateway, mut standby, cassandra, endpoints, clients } = victims;
        let mut chance = Chance::new(self.seed);
        let mut done = FaultsDone::default();
        let mut mover = Mover::default();
        while done.rounds < self.args.rounds {
            let wait = Duration::from_millis(self.args.every_ms).mul_f64(0.5 + chance.unit());
            if self.is_last_copy(done.rounds) {
                // Then everything moves that was sent.
                stopped(&mut stop).await;
            } else {
                tokio::select! {
                    () = sleep(wait) => {}
                    () = stopped(&mut stop) => break,
                }
            }
            if done.rounds < self.args.gateway_kills
                && let Some(mut killed) = gateway.take()
            {
                let restarted = tokio::task::spawn_blocking(move || killed.restart().map(|()| killed));
                gateway = Some(restarted.await??);
                done.gateway_kills += 1;
            }
            match self.kind {
                FaultKind::Kill => {
                    // Two of three kills are aimed at what is hardest to recover from; the others fall anywhere.
                    let aims = [None, Some(Moment::Rotation), Some(Moment::Flush)];
                    kill(&mut broker, aims[done.rounds as usize % aims.len()], &mut done).await?;
                }
                FaultKind::Takeover => {
                    let active = broker.take().ok_or(FaultError::NotOurs)?;
                    let waiting = standby.take().ok_or(FaultError::NoCluster)?;
                    let took_over = tokio::task::spawn_blocking(move || overtake(active, waiting)).await??;
                    let took_over = took_over.ok_or(FaultError::NotOvertaken)?;
                    done.takeovers.push(took_over.took);
                    (broker, standby) = (Some(took_over.active), Some(took_over.standby));
                }
                FaultKind::Nodes => {
                    let harm = Harm::ALL[done.rounds as usize % Harm::ALL.len()];
                    let cassandra = cassandra.clone().ok_or(FaultError::NoCluster)?;
                    let outage = Duration::from_millis(self.args.outage_ms);
                    tokio::task::spawn_blocking(move || outlast(&cassandra, harm, outage)).await??;
                    done.node_faults += 1;
                }
                FaultKind::Copy => {
                    let mut moving = broker.take().ok_or(FaultError::NotOurs)?;
                    let cassandra = cassandra.clone().ok_or(FaultError::NoCluster)?;
                    let patience = COPY_PATIENCE.mul_f64(chance.unit());
                    let moved = tokio::task::spawn_blocking(move || {
                        let moved = mover.move_logs(&mut moving, &cassandra, patience)?;
                        Ok::<_, MoveError>((moving, mover, moved))
                    });
                    let moved = moved.await??;
                    (broker, mover) = (Some(moved.0), moved.1);
                    done.restarts.push(moved.2.took);
                    done.copies.push(moved.2);
                }
                FaultKind::Rebind => {
                    for endpoint in &endpoints {
                        endpoint.rebind()?;
                        done.moves += 1;
                    }
                }
                FaultKind::Cut => {
                    for _ in 0..self.args.victims {
                        clients[chance.below(clients.len())].kill_connection().await?;
                        done.cuts += 1;
                    }
                    if self.args.kill_every > 0 && (done.rounds + 1).is_multiple_of(self.args.kill_every) {
                        kill(&mut broker, None, &mut done).await?;
                    }
                }
            }
            done.rounds += 1;
        }
        Ok(FaultsDone { broker, gateway, standby, ..done })
    }

    fn is_last_copy(&self, rounds_done: u32) -> bool {
        self.kind == FaultKind::Copy && rounds_done + 1 == self.args.rounds
    }
}

/// After a takeover.
struct TookOver {
    active: Broker,
    standby: Broker,
    /// From the pause of the first to the readiness of the second.
    took: Duration,
}

/// Lets the active broker stand still until the other has taken over. Going on, it must find that out and end; then it
/// stands by. Nothing if it did not end so.
fn overtake(mut active: Broker, standby: Broker) -> Result<Option<TookOver>, BrokerError> {
    let began = Instant::now();
    active.pause()?;
    standby.wait_active(TAKEOVER_PATIENCE)?;
    let took = began.elapsed();
    active.resume()?;
    let ended = active.wait_for_end(TAKEOVER_PATIENCE)?;
    if ended.and_then(|status| status.code()) != Some(EXIT_OVERTAKEN) {
        return Ok(None);
    }
    active.stand_by_again()?;
    Ok(Some(TookOver { active: standby, standby: active, took }))
}

/// Harms nodes for so long.
fn outlast(cassandra: &Cassandra, harm: Harm, outage: Duration) -> Result<(), CassandraError> {
    cassandra.harm(harm)?;
    std::thread::sleep(outage);
    cassandra.heal(harm)
}

async fn kill(broker: &mut Option<Broker>, aim: Option<Moment>, done: &mut FaultsDone) -> Result<(), FaultError> {
    let restarted = restart(broker.take().ok_or(FaultError::NotOurs)?, aim).await?;
    *broker = Some(restarted.broker);
    done.restarts.push(restarted.took);
    match aim.filter(|_| restarted.has_hit) {
        Some(Moment::Rotation) => done.kills_at_rotation += 1,
        Some(Moment::Flush) => done.kills_at_flush += 1,
        None => {}
    }
    Ok(())
}

/// A broker that was killed and runs again.
struct Restarted {
    broker: Broker,
    took: Duration,
    /// Whether the kill fell at the moment that it was aimed at.
    has_hit: bool,
}

/// Kills it, when the moment has come, and waits for the next one, away from the thread that runs the clients.
async fn restart(mut broker: Broker, aim: Option<Moment>) -> Result<Restarted, FaultError> {
    let restarted = tokio::task::spawn_blocking(move || -> Result<Restarted, BrokerError> {
        let has_hit = match aim {
            // On a cluster nothing is begun in the data directory.
            Some(_) if !broker.ready().data.join("wal").is_dir() => false,
            Some(moment) => StoreWatch::new(&broker.ready().data, moment)
                .and_then(|watch| watch.wait(Instant::now() + AIM_PATIENCE))
                .map_err(BrokerError::Watch)?,
            None => false,
        };
        let began = Instant::now();
        broker.restart()?;
        Ok(Restarted { broker, took: began.elapsed(), has_hit })
    });
    Ok(restarted.await??)
}
