//! What was seen of a tree the last time, so that files which are the same since are not read again.
//!
//! A file is taken to be the same if its name in its directory, its inode and its ctime are, to the nanosecond. Nobody
//! can set a ctime, so rewriting a file and putting its size and mtime back does not fool it. What could:
//!
//! - *A write in the same tick of the clock as the reading.* An entry whose ctime is not clearly older than the moment
//!   the survey began is not believed the next time; it is read again. On file systems that count whole seconds, clearly
//!   means two of them. The same holds for a ctime in the future, so a clock that is set back makes for reading, not for
//!   mistakes.
//! - *A program that writes through a shared mapping.* The kernel moves the ctime when a page is first written to, and
//!   again only after it has written that page out, so such a write may show late: by half a minute as Linux is set
//!   up. rsync and git have the same limit; a volume that must be copied while a program maps it is copied when the
//!   program has synced, or from a snapshot of the application's own making. File systems in memory never write a page
//!   out, so there no such write may ever show: on them no index is believed.
//!
//! An index is a hint. One that is missing, damaged, of another version, or of another device is as good as none.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, Stat, fstat, statat};

use super::Stamp;
use crate::dataset::beneath::Root;
use crate::dataset::chunk::Hash;
use crate::dataset::manifest::TreePath;
use crate::dataset::packed::{Child, Children, Directories, MAX_PACKED, NodeRef, Packed, Record, Step};
use crate::dataset::scan::meta_of;
use crate::dataset::stock::Linked;

const MAGIC: &[u8; 8] = b"cmtyidx2";
/// A head, and of every entry a stamp.
const HEAD: usize = 8 + 8 + 32 + 8;
const STAMP: usize = 16;
/// How much older than the survey a ctime must be, nanoseconds: several ticks of the slowest kernel clock.
const SETTLED: i64 = 50_000_000;
/// The same where the file system counts seconds.
const SETTLED_SECONDS: i64 = 2_000_000_000;
/// In place of a ctime: not to be believed.
const UNSETTLED: i64 = i64::MIN;

/// File systems in memory: tmpfs and ramfs, by the numbers that statfs(2) gives.
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// Whether a ctime shows every kind of write to the file system of `root`.
pub(super) fn is_believed(root: &Root) -> bool {
    // The width of the field differs between architectures; the numbers have 32 bits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    rustix::fs::fstatfs(root.as_fd()).is_ok_and(|stat| !IN_MEMORY.contains(&(stat.f_type as u32)))
}

/// What is known of a tree from the last time.
#[derive(Debug)]
pub(super) struct Known {
    packed: Packed,
    directories: Directories,
    stamps: Vec<Stamp>,
    /// Directories by inode, so that one that was renamed is known again.
    by_inode: HashMap<u64, u32>,
    /// Where the records are that hard links are to, by number.
    linked: HashMap<u32, u32>,
}

impl Known {
    /// Reads the index at `path`, if there is one that is fit for a tree on `device`.
    pub fn load(path: &Path, device: u64) -> Option<Self> {
        let (packed, stamps) = load(path, Some(device))?;
        let directories = Directories::of(&packed);
        let inode = |number: u32| stamps.get(number as usize).map(|stamp| stamp.inode);
        let by_inode =
            (0..).zip(directories.all()).filter_map(|(at, dir)| Some((inode(dir.number)?, at))).collect();
        let mut targets = HashSet::new();
        let mut walk = packed.walk();
        while let Some(step) = walk.next() {
            if let Step::Entry(Record { node: NodeRef::HardLink(to), .. }) = step {
                targets.insert(to);
            }
        }
        let mut linked = HashMap::with_capacity(targets.len());
        let mut walk = packed.walk();
        while let Some(step) = walk.next().filter(|_| linked.len() < targets.len()) {
            if let Step::Entry(record) = step
                && targets.contains(&record.number)
            {
                linked.insert(record.number, record.at);
            }
        }
        Some(Self { packed, directories, stamps, by_inode, linked })
    }

    pub fn hash(&self) -> Hash {
        self.packed.hash()
    }

    /// What was in the directory with that inode.
    pub fn children(&self, inode: u64) -> Option<Children<'_>> {
        Some(self.directories.children(&self.packed, *self.by_inode.get(&inode)?))
    }

    /// The kind byte and the body of what `child` was, if `stamp` shows that it still is.
    pub fn same(&self, child: &Child<'_>, stamp: Stamp) -> Option<(u8, &[u8])> {
        if self.stamps.get(child.record.number as usize) != Some(&stamp) {
            return None;
        }
        let record = match child.record.node {
            NodeRef::HardLink(to) => self.packed.record(*self.linked.get(&to)?, to)?,
            _ => self.packed.record(child.record.at, child.record.number)?,
        };
        let at = record.at as usize;
        Some((*self.packed.bytes().get(at)?, record.body))
    }
}

