//! Memory that a file can be written from directly: it begins on a page boundary.
#![allow(unsafe_code, reason = "a list of pages has no safe view as a list of bytes")]

use std::fmt;

/// Offsets and lengths of direct writes are multiples of this many bytes.
pub const PAGE_BYTES: usize = 4096;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// Bytes in page-aligned memory. Keeps its memory when it is emptied.
#[derive(Default)]
pub struct PageBuffer {
    pages: Vec<Page>,
    len: usize,
}

impl PageBuffer {
    /// Adds bytes at the end.
    pub fn append(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        let pages = end.div_ceil(PAGE_BYTES);
        if pages > self.pages.len() {
            self.pages.resize(pages, Page([0; PAGE_BYTES]));
        }
        let range = self.len..end;
        self.memory()[range].copy_from_slice(bytes);
        self.len = end;
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets the bytes.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Bytes of memory that it keeps.
    pub fn capacity(&self) -> usize {
        self.pages.len() * PAGE_BYTES
    }

    /// Where the bytes begin. Valid until the buffer is changed or dropped, wherever the buffer itself is moved.
    pub(super) fn as_ptr(&self) -> *const u8 {
        self.pages.as_ptr().cast()
    }

    fn memory(&mut self) -> &mut [u8] {
        let len = self.capacity();
        // SAFETY: the pages lie next to each other without padding (`Page` is as long as it is aligned), every byte of
        // them is initialised and may have any value, and the borrow of `self` keeps everybody else away.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), len) }
    }
}

impl fmt::Debug for PageBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageBuffer").field("len", &self.len).field("capacity", &self.capacity()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept_in_order_from_a_page_boundary() {
        let mut buffer = PageBuffer::default();
        let mut expected = Vec::new();
        for n in 0..100_u8 {
            let bytes = vec![n; usize::from(n) * 37];
            buffer.append(&bytes);
            expected.extend(bytes);
        }
        assert_eq!(buffer.len(), expected.len());
        assert_eq!(buffer.memory()[..expected.len()], expected);
        assert_eq!(buffer.as_ptr().addr() % PAGE_BYTES, 0);
        assert_eq!(buffer.capacity(), expected.len().next_multiple_of(PAGE_BYTES));
    }

    #[test]
    fn an_emptied_buffer_keeps_its_memory() {
        let mut buffer = PageBuffer::default();
        assert!(buffer.is_empty() && buffer.capacity() == 0);
        buffer.append(&[1; 10_000]);
        let memory = buffer.as_ptr();
        buffer.clear();
        buffer.append(&[2; 12_288]);
        assert_eq!((buffer.as_ptr(), buffer.len(), buffer.memory()[12_287]), (memory, 12_288, 2));
    }
}
