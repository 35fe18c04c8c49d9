//! Takes the lease, renews it, and lets it go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_cql_engine::lease::{Candidate, Hold, LeaseRow, RENEW_EVERY, Uptime, Watch};
use scylla::{
    client::session::Session, response::query_result::QueryResult, serialize::row::SerializeRow,
    statement::prepared::PreparedStatement, value::Row,
};
use uuid::Uuid;

use crate::{
    config::CqlConfig,
    error::CqlError,
    statements::LeaseStatements,
    times::{Kind, Times},
    uptime,
};

/// The one lease of all logs. A row each for parts of them may come beside it.
const NAME: &str = "logs";
/// How often whoever waits looks.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// After a failed renewal it is tried again sooner.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// The term of this process, as every shard sees it.
#[derive(Debug)]
pub(crate) struct Term {
    /// Its number.
    pub(crate) number: u64,
    /// Timestamps of the terms before are at most this.
    pub(crate) stamps_after: i64,
    /// Uptime until which it is surely held, milliseconds.
    held_until_ms: AtomicU64,
    stamps_until: AtomicI64,
    is_lost: AtomicBool,
}

impl Term {
    fn new(before: Option<&LeaseRow>, hold: &Hold) -> Self {
        let term = Self {
            number: hold.row().term,
            stamps_after: before.map_or(0, |row| row.stamps_until),
            held_until_ms: AtomicU64::new(0),
            stamps_until: AtomicI64::new(0),
            is_lost: AtomicBool::new(false),
        };
        term.extend(hold);
        term
    }

    fn extend(&self, hold: &Hold) {
        self.stamps_until.store(hold.row().stamps_until, Ordering::Release);
        self.held_until_ms.store(hold.until().as_millis() as u64, Ordering::Release);
    }

    /// Whether it is surely held at this moment.
    pub(crate) fn is_held(&self) -> bool {
        !self.is_lost() && (uptime::now().as_millis() as u64) < self.held_until_ms.load(Ordering::Acquire)
    }

    /// Whether another broker has taken over.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// The timestamp, unless the wall clock has run ahead of what the lease allows; the next renewal allows more.
    pub(crate) fn stamp(&self, at: i64) -> Result<i64, String> {
        let allows = self.stamps_until.load(Ordering::Acquire) >= at;
        allows.then_some(at).ok_or_else(|| "the clock has run ahead of the lease".to_owned())
    }
}

/// Reads and changes the lease.
#[derive(Debug)]
pub(crate) struct Keeper {
    session: Arc<Session>,
    statements: LeaseStatements,
    candidate: Candidate,
    times: Arc<Times>,
}

/// Where a candidate stands.
pub(crate) enum Stand {
    /// It holds the lease.
    Holds(Hold, Arc<Term>),
    /// Somebody else does.
    Waits(LeaseRow),
}

impl Keeper {
    pub(crate) async fn new(
        session: Arc<Session>,
        config: &CqlConfig,
        candidate: Candidate,
        times: Arc<Times>,
    ) -> Result<Self, CqlError> {
        let statements = LeaseStatements::prepare(&session, config).await?;
        Ok(Self { session, statements, candidate, times })
    }

