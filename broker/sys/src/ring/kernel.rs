//! The ring on Linux.
#![allow(unsafe_code, reason = "the kernel reads memory after the call that names it has returned")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use io_uring::types::{Fd, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};

use super::page_buffer::{PAGE_BYTES, PageBuffer};

/// Marks the completion of the alarm; writes are marked with the number of their slot.
const ALARM: u64 = u64::MAX;
/// An emptied buffer that grew beyond this is not kept.
const SPARE_BYTES_MAX: usize = 2 << 20;

/// A file whose every write goes to the disk directly and is durable when it is finished.
#[derive(Debug)]
pub struct DurableFile(File);

impl DurableFile {
    /// Opens an existing file for writing. `InvalidInput` where the file system has no direct writes.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with(OpenOptions::new().write(true), path)
    }

    /// Makes an empty file, or empties an existing one.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::with(OpenOptions::new().write(true).create(true).truncate(true), path)
    }

    fn with(options: &mut OpenOptions, path: &Path) -> io::Result<Self> {
        Ok(Self(options.custom_flags(libc::O_DIRECT | libc::O_DSYNC).open(path)?))
    }
}

/// Writes under way, each with the `T` that its owner recognises it by.
pub struct WriteRing<T> {
    ring: IoUring,
    slots: Vec<Option<Slot<T>>>,
    spare: Vec<PageBuffer>,
    alarm_is_set: bool,
    alarm_rang: bool,
    /// An entry may be left in the submission queue that names memory or a file which is gone: nothing is submitted
    /// any more.
    is_broken: bool,
}

struct Slot<T> {
    buffer: PageBuffer,
    context: T,
}

impl<T> std::fmt::Debug for WriteRing<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteRing").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl<T> WriteRing<T> {
    /// A ring for at most `depth` writes at once, 1 to 1,024, to be used by this thread only. Fails where the kernel
    /// has no io_uring or does not let this process use it.
    pub fn new(depth: usize) -> io::Result<Self> {
        if !(1..=1024).contains(&depth) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // One more for the alarm. The kernel keeps twice as many places for completions, so none is ever without.
        let entries = depth as u32 + 1;
        let ring = match IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(entries) {
            // A kernel before 6.0 does not know these hints.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries),
            made => made,
        }?;
        let slots = std::iter::repeat_with(|| None).take(depth).collect();
        let spare = Vec::with_capacity(depth);
        Ok(Self { ring, slots, spare, alarm_is_set: false, alarm_rang: false, is_broken: false })
    }

    /// An empty buffer, with memory of an earlier write if there is some.
    pub fn buffer(&mut self) -> PageBuffer {
        self.spare.pop().unwrap_or_default()
    }

    /// Writes that are not finished, or whose end nobody has reaped.
    pub fn in_flight(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Whether another write may be submitted now.
    pub fn has_room(&self) -> bool {
        self.slots.iter().any(Option::is_none)
    }

    /// Begins to write `buffer` to `file` at `offset`, and gives `context` back when that is finished.
    ///
    /// Does not wait for the disk. `InvalidInput` if the offset or the buffer's length is no multiple of
    /// [`PAGE_BYTES`]; `WouldBlock` without room. Any error means that nothing was written and that `context` will not
    /// come back.
    pub fn submit(&mut self, file: &DurableFile, offset: u64, buffer: PageBuffer, context: T) -> io::Result<()> {
        let aligned = !buffer.is_empty() && buffer.len().is_multiple_of(PAGE_BYTES);
        let len = u32::try_from(buffer.len()).ok().filter(|_| aligned && offset.is_multiple_of(PAGE_BYTES as u64));
        let len = len.ok_or(io::ErrorKind::InvalidInput)?;
        let free = self.slots.iter().position(Option::is_none).ok_or(io::ErrorKind::WouldBlock)?;
        let entry = opcode::Write::new(Fd(file.0.as_raw_fd()), buffer.as_ptr(), len).offset(offset).build();
        self.slots[free] = Some(Slot { buffer, context });
        // SAFETY: the memory belongs to the slot. The slot is emptied only once the write is finished, or below, when
        // the kernel has not taken the entry and never will; until then nothing reads or changes its buffer. The
        // kernel looks up the descriptor in this call, during which the file is borrowed, and keeps the file open.
        let submitted = unsafe { self.enter(&entry.user_data(free as u64)) };
        if submitted.is_err() {
            self.slots[free] = None;
        }
        submitted
    }

    /// Makes the ring readable after `delay`, once; [`WriteRing::take_alarm`] tells. An alarm that is set already
    /// stays as it is.
    pub fn set_alarm(&mut self, delay: Duration) -> io::Result<()> {
        if self.alarm_is_set {
            return Ok(());
        }
        let delay = Timespec::from(delay);
        let entry = opcode::Timeout::new(&delay).build().user_data(ALARM);
        // SAFETY: the kernel copies the time in this call, during which it lives.
        unsafe { self.enter(&entry)? };
        self.alarm_is_set = true;
        Ok(())
    }

    /// Whether an alarm went off since the last call; known after [`WriteRing::reap`].
    pub fn take_alarm(&mut self) -> bool {
        std::mem::take(&mut self.alarm_rang)
    }

    /// Hands over what is finished, in the order in which it finished. Never waits.
    pub fn reap(&mut self, mut finished: impl FnMut(T, io::Result<()>)) {
        for completion in self.ring.completion() {
            if completion.user_data() == ALARM {
                self.alarm_is_set = false;
                self.alarm_rang = true;
                continue;
            }
            // The kernel answers every entry once, with the mark it was given.
            let Some(slot) = self.slots.get_mut(completion.user_data() as usize).and_then(Option::take) else {
                debug_assert!(false, "a completion of no write");
                continue;
            };
            let Slot { mut buffer, context } = slot;
            let result = judge(completion.result(), buffer.len());
            if buffer.capacity() <= SPARE_BYTES_MAX {
                buffer.clear();
                self.spare.push(buffer);
            }
            finished(context, result);
        }
    }

    /// Gives the kernel one entry.
    ///
    /// # Safety
    ///
    /// What the entry names must be valid during this call and, if the call succeeds, its memory until the completion.
    unsafe fn enter(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("the ring failed before"));
        }
        // SAFETY: the caller's promise covers the kernel taking the entry in this call. If it does not take it, the
        // ring is broken and the entry stays in the queue for ever: only this function asks the kernel to take any.
        let pushed = unsafe { self.ring.submission().push(entry) };
        // There is a place for each slot and the alarm, and all of them are taken out by the call that put them in.
        pushed.map_err(|_| io::ErrorKind::WouldBlock)?;
        loop {
            match self.ring.submit() {
                Ok(1..) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => {
                    self.is_broken = true;
                    return Err(other.err().unwrap_or_else(|| io::ErrorKind::WouldBlock.into()));
                }
            }
        }
    }

    /// Waits until a completion can be reaped, which may be the alarm's.
    fn wait(&self) -> io::Result<()> {
        let wait_for_one = EnterFlags::GETEVENTS.bits();
        loop {
            // SAFETY: nothing is submitted and there is no argument.
            match unsafe { self.ring.submitter().enter::<()>(0, 1, wait_for_one, None) } {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                waited => return waited.map(|_| ()),
            }
        }
    }
}

