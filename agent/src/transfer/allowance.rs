//! What a tree that arrives may take up: bytes, against the size that its place has and what is free there, and entries,
//! against those that the file system has left. What a source announces is its word alone; what is counted here was
//! written.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use schema::name::SnapshotName;

use super::TransferError;
use super::batch::Record;
use super::exchange::Destination;
use super::progress::Meter;
use crate::dataset::packed::{NodeRef, Packed, Step};

/// After so much it is looked again at what is free, bytes; sooner where less is.
const STEP: u64 = 8 << 20;
const LEAST_STEP: u64 = 64 * 1024;
/// The same of entries.
const ENTRIES_STEP: u64 = 1024;
const LEAST_ENTRIES_STEP: u64 = 16;

/// What one tree has taken up, as all its threads count it.
pub struct Allowance<'a> {
    destination: &'a dyn Destination,
    meter: &'a Meter,
    /// `None` for the dataset's own tree, which alone has a size.
    of: Option<&'a SnapshotName>,
    written: AtomicU64,
    /// Looked at what is free when so much is written.
    look_at: AtomicU64,
    made: AtomicU64,
    count_at: AtomicU64,
}

impl<'a> Allowance<'a> {
    pub fn new(destination: &'a dyn Destination, meter: &'a Meter, of: Option<&'a SnapshotName>) -> Self {
        let [written, look_at, made, count_at] = std::array::from_fn(|_| AtomicU64::default());
        Self { destination, meter, of, written, look_at, made, count_at }
    }

    /// Refuses a tree with so much data, if that is more than its place may have.
    pub fn fits(&self, data: u64) -> Result<(), TransferError> {
        if self.of.is_none() { Ok(self.destination.fits(data)?) } else { Ok(()) }
    }

    /// Refuses what needs more than is free.
    pub fn room_for(&self, needed: u64) -> Result<(), TransferError> {
        let (place, free) = self.destination.room()?;
        if needed > free { Err(TransferError::Full { place, needed, free }) } else { Ok(()) }
    }

    /// So many bytes are written.
    pub fn wrote(&self, bytes: u64) -> Result<(), TransferError> {
        let written = self.written.fetch_add(bytes, Relaxed).saturating_add(bytes);
        self.fits(written)?;
        if written < self.look_at.load(Relaxed) {
            return Ok(());
        }
        let (place, free) = self.destination.room()?;
        if free == 0 {
            let (done, total) = self.meter.so_far();
            let needed = total.unwrap_or_default().saturating_sub(done).max(bytes);
            return Err(TransferError::Full { place, needed, free });
        }
        self.look_at.store(written.saturating_add(free.clamp(LEAST_STEP, STEP)), Relaxed);
        Ok(())
    }

    /// What a record is about to make, at the most.
    pub fn makes(&self, record: &Record<'_>) -> Result<(), TransferError> {
        match record {
            Record::Directory(path) => self.make(1 + path.split(|b| *b == b'/').count() as u64),
            Record::Named { .. } | Record::Stocked { .. } => self.make(1),
            Record::Numbered { .. } => Ok(()),
        }
    }

    fn make(&self, entries: u64) -> Result<(), TransferError> {
        let made = self.made.fetch_add(entries, Relaxed).saturating_add(entries);
        if made < self.count_at.load(Relaxed) {
            return Ok(());
        }
        let next = match self.destination.entries()? {
            Some(free) if free < entries => return Err(self.no_entries()),
            Some(free) => made.saturating_add(free.clamp(LEAST_ENTRIES_STEP, ENTRIES_STEP)),
            None => u64::MAX,
        };
        self.count_at.store(next, Relaxed);
        Ok(())
    }

    /// Refuses a tree of which more entries are made anew, whatever is here, than there may be.
    pub fn entries_for(&self, packed: &Packed, folders: Folders) -> Result<(), TransferError> {
        let mut needed = 0_u64;
        let mut walk = packed.walk();
        while let Some(step) = walk.next() {
            needed += u64::from(match step {
                Step::Enter(_) => folders == Folders::ToBeMade,
                Step::Leave => false,
                Step::Entry(record) => match record.node {
                    NodeRef::HardLink(_) => false,
                    // One with data is there by then, or is shared.
                    NodeRef::File(content) => content.data() == 0,
                    _ => true,
                },
            });
        }
        match self.destination.entries()? {
            Some(free) if free < needed => Err(self.no_entries()),
            _ => Ok(()),
        }
    }

    fn no_entries(&self) -> TransferError {
        match self.destination.room() {
            Ok((place, free)) => TransferError::NoEntries { place, free },
            Err(e) => e.into(),
        }
    }
}

/// Whether the folders of a tree are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folders {
    ToBeMade,
    Made,
}
