//! Reads a tree into a [`Packed`] manifest: directories side by side, each file once, and not at all where an [`index`]
//! proves that it is still what it was.
//!
//! Everything is opened from its directory, which is held open, and never through a symlink. A tree in use may change
//! meanwhile: what was seen of each entry is remembered, looked at again after each file and, by
//! [`Survey::unchanged`], at the end, so that a copy is of one moment or is refused.
//!
//! Another file system that is mounted within the tree is refused by name: it is not the volume's data, and a copy that
//! left it out, or took it in, would surprise somebody.

mod assemble;
pub mod index;
mod listing;
#[cfg(test)]
mod tests;
mod work;

use std::num::NonZero;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{AtFlags, Stat, fstat, statat};

use super::Consistency;
use super::beneath::Root;
use super::chunk::{ChunkRef, Hash};
use super::manifest::TreePath;
use super::packed::{Directories, Packed};
use super::scan::ScanError;
use index::Known;
use work::Flagged;

/// Most threads that one survey takes.
const MOST_WORKERS: usize = 8;

/// Is told what is read. One for all threads of a survey.
pub trait Watch: Sync {
    /// Bytes read so far; false stops the survey.
    fn progress(&self, bytes: u64) -> bool;

    /// A directory, before anything that is in it. The root is number 0, and is its own parent.
    fn directory(&self, _directory: u32, _parent: u32, _name: &[u8]) {}

    /// One chunk that was just read, of the file `name` in `directory`. All of a file's come from one thread, in order;
    /// of a file with several names, once.
    fn chunk(&self, _directory: u32, _name: &[u8], _offset: u64, _chunk: ChunkRef, _data: &[u8]) {}
}

/// Watches for nothing.
#[derive(Debug, Clone, Copy)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn progress(&self, _bytes: u64) -> bool {
        true
    }
}

/// How a tree is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner<'a> {
    pub consistency: Consistency,
    /// Where what was seen the last time is kept; without one every file is read.
    pub index: Option<&'a Path>,
}

/// A tree as it was read.
#[derive(Debug)]
pub struct Survey {
    packed: Packed,
    stamps: Vec<Stamp>,
    root: Root,
    device: u64,
    /// When it began, nanoseconds since 1970 by this machine's clock.
    began: i64,
    read: u64,
    /// Of what was known, if anything was.
    known: Option<Hash>,
    flagged: Flagged,
}

/// What shows that an entry is still the one that was read. A change of anything about it moves its ctime, which
/// nobody can set; a file put in its place has another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub inode: u64,
    /// Nanoseconds since 1970.
    pub ctime: i64,
}

impl Stamp {
    // The widths of these fields differ between architectures; the casts are what stat(2) means everywhere.
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap)]
    pub(super) fn of(stat: &Stat) -> Self {
        let ctime =
            (stat.st_ctime as i64).saturating_mul(1_000_000_000).saturating_add(stat.st_ctime_nsec as i64);
        Self { inode: stat.st_ino as u64, ctime }
    }
}

impl Survey {
    /// Reads the tree at `tree`.
    pub fn read<W: Watch>(tree: &Path, manner: Manner<'_>, watch: &W) -> Result<Self, ScanError> {
        let began = now();
        let root = Root::open(tree).map_err(|e| ScanError::io(&TreePath::root(), e))?;
        let stat = fstat(root.as_fd()).map_err(|e| ScanError::io(&TreePath::root(), e))?;
        let device = stat.st_dev;
        let index = manner.index.filter(|_| index::is_believed(&root));
        let known = index.and_then(|path| Known::load(path, device));
        let mut found = work::all(&root, &stat, manner.consistency, known.as_ref(), watch)?;
        let flagged = std::mem::take(&mut found.flagged);
        let hash = known.map(|known| known.hash());
        let read = found.read;
        let (bytes, stamps) = assemble::assemble(found)?;
        Ok(Self { packed: Packed::decode(bytes)?, stamps, root, device, began, read, known: hash, flagged })
    }

    pub fn packed(&self) -> &Packed {
        &self.packed
    }

    /// Bytes of data that had to be read.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// What of the tree no copy keeps, in sentences.
    pub fn notes(&self) -> Vec<String> {
        let more = self.flagged.inodes.len().saturating_sub(1);
        let what = "immutable and append-only flags are not copied";
        match &self.flagged.first {
            Some(path) if more == 0 => vec![format!("{what}: {path}")],
            Some(path) => vec![format!("{what}: {path} and {more} more")],
            None => Vec::new(),
        }
    }

    /// Whether it is just what the index says, so that there is nothing to keep.
    pub fn as_known(&self) -> bool {
        self.read == 0 && self.known == Some(self.packed.hash())
    }

    /// The tree, held open: what is read through it is beneath it.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Looks at every entry again.
    pub fn unchanged(&self) -> Result<(), ScanError> {
        let directories = Directories::of(&self.packed);
        in_parallel(
            directories.all().len(),
            || Ok(self.root.reopen()?),
            |root: &mut Root, at| {
                // There are at most as many directories as entries.
                let at = u32::try_from(at).unwrap_or(u32::MAX);
                self.directory_unchanged(root, &directories, at)
            },
        )
    }

    fn directory_unchanged(
        &self,
        root: &mut Root,
        directories: &Directories,
        at: u32,
    ) -> Result<(), ScanError> {
        let path = TreePath::new(directories.path(&self.packed, at, b""))?;
        let same = |number: u32, stat: &Stat| self.stamps.get(number as usize) == Some(&Stamp::of(stat));
        let number = directories.all().get(at as usize).map_or(u32::MAX, |directory| directory.number);
        let fd = root.directory(&path).map_err(|e| ScanError::io(&path, e))?;
        let stat = fstat(fd).map_err(|e| ScanError::io(&path, e))?;
        if !same(number, &stat) {
            return Err(ScanError::Changed(path));
        }
        for child in directories.children(&self.packed, at) {
            if child.directory.is_some() {
                continue;
            }
            let stat = statat(fd, child.record.name, AtFlags::SYMLINK_NOFOLLOW);
            if !stat.is_ok_and(|stat| same(child.record.number, &stat)) {
                return Err(ScanError::Changed(path.join(child.record.name)?));
            }
        }
        Ok(())
    }

    /// Whether an entry still looks as it did.
    pub fn is_still(&self, number: u32, stat: &Stat) -> bool {
        self.stamps.get(number as usize) == Some(&Stamp::of(stat))
    }

    /// Keeps what was seen, for the next survey of this tree.
    pub fn write_index(&self, path: &Path) -> std::io::Result<()> {
        let about = index::About {
            device: self.device,
            began: self.began,
            unsettled: &self.flagged.inodes,
            settled: &std::collections::HashSet::new(),
        };
        index::write(path, &about, &self.packed, &self.stamps)
    }
}

/// This machine's clock, nanoseconds since 1970.
pub(super) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// How many threads a tree is worth here.
pub(super) fn workers() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(MOST_WORKERS)
}

/// Does `work` for each number below `count`, on as many threads as the machine has, until one fails.
pub(super) fn in_parallel<S, E: Send>(
    count: usize,
    begin: impl Fn() -> Result<S, E> + Sync,
    work: impl Fn(&mut S, usize) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let (next, stop, failed) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let run = || {
        let result = begin().and_then(|mut state| {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count || stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                work(&mut state, at)?;
            }
        });
        if let Err(e) = result {
            stop.store(true, Ordering::Relaxed);
            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
        }
    };
    thread::scope(|scope| {
        for _ in 1..workers().min(count) {
            scope.spawn(run);
        }
        run();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
