//! Which writer a store uses: asked for, or found out when the directory is opened.

use std::{fmt, os::fd::BorrowedFd, path::Path};

use antiphon_sys::ring::{self, Unusable};

use super::{
    counters::WriterCounters,
    format::OpenError,
    uring::UringWriter,
    writer::{BlockWriter, PlainWriter, WriteFinished, WriteRequest},
};

/// How a store is to write its logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterChoice {
    /// io_uring where it works and the disk makes a write durable by itself, else plain. On a disk that needs a flush
    /// for that, io_uring is the quicker one only while the processors have nothing else to do.
    Auto,
    /// A thread per shard that calls `pwrite` and `fdatasync`.
    Plain,
    /// Direct writes through io_uring; a directory where they do not work is not opened.
    IoUring,
}

/// How a store writes its logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterKind {
    /// A thread per shard that calls `pwrite` and `fdatasync`.
    Plain,
    /// Direct writes through io_uring.
    IoUring,
}

/// What became of a [`WriterChoice`]. Its text is for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenWriter {
    /// The writer in use.
    pub kind: WriterKind,
    /// Why it is not io_uring although that was wished for.
    pub obstacle: Option<String>,
}

impl ChosenWriter {
    /// Makes the choice for logs in `dir`.
    pub(crate) fn choose(choice: WriterChoice, dir: &Path) -> Result<Self, OpenError> {
        Self::choose_by(choice, || ring::probe(dir), || ring::writes_through(dir))
    }

    fn choose_by(
        choice: WriterChoice,
        probe: impl FnOnce() -> Result<(), Unusable>,
        writes_through: impl FnOnce() -> Option<bool>,
    ) -> Result<Self, OpenError> {
        let plain = |obstacle| Self { kind: WriterKind::Plain, obstacle };
        let io_uring = Self { kind: WriterKind::IoUring, obstacle: None };
        match choice {
            WriterChoice::Plain => Ok(plain(None)),
            WriterChoice::IoUring => probe().map(|()| io_uring).map_err(OpenError::NoIoUring),
            WriterChoice::Auto => Ok(match probe() {
                Err(error) => plain(Some(error.to_string())),
                Ok(()) => match writes_through() {
                    Some(true) => io_uring,
                    Some(false) => plain(Some("the disk needs a flush to make a write durable".into())),
                    None => plain(Some("it is not known whether the disk needs a flush after a write".into())),
                },
            }),
        }
    }
}

impl fmt::Display for ChosenWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            WriterKind::Plain => "pwrite and fdatasync",
            WriterKind::IoUring => "io_uring",
        })?;
        self.obstacle.iter().try_for_each(|obstacle| write!(f, ", because {obstacle}"))
    }
}

/// The writer of one shard on real files.
#[derive(Debug)]
pub enum Writer {
    /// A thread per shard.
    Plain(PlainWriter),
    /// The shard's own thread.
    IoUring(Box<UringWriter>),
}

impl BlockWriter for Writer {
    fn submit(&mut self, request: WriteRequest) {
        match self {
            Self::Plain(writer) => writer.submit(request),
            Self::IoUring(writer) => writer.submit(request),
        }
    }

    fn poll(&mut self, finished: &mut Vec<WriteFinished>) {
        match self {
            Self::Plain(writer) => writer.poll(finished),
            Self::IoUring(writer) => writer.poll(finished),
        }
    }

    fn counters(&self) -> WriterCounters {
        match self {
            Self::Plain(writer) => writer.counters(),
            Self::IoUring(writer) => writer.counters(),
        }
    }

    fn blocks_max(&self) -> usize {
        match self {
            Self::Plain(writer) => writer.blocks_max(),
            Self::IoUring(writer) => writer.blocks_max(),
        }
    }

    fn is_quiet(&self) -> bool {
        match self {
            Self::Plain(writer) => writer.is_quiet(),
            Self::IoUring(writer) => writer.is_quiet(),
        }
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Plain(writer) => writer.wait_fd(),
            Self::IoUring(writer) => writer.wait_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn forbidden() -> Result<(), Unusable> {
        Err(Unusable::Ring(io::ErrorKind::PermissionDenied.into()))
    }

    #[test]
    fn the_probes_verdict_is_honoured() {
        let io_uring = ChosenWriter { kind: WriterKind::IoUring, obstacle: None };
        let usable = ChosenWriter::choose_by(WriterChoice::Auto, || Ok(()), || Some(true));
        assert_eq!(usable.unwrap(), io_uring);
        let usable = ChosenWriter::choose_by(WriterChoice::IoUring, || Ok(()), || Some(false));
        assert_eq!(usable.unwrap(), io_uring);
        let fallen_back = ChosenWriter::choose_by(WriterChoice::Auto, forbidden, || Some(true)).unwrap();
        assert_eq!(fallen_back.kind, WriterKind::Plain);
        assert_eq!(
            fallen_back.to_string(),
            "pwrite and fdatasync, because the kernel gives this process no io_uring: permission denied"
        );
        let refused = ChosenWriter::choose_by(WriterChoice::IoUring, forbidden, || Some(true));
        assert!(matches!(refused, Err(OpenError::NoIoUring(Unusable::Ring(_)))));
    }

    #[test]
    fn a_disk_that_needs_a_flush_is_written_plainly_unless_io_uring_is_asked_for() {
        for writes_through in [Some(false), None] {
            let chosen = ChosenWriter::choose_by(WriterChoice::Auto, || Ok(()), || writes_through).unwrap();
            assert!(chosen.kind == WriterKind::Plain && chosen.obstacle.is_some(), "{chosen}");
        }
    }

    #[test]
    fn a_plain_writer_needs_no_probe() {
        let asked = || unreachable!("nobody asked for io_uring");
        let plain = ChosenWriter::choose_by(WriterChoice::Plain, asked, || unreachable!());
        assert_eq!(plain.unwrap(), ChosenWriter { kind: WriterKind::Plain, obstacle: None });
    }
}
