//! A store on a cluster: opened by whoever holds the lease, or waits for it.

use std::sync::Arc;

use antiphon_cql_engine::{
    Engine, Term as EngineTerm,
    lease::{Candidate, LeaseRow},
};
use scylla::client::session::Session;
use tokio::{runtime::Runtime, sync::oneshot};

use crate::{
    config::CqlConfig,
    connect, copying,
    error::CqlError,
    health::Health,
    keeper::{Keeper, Term},
    perform::Cluster,
    schema,
    server::Server,
    shard::CqlShard,
    statements::Statements,
    times::Times,
};

/// Called from any thread when a shard should be polled.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Where this process stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Another broker owns the logs; its clients connect to this address.
    StandingBy {
        /// Of the active one.
        active: String,
    },
    /// It owns the logs.
    Active {
        /// In this term.
        term: u64,
    },
    /// Another broker has taken the logs over. This process can only start anew.
    Overtaken,
}

/// Called from any thread each time the process stands otherwise. Once it is [`Standing::Overtaken`] the process must end.
pub type StandingHook = Arc<dyn Fn(Standing) + Send + Sync>;

/// What all shards of the store share.
pub struct Shared {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) term: Arc<Term>,
    server: Server,
    /// There until this is dropped.
    runtime: Option<Runtime>,
    /// Asks the keeper to let the lease go; it says when it has.
    let_go: Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Shared {
    /// Whose servers keep the logs.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The number of the term in which this process owns the logs.
    pub fn term(&self) -> u64 {
        self.term.number
    }

    /// Whether they answer.
    pub fn health(&self) -> &Arc<Health> {
        &self.cluster.health
    }

    /// How long they take.
    pub fn times(&self) -> &Arc<Times> {
        &self.cluster.times
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(work);
        }
    }
}

impl Drop for Shared {
    /// Lets the lease go, so that whoever stands by need not wait for it to end.
    fn drop(&mut self) {
        if let Some((let_go, done)) = self.let_go.take() {
            let _ = let_go.send(());
            // An answer is not needed, only the time for it.
            let _ = done.blocking_recv();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A connected store whose lease is not held yet.
pub struct CqlStore {
    runtime: Runtime,
    cluster: Arc<Cluster>,
    lease: Arc<Session>,
    config: CqlConfig,
    server: Server,
    /// Whether the keyspace may hold an unfinished copy.
    is_for_copy: bool,
}

impl std::fmt::Debug for CqlStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CqlStore").field("server", &self.server).finish_non_exhaustive()
    }
}

impl CqlStore {
    /// Connects and checks what the broker depends on. What the operator accepted is logged loudly.
    pub fn connect(config: &CqlConfig) -> Result<Self, CqlError> {
        let store = Self::connect_for_copy(config)?;
        store.runtime.block_on(copying::refuse_unfinished(&store.cluster.session, config))?;
        Ok(Self { is_for_copy: false, ..store })
    }

    /// The same, to copy into the keyspace: it may hold a copy that is unfinished.
    pub fn connect_for_copy(config: &CqlConfig) -> Result<Self, CqlError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("store").enable_all().build()?;
        let (session, server) = runtime.block_on(prepare(config))?;
        // Its own connections: renewals do not queue behind what the shards ask.
        let lease = Arc::new(runtime.block_on(connect::connect(config))?);
        let statements = runtime.block_on(Statements::prepare(&session, config))?;
        let health = Arc::new(Health::default());
        let (times, give_up_after) = (Arc::default(), config.give_up_after);
        let cluster = Arc::new(Cluster { session, statements, health, times, give_up_after });
        Ok(Self { runtime, cluster, lease, config: config.clone(), server, is_for_copy: true })
    }

    /// Whose servers keep the logs.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Waits until `candidate` owns the logs; then one shard for each waker.
    pub fn acquire(
        self,
        candidate: Candidate,
        wakes: Vec<Wake>,
        standing: StandingHook,
    ) -> Result<Vec<CqlShard>, CqlError> {
        let Self { runtime, cluster, lease, config, server, is_for_copy } = self;
        let keeper = runtime.block_on(Keeper::new(lease, &config, candidate, Arc::clone(&cluster.times)))?;
        let mut told = None;
        let tell = |row: &LeaseRow| {
            if told.as_ref() != Some(&row.address) {
                told = Some(row.address.clone());
                standing(Standing::StandingBy { active: row.address.clone() });
            }
        };
        let (hold, term) = runtime.block_on(keeper.acquire(tell));
        let (let_go, asked_to_let_go) = oneshot::channel();
        // Whoever held the lease before may have been a copier: it may have been interrupted, and it sets the epoch.
        let epoch = runtime.block_on(async {
            if !is_for_copy {
                copying::refuse_unfinished(&cluster.session, &config).await?;
            }
            schema::epoch(&cluster.session, &config).await
        });
        let epoch = match epoch {
            Ok(epoch) => epoch,
            Err(error) => {
                let _ = let_go.send(());
                runtime.block_on(keeper.keep(hold, &term, asked_to_let_go));
                return Err(error);
            }
        };
        standing(Standing::Active { term: term.number });
        let (done, is_done) = oneshot::channel();
        let kept = Arc::clone(&term);
        runtime.spawn(async move {
            let was_let_go = keeper.keep(hold, &kept, asked_to_let_go).await;
            let _ = done.send(());
            if !was_let_go {
                standing(Standing::Overtaken);
            }
        });
        let engine_term = EngineTerm { number: term.number, stamps_after: term.stamps_after, epoch };
        let let_go = Some((let_go, is_done));
        let shared = Arc::new(Shared { cluster, term, server, runtime: Some(runtime), let_go });
        let shard = |wake| CqlShard::new(Engine::new(engine_term), Arc::clone(&shared), wake);
        Ok(wakes.into_iter().map(shard).collect())
    }
}

/// A session on a cluster that may be used.
async fn prepare(config: &CqlConfig) -> Result<(Session, Server), CqlError> {
    let (session, server) = schema::open(config).await?;
    schema::usable_version(&session, config).await?;
    for (downgrade, what) in server.examine(&session, config).await? {
        if !config.accepted.contains(&downgrade) {
            return Err(CqlError::Refused { what, downgrade });
        }
        tracing::warn!(accepted = downgrade.name(), "{what}");
    }
    Ok((session, server))
}
