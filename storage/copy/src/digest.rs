//! What a log, and a set of logs, hold: equal digests mean equal content.

use std::fmt;

use antiphon_protocol::{LogKey, Row};
use antiphon_storage_contract::Loaded;
use sha2::{Digest as _, Sha256};

/// SHA-256 of one log's content, or of a set of logs: then the exclusive or of theirs, whatever their order.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(pub(crate) [u8; 32]);

impl Digest {
    /// Adds a log to a set of which it is not a part yet.
    pub(crate) fn add(&mut self, log: Self) {
        for (byte, other) in self.0.iter_mut().zip(log.0) {
            *byte ^= other;
        }
    }

    /// Reads what is displayed.
    pub(crate) fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What was read of one log so far: rows, then records, each in order.
#[derive(Debug, Clone)]
pub(crate) struct LogHash {
    hash: Sha256,
    pub(crate) rows: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl LogHash {
    /// Of a log with these bounds and this checkpoint, of which nothing else was read yet. The rows of [`Loaded::tail`] do
    /// not count: where it begins is the checkpoint's affair.
    pub(crate) fn new(log: LogKey, loaded: &Loaded) -> Self {
        let mut this = Self { hash: Sha256::new(), rows: 0, records: 0, bytes: 0 };
        this.hash.update(log.0);
        [loaded.floor, loaded.head].iter().for_each(|number| this.number(*number));
        match &loaded.checkpoint {
            None => this.number(0),
            Some((through, value)) => {
                this.number(1);
                this.number(*through);
                this.bytes(value);
            }
        }
        this
    }

    pub(crate) fn row(&mut self, row: &Row) {
        self.rows += 1;
        self.bytes(row.bytes());
    }

    pub(crate) fn record(&mut self, key: &[u8], value: &[u8]) {
        self.records += 1;
        self.bytes(key);
        self.bytes(value);
    }

    pub(crate) fn digest(&self) -> Digest {
        let mut hash = self.hash.clone();
        hash.update(self.rows.to_le_bytes());
        hash.update(self.records.to_le_bytes());
        Digest(hash.finalize().into())
    }

    fn number(&mut self, number: u64) {
        self.hash.update(number.to_le_bytes());
    }

    /// With its length, so that no two sequences look the same.
    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_back() {
        let digest = LogHash::new(LogKey([3; 16]), &Loaded::default()).digest();
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(Digest::parse("3"), None);
        assert_eq!(Digest::parse(&"é".repeat(32)), None);
    }

    #[test]
    fn a_set_has_one_digest_whatever_the_order_of_its_logs() {
        let logs = [1, 2, 3].map(|n| LogHash::new(LogKey([n; 16]), &Loaded::default()).digest());
        let of = |order: [usize; 3]| {
            let mut set = Digest::default();
            order.iter().for_each(|at| set.add(logs[*at]));
            set
        };
        assert_eq!(of([0, 1, 2]), of([2, 0, 1]));
        assert_ne!(of([0, 1, 2]), Digest::default());
    }

    #[test]
    fn what_is_a_row_is_no_record() {
        let empty = LogHash::new(LogKey([3; 16]), &Loaded::default());
        let mut with_record = empty.clone();
        with_record.record(b"", b"");
        let mut with_checkpoint =
            LogHash::new(LogKey([3; 16]), &Loaded { checkpoint: Some((0, Default::default())), ..Loaded::default() });
        with_checkpoint.record(b"", b"");
        assert_ne!(empty.digest(), with_record.digest());
        assert_ne!(with_checkpoint.digest(), with_record.digest());
    }
}
