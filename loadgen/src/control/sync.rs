//! What it takes at least that a message is durable.

use std::{fs::File, io, os::unix::fs::FileExt};

/// A write of so many bytes, as the blocks of a log are.
const BLOCK_BYTES: usize = 4 << 10;
/// The file is written over from its beginning after so many, so that it is made once.
const BLOCKS: u64 = 4 << 10;

/// A file that exists already, as a log's segments do, so that a sync is one of data and not of a file's length.
#[derive(Debug)]
pub struct SyncFile {
    file: File,
    block: Vec<u8>,
    next: u64,
}

impl SyncFile {
    /// Makes it where a broker's directory would be.
    pub fn make() -> io::Result<Self> {
        let file = tempfile::tempfile()?;
        let block = vec![0; BLOCK_BYTES];
        (0..BLOCKS).try_for_each(|number| file.write_all_at(&block, number * BLOCK_BYTES as u64))?;
        file.sync_all()?;
        Ok(Self { file, block, next: 0 })
    }

    /// Writes a message of at most [`BLOCK_BYTES`] as a block and waits until the disk has it.
    pub fn append(&mut self, message: &[u8]) -> io::Result<()> {
        let len = message.len().min(BLOCK_BYTES);
        self.block[..len].copy_from_slice(&message[..len]);
        self.file.write_all_at(&self.block, self.next % BLOCKS * BLOCK_BYTES as u64)?;
        self.next += 1;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_over_from_its_beginning() {
        let mut file = SyncFile::make().unwrap();
        for number in 0..=BLOCKS {
            file.next = number;
            if number % BLOCKS == 0 {
                file.append(&number.to_be_bytes()).unwrap();
            }
        }
        let mut first = [0; 8];
        file.file.read_exact_at(&mut first, 0).unwrap();
        assert_eq!(u64::from_be_bytes(first), BLOCKS);
        assert_eq!(file.file.metadata().unwrap().len(), BLOCKS * BLOCK_BYTES as u64);
    }
}