/// What is known of a tree that was just made of a manifest and put in place, without reading it.
///
/// Files that it shares with the tree before were reachable all the while, so of each it must be proved step by step, from
/// the moment it was linked, that nothing but a name come or gone has moved its ctime. It is looked at once more when the
/// clock has ticked: a write in the tick in which a name went does not move the ctime again. One that also puts the mtime
/// back within that tick, of 10 ms at most, is not seen before Linux 6.13, which gives each such change a time of its own.
pub(in crate::dataset) struct Adoption {
    device: u64,
    since: i64,
    stamps: Vec<Stamp>,
    /// Files that another tree has too: their ctime will move when it goes. By inode, the first entry.
    shared: HashMap<u64, u32>,
    /// Those of them of which nothing but that has moved it, and how they look.
    alone: HashMap<u64, Stat>,
}

/// Whether two looks at a file, whose ctime may have moved, show nothing else that has.
pub(in crate::dataset) fn is_alike(before: &Stat, after: &Stat) -> bool {
    let about = |stat: &Stat| {
        let (owner, written) = ((stat.st_uid, stat.st_gid), (stat.st_mtime, stat.st_mtime_nsec));
        (stat.st_ino, stat.st_size, stat.st_mode, owner, written)
    };
    about(before) == about(after)
}

/// Looks at each entry of `tree`, which is to be what `packed` says.
fn look(tree: &Path, packed: &Packed, mut with: impl FnMut(&Record<'_>, Option<Stat>)) -> io::Result<u64> {
    let mut root = Root::open(tree)?;
    let device = fstat(root.as_fd())?.st_dev;
    let mut walk = packed.walk();
    while let Some(step) = walk.next() {
        let (Step::Enter(record) | Step::Entry(record)) = step else { continue };
        let name = TreePath::new(walk.path().to_vec()).map_err(io::Error::other)?;
        let stat = root
            .place(&name)
            .and_then(|place| Ok(statat(place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW)?));
        with(&record, stat.ok());
    }
    Ok(device)
}

impl Adoption {
    /// Looks at each entry of `tree`, which was put in place at the moment `since`. What has been touched since is not
    /// believed, a file that was `linked` only if it is as it was then, and was last written well before.
    pub fn of(tree: &Path, packed: &Packed, linked: &[Linked], since: i64) -> io::Result<Self> {
        let (mut stamps, mut shared) = (Vec::with_capacity(packed.sums().entries as usize), HashMap::new());
        let device = look(tree, packed, |record, stat| {
            let same = |stat: &Stat| match (record.content(), record.meta()) {
                (Some(content), Some(meta)) => {
                    u64::try_from(stat.st_size) == Ok(content.size)
                        && meta_of(stat, Vec::new()).mtime == meta.mtime
                }
                _ => true,
            };
            let link = linked.binary_search_by_key(&record.number, |link| link.number);
            let link = link.ok().and_then(|at| linked.get(at));
            let unmoved =
                |stat: &Stat| link.is_none_or(|link| link.stamp.is_some_and(|was| was == Stamp::of(stat)));
            let Some(stat) = stat.filter(|stat| same(stat) && unmoved(stat)) else {
                stamps.push(Stamp { inode: 0, ctime: UNSETTLED });
                return;
            };
            let stamp = Stamp::of(&stat);
            let written = stat.st_mtime.saturating_mul(1_000_000_000);
            if link.is_some() && written < since.saturating_sub(SETTLED_SECONDS) {
                shared.entry(stamp.inode).or_insert(record.number);
            }
            stamps.push(stamp);
        })?;
        Ok(Self { device, since, stamps, shared, alone: HashMap::new() })
    }

    pub fn shares_any(&self) -> bool {
        !self.shared.is_empty()
    }

    pub fn shares(&self, inode: u64) -> bool {
        self.shared.contains_key(&inode)
    }

    /// A shared file has lost a name elsewhere, and this is how it was before and is now.
    pub fn lost_a_name(&mut self, before: &Stat, after: &Stat) {
        let (was, is) = (Stamp::of(before), Stamp::of(after));
        let Some(stamp) =
            self.shared.get(&was.inode).and_then(|number| self.stamps.get_mut(*number as usize))
        else {
            return;
        };
        if *stamp == was && is_alike(before, after) {
            *stamp = is;
            self.alone.insert(is.inode, *after);
        } else {
            self.alone.remove(&is.inode);
        }
    }

    /// Looks again, when the clock has ticked, at the shared files of `tree` that lost a name: one that has changed is not
    /// believed.
    pub fn confirm(&mut self, tree: &Path, packed: &Packed) -> io::Result<()> {
        if self.alone.is_empty() {
            return Ok(());
        }
        thread::sleep(Duration::from_nanos(SETTLED.unsigned_abs()));
        let Self { stamps, shared, alone, .. } = self;
        look(tree, packed, |record, stat| {
            let Some(stamp) = stamps.get_mut(record.number as usize) else { return };
            if shared.get(&stamp.inode) != Some(&record.number) {
                return;
            }
            let still = stat.filter(|stat| Stamp::of(stat) == *stamp);
            if let Some(was) = alone.get(&stamp.inode)
                && !still.is_some_and(|is| is_alike(was, &is))
            {
                alone.remove(&stamp.inode);
            }
        })?;
        Ok(())
    }

    pub fn write(&self, path: &Path, packed: &Packed) -> io::Result<()> {
        let settled = self.alone.keys().copied().collect();
        let about =
            About { device: self.device, began: self.since, unsettled: &HashSet::new(), settled: &settled };
        write(path, &about, packed, &self.stamps)
    }
}

/// The manifest that an index holds, whatever has become of its tree since.
pub fn manifest(path: &Path) -> Option<Packed> {
    load(path, None).map(|(packed, _)| packed)
}

fn load(path: &Path, device: Option<u64>) -> Option<(Packed, Vec<Stamp>)> {
    let len = fs::metadata(path).ok()?.len();
    if len > MAX_PACKED as u64 {
        return None;
    }
    let mut bytes = fs::read(path).ok()?;
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let fits = bytes.starts_with(MAGIC) && device.is_none_or(|device| word(8) == Some(device));
    if !fits || bytes.len() < HEAD {
        return None;
    }
    let checksum = Hash(bytes[16..48].try_into().ok()?);
    if Hash::of(&bytes[48..]) != checksum {
        return None;
    }
    let manifest = usize::try_from(word(48)?).ok()?;
    let rest = bytes.get(HEAD.checked_add(manifest)?..)?;
    let stamps: Vec<Stamp> = rest
        .as_chunks::<STAMP>()
        .0
        .iter()
        .map(|stamp| {
            let (inode, ctime) = stamp.split_at(8);
            let word = |half: &[u8]| half.try_into().map_or(0, u64::from_le_bytes);
            Stamp { inode: word(inode), ctime: word(ctime).cast_signed() }
        })
        .collect();
    bytes.truncate(HEAD + manifest);
    bytes.drain(..HEAD);
    let packed = Packed::decode(bytes).ok()?;
    (stamps.len() == packed.sums().entries as usize).then_some((packed, stamps))
}

/// Which tree an index is of, and what in it is not to be believed.
pub(super) struct About<'a> {
    pub device: u64,
    pub began: i64,
    /// Inodes that are never believed, and those that are whatever their ctime.
    pub unsettled: &'a HashSet<u64>,
    pub settled: &'a HashSet<u64>,
}

