//! The threads of a survey, and what they share: directories that are still to be read.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use rustix::fs::{Mode, OFlags, Stat, fstat, openat};

use super::index::Known;
use super::listing::{Listing, Names, Slot, record_of};
use super::{Stamp, Watch, workers};
use crate::dataset::Consistency;
use crate::dataset::beneath::Root;
use crate::dataset::chunk::Cutter;
use crate::dataset::manifest::{Meta, TreePath};
use crate::dataset::packed::{Children, Chunks};
use crate::dataset::scan::{ScanError, attributes_of, meta_of};

/// Directories larger than this are shared among the threads.
pub(super) const PART: usize = 512;
/// Directories that are held open for their own directories' sake; beyond, these are found from the root again.
const MOST_HELD: usize = 400;

pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What all threads share.
pub(super) struct Shared<'a, W> {
    pub watch: &'a W,
    pub consistency: Consistency,
    pub known: Option<&'a Known>,
    pub device: u64,
    root: &'a Root,
    queue: Mutex<Queue<'a>>,
    ready: Condvar,
    listings: Mutex<Vec<Vec<Listing>>>,
    /// Files with several names, by inode: kind and body once they are known.
    pub links: Mutex<HashMap<u64, Link>>,
    pub flagged: Mutex<Flagged>,
    read: AtomicU64,
    held: Arc<AtomicUsize>,
}

/// Is locked while the file is read, so that it is read once.
pub(super) type Link = Arc<Mutex<Option<Arc<[u8]>>>>;

struct Queue<'a> {
    tasks: Vec<Task<'a>>,
    busy: usize,
    failed: Option<ScanError>,
}

enum Task<'a> {
    Directory(Find),
    Part(Arc<Open>, usize, Option<Children<'a>>),
    File(Later<'a>),
}

/// A large file that is still to be read.
struct Later<'a> {
    open: Arc<Open>,
    /// Which of the directory's names it has.
    at: usize,
    stat: Stat,
    before: Option<Chunks<'a>>,
    record: Slot,
}

/// A directory that is to be read.
struct Find {
    number: u32,
    path: TreePath,
    name: Vec<u8>,
    parent: Option<Arc<Open>>,
    expected: Stamp,
}

/// A directory that is being read.
pub(super) struct Open {
    pub number: u32,
    pub path: TreePath,
    pub fd: OwnedFd,
    pub names: Names,
    held: Option<HeldOpen>,
}

/// Everything that was found.
pub(super) struct Found {
    pub root: Meta,
    pub root_stamp: Stamp,
    /// Of every directory its parts, by its number.
    pub listings: Vec<Vec<Listing>>,
    pub flagged: Flagged,
    pub read: u64,
}

/// Files and directories that are immutable or append-only.
#[derive(Debug, Default)]
pub(super) struct Flagged {
    pub first: Option<TreePath>,
    pub inodes: HashSet<u64>,
}

/// Reads the whole tree.
pub(super) fn all<W: Watch>(
    root: &Root,
    stat: &Stat,
    consistency: Consistency,
    known: Option<&Known>,
    watch: &W,
) -> Result<Found, ScanError> {
    let stamp = Stamp::of(stat);
    let first = Find { number: 0, path: TreePath::root(), name: Vec::new(), parent: None, expected: stamp };
    let shared = Shared {
        watch,
        consistency,
        known,
        device: stat.st_dev,
        root,
        queue: Mutex::new(Queue { tasks: vec![Task::Directory(first)], busy: 0, failed: None }),
        ready: Condvar::new(),
        listings: Mutex::new(vec![Vec::new()]),
        links: Mutex::default(),
        flagged: Mutex::default(),
        read: AtomicU64::new(0),
        held: Arc::default(),
    };
    watch.directory(0, 0, b"");
    thread::scope(|scope| {
        for _ in 1..workers() {
            scope.spawn(|| shared.run());
        }
        shared.run();
    });
    let queue = shared.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(failed) = queue.failed {
        return Err(failed);
    }
    let xattrs = attributes_of(root.as_fd()).map_err(|e| ScanError::io(&TreePath::root(), e))?;
    Ok(Found {
        root: meta_of(stat, xattrs),
        root_stamp: stamp,
        listings: shared.listings.into_inner().unwrap_or_else(PoisonError::into_inner),
        flagged: shared.flagged.into_inner().unwrap_or_else(PoisonError::into_inner),
        read: shared.read.into_inner(),
    })
}

impl<'a, W: Watch> Shared<'a, W> {
    pub fn strict(&self) -> bool {
        self.consistency == Consistency::Strict
    }

    /// Counts what was read; false if the survey is to stop.
    pub fn count(&self, bytes: u64) -> bool {
        let before = self.read.fetch_add(bytes, Ordering::Relaxed);
        self.watch.progress(before + bytes)
    }

