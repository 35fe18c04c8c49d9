//! How far a copy has come, as it is noted in the destination.

use antiphon_protocol::LogKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{digest::Digest, log::Copied};

/// What was copied and compared so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Logs that hold anything.
    pub logs: u64,
    /// Their rows.
    pub rows: u64,
    /// Their records.
    pub records: u64,
    /// Bytes of rows, records and checkpoints.
    pub bytes: u64,
    /// Of everything: equal ones mean equal stores.
    pub digest: Digest,
}

impl Totals {
    pub(crate) fn add(&mut self, log: Copied) {
        self.logs += 1;
        self.rows += log.rows;
        self.records += log.records;
        self.bytes += log.bytes;
        self.digest.add(log.digest);
    }
}

/// A copy that is unfinished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Names the source.
    pub(crate) source: String,
    /// Counts the times that the source was in use: the next one is the next copier's, unless somebody else was there.
    pub(crate) generation: u64,
    /// The last log that is done, in the source's order.
    pub(crate) after: Option<LogKey>,
    /// What is done.
    pub(crate) totals: Totals,
}

#[derive(Serialize, Deserialize)]
struct Text {
    source: String,
    generation: u64,
    after: Option<String>,
    logs: u64,
    rows: u64,
    records: u64,
    bytes: u64,
    digest: String,
}

impl Note {
    pub(crate) fn to_text(&self) -> String {
        let Totals { logs, rows, records, bytes, digest } = self.totals;
        let text = Text {
            source: self.source.clone(),
            generation: self.generation,
            after: self.after.map(|log| Uuid::from_bytes(log.0).to_string()),
            logs,
            rows,
            records,
            bytes,
            digest: digest.to_string(),
        };
        // Invariant: plain keys with numbers and strings can always be written.
        toml::to_string(&text).unwrap_or_default()
    }

    /// Nothing if this is no note.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let Text { source, generation, after, logs, rows, records, bytes, digest } = toml::from_str(text).ok()?;
        let after = match after {
            None => None,
            Some(after) => Some(LogKey(after.parse::<Uuid>().ok()?.into_bytes())),
        };
        let totals = Totals { logs, rows, records, bytes, digest: Digest::parse(&digest)? };
        Some(Self { source, generation, after, totals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back() {
        let digest = Digest([7; 32]);
        let totals = Totals { logs: 1, rows: 2, records: 3, bytes: 4, digest };
        for after in [None, Some(LogKey([9; 16]))] {
            let note = Note { source: "a \"b\"".into(), generation: 5, after, totals };
            assert_eq!(Note::parse(&note.to_text()), Some(note));
        }
        assert_eq!(Note::parse("logs = 1"), None);
    }
}
