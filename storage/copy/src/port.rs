//! A store as async questions and answers, within one thread.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use antiphon_protocol::{LogKey, Row, UserId};
use antiphon_storage_contract::{Completion, Direction, EventLog, Loaded, Op, Outcome, ReadRows, StoreError, Token};
use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

/// Rows and records of one answer, in number.
pub(crate) const PAGE_MAX: u32 = 512;
/// The same in bytes; also of one write, as servers warn of longer ones.
pub(crate) const PAGE_BYTES_MAX: usize = 48 << 10;

/// One store. Answers come while [`Self::serve`] is polled.
pub(crate) struct Port {
    inner: RefCell<Inner>,
    bell: Arc<Notify>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

struct Inner {
    store: Box<dyn EventLog>,
    last_token: u64,
    waiting: HashMap<Token, oneshot::Sender<Result<Outcome, StoreError>>>,
}

impl Port {
    /// Of a store that rings `bell` when it should be polled.
    pub(crate) fn new(store: Box<dyn EventLog>, bell: Arc<Notify>) -> Self {
        let inner = Inner { store, last_token: 0, waiting: HashMap::new() };
        Self { inner: RefCell::new(inner), bell }
    }

    /// Passes answers on; never ends by itself.
    pub(crate) async fn serve(&self) -> std::convert::Infallible {
        let mut completions = Vec::new();
        loop {
            {
                let mut inner = self.inner.borrow_mut();
                inner.store.poll_completions(&mut completions);
                for Completion { token, result } in completions.drain(..) {
                    if let Some(waiting) = inner.waiting.remove(&token) {
                        // Whoever asked may have given up.
                        let _ = waiting.send(result);
                    }
                }
            }
            self.bell.notified().await;
        }
    }

    async fn ask(&self, op: Op) -> Result<Outcome, StoreError> {
        let (answer, answered) = oneshot::channel();
        {
            let mut inner = self.inner.borrow_mut();
            inner.last_token += 1;
            let token = Token(inner.last_token);
            inner.waiting.insert(token, answer);
            inner.store.submit(op, token);
        }
        self.bell.notify_one();
        answered.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the store is gone".into())))
    }

    pub(crate) async fn write(&self, op: Op) -> Result<(), StoreError> {
        self.ask(op).await.map(drop)
    }

    pub(crate) async fn load(&self, log: LogKey) -> Result<Loaded, StoreError> {
        match self.ask(Op::Load { log }).await? {
            Outcome::Loaded(loaded) => Ok(loaded),
            other => Err(unexpected(&other)),
        }
    }

    /// Rows from `from` on, below `to`: at least one, if there is any.
    pub(crate) async fn rows(&self, log: LogKey, from: u64, to: u64) -> Result<Vec<Row>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let direction = Direction::Forward;
        let range = ReadRows { from, to, direction, rows_max: PAGE_MAX, bytes_max: PAGE_BYTES_MAX };
        match self.ask(Op::Read { log, range }).await? {
            Outcome::Rows(rows) => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    /// Records behind `after`, in key order.
    pub(crate) async fn records(
        &self,
        log: LogKey,
        after: Option<Bytes>,
        records_max: u32,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        match self.ask(Op::ScanRecords { log, prefix: Bytes::new(), after, records_max }).await? {
            Outcome::Records(records) => Ok(records),
            other => Err(unexpected(&other)),
        }
    }

    /// Where the store finds what `sender` stored under this id.
    pub(crate) async fn duplicate(
        &self,
        log: LogKey,
        sender: UserId,
        client_message_id: Uuid,
    ) -> Result<Option<u64>, StoreError> {
        match self.ask(Op::FindDuplicate { log, sender, client_message_id }).await? {
            Outcome::Row(row) => Ok(row.map(|row| row.seq())),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(outcome: &Outcome) -> StoreError {
    StoreError::Misuse(format!("an answer to another question: {outcome:?}"))
}
