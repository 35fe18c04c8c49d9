//! Carries out the engine's requests: as statements, repeated until they are done or given up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_cql_engine::{
    Failure, Reply, Request,
    bucket::{Bucket, BucketId},
};
use antiphon_protocol::LogKey;
use antiphon_storage_contract::Direction;
use bytes::Bytes;
use scylla::{
    client::session::Session,
    deserialize::row::DeserializeRow,
    response::query_result::QueryRowsResult,
    serialize::row::SerializeRow,
    statement::{
        batch::{Batch, BatchStatement, BatchType},
        prepared::PreparedStatement,
    },
};
use uuid::Uuid;

use crate::{
    health::Health,
    keeper::Term,
    statements::Statements,
    times::{Kind, Times},
};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// First byte of a record that was deleted, and of one that exists; what follows is its value.
const GONE: u8 = 0;
const LIVE: u8 = 1;

/// What every request needs.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) session: Session,
    pub(crate) statements: Statements,
    pub(crate) health: Arc<Health>,
    pub(crate) times: Arc<Times>,
    pub(crate) give_up_after: Duration,
}

/// What the driver or the server said; `Err` of one attempt.
type Reason = String;

impl Cluster {
    /// Until it is done, while the term is held, or given up.
    pub(crate) async fn perform(&self, request: &Request, term: &Term) -> Result<Reply, Failure> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            // While it is away a request is tried once only: its sender hears sooner.
            let is_away = self.health.is_away();
            let reason = match self.times.measure(kind(request), self.attempt(request, term)).await {
                Ok(reply) => {
                    self.health.succeeded();
                    // Only now is it known that the term was held when a majority had the write.
                    if reply != Reply::Done || term.is_held() {
                        return Ok(reply);
                    }
                    "the broker does not hold its lease".to_owned()
                }
                Err(reason) => {
                    self.health.failed();
                    reason
                }
            };
            if is_away || term.is_lost() || began.elapsed() + pause >= self.give_up_after {
                return Err(Failure(reason));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, request: &Request, term: &Term) -> Result<Reply, Reason> {
        let on = &self.statements;
        match request {
            Request::ReadBuckets { log } => {
                let rows = self.read(&on.read_buckets, (key(*log),)).await?;
                let bucket = |(id, first_seq, first_ms): (i64, i64, i64)| Bucket {
                    id: BucketId::from_stored(id),
                    first_seq: first_seq as u64,
                    first_ms: first_ms as u64,
                };
                Ok(Reply::Buckets(collect(&rows, bucket)?))
            }
            Request::ReadHead { log } => {
                let rows = self.read(&on.read_head, (key(*log),)).await?;
                let mut found = collect(&rows, |row: (Option<i64>, Option<Bytes>)| row)?;
                let (floor, checkpoint) = found.pop().unwrap_or_default();
                Ok(Reply::Head { floor: floor.map(|floor| floor as u64), checkpoint: checkpoint.and_then(described) })
            }
            Request::ReadRows { log, bucket, from, to, direction, rows_max, is_thorough } => {
                let statement = match (direction, is_thorough) {
                    (Direction::Forward, false) => &on.read_events_up,
                    (Direction::Backward, false) => &on.read_events_down,
                    (Direction::Forward, true) => &on.read_events_up_all,
                    (Direction::Backward, true) => &on.read_events_down_all,
                };
                let range = (key(*log), bucket.stored(), signed(*from), signed(*to), *rows_max as i32);
                let rows = self.read(statement, range).await?;
                Ok(Reply::Rows(collect(&rows, |(seq, row): (i64, Bytes)| (seq as u64, row))?))
            }
            Request::ReadDuplicate { log, slice, sender, client_message_id } => {
                let named = (key(*log), slice, client_message_id, sender);
                let rows = self.read(&on.read_duplicate, named).await?;
                Ok(Reply::Duplicate(collect(&rows, |(seq,): (i64,)| seq as u64)?.pop()))
            }
            Request::ReadRecord { log, key: name } => {
                let rows = self.read(&on.read_record, (key(*log), name)).await?;
                Ok(Reply::Records(collect(&rows, record)?))
            }
            Request::ScanRecords { log, from, to, records_max } => {
                let rows = self.read(&on.scan_records, (key(*log), from, to, *records_max as i32)).await?;
                Ok(Reply::Records(collect(&rows, record)?))
            }
            write => self.write(write, term).await.map(|()| Reply::Done),
        }
    }

