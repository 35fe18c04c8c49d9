//! Chunks of a stream in, pieces of known length out.
//!
//! Invariants: a piece that lies in one chunk is a slice of that chunk. The beginning of a longer one is copied together,
//! because a chunk is a slice of a whole datagram: a peer that sends a long frame byte by byte would otherwise hold a
//! datagram for each byte.

use std::{collections::VecDeque, mem};

use bytes::{Buf, Bytes, BytesMut};

/// What has come of a stream and was not taken.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    /// The beginning of a piece whose rest has not come. Nothing else, so it is taken as a whole.
    partial: BytesMut,
    /// What came after `partial`. Most chunks are taken before the next one comes, so the first has its own place.
    front: Bytes,
    /// What came after `front`, which is not empty then.
    behind: VecDeque<Bytes>,
    buffered: usize,
}

impl Cutter {
    /// Adds bytes in the order of the stream.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.buffered += chunk.len();
            if self.front.is_empty() {
                self.front = chunk;
            } else {
                self.behind.push_back(chunk);
            }
        }
    }

    /// Bytes that were not taken.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    /// Bytes that the beginning of a piece has room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.partial.capacity()
    }

    /// The next `length` bytes, if they are here.
    pub(crate) fn take(&mut self, length: usize) -> Option<Bytes> {
        if self.buffered < length {
            self.gather(self.buffered);
            return None;
        }
        self.buffered -= length;
        if self.partial.is_empty() {
            match self.front.len() {
                whole if whole > length => return Some(self.front.split_to(length)),
                whole if whole == length => return Some(self.pop()),
                _ => {}
            }
        }
        self.gather(length);
        Some(mem::take(&mut self.partial).freeze())
    }

    /// Copies chunks until `partial` holds `length` bytes, which must be buffered, and lets go of them. It grows with
    /// what has come, never with what a header announces.
    fn gather(&mut self, length: usize) {
        while self.partial.len() < length && !self.front.is_empty() {
            let part = self.front.len().min(length - self.partial.len());
            self.partial.extend_from_slice(&self.front[..part]);
            self.front.advance(part);
            if self.front.is_empty() {
                self.pop();
            }
        }
    }

    /// The first chunk as a whole; the next one takes its place.
    fn pop(&mut self) -> Bytes {
        let next = self.behind.pop_front().unwrap_or_default();
        if self.behind.is_empty() {
            self.behind = VecDeque::new();
        }
        mem::replace(&mut self.front, next)
    }
}