    /// A directory was found in another: it gets a number, and is read by whoever comes to it.
    pub fn found(&self, parent: &Arc<Open>, name: &[u8], expected: Stamp) -> Result<u32, ScanError> {
        let path = parent.path.join(name)?;
        let number = {
            let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
            listings.push(Vec::new());
            u32::try_from(listings.len() - 1).map_err(|_| crate::dataset::manifest::Hostile::TooMany)?
        };
        self.watch.directory(number, parent.number, name);
        let keep = parent.held.is_some().then(|| parent.clone());
        let find = Find { number, path, name: name.to_vec(), parent: keep, expected };
        self.add(Task::Directory(find));
        Ok(number)
    }

    /// A large file was found: it is read by whoever comes to it.
    pub fn later(&self, open: &Arc<Open>, at: usize, stat: Stat, before: Option<Chunks<'a>>) -> Slot {
        let record = Slot::default();
        self.add(Task::File(Later { open: open.clone(), at, stat, before, record: record.clone() }));
        record
    }

    fn add(&self, task: Task<'a>) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).tasks.push(task);
        self.ready.notify_one();
    }

    fn run(&self) {
        let mut cutter = Cutter::default();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if queue.failed.is_some() {
                return;
            }
            if let Some(task) = queue.tasks.pop() {
                queue.busy += 1;
                drop(queue);
                let result = self.work(task, &mut cutter);
                queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.busy -= 1;
                if let Err(e) = result {
                    queue.failed.get_or_insert(e);
                }
                if queue.failed.is_some() || (queue.busy == 0 && queue.tasks.is_empty()) {
                    self.ready.notify_all();
                }
            } else if queue.busy == 0 {
                return;
            } else {
                queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn work(&self, task: Task<'a>, cutter: &mut Cutter) -> Result<(), ScanError> {
        match task {
            Task::Directory(find) => self.directory(find, cutter),
            Task::Part(open, part, known) => self.part(&open, part, known, cutter),
            Task::File(Later { open, at, stat, before, record }) => {
                let made = record_of(self, &open, at, &stat, before.as_ref(), cutter)?;
                *record.lock().unwrap_or_else(PoisonError::into_inner) = made;
                Ok(())
            }
        }
    }

    fn directory(&self, find: Find, cutter: &mut Cutter) -> Result<(), ScanError> {
        let at = |e: std::io::Error| ScanError::io(&find.path, e);
        let opened = match &find.parent {
            _ if find.number == 0 => self.root.as_fd().try_clone_to_owned(),
            Some(parent) => openat(&parent.fd, &*find.name, DIRECTORY, Mode::empty()).map_err(Into::into),
            None => self.root.open_directory(&find.path),
        };
        let fd = match opened {
            Ok(fd) => fd,
            // It went after it was listed.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !self.strict() => return Ok(()),
            Err(e) => return Err(at(e)),
        };
        let stat = fstat(&fd).map_err(|e| at(e.into()))?;
        let same = if self.strict() {
            Stamp::of(&stat) == find.expected
        } else {
            stat.st_ino == find.expected.inode
        };
        if !same {
            return Err(ScanError::Changed(find.path));
        }
        let names = Names::read(fd.as_fd()).map_err(at)?;
        let known = self.known.and_then(|known| known.children(stat.st_ino));
        let parts = names.len().div_ceil(PART).max(1);
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)[find.number as usize]
            .resize_with(parts, Listing::default);
        let open = Arc::new(Open {
            number: find.number,
            path: find.path,
            fd,
            names,
            held: HeldOpen::new(&self.held),
        });
        let mut next = known.clone();
        for part in 1..parts {
            // Each begins where its first name would be.
            let first = open.names.get(part * PART);
            while let Some(children) = &mut next {
                let before = children.clone();
                match children.next() {
                    Some(child) if child.record.name < first => {}
                    Some(_) => {
                        next = Some(before);
                        break;
                    }
                    None => next = None,
                }
            }
            self.add(Task::Part(open.clone(), part, next.clone()));
        }
        self.part(&open, 0, known, cutter)
    }

    fn part(
        &self,
        open: &Arc<Open>,
        part: usize,
        known: Option<Children<'a>>,
        cutter: &mut Cutter,
    ) -> Result<(), ScanError> {
        let listing = Listing::of(self, open, part, known, cutter)?;
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)[open.number as usize][part] = listing;
        Ok(())
    }
}

/// Counts a directory that stays open for what is in it; `None` if there are enough of them.
struct HeldOpen {
    count: Arc<AtomicUsize>,
}

impl HeldOpen {
    fn new(count: &Arc<AtomicUsize>) -> Option<Self> {
        let held = Self { count: count.clone() };
        (count.fetch_add(1, Ordering::Relaxed) < MOST_HELD).then_some(held)
    }
}

impl Drop for HeldOpen {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
