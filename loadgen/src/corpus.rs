//! Reads a corpus of conversations: one JSON object per line, plain or gzip, one line in memory at a time.
//!
//! ```text
//! {"conversation": "<uuid>", "messages": [{"sender": 0, "at_ms": 0, "text": "hi"}, {"sender": 1, "at_ms": 1500, ...}]}
//! ```
//!
//! `sender` numbers the participants from 0, `at_ms` counts milliseconds from the first message and never falls, `text`
//! is UTF-8 of at most 64 KiB. A conversation has at least two participants, even if only one of them ever wrote.

use std::{
    borrow::Cow,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// Longest line of a corpus, in bytes.
pub const LINE_BYTES_MAX: u64 = 16 << 20;
/// Longest text, in bytes; no message of the broker may be longer.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Participants of one conversation.
pub const PARTICIPANTS_MAX: u32 = 10_000;

/// A conversation as it took place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The corpus' own name of it.
    pub id: Uuid,
    /// People in it, at least 2; senders are below it.
    pub participants: u32,
    /// In the order of their times.
    pub messages: Vec<Message>,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Which participant wrote it, from 0.
    pub sender: u32,
    /// Milliseconds since the first message of the conversation.
    pub at_ms: u64,
    /// What it says.
    pub text: String,
}

/// Why a corpus cannot be read.
#[derive(Debug, Error)]
pub enum CorpusError {
    /// The file is absent or not readable.
    #[error("corpus {path} cannot be opened")]
    Open {
        /// The file that was named.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be read on, or its compression is damaged.
    #[error("corpus line {line} cannot be read")]
    Read {
        /// From 1.
        line: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not a conversation.
    #[error("corpus line {line} is not a conversation")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        source: LineError,
    },
}

/// Why a line is not a conversation.
#[derive(Debug, Error)]
pub enum LineError {
    /// Other JSON, or none.
    #[error("expected {{\"conversation\": uuid, \"messages\": [{{\"sender\", \"at_ms\", \"text\"}}]}}")]
    Json(#[from] serde_json::Error),
    /// Longer than [`LINE_BYTES_MAX`].
    #[error("a line has at most {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// No messages.
    #[error("a conversation has at least one message")]
    Empty,
    /// Times must not fall.
    #[error("message {0} is earlier than the one before it")]
    TimeFalls(usize),
    /// A sender that cannot be.
    #[error("message {0} has a sender of {PARTICIPANTS_MAX} or above")]
    Sender(usize),
    /// A text that no broker takes.
    #[error("message {0} is longer than {TEXT_BYTES_MAX} bytes")]
    Text(usize),
}

/// An iterator over the conversations of a corpus. It ends after the first error.
pub struct CorpusReader {
    input: Box<dyn BufRead>,
    line: u64,
    buffer: Vec<u8>,
    failed: bool,
}

impl fmt::Debug for CorpusReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CorpusReader").field("line", &self.line).finish_non_exhaustive()
    }
}

impl CorpusReader {
    /// Opens a file; gzip is told by its first two bytes.
    pub fn open(path: &Path) -> Result<Self, CorpusError> {
        let opened = || {
            let mut file = BufReader::new(File::open(path)?);
            let is_gzip = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
            Ok::<Box<dyn BufRead>, io::Error>(if is_gzip {
                Box::new(BufReader::new(MultiGzDecoder::new(file)))
            } else {
                Box::new(file)
            })
        };
        let input = opened().map_err(|source| CorpusError::Open { path: path.to_owned(), source })?;
        Ok(Self::new(input))
    }

    fn new(input: Box<dyn BufRead>) -> Self {
        Self { input, line: 0, buffer: Vec::new(), failed: false }
    }

    /// The next line that is not blank.
    fn read(&mut self) -> Result<Option<Conversation>, CorpusError> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let line = self.line;
            let mut bounded = (&mut self.input).take(LINE_BYTES_MAX + 1);
            let read = bounded.read_until(b'\n', &mut self.buffer);
            match read.map_err(|source| CorpusError::Read { line, source })? {
                0 => return Ok(None),
                bytes if bytes as u64 > LINE_BYTES_MAX => {
                    return Err(CorpusError::Line { line, source: LineError::TooLong });
                }
                _ if self.buffer.trim_ascii().is_empty() => continue,
                _ => return parse(&self.buffer).map(Some).map_err(|source| CorpusError::Line { line, source }),
            }
        }
    }
}

