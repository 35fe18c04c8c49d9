//! The ring where the system has none: it cannot be made.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use super::page_buffer::PageBuffer;

/// A file whose every write goes to the disk directly and is durable when it is finished.
#[derive(Debug)]
pub struct DurableFile(Infallible);

impl DurableFile {
    /// Always `Unsupported`.
    pub fn open(_path: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Always `Unsupported`.
    pub fn create(_path: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Writes under way, each with the `T` that its owner recognises it by.
#[derive(Debug)]
pub struct WriteRing<T> {
    never: Infallible,
    contexts: PhantomData<T>,
}

impl<T> WriteRing<T> {
    /// Always `Unsupported`.
    pub fn new(_depth: usize) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// An empty buffer.
    pub fn buffer(&mut self) -> PageBuffer {
        match self.never {}
    }

    /// Writes that are not finished.
    pub fn in_flight(&self) -> usize {
        match self.never {}
    }

    /// Whether another write may be submitted now.
    pub fn has_room(&self) -> bool {
        match self.never {}
    }

    /// Begins to write.
    pub fn submit(&mut self, _file: &DurableFile, _offset: u64, _buffer: PageBuffer, _context: T) -> io::Result<()> {
        match self.never {}
    }

    /// Makes the ring readable after `delay`.
    pub fn set_alarm(&mut self, _delay: Duration) -> io::Result<()> {
        match self.never {}
    }

    /// Whether an alarm went off since the last call.
    pub fn take_alarm(&mut self) -> bool {
        match self.never {}
    }

    /// Hands over what is finished.
    pub fn reap(&mut self, _finished: impl FnMut(T, io::Result<()>)) {
        match self.never {}
    }
}

impl<T> AsFd for WriteRing<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.never {}
    }
}