    /// Watches until the lease can be taken; `tell` hears who holds it meanwhile.
    pub(crate) async fn acquire(&self, mut tell: impl FnMut(&LeaseRow)) -> (Hold, Arc<Term>) {
        let mut watch = Watch::new(self.candidate.clone());
        loop {
            match self.try_acquire(&mut watch).await {
                Ok(Stand::Holds(hold, term)) => return (hold, term),
                Ok(Stand::Waits(row)) => tell(&row),
                Err(error) => tracing::warn!(%error, "the lease cannot be read"),
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }

    async fn try_acquire(&self, watch: &mut Watch) -> Result<Stand, CqlError> {
        let found = self.read().await?;
        let Some(row) = watch.observe(found.clone(), uptime::now(), uptime::wall_us()) else {
            return found.map(Stand::Waits).ok_or_else(|| CqlError::statement("reading the lease", "it is gone"));
        };
        let began = uptime::now();
        // A change of unknown outcome is found out by the next look: the row then names this process.
        if self.change(found.as_ref(), &row).await? || self.read().await?.as_ref() == Some(&row) {
            let hold = Hold::new(row, began);
            let term = Arc::new(Term::new(found.as_ref(), &hold));
            return Ok(Stand::Holds(hold, term));
        }
        Ok(Stand::Waits(found.unwrap_or(row)))
    }

    /// Renews the lease until the process lets it go, or another has it: then answers with `false`.
    pub(crate) async fn keep(
        &self,
        mut hold: Hold,
        term: &Term,
        mut let_go: tokio::sync::oneshot::Receiver<()>,
    ) -> bool {
        let mut pause = RENEW_EVERY;
        loop {
            tokio::select! {
                _ = &mut let_go => {
                    let release = hold.release();
                    term.is_lost.store(true, Ordering::Release);
                    let _ = self.change(Some(hold.row()), &release).await;
                    return true;
                }
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.renew(&mut hold, term).await {
                Ok(true) => RENEW_EVERY,
                Ok(false) => {
                    term.is_lost.store(true, Ordering::Release);
                    return false;
                }
                Err(error) => {
                    tracing::warn!(%error, "the lease was not renewed");
                    RETRY_EVERY
                }
            };
        }
    }

    /// False if it is lost for good.
    async fn renew(&self, hold: &mut Hold, term: &Term) -> Result<bool, CqlError> {
        let began: Uptime = uptime::now();
        let renewal = hold.renewal(uptime::wall_us());
        match self.change(Some(hold.row()), &renewal).await {
            Ok(true) => {
                hold.renewed(renewal, began);
                term.extend(hold);
                Ok(true)
            }
            // Refused, or an outcome that nobody knows: what the row says now decides.
            refused => {
                if !hold.recall(self.read().await?) {
                    return Ok(false);
                }
                refused?;
                Err(CqlError::statement("renewing the lease", "an earlier attempt was carried out after all"))
            }
        }
    }

    async fn read(&self) -> Result<Option<LeaseRow>, CqlError> {
        let failed = |error: &dyn std::fmt::Display| CqlError::statement("reading the lease", error);
        let read = self.session.execute_unpaged(&self.statements.read, (NAME,));
        let result = self.times.measure(Kind::Lease, read).await;
        let rows = result.map_err(|error| failed(&error))?.into_rows_result().map_err(|error| failed(&error))?;
        let row = rows.maybe_first_row::<(i64, Uuid, String, i64, i64, String)>().map_err(|error| failed(&error))?;
        Ok(row.map(|(term, holder, seat, renewals, stamps_until, address)| LeaseRow {
            term: term as u64,
            holder,
            seat,
            renewals: renewals as u64,
            stamps_until,
            address,
        }))
    }

    /// Writes `to` if the row still says `from`. Whether it did.
    async fn change(&self, from: Option<&LeaseRow>, to: &LeaseRow) -> Result<bool, CqlError> {
        let LeaseRow { term, holder, seat, renewals, stamps_until, address } = to;
        let (term, renewals) = (*term as i64, *renewals as i64);
        let on = &self.statements;
        match from {
            None => {
                let values = (NAME, term, holder, seat, renewals, stamps_until, address);
                self.conditional(&on.create, values).await
            }
            Some(from) => {
                let before = (from.term as i64, from.holder, from.renewals as i64);
                let values = (term, holder, seat, renewals, stamps_until, address, NAME, before.0, before.1, before.2);
                self.conditional(&on.change, values).await
            }
        }
    }

    async fn conditional(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<bool, CqlError> {
        let result = self.times.measure(Kind::Lease, self.session.execute_unpaged(statement, values)).await;
        was_applied(result.map_err(|error| CqlError::statement("writing the lease", error))?)
    }
}

/// The first column of the answer to a conditional statement says whether it was carried out.
pub(crate) fn was_applied(result: QueryResult) -> Result<bool, CqlError> {
    let failed = |error: &dyn std::fmt::Display| CqlError::statement("writing under a condition", error);
    let rows = result.into_rows_result().map_err(|error| failed(&error))?;
    let row = rows.first_row::<Row>().map_err(|error| failed(&error))?;
    Ok(row.columns.first().and_then(|column| column.as_ref()?.as_boolean()).unwrap_or(false))
}
