//! From the outbox to the socket: as many messages as it takes in one call, as the shared bytes that they are.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
};

use antiphon_edge::Outbox;
use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use crate::metrics::Counters;

/// Messages of one call.
const MESSAGES_MAX: usize = 32;
/// Bytes that are taken from the outbox for one call; one message may be longer. What is taken is written before what is
/// more urgent and comes later.
const BYTES_MAX: usize = 16 << 10;

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Nothing waits any more.
    All,
    /// The socket takes nothing more for now.
    Blocked,
    /// The socket is gone.
    Gone,
}

/// What was taken from the outbox and not written yet.
#[derive(Debug, Default)]
pub(super) struct Writing {
    unwritten: VecDeque<Bytes>,
    is_blocked: bool,
}

impl Writing {
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Behind everything that was taken.
    pub(super) fn add(&mut self, message: Bytes) {
        self.unwritten.push_back(message);
    }

    /// Takes all that there is.
    pub(super) fn take_all(&mut self, outbox: &mut Outbox) {
        self.unwritten.extend(std::iter::from_fn(|| outbox.pop()));
    }

    /// Writes until nothing waits, or the socket takes nothing more.
    pub(super) fn flush(&mut self, stream: &TcpStream, outbox: &mut Outbox, counters: &Counters) -> Flushed {
        loop {
            self.take(outbox);
            if self.unwritten.is_empty() {
                self.is_blocked = false;
                // Most sockets have nothing to write most of the time.
                self.unwritten.shrink_to(0);
                return Flushed::All;
            }
            match self.write(stream) {
                Ok(written) => self.advance(written, counters),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    return Flushed::Blocked;
                }
                Err(_) => return Flushed::Gone,
            }
        }
    }

    /// One call for what was taken. The calls for sockets cost the kernel a tenth less than those for any file, which
    /// `try_write_vectored` makes.
    fn write(&self, stream: &TcpStream) -> io::Result<usize> {
        if let (Some(only), 1) = (self.unwritten.front(), self.unwritten.len()) {
            return stream.try_write(only);
        }
        let slices: SmallVec<[IoSlice<'_>; MESSAGES_MAX]> =
            self.unwritten.iter().take(MESSAGES_MAX).map(|message| IoSlice::new(message)).collect();
        stream.try_io(Interest::WRITABLE, || SockRef::from(stream).send_vectored(&slices))
    }

    fn take(&mut self, outbox: &mut Outbox) {
        let mut bytes: usize = self.unwritten.iter().map(Bytes::len).sum();
        while self.unwritten.len() < MESSAGES_MAX && bytes < BYTES_MAX {
            let Some(message) = outbox.pop() else { return };
            bytes += message.len();
            self.unwritten.push_back(message);
        }
    }

    fn advance(&mut self, mut written: usize, counters: &Counters) {
        counters.bytes_out.add(written as u64);
        while let Some(first) = self.unwritten.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.unwritten.pop_front();
            counters.messages_out.one_more();
        }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::Class;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn what_waits_is_written_in_its_order_through_any_number_of_blocks() {
        let (near, mut far) = pair().await;
        let (mut writing, mut outbox, counters) = (Writing::default(), Outbox::default(), Counters::default());
        let messages: Vec<Vec<u8>> = (0..200_u32).map(|n| n.to_string().repeat(20_000).into_bytes()).collect();
        messages.iter().for_each(|message| outbox.push(Class::Backfill, Bytes::from(message.clone())));
        let expected = messages.concat();
        let read = tokio::spawn(async move {
            let mut read = vec![0; expected.len()];
            far.read_exact(&mut read).await.unwrap();
            assert!(read == expected);
        });
        let mut blocked = 0;
        loop {
            match writing.flush(&near, &mut outbox, &counters) {
                Flushed::All => break,
                Flushed::Blocked => {
                    assert!(writing.is_blocked());
                    blocked += 1;
                    near.writable().await.unwrap();
                }
                Flushed::Gone => panic!("the other side reads"),
            }
        }
        assert!(blocked > 0 && !writing.is_blocked());
        read.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_begun_is_ended_before_what_is_more_urgent() {
        let (near, mut far) = pair().await;
        let (mut writing, mut outbox, counters) = (Writing::default(), Outbox::default(), Counters::default());
        let large = vec![b'e'; 32 << 20];
        outbox.push(Class::Events, Bytes::from(large.clone()));
        near.writable().await.unwrap();
        assert_eq!(writing.flush(&near, &mut outbox, &counters), Flushed::Blocked);
        outbox.push(Class::Control, Bytes::from_static(b"answer"));
        let read = tokio::spawn(async move {
            let mut read = vec![0; large.len() + 6];
            far.read_exact(&mut read).await.unwrap();
            assert!(read.ends_with(b"answer") && read.starts_with(&large));
        });
        while writing.flush(&near, &mut outbox, &counters) == Flushed::Blocked {
            near.writable().await.unwrap();
        }
        read.await.unwrap();
    }
}