    async fn write(&self, request: &Request, term: &Term) -> Result<(), Reason> {
        let on = &self.statements;
        match request {
            Request::WriteBucket { log, bucket, at } => {
                let row = (key(*log), bucket.id.stored(), signed(bucket.first_seq), signed(bucket.first_ms));
                self.put(&on.write_bucket, [row], term.stamp(*at)?).await
            }
            Request::DropBucket { log, bucket, at } => {
                let (named, at) = ((key(*log), bucket.stored()), term.stamp(*at)?);
                self.put(&on.drop_events, [named], at).await?;
                self.put(&on.drop_bucket, [named], at).await
            }
            Request::WriteCheckpoint { log, through, value, at } => {
                let value = [&signed(*through).to_be_bytes()[..], value].concat();
                self.put(&on.write_checkpoint, [(key(*log), value)], term.stamp(*at)?).await
            }
            Request::WriteFloor { log, floor, at } => {
                self.put(&on.write_floor, [(key(*log), signed(*floor))], term.stamp(*at)?).await
            }
            Request::WriteRows { log, bucket, rows, at } => {
                let (log, bucket) = (key(*log), bucket.stored());
                let rows = rows.iter().map(|(seq, row)| (log, bucket, signed(*seq), row));
                self.put(&on.write_event, rows, term.stamp(*at)?).await
            }
            Request::WriteDuplicates { log, slice, entries, at } => {
                let log = key(*log);
                let rows = entries.iter().map(|it| (log, *slice, it.client_message_id, &it.sender, signed(it.seq)));
                self.put(&on.write_duplicate, rows, term.stamp(*at)?).await
            }
            Request::DropDuplicates { log, slice, entries, at } => {
                let log = key(*log);
                let rows = entries.iter().map(|it| (log, *slice, it.client_message_id, &it.sender));
                self.put(&on.drop_duplicate, rows, term.stamp(*at)?).await
            }
            Request::WriteRecords { log, records, at } => {
                let log = key(*log);
                let value = |value: &Option<Bytes>| match value {
                    Some(value) => [&[LIVE][..], value].concat(),
                    None => vec![GONE],
                };
                let rows = records.iter().map(|(name, it)| (log, name, value(it)));
                self.put(&on.write_record, rows, term.stamp(*at)?).await
            }
            _ => Err("a read among writes".into()),
        }
    }

    /// One row in a statement, several of one partition in a batch of statements that all take effect or none.
    async fn put<Row: SerializeRow>(
        &self,
        statement: &PreparedStatement,
        rows: impl IntoIterator<Item = Row>,
        at: i64,
    ) -> Result<(), Reason> {
        let mut rows: Vec<Row> = rows.into_iter().collect();
        let result = if rows.len() > 1 {
            let statements = vec![BatchStatement::from(statement.clone()); rows.len()];
            let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
            batch.set_timestamp(Some(at));
            batch.set_is_idempotent(true);
            self.session.batch(&batch, rows).await
        } else {
            let Some(row) = rows.pop() else { return Ok(()) };
            let mut statement = statement.clone();
            statement.set_timestamp(Some(at));
            self.session.execute_unpaged(&statement, row).await
        };
        result.map(drop).map_err(|error| error.to_string())
    }

    async fn read(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<QueryRowsResult, Reason> {
        let result = self.session.execute_unpaged(statement, values).await.map_err(|error| error.to_string())?;
        result.into_rows_result().map_err(|error| error.to_string())
    }
}

fn kind(request: &Request) -> Kind {
    match request {
        Request::ReadBuckets { .. }
        | Request::ReadHead { .. }
        | Request::ReadRows { .. }
        | Request::ReadDuplicate { .. }
        | Request::ReadRecord { .. }
        | Request::ScanRecords { .. } => Kind::Read,
        _ => Kind::Write,
    }
}

fn collect<Row, Out>(rows: &QueryRowsResult, out: impl Fn(Row) -> Out) -> Result<Vec<Out>, Reason>
where
    Row: for<'frame> DeserializeRow<'frame, 'frame>,
{
    let rows = rows.rows::<Row>().map_err(|error| error.to_string())?;
    rows.map(|row| row.map(&out).map_err(|error| error.to_string())).collect()
}

fn key(log: LogKey) -> Uuid {
    Uuid::from_bytes(log.0)
}

/// Positions are below 2^53; what is above means "to the end".
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn described(mut stored: Bytes) -> Option<(u64, Bytes)> {
    let through = stored.get(..8)?.try_into().ok().map(u64::from_be_bytes)?;
    Some((through, stored.split_off(8)))
}

fn record((key, mut value): (Bytes, Bytes)) -> (Bytes, Option<Bytes>) {
    let is_live = value.first() == Some(&LIVE);
    let value = is_live.then(|| value.split_off(1));
    (key, value)
}