/// Writes an index in one step. It need not be durable: it is a hint.
pub(super) fn write(path: &Path, about: &About<'_>, packed: &Packed, stamps: &[Stamp]) -> io::Result<()> {
    let About { device, began, unsettled, settled: sure } = *about;
    let settled = |ctime: i64| {
        let margin = if ctime % 1_000_000_000 == 0 { SETTLED_SECONDS } else { SETTLED };
        ctime < began.saturating_sub(margin)
    };
    let stamp = |stamp: &Stamp| {
        let known =
            sure.contains(&stamp.inode) || (settled(stamp.ctime) && !unsettled.contains(&stamp.inode));
        let ctime = if known { stamp.ctime } else { UNSETTLED };
        let mut bytes = [0; STAMP];
        bytes[..8].copy_from_slice(&stamp.inode.to_le_bytes());
        bytes[8..].copy_from_slice(&ctime.to_le_bytes());
        bytes
    };
    let length = (packed.bytes().len() as u64).to_le_bytes();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&length);
    hasher.update(packed.bytes());
    for part in stamps.chunks(1024) {
        hasher.update(part.iter().map(stamp).collect::<Vec<_>>().as_flattened());
    }
    let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
    let mut new = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    {
        let mut out = BufWriter::with_capacity(256 * 1024, new.as_file_mut());
        out.write_all(MAGIC)?;
        out.write_all(&device.to_le_bytes())?;
        out.write_all(hasher.finalize().as_bytes())?;
        out.write_all(&length)?;
        out.write_all(packed.bytes())?;
        for part in stamps.chunks(1024) {
            out.write_all(part.iter().map(stamp).collect::<Vec<_>>().as_flattened())?;
        }
        out.flush()?;
    }
    new.persist(path).map_err(|e| e.error)?;
    Ok(())
}
