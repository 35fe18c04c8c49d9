//! Rows and operations for tests of stores.

use antiphon_protocol::{ContentType, EventKind, LogKey, LogName, NewRow, Row, TenantId, UserId};
use antiphon_storage_contract::{Direction, Op, ReadRows, RecordWrite};
use bytes::Bytes;
use uuid::Uuid;

/// The key of conversation number `n`.
pub fn log(n: u64) -> LogKey {
    let tenant = TenantId::new("tests").unwrap_or_else(|_| unreachable!("a valid id"));
    let name: LogName = format!("c:log-{n}").parse().unwrap_or_else(|_| unreachable!("a valid name"));
    name.key(&tenant)
}

/// User number `n`.
pub fn user(n: u64) -> UserId {
    UserId::new(&format!("user-{n}")).unwrap_or_else(|_| unreachable!("a valid id"))
}

/// The time before the first row, Unix milliseconds.
pub const ROWS_BEGIN_MS: u64 = 1_700_000_000_000;

/// What a test row is made of.
#[derive(Debug, Clone, Copy)]
pub struct TestRow<'a> {
    /// Position.
    pub seq: u64,
    /// Number of the sender.
    pub sender: u64,
    /// Client message id; 0 for an event made by the broker.
    pub client_message_id: u128,
    /// Body.
    pub body: &'a [u8],
}

impl TestRow<'_> {
    /// The row. Times of such rows rise with their positions.
    pub fn row(self) -> Row {
        self.row_at(ROWS_BEGIN_MS + self.seq)
    }

    /// The row, as one that came at a time of its own, Unix milliseconds.
    pub fn row_at(self, time_ms: u64) -> Row {
        let sender = user(self.sender);
        let row = NewRow {
            seq: self.seq,
            msgno: self.seq,
            time_ms,
            event_id: Uuid::from_u128(u128::from(self.seq) << 64 | self.client_message_id),
            client_message_id: Uuid::from_u128(self.client_message_id),
            kind: EventKind::MESSAGE,
            content_type: ContentType::Text,
            sender: &sender,
            via: None,
            envelope: b"",
            body: self.body,
        };
        row.to_row()
    }
}

/// Row `seq` of user 1 with a client message id of its own.
pub fn row(seq: u64) -> Row {
    let body = format!("message {seq}");
    TestRow { seq, sender: 1, client_message_id: 1_000 + u128::from(seq), body: body.as_bytes() }.row()
}

/// Appends rows `seqs` of [`row`] to log `n`.
pub fn append(n: u64, seqs: impl IntoIterator<Item = u64>) -> Op {
    Op::Append { log: log(n), rows: seqs.into_iter().map(row).collect() }
}

/// Looks for the time `ms` after [`ROWS_BEGIN_MS`] in log `n`.
pub fn find_time(n: u64, ms: u64) -> Op {
    Op::FindTime { log: log(n), at_ms: ROWS_BEGIN_MS + ms }
}

/// Reads `from..to` of log `n` forwards, without other bounds.
pub fn read(n: u64, from: u64, to: u64) -> Op {
    let range = ReadRows { from, to, direction: Direction::Forward, rows_max: u32::MAX, bytes_max: usize::MAX };
    Op::Read { log: log(n), range }
}

/// Writes one record of log `n`, or deletes it.
pub fn put(n: u64, key: &str, value: Option<&str>) -> Op {
    let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    Op::PutRecords { log: log(n), records: vec![RecordWrite { key: Bytes::copy_from_slice(key.as_bytes()), value }] }
}
