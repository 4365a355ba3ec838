//! A tree that is sent as it is read: files come, in any order, before it is known what they add up to.
//!
//! Every chunk is checked against the hash that comes with it before it is written, and remembered by a keyed hash of
//! where it went and what it was. The manifest comes last: what came must be its chunks, each once and no others. Of a
//! tree that is read once some are only named, and taken from what is here.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rustix::fs::renameat;

use super::TransferError;
use super::batch::Record;
use super::frame::FrameError;
use super::outline::MAX_MANIFEST;
use super::progress::Meter;
use crate::dataset::build::BuildError;
use crate::dataset::chunk::{ChunkRef, Hash};
use crate::dataset::manifest::TreePath;
use crate::dataset::packed::{NodeRef, Packed, Step};
use crate::dataset::site::{Hand, Site};
use crate::dataset::stock::{Reader, Useful};

/// Most chunks that any manifest has: each takes up more bytes of it than its hash alone.
const MOST_CHUNKS: usize = MAX_MANIFEST / 33;

/// What has come, of all connections.
#[derive(Debug, Default)]
pub struct Come {
    /// Nobody but us knows the key, so nobody can make two chunks look alike.
    keys: RandomState,
    came: Mutex<Vec<u64>>,
    /// How many.
    count: AtomicUsize,
    /// Bytes that were here.
    stocked: AtomicU64,
}

/// One connection's part of it.
pub struct Taking<'a> {
    come: &'a Come,
    hand: Hand<'a>,
    directory: u64,
    came: Vec<u64>,
    /// Of what the source was told is here.
    stock: Option<Reader<'a>>,
    data: Vec<u8>,
    meter: &'a Meter,
}

impl Come {
    /// `useful`: what the source was told of.
    pub fn taking<'a>(
        &'a self,
        site: &'a Site,
        useful: Option<&'a Useful<'a>>,
        meter: &'a Meter,
    ) -> Taking<'a> {
        let (hand, directory) = (Hand::new(site), self.directory(b""));
        let stock = useful.map(Useful::reader);
        Taking { come: self, hand, directory, came: Vec::new(), stock, data: Vec::new(), meter }
    }

    /// Bytes that were here.
    pub fn stocked(&self) -> u64 {
        self.stocked.load(Relaxed)
    }

    fn directory(&self, path: &[u8]) -> u64 {
        self.keys.hash_one(path)
    }

    fn key(&self, directory: u64, name: &[u8], offset: u64, chunk: ChunkRef) -> u64 {
        self.keys.hash_one((directory, name, offset, chunk))
    }

    /// Whether what came is what `packed` says. A file with several names came under any one of them, and gets its first.
    pub fn is(self, packed: &Packed, site: &Site) -> Result<(), TransferError> {
        let mut came = std::mem::take(&mut *self.came.lock().unwrap_or_else(PoisonError::into_inner));
        came.sort_unstable();
        let twice = came.windows(2).any(|pair| pair[0] == pair[1]);
        if twice || came.len() as u64 != packed.sums().chunks {
            return Err(FrameError::Malformed("other data came than its manifest says").into());
        }
        let mut names: HashMap<u32, Vec<Vec<u8>>> = HashMap::new();
        let mut walk = packed.walk();
        while let Some(step) = walk.next() {
            if let Step::Entry(record) = step
                && let NodeRef::HardLink(to) = record.node
            {
                names.entry(to).or_default().push(walk.path().to_vec());
            }
        }
        let mut walk = packed.walk();
        while let Some(step) = walk.next() {
            let Step::Entry(record) = step else { continue };
            let Some(content) = record.content() else { continue };
            let all_at = |path: &[u8]| {
                let (above, name) = parts(path);
                let directory = self.directory(above);
                content.chunks().all(|(offset, chunk)| {
                    came.binary_search(&self.key(directory, name, offset, chunk)).is_ok()
                })
            };
            if all_at(walk.path()) {
                continue;
            }
            let other = names.get(&record.number).and_then(|names| names.iter().find(|name| all_at(name)));
            let other = other.ok_or(FrameError::Malformed("other data came than its manifest says"))?;
            rename(site, other, walk.path())?;
        }
        Ok(())
    }
}

/// The directory and the name of a path.
fn parts(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn rename(site: &Site, from: &[u8], to: &[u8]) -> Result<(), BuildError> {
    let (above, name) = parts(from);
    let (below, new) = parts(to);
    let (above, below) = (site.folder(above)?, site.folder(below)?);
    renameat(&above, name, &below, new)
        .map_err(|e| BuildError::io(&TreePath::new(to.to_vec()).unwrap_or_default(), e))
}

impl Taking<'_> {
    pub fn take(&mut self, record: &Record<'_>) -> Result<(), TransferError> {
        match *record {
            Record::Directory(path) => {
                self.hand.enter(path)?;
                self.directory = self.come.directory(path);
                Ok(())
            }
            Record::Named { name, offset, chunk, data } => {
                if Hash::of(data) != chunk.hash {
                    return Err(
                        BuildError::Corrupt(u32::try_from(self.came.len()).unwrap_or(u32::MAX)).into()
                    );
                }
                self.meter.done(data.len() as u64);
                self.place(name, offset, chunk, data)
            }
            Record::Stocked { name, offset, chunk } => {
                let mut data = std::mem::take(&mut self.data);
                if !self.stock.as_mut().is_some_and(|stock| stock.chunk(chunk, &mut data)) {
                    let path = TreePath::new(self.hand.path().to_vec()).and_then(|path| path.join(name));
                    return Err(BuildError::Changed(path.unwrap_or_default()).into());
                }
                self.come.stocked.fetch_add(chunk.len.into(), Relaxed);
                self.meter.reused(chunk.len.into());
                let placed = self.place(name, offset, chunk, &data);
                self.data = data;
                placed
            }
            Record::Numbered { .. } => Err(FrameError::Malformed("a chunk by number, of no manifest").into()),
        }
    }

    fn place(&mut self, name: &[u8], offset: u64, chunk: ChunkRef, data: &[u8]) -> Result<(), TransferError> {
        if self.come.count.fetch_add(1, Relaxed) >= MOST_CHUNKS {
            return Err(TransferError::TooLarge(MAX_MANIFEST as u64));
        }
        self.hand.write(name, offset, data)?;
        self.came.push(self.come.key(self.directory, name, offset, chunk));
        if offset == 0 {
            self.meter.some_files(1);
        }
        Ok(())
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        let mut came = self.come.came.lock().unwrap_or_else(PoisonError::into_inner);
        came.append(&mut self.came);
    }
}
