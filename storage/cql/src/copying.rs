//! A keyspace as the source or the destination of a copy: which logs it has, and how far the copy has come.
//!
//! While a copy into it is unfinished the keyspace has a note, and no broker serves from it: it would take a part for the
//! whole. The note is written under conditions only, by whoever holds the lease.

use antiphon_protocol::LogKey;
use scylla::{
    client::session::Session,
    statement::{prepared::PreparedStatement, unprepared::Statement},
};
use uuid::Uuid;

use crate::{
    config::CqlConfig,
    connect,
    error::CqlError,
    query::{conditional, first_row},
    schema,
    statements::{self, serial_read_level},
};

/// The tables that a log may be in, each partitioned by it.
const TABLES: [&str; 3] = ["heads", "buckets", "records"];

/// What a copier asks of a keyspace besides its logs' content.
#[derive(Debug)]
pub struct CopyDesk {
    session: Session,
    config: CqlConfig,
    first: Vec<PreparedStatement>,
    next: Vec<PreparedStatement>,
}

impl CopyDesk {
    /// Connects to a keyspace that has the schema.
    pub async fn connect(config: &CqlConfig) -> Result<Self, CqlError> {
        let session = connect::connect(config).await?;
        schema::usable_version(&session, config).await?;
        let (mut first, mut next) = (Vec::new(), Vec::new());
        for table in TABLES {
            let logs = format!("SELECT DISTINCT token(log), log FROM KS.{table}");
            let prepare = async |text: &str| statements::prepare(&session, &config.keyspace, text).await;
            first.push(prepare(&format!("{logs} LIMIT ?")).await?);
            next.push(prepare(&format!("{logs} WHERE token(log) >= token(?) LIMIT ?")).await?);
        }
        Ok(Self { session, config: config.clone(), first, next })
    }

    /// Tells the keyspace from others: the name of its cluster, and its own.
    pub async fn name(&self) -> Result<String, CqlError> {
        let doing = "reading the cluster's name";
        let row: Option<(String,)> =
            first_row(&self.session, doing, "SELECT cluster_name FROM system.local", ()).await?;
        let (cluster,) = row.ok_or_else(|| CqlError::statement(doing, "it is gone"))?;
        Ok(format!("keyspace {} of {cluster}", self.config.keyspace))
    }

    /// History generation of every log.
    pub async fn epoch(&self) -> Result<u32, CqlError> {
        schema::epoch(&self.session, &self.config).await
    }

    /// What was noted of an unfinished copy into the keyspace, if there is one.
    pub async fn note(&self) -> Result<Option<String>, CqlError> {
        note(&self.session, &self.config).await
    }

    /// Begins a copy into the keyspace, whose logs are to be in `epoch`.
    pub async fn begin(&self, epoch: u32) -> Result<(), CqlError> {
        let coordination = self.config.coordination();
        // The epoch first: a keyspace with a note has that of its copy, wherever this is broken off.
        let epoch = i32::try_from(epoch).map_err(|error| CqlError::statement("setting the epoch", error))?;
        let set = format!("UPDATE {coordination}.schema_version SET epoch = ? WHERE name = 'logs' IF EXISTS");
        conditional(&self.session, "setting the epoch", set, (epoch,)).await?;
        let copy = format!("INSERT INTO {coordination}.copies (name, note) VALUES ('logs', '') IF NOT EXISTS");
        conditional(&self.session, "beginning the copy", copy, ()).await.map(drop)
    }

    /// Notes how far the copy into the keyspace has come.
    pub async fn note_copy(&self, note: &str) -> Result<(), CqlError> {
        let doing = "noting the progress of the copy";
        let coordination = self.config.coordination();
        let update = format!("UPDATE {coordination}.copies SET note = ? WHERE name = 'logs' IF EXISTS");
        match conditional(&self.session, doing, update, (note,)).await? {
            true => Ok(()),
            false => Err(CqlError::statement(doing, "somebody has ended it")),
        }
    }

    /// The copy is whole: brokers may serve from the keyspace.
    pub async fn finish_copy(&self) -> Result<(), CqlError> {
        let coordination = self.config.coordination();
        let delete = format!("DELETE FROM {coordination}.copies WHERE name = 'logs' IF EXISTS");
        conditional(&self.session, "finishing the copy", delete, ()).await.map(drop)
    }

    /// The next logs behind `after`, or the first, about `max` (2 to 10,000), by the token of their key and then by their
    /// key; empty if there are no more.
    pub async fn logs_after(&self, after: Option<LogKey>, max: usize) -> Result<Vec<LogKey>, CqlError> {
        let doing = "listing the logs";
        let failed = |error: &dyn std::fmt::Display| CqlError::statement(doing, error);
        let limit = i32::try_from(max.clamp(2, 10_000)).map_err(|error| failed(&error))?;
        let mut found: Vec<(i64, LogKey)> = Vec::new();
        // Beyond the end of a page that is full, other tables may have listed logs that this one still owes.
        let mut known_through = i64::MAX;
        for (first, next) in self.first.iter().zip(&self.next) {
            let result = match after {
                None => self.session.execute_unpaged(first, (limit,)).await,
                Some(after) => self.session.execute_unpaged(next, (Uuid::from_bytes(after.0), limit)).await,
            };
            let rows = result.map_err(|error| failed(&error))?.into_rows_result().map_err(|error| failed(&error))?;
            let mut last = i64::MIN;
            for row in rows.rows::<(i64, Uuid)>().map_err(|error| failed(&error))? {
                let (token, log) = row.map_err(|error| failed(&error))?;
                found.push((token, LogKey(log.into_bytes())));
                last = token;
            }
            if rows.rows_num() >= limit as usize {
                // Logs with the last token may go on behind the page.
                known_through = known_through.min(last.saturating_sub(1));
            }
        }
        found.sort_unstable();
        found.dedup();
        let begin = after.and_then(|after| found.iter().position(|(_, log)| *log == after)).map_or(0, |at| at + 1);
        Ok(found.drain(begin..).take_while(|(token, _)| *token <= known_through).map(|(_, log)| log).collect())
    }
}

/// Fails if a copy into the keyspace is unfinished.
pub(crate) async fn refuse_unfinished(session: &Session, config: &CqlConfig) -> Result<(), CqlError> {
    match note(session, config).await? {
        Some(_) => Err(CqlError::UnfinishedCopy { keyspace: config.keyspace.clone() }),
        None => Ok(()),
    }
}

/// As the last change under a condition left it.
async fn note(session: &Session, config: &CqlConfig) -> Result<Option<String>, CqlError> {
    let query = format!("SELECT note FROM {}.copies WHERE name = 'logs'", config.coordination());
    let mut read = Statement::new(query);
    read.set_consistency(serial_read_level(config.consistency));
    let row: Option<(Option<String>,)> = first_row(session, "looking for an unfinished copy", read, ()).await?;
    Ok(row.map(|(note,)| note.unwrap_or_default()))
}
