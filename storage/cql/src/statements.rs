//! Every statement that is sent to the cluster while the broker works, prepared once.

use scylla::{
    client::session::Session,
    statement::{Consistency, prepared::PreparedStatement},
};

use crate::{
    config::{self, CqlConfig},
    error::CqlError,
};

/// The statements on logs. All may be repeated; timestamps go with the request.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) read_buckets: PreparedStatement,
    pub(crate) write_bucket: PreparedStatement,
    pub(crate) drop_bucket: PreparedStatement,
    pub(crate) drop_events: PreparedStatement,
    pub(crate) read_head: PreparedStatement,
    pub(crate) write_checkpoint: PreparedStatement,
    pub(crate) write_floor: PreparedStatement,
    pub(crate) write_event: PreparedStatement,
    pub(crate) read_events_up: PreparedStatement,
    pub(crate) read_events_down: PreparedStatement,
    /// The same, of every replica.
    pub(crate) read_events_up_all: PreparedStatement,
    pub(crate) read_events_down_all: PreparedStatement,
    pub(crate) write_duplicate: PreparedStatement,
    pub(crate) read_duplicate: PreparedStatement,
    pub(crate) drop_duplicate: PreparedStatement,
    pub(crate) write_record: PreparedStatement,
    pub(crate) read_record: PreparedStatement,
    pub(crate) scan_records: PreparedStatement,
}

impl Statements {
    /// Prepares all of them.
    pub(crate) async fn prepare(session: &Session, config: &CqlConfig) -> Result<Self, CqlError> {
        let keyspace = &config.keyspace;
        let prepare = async |text: &str| {
            let mut prepared = prepare(session, keyspace, text).await?;
            prepared.set_is_idempotent(true);
            Ok::<_, CqlError>(prepared)
        };
        const ROWS: &str = "SELECT seq, row FROM KS.events WHERE log = ? AND bucket = ? AND seq >= ? AND seq < ?";
        let up = format!("{ROWS} ORDER BY seq ASC LIMIT ?");
        let down = format!("{ROWS} ORDER BY seq DESC LIMIT ?");
        let of_all = |mut statement: PreparedStatement| {
            statement.set_consistency(Consistency::All);
            statement
        };
        let (read_events_up, read_events_down) = (prepare(&up).await?, prepare(&down).await?);
        Ok(Self {
            read_buckets: prepare("SELECT bucket, first_seq, first_ms FROM KS.buckets WHERE log = ?").await?,
            write_bucket: prepare("INSERT INTO KS.buckets (log, bucket, first_seq, first_ms) VALUES (?, ?, ?, ?)")
                .await?,
            drop_bucket: prepare("DELETE FROM KS.buckets WHERE log = ? AND bucket = ?").await?,
            drop_events: prepare("DELETE FROM KS.events WHERE log = ? AND bucket = ?").await?,
            read_head: prepare("SELECT floor, checkpoint FROM KS.heads WHERE log = ?").await?,
            write_checkpoint: prepare("INSERT INTO KS.heads (log, checkpoint) VALUES (?, ?)").await?,
            write_floor: prepare("INSERT INTO KS.heads (log, floor) VALUES (?, ?)").await?,
            write_event: prepare("INSERT INTO KS.events (log, bucket, seq, row) VALUES (?, ?, ?, ?)").await?,
            read_events_up_all: of_all(read_events_up.clone()),
            read_events_down_all: of_all(read_events_down.clone()),
            read_events_up,
            read_events_down,
            write_duplicate: prepare(
                "INSERT INTO KS.duplicates (log, slice, client_message_id, sender, seq) VALUES (?, ?, ?, ?, ?)",
            )
            .await?,
            read_duplicate: prepare(
                "SELECT seq FROM KS.duplicates WHERE log = ? AND slice = ? AND client_message_id = ? AND sender = ?",
            )
            .await?,
            drop_duplicate: prepare(
                "DELETE FROM KS.duplicates WHERE log = ? AND slice = ? AND client_message_id = ? AND sender = ?",
            )
            .await?,
            write_record: prepare("INSERT INTO KS.records (log, key, value) VALUES (?, ?, ?)").await?,
            read_record: prepare("SELECT key, value FROM KS.records WHERE log = ? AND key = ?").await?,
            scan_records: prepare(
                "SELECT key, value FROM KS.records WHERE log = ? AND key >= ? AND key < ? ORDER BY key ASC LIMIT ?",
            )
            .await?,
        })
    }
}

/// `text` with the keyspace's name in the place of `KS`.
pub(crate) async fn prepare(session: &Session, keyspace: &str, text: &str) -> Result<PreparedStatement, CqlError> {
    let prepared = session.prepare(text.replace("KS", keyspace)).await;
    prepared.map_err(|error| CqlError::statement("preparing the statements", error))
}

/// The level that shows the last change under a condition, also one that is under way.
pub(crate) fn serial_read_level(consistency: config::Consistency) -> Consistency {
    match consistency {
        config::Consistency::Quorum => Consistency::Serial,
        config::Consistency::LocalQuorum => Consistency::LocalSerial,
    }
}

/// The statements on the lease. Each is carried out only if the row still says what it said before.
#[derive(Debug)]
pub(crate) struct LeaseStatements {
    pub(crate) read: PreparedStatement,
    pub(crate) create: PreparedStatement,
    pub(crate) change: PreparedStatement,
}

impl LeaseStatements {
    /// Prepares all of them.
    pub(crate) async fn prepare(session: &Session, config: &CqlConfig) -> Result<Self, CqlError> {
        let (_, serial) = crate::connect::levels(config.consistency);
        let keyspace = config.coordination();
        let lwt = async |text: &str| {
            let mut prepared = prepare(session, &keyspace, text).await?;
            prepared.set_serial_consistency(Some(serial));
            Ok::<_, CqlError>(prepared)
        };
        let mut read =
            lwt("SELECT term, holder, seat, renewals, stamps_until, address FROM KS.lease WHERE name = ?").await?;
        read.set_consistency(serial_read_level(config.consistency));
        read.set_is_idempotent(true);
        Ok(Self {
            read,
            create: lwt("INSERT INTO KS.lease (name, term, holder, seat, renewals, stamps_until, address) \
                 VALUES (?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS")
            .await?,
            change: lwt(
                "UPDATE KS.lease SET term = ?, holder = ?, seat = ?, renewals = ?, stamps_until = ?, address = ? \
                 WHERE name = ? IF term = ? AND holder = ? AND renewals = ?",
            )
            .await?,
        })
    }
}
