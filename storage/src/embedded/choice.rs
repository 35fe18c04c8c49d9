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
    /// io_uring where it works, else plain.
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
        Self::choose_by(choice, || ring::probe(dir))
    }

    fn choose_by(choice: WriterChoice, probe: impl FnOnce() -> Result<(), Unusable>) -> Result<Self, OpenError> {
        let (kind, obstacle) = match (choice, (choice != WriterChoice::Plain).then(probe)) {
            (_, None) => (WriterKind::Plain, None),
            (_, Some(Ok(()))) => (WriterKind::IoUring, None),
            (WriterChoice::IoUring, Some(Err(error))) => return Err(OpenError::NoIoUring(error)),
            (_, Some(Err(error))) => (WriterKind::Plain, Some(error.to_string())),
        };
        Ok(Self { kind, obstacle })
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
        for choice in [WriterChoice::Auto, WriterChoice::IoUring] {
            assert_eq!(ChosenWriter::choose_by(choice, || Ok(())).unwrap(), io_uring);
        }
        let fallen_back = ChosenWriter::choose_by(WriterChoice::Auto, forbidden).unwrap();
        assert_eq!(fallen_back.kind, WriterKind::Plain);
        assert_eq!(
            fallen_back.to_string(),
            "pwrite and fdatasync, because the kernel gives this process no io_uring: permission denied"
        );
        let refused = ChosenWriter::choose_by(WriterChoice::IoUring, forbidden);
        assert!(matches!(refused, Err(OpenError::NoIoUring(Unusable::Ring(_)))));
    }

    #[test]
    fn a_plain_writer_needs_no_probe() {
        let plain = ChosenWriter::choose_by(WriterChoice::Plain, || unreachable!("nobody asked for io_uring"));
        assert_eq!(plain.unwrap(), ChosenWriter { kind: WriterKind::Plain, obstacle: None });
    }
}
