//! Batches: many small pieces of data, or a few large ones, as they go over a connection together.
//!
//! ```text
//! batch = record*
//! record = 0 length path                        what follows is in this directory
//!        | 1 name-length name offset length hash data
//!        | 2 number length data                 a chunk by its number in the manifest that both sides have
//!        | 3 name-length name offset length hash     one that the target said it has
//! ```
//!
//! A batch is compressed, or not, as a whole: what compresses and what does not is gathered apart. Files were sent one
//! by one before; most of the time then went into frames and system calls for a few kilobytes each.

use super::frame::FrameError;
use crate::dataset::chunk::{ChunkRef, Hash, MAX_CHUNK};

/// A batch goes out when it is this long.
pub const FULL: usize = 768 * 1024;

const DIRECTORY: u8 = 0;
const NAMED: u8 = 1;
const NUMBERED: u8 = 2;
const STOCKED: u8 = 3;

/// Something in a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Record<'a> {
    Directory(&'a [u8]),
    Named { name: &'a [u8], offset: u64, chunk: ChunkRef, data: &'a [u8] },
    Numbered { number: u64, data: &'a [u8] },
    Stocked { name: &'a [u8], offset: u64, chunk: ChunkRef },
}

impl Record<'_> {
    /// Bytes of file data that are written for it.
    pub fn data(&self) -> u64 {
        match self {
            Record::Directory(_) => 0,
            Record::Named { data, .. } | Record::Numbered { data, .. } => data.len() as u64,
            Record::Stocked { chunk, .. } => chunk.len.into(),
        }
    }
}

/// A batch that is being gathered.
#[derive(Debug, Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    /// Bytes of file data in it.
    pub data: u64,
}

impl Batch {
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    pub fn directory(&mut self, path: &[u8]) {
        self.begin();
        self.bytes.push(DIRECTORY);
        self.length(path.len());
        self.bytes.extend_from_slice(path);
    }

    pub fn named(&mut self, name: &[u8], offset: u64, chunk: ChunkRef, data: &[u8]) {
        self.place(NAMED, name, offset, chunk);
        self.put(data);
    }

    pub fn stocked(&mut self, name: &[u8], offset: u64, chunk: ChunkRef) {
        self.place(STOCKED, name, offset, chunk);
    }

    fn place(&mut self, kind: u8, name: &[u8], offset: u64, chunk: ChunkRef) {
        self.begin();
        self.bytes.push(kind);
        // No file system that Linux has takes longer names.
        self.bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(&offset.to_be_bytes());
        self.bytes.extend_from_slice(&chunk.len.to_be_bytes());
        self.bytes.extend_from_slice(&chunk.hash.0);
    }

    pub fn numbered(&mut self, number: u64, data: &[u8]) {
        self.begin();
        self.bytes.push(NUMBERED);
        self.bytes.extend_from_slice(&number.to_be_bytes());
        self.length(data.len());
        self.put(data);
    }

    fn begin(&mut self) {
        if self.bytes.is_empty() {
            // What makes it full may be a whole chunk.
            self.bytes.reserve(FULL + MAX_CHUNK as usize + 512);
        }
    }

    fn put(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
        self.data += data.len() as u64;
    }

    fn length(&mut self, len: usize) {
        // Chunks and paths are far shorter.
        self.bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    }
}

/// Reads a batch, which comes from anywhere.
pub struct Records<'a> {
    rest: &'a [u8],
}

pub fn records(batch: &[u8]) -> Records<'_> {
    Records { rest: batch }
}

impl<'a> Records<'a> {
    /// `None` at the end.
    pub fn read(&mut self) -> Result<Option<Record<'a>>, FrameError> {
        let Some((kind, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        Ok(Some(match *kind {
            DIRECTORY => {
                let len = self.length()?;
                Record::Directory(self.take(len)?)
            }
            NAMED | STOCKED => {
                let len = self.take(1)?[0];
                let name = self.take(len.into())?;
                let offset = self.number()?;
                let len = self.length()?;
                let mut hash = [0; 32];
                hash.copy_from_slice(self.take(32)?);
                let len = chunk_len(len)?;
                let chunk = ChunkRef { hash: Hash(hash), len };
                if *kind == STOCKED {
                    Record::Stocked { name, offset, chunk }
                } else {
                    Record::Named { name, offset, chunk, data: self.take(len as usize)? }
                }
            }
            NUMBERED => {
                let number = self.number()?;
                let len = chunk_len(self.length()?)?;
                Record::Numbered { number, data: self.take(len as usize)? }
            }
            _ => return Err(MALFORMED),
        }))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(MALFORMED)?;
        self.rest = rest;
        Ok(taken)
    }

    fn length(&mut self) -> Result<usize, FrameError> {
        self.take(4)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) as usize).ok_or(MALFORMED)
    }

    fn number(&mut self) -> Result<u64, FrameError> {
        self.take(8)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).ok_or(MALFORMED)
    }
}

/// No chunk is empty: what costs nothing to send would cost memory to remember.
fn chunk_len(len: usize) -> Result<u32, FrameError> {
    u32::try_from(len).ok().filter(|len| (1..=MAX_CHUNK).contains(len)).ok_or(MALFORMED)
}

const MALFORMED: FrameError = FrameError::Malformed("a batch of data that makes no sense");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_gathered_is_read() {
        let chunk = ChunkRef::of(b"data");
        let mut batch = Batch::default();
        batch.directory(b"a/b");
        batch.named(b"file", 7, chunk, b"data");
        batch.numbered(1 << 40, b"!");
        batch.stocked(b"other", 1 << 30, chunk);
        assert_eq!(batch.data, 5);
        let mut records = records(&batch.bytes);
        assert_eq!(records.read().unwrap(), Some(Record::Directory(b"a/b")));
        let named = Record::Named { name: b"file", offset: 7, chunk, data: b"data" };
        assert_eq!(records.read().unwrap(), Some(named));
        assert_eq!(records.read().unwrap(), Some(Record::Numbered { number: 1 << 40, data: b"!" }));
        let stocked = Record::Stocked { name: b"other", offset: 1 << 30, chunk };
        assert_eq!(records.read().unwrap(), Some(stocked));
        assert_eq!(records.read().unwrap(), None);
    }

    #[test]
    fn an_empty_chunk_is_refused() {
        let empty = ChunkRef::of(b"");
        let all: [&dyn Fn(&mut Batch); 3] =
            [&|batch| batch.named(b"file", 0, empty, b""), &|batch| batch.numbered(0, b""), &|batch| {
                batch.stocked(b"file", 0, empty);
            }];
        for put in all {
            let mut batch = Batch::default();
            put(&mut batch);
            assert!(matches!(records(&batch.bytes).read(), Err(FrameError::Malformed(_))));
        }
    }

    proptest! {
        #[test]
        fn noise_does_no_harm(noise in any::<Vec<u8>>()) {
            let mut records = records(&noise);
            while let Ok(Some(_)) = records.read() {}
        }
    }
}