impl Iterator for CorpusReader {
    type Item = Result<Conversation, CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.read();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// Writes `conversation` as one line of a corpus.
pub fn write_line(conversation: &Conversation, out: &mut impl io::Write) -> io::Result<()> {
    let line =
        Line { conversation: conversation.id.to_string().into(), messages: conversation.messages.as_slice().into() };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    conversation: Cow<'a, str>,
    messages: Cow<'a, [Message]>,
}

fn parse(line: &[u8]) -> Result<Conversation, LineError> {
    let Line { conversation, messages } = serde_json::from_slice(line)?;
    let id = Uuid::parse_str(&conversation).map_err(<serde_json::Error as serde::de::Error>::custom)?;
    let messages = messages.into_owned();
    if messages.is_empty() {
        return Err(LineError::Empty);
    }
    for (index, message) in messages.iter().enumerate() {
        if message.at_ms < messages[index.saturating_sub(1)].at_ms {
            return Err(LineError::TimeFalls(index));
        }
        if message.sender >= PARTICIPANTS_MAX {
            return Err(LineError::Sender(index));
        }
        if message.text.len() > TEXT_BYTES_MAX {
            return Err(LineError::Text(index));
        }
    }
    let participants = messages.iter().map(|message| message.sender + 1).max().unwrap_or(0).max(2);
    Ok(Conversation { id, participants, messages })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    const TWO: &str = r#"{"conversation":"6f9619ff-8b86-4011-b42d-00c04fc964ff","messages":[{"sender":0,"at_ms":0,"text":"a"},{"sender":2,"at_ms":5,"text":""}]}"#;
    const ONE: &str =
        r#"{"conversation":"6f9619ff-8b86-4011-b42d-00c04fc964fe","messages":[{"sender":0,"at_ms":0,"text":"b"}]}"#;

    fn read(text: &str) -> Vec<Result<Conversation, CorpusError>> {
        CorpusReader::new(Box::new(io::Cursor::new(text.to_owned()))).collect()
    }

    fn error(text: &str) -> (u64, LineError) {
        match read(text).pop() {
            Some(Err(CorpusError::Line { line, source })) => (line, source),
            other => panic!("expected a bad line, got {other:?}"),
        }
    }

    fn one_message(message: &str) -> String {
        format!(r#"{{"conversation":"6f9619ff-8b86-4011-b42d-00c04fc964fe","messages":[{message}]}}"#)
    }

    #[test]
    fn lines_become_conversations() {
        let found: Vec<_> = read(&format!("{TWO}\n\n{ONE}")).into_iter().map(Result::unwrap).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].participants, found[0].messages.len()), (3, 2));
        assert_eq!(found[1].participants, 2, "somebody listened");
    }

    #[test]
    fn gzip_is_recognised() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        writeln!(gzip, "{TWO}").unwrap();
        file.write_all(&gzip.finish().unwrap()).unwrap();
        let found: Vec<_> = CorpusReader::open(file.path()).unwrap().collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].as_ref().unwrap().messages[1].at_ms, 5);
    }

    #[test]
    fn a_cut_gzip_file_is_an_error() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        writeln!(gzip, "{TWO}").unwrap();
        let bytes = gzip.finish().unwrap();
        file.write_all(&bytes[..bytes.len() - 12]).unwrap();
        let last = CorpusReader::open(file.path()).unwrap().last();
        assert!(matches!(last, Some(Err(CorpusError::Read { .. }))), "{last:?}");
    }

    #[test]
    fn errors_name_the_line_and_end_the_reading() {
        let text = format!("{ONE}\n{{}}\n{ONE}\n");
        assert!(matches!(error(&text), (2, LineError::Json(_))));
        assert_eq!(read(&text).len(), 2);
        assert!(matches!(error(&one_message("")), (1, LineError::Empty)));
        assert!(matches!(error(&one_message(r#"{"sender":10000,"at_ms":0,"text":""}"#)), (1, LineError::Sender(0))));
        let falling = r#"{"sender":0,"at_ms":9,"text":""},{"sender":0,"at_ms":8,"text":""}"#;
        assert!(matches!(error(&one_message(falling)), (1, LineError::TimeFalls(1))));
        let long = format!(r#"{{"sender":0,"at_ms":9,"text":"{}"}}"#, "x".repeat(TEXT_BYTES_MAX + 1));
        assert!(matches!(error(&one_message(&long)), (1, LineError::Text(0))));
    }

    #[test]
    fn an_endless_line_is_refused_at_the_bound() {
        let endless = CorpusReader::new(Box::new(BufReader::new(io::repeat(b'x')))).last();
        assert!(matches!(endless, Some(Err(CorpusError::Line { line: 1, source: LineError::TooLong }))));
    }

    #[test]
    fn an_absent_file_is_an_error() {
        let absent = CorpusReader::open(Path::new("/nonexistent/corpus"));
        assert!(matches!(absent, Err(CorpusError::Open { .. })));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let conversation = read(TWO).pop().unwrap().unwrap();
        let mut line = Vec::new();
        write_line(&conversation, &mut line).unwrap();
        assert_eq!(String::from_utf8(line).unwrap().trim_end(), TWO);
    }
}