impl<T> Drop for WriteRing<T> {
    fn drop(&mut self) {
        while self.in_flight() > 0 {
            if self.wait().is_err() {
                // The kernel may still read this memory, so nobody may use it again.
                self.slots.drain(..).flatten().for_each(|slot| std::mem::forget(slot.buffer));
                return;
            }
            self.reap(|_, _| {});
        }
    }
}

impl<T> AsFd for WriteRing<T> {
    /// Readable while there is something to reap.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// A write that ended early did not fail for the kernel, but the rest of its bytes is nowhere.
fn judge(result: i32, len: usize) -> io::Result<()> {
    match usize::try_from(result) {
        Ok(written) if written == len => Ok(()),
        Ok(written) => Err(io::Error::new(io::ErrorKind::WriteZero, format!("{written} of {len} bytes were written"))),
        Err(_) => Err(io::Error::from_raw_os_error(-result)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poller::{Source, wait};

    fn ring() -> Option<WriteRing<u32>> {
        WriteRing::new(2).inspect_err(|error| eprintln!("skipped, the kernel gives no io_uring: {error}")).ok()
    }

    fn page(ring: &mut WriteRing<u32>) -> PageBuffer {
        let mut buffer = ring.buffer();
        buffer.append(&[1; PAGE_BYTES]);
        buffer
    }

    #[test]
    fn a_write_to_a_file_that_cannot_be_written_comes_back_as_an_error() {
        let Some(mut ring) = ring() else { return };
        let file = tempfile::NamedTempFile::new().unwrap();
        let read_only = DurableFile(File::open(file.path()).unwrap());
        let buffer = page(&mut ring);
        ring.submit(&read_only, 0, buffer, 7).unwrap();
        wait([Source::readable(&ring)], None).unwrap();
        let mut seen = Vec::new();
        ring.reap(|context, result| seen.push((context, result.unwrap_err().raw_os_error())));
        assert_eq!(seen, [(7, Some(libc::EBADF))]);
        assert_eq!(ring.in_flight(), 0);
    }

    #[test]
    fn a_file_may_be_closed_while_it_is_written() {
        let Some(mut ring) = ring() else { return };
        let file = tempfile::NamedTempFile::new().unwrap();
        let Ok(durable) = DurableFile::open(file.path()) else { return eprintln!("skipped, no direct writes here") };
        let buffer = page(&mut ring);
        ring.submit(&durable, 0, buffer, 1).unwrap();
        drop(durable);
        drop(ring);
        assert_eq!(std::fs::read(file.path()).unwrap(), [1; PAGE_BYTES]);
    }

    #[test]
    fn a_broken_ring_takes_nothing_more() {
        let Some(mut ring) = ring() else { return };
        let file = DurableFile(tempfile::tempfile().unwrap());
        ring.is_broken = true;
        let buffer = page(&mut ring);
        assert!(ring.submit(&file, 0, buffer, 1).is_err());
        assert!(ring.set_alarm(Duration::ZERO).is_err());
        assert_eq!(ring.in_flight(), 0);
    }

    #[test]
    fn another_thread_cannot_submit() {
        let Some(mut ring) = ring() else { return };
        if !ring.ring.params().is_setup_single_issuer() {
            return eprintln!("skipped, this kernel lets any thread submit");
        }
        let file = DurableFile(tempfile::tempfile().unwrap());
        let moved = std::thread::spawn(move || {
            let buffer = page(&mut ring);
            ring.submit(&file, 0, buffer, 1).unwrap_err().raw_os_error()
        });
        assert_eq!(moved.join().unwrap(), Some(libc::EEXIST));
    }

    #[test]
    fn only_a_whole_write_counts() {
        assert!(judge(8192, 8192).is_ok());
        assert_eq!(judge(4096, 8192).unwrap_err().kind(), io::ErrorKind::WriteZero);
        assert_eq!(judge(0, 4096).unwrap_err().kind(), io::ErrorKind::WriteZero);
        assert_eq!(judge(-libc::ENOSPC, 4096).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
