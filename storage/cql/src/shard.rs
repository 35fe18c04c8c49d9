//! One shard's part of the store: the engine on the shard's own thread, its requests on the store's runtime.

use std::sync::{
    Arc,
    mpsc::{Receiver, Sender, channel},
};

use antiphon_cql_engine::{Counters, Engine, Failure, Reply, RequestId};
use antiphon_storage_contract::{Completion, EventLog, Op, Token};

use crate::{
    store::{Shared, Wake},
    uptime,
};

type Answer = (RequestId, Result<Reply, Failure>);

/// A shard's logs on the cluster.
pub struct CqlShard {
    engine: Engine,
    shared: Arc<Shared>,
    wake: Wake,
    answers: (Sender<Answer>, Receiver<Answer>),
}

impl std::fmt::Debug for CqlShard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CqlShard").field("engine", &self.engine.counters()).finish_non_exhaustive()
    }
}

impl CqlShard {
    pub(crate) fn new(engine: Engine, shared: Arc<Shared>, wake: Wake) -> Self {
        Self { engine, shared, wake, answers: channel() }
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// The store that it belongs to.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn begin_requests(&mut self) {
        while let Some((id, request)) = self.engine.poll_request(uptime::wall_us()) {
            let (cluster, term) = (Arc::clone(&self.shared.cluster), Arc::clone(&self.shared.term));
            let (answers, wake) = (self.answers.0.clone(), self.wake.clone());
            self.shared.spawn(async move {
                let result = cluster.perform(&request, &term).await;
                // A shard that is gone needs no answer.
                if answers.send((id, result)).is_ok() {
                    wake();
                }
            });
        }
    }
}

impl EventLog for CqlShard {
    fn submit(&mut self, op: Op, token: Token) {
        self.engine.submit(op, token);
    }

    fn poll_completions(&mut self, completions: &mut Vec<Completion>) {
        // What was submitted in one turn leaves together.
        self.begin_requests();
        while let Ok((id, result)) = self.answers.1.try_recv() {
            self.engine.answered(id, result);
        }
        self.engine.poll_completions(completions);
        self.begin_requests();
        self.engine.poll_completions(completions);
    }
}
