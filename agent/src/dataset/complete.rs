//! The last step of building: what holds no data, owners, modes, attributes and times, and an account of what could not
//! be made or set.
//!
//! Only root may give files away, make devices and set some attributes. Anyone else gets as much as may be set, and a
//! report of the rest, as rsync's users expect; nothing is left out in silence. Set-id bits are not put on a file
//! whose owner could not be set: they would lend out the wrong one's rights.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, ftruncate,
    linkat, makedev, mknodat, openat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::beneath::Place;
use super::build::{BuildError, VerifyError};
use super::manifest::{Meta, TreePath};
use super::packed::{Directories, NodeRef, Packed, Record, Step};
use super::scan::xattrs;
use super::site::Site;
use super::stock::Linked;
use super::survey::{Stamp, in_parallel};

const SET_ID: u16 = 0o6000;

/// What could not be made or set: how often, and the first as an example.
#[derive(Debug, Default)]
struct Lacks {
    node: Tally,
    owner: Tally,
    set_id: Tally,
    attributes: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    first: Option<TreePath>,
    count: usize,
}

impl Tally {
    fn add(&mut self, path: &TreePath) {
        self.first.get_or_insert_with(|| path.clone());
        self.count += 1;
    }

    fn tell(&self, what: &str, into: &mut Vec<String>) {
        if let Some(first) = &self.first {
            into.push(match self.count {
                1 => format!("{what}: {first}"),
                count => format!("{what}: {first} and {} more", count - 1),
            });
        }
    }
}

impl Lacks {
    /// In sentences.
    fn report(&self) -> Vec<String> {
        let mut report = Vec::new();
        self.node.tell("not made, for want of permission", &mut report);
        self.owner.tell("owner not set, for want of permission", &mut report);
        self.set_id.tell("set-id bits left off, since the owner could not be set", &mut report);
        self.attributes.tell("extended attributes not set", &mut report);
        report
    }
}

/// What one entry lacks.
#[derive(Debug, Default, Clone, Copy)]
struct Lack {
    owner: bool,
    set_id: bool,
    attributes: bool,
}

/// Whether a tree is new from the ground up, or goes on from an interrupted attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    New,
    Resumed,
}

/// What became of a tree.
#[derive(Debug)]
pub struct Completed {
    /// What could not be set, in sentences.
    pub unset: Vec<String>,
    /// The files that are another tree's, too, as they look now.
    pub linked: Vec<Linked>,
}

/// Completes a tree whose data is in its place, and checks that it is the manifest's and nothing besides.
pub fn complete(
    site: &Site,
    packed: &Packed,
    directories: &Directories,
    (ground, linked): (Ground, Vec<Linked>),
    go_on: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Completed, BuildError> {
    let mut work = Completing { site, packed, directories, ground, linked, lacks: Mutex::default() };
    let each = |with: &(dyn Fn(u32) -> Result<(), BuildError> + Sync)| {
        in_parallel(
            directories.all().len(),
            || Ok(()),
            |(), at| {
                if !go_on(0) {
                    return Err(BuildError::Stopped);
                }
                // There are at most as many directories as entries.
                with(u32::try_from(at).unwrap_or(u32::MAX))
            },
        )
    };
    each(&|at| work.children(at))?;
    work.hard_links()?;
    each(&|at| work.nothing_else(at))?;
    work.folders()?;
    let unset = work.lacks.into_inner().unwrap_or_else(PoisonError::into_inner).report();
    Ok(Completed { unset, linked: work.linked })
}

struct Completing<'a> {
    site: &'a Site,
    packed: &'a Packed,
    directories: &'a Directories,
    ground: Ground,
    linked: Vec<Linked>,
    lacks: Mutex<Lacks>,
}

impl Completing<'_> {
    fn path(&self, directory: u32, name: &[u8]) -> TreePath {
        TreePath::new(self.directories.path(self.packed, directory, name)).unwrap_or_default()
    }

    fn note(&self, path: &dyn Fn() -> TreePath, lack: Lack) {
        if lack.owner || lack.set_id || lack.attributes {
            let (mut lacks, path) = (self.lacks.lock().unwrap_or_else(PoisonError::into_inner), path());
            let Lacks { owner, set_id, attributes, .. } = &mut *lacks;
            for (tally, lacking) in
                [(owner, lack.owner), (set_id, lack.set_id), (attributes, lack.attributes)]
            {
                if lacking {
                    tally.add(&path);
                }
            }
        }
    }

    /// Makes what is missing in a directory, and sets the metadata of everything in it but directories.
    fn children(&self, at: u32) -> Result<(), BuildError> {
        let folder = self.site.folder(self.path(at, b"").as_bytes())?;
        for child in self.directories.children(self.packed, at) {
            let record = &child.record;
            if matches!(record.node, NodeRef::Directory | NodeRef::HardLink(_)) {
                continue;
            }
            let path = || self.path(at, record.name);
            let place = Place { directory: folder.as_fd(), name: OsStr::from_bytes(record.name) };
            let stat = match stat_of(place) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => match make(place, record) {
                    Ok(()) => stat_of(place).map_err(|e| BuildError::io(&path(), e))?,
                    Err(Errno::PERM) if matches!(record.node, NodeRef::Device { .. }) => {
                        self.lacks.lock().unwrap_or_else(PoisonError::into_inner).node.add(&path());
                        continue;
                    }
                    Err(e) => return Err(BuildError::io(&path(), e)),
                },
                Err(e) => return Err(BuildError::io(&path(), e)),
            };
            // A file of another tree, too: what is set here would be set there.
            if let Ok(at) = self.linked.binary_search_by_key(&record.number, |linked| linked.number) {
                if self.linked[at].stamp.is_some_and(|stamp| stamp != Stamp::of(&stat)) {
                    return Err(BuildError::Changed(path()));
                }
                continue;
            }
            let lack = self.settle(place, record, stat, &path)?;
            self.note(&path, lack);
        }
        Ok(())
    }

    /// Gives files their further names.
    fn hard_links(&mut self) -> Result<(), BuildError> {
        let mut targets: HashMap<u32, Vec<u8>> = HashMap::new();
        let mut walk = self.packed.walk();
        while let Some(step) = walk.next() {
            if let Step::Entry(Record { node: NodeRef::HardLink(to), .. }) = step {
                targets.insert(to, Vec::new());
            }
        }
        if targets.is_empty() {
            return Ok(());
        }
        let mut walk = self.packed.walk();
        while let Some(step) = walk.next() {
            let Step::Entry(record) = step else { continue };
            if let Some(path) = targets.get_mut(&record.number) {
                *path = walk.path().to_vec();
            }
            let NodeRef::HardLink(to) = record.node else { continue };
            let here = TreePath::new(walk.path().to_vec()).map_err(BuildError::Hostile)?;
            let there = targets.get(&to).cloned().unwrap_or_default();
            let there = TreePath::new(there).map_err(BuildError::Hostile)?;
            let (Some((from, name)), Some((above, own))) = (there.split(), here.split()) else { continue };
            let (from, above) = (self.site.folder(from.as_bytes())?, self.site.folder(above.as_bytes())?);
            let look = || statat(from.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).ok();
            let before = look();
            match linkat(&from, name, &above, own, AtFlags::empty()) {
                Ok(()) => {
                    if let Ok(at) = self.linked.binary_search_by_key(&to, |linked| linked.number) {
                        self.linked[at].gained_a_name(before, look());
                    }
                }
                // What it is another name of could not be made.
                Err(Errno::NOENT) => {
                    self.lacks.lock().unwrap_or_else(PoisonError::into_inner).node.add(&here);
                }
                Err(Errno::EXIST) => {
                    let same = |fd, name| statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).map(|s| s.st_ino);
                    if same(from.as_fd(), name).ok() != same(above.as_fd(), own).ok() {
                        return Err(differs(&here, "kind"));
                    }
                }
                Err(e) => return Err(BuildError::io(&here, e)),
            }
        }
        Ok(())
    }

    /// A directory holds what the manifest says, all of which was looked at, so it is enough to count.
    fn nothing_else(&self, at: u32) -> Result<(), BuildError> {
        let path = self.path(at, b"");
        let folder = self.site.folder(path.as_bytes())?;
        let mut expected = 0;
        for child in self.directories.children(self.packed, at) {
            // What was not made is noted.
            let name = OsStr::from_bytes(child.record.name);
            let sure = !matches!(child.record.node, NodeRef::Device { .. } | NodeRef::HardLink(_));
            expected += usize::from(sure || stat_of(Place { directory: folder.as_fd(), name }).is_ok());
        }
        let failed = |e: Errno| BuildError::io(&path, e);
        let mut found = 0;
        for entry in Dir::read_from(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            found += usize::from(!matches!(entry.file_name().to_bytes(), b"." | b".."));
        }
        if found == expected { Ok(()) } else { Err(BuildError::Verify(VerifyError::Extra(path))) }
    }

    /// Sets the metadata of directories, what is in one before itself.
    fn folders(&self) -> Result<(), BuildError> {
        for at in (0..self.directories.all().len()).rev() {
            let Some(directory) = self.directories.all().get(at) else { continue };
            // There are at most as many directories as entries.
            let path = self.path(u32::try_from(at).unwrap_or(u32::MAX), b"");
            let folder = self.site.folder(path.as_bytes())?;
            let record = match directory.number {
                0 => root_of(self.packed),
                number => self.packed.record(directory.record, number),
            };
            let Some(record) = record else { continue };
            let place = Place { directory: folder.as_fd(), name: OsStr::new(".") };
            let stat = stat_of(place).map_err(|e| BuildError::io(&path, e))?;
            let lack = self.settle(place, &record, stat, &|| path.clone())?;
            self.note(&|| path.clone(), lack);
        }
        Ok(())
    }

    /// Sets an entry's metadata, and looks whether it took.
    fn settle(
        &self,
        place: Place<'_>,
        record: &Record<'_>,
        mut stat: Stat,
        path: &dyn Fn() -> TreePath,
    ) -> Result<Lack, BuildError> {
        let failed = |e: io::Error| BuildError::io(&path(), e);
        let Some(meta) = record.meta().map(|meta| meta.open()) else { return Ok(Lack::default()) };
        if !is_kind(record, &stat) {
            return Err(differs(&path(), "kind"));
        }
        let size = record.content().map(|content| content.size);
        let mut lack = Lack::default();
        if let Some(size) = size.filter(|size| u64::try_from(stat.st_size).ok() != Some(*size)) {
            let file = place.open(OFlags::WRONLY).map_err(failed)?;
            ftruncate(&file, size).map_err(|e| failed(e.into()))?;
        }
        // In this order: a change of owner clears set-id bits and capabilities, and attributes need a writable file.
        lack.owner = !set_owner(place, &meta, &stat).map_err(failed)?;
        if !meta.xattrs.is_empty() || self.ground == Ground::Resumed {
            lack.attributes = !set_attributes(place, &meta).map_err(failed)?;
        }
        lack.set_id = !set_mode(place, record, &meta, &stat, lack.owner).map_err(failed)?;
        let time = Timespec { tv_sec: meta.mtime.seconds, tv_nsec: meta.mtime.nanoseconds.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(place.directory, place.name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed(e.into()))?;
        stat = stat_of(place).map_err(|e| failed(e.into()))?;
        match difference(record, &meta, &stat, lack) {
            None => Ok(lack),
            Some(what) => Err(differs(&path(), what)),
        }
    }
}

fn differs(path: &TreePath, what: &'static str) -> BuildError {
    BuildError::Verify(VerifyError::Differs { path: path.clone(), what })
}

fn root_of(packed: &Packed) -> Option<Record<'_>> {
    match packed.walk().next() {
        Some(Step::Enter(root)) => Some(root),
        _ => None,
    }
}

fn stat_of(place: Place<'_>) -> Result<Stat, Errno> {
    statat(place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Makes what holds no data.
fn make(place: Place<'_>, record: &Record<'_>) -> Result<(), Errno> {
    let (directory, name): (BorrowedFd<'_>, _) = (place.directory, place.name);
    let private = Mode::from_raw_mode(0o600);
    let special = |kind, device| mknodat(directory, name, kind, private, device);
    match record.node {
        NodeRef::File(content) if content.data() == 0 => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(directory, name, flags, private).map(drop)
        }
        NodeRef::Symlink(to) => symlinkat(to, directory, name),
        NodeRef::Fifo => special(FileType::Fifo, 0),
        NodeRef::Socket => special(FileType::Socket, 0),
        NodeRef::Device { block, major, minor } => {
            let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
            special(kind, makedev(major, minor))
        }
        // A file with data that is not there: it never came.
        NodeRef::File(_) | NodeRef::Directory | NodeRef::HardLink(_) => Err(Errno::NOENT),
    }
}

fn is_kind(record: &Record<'_>, stat: &Stat) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    match record.node {
        NodeRef::Directory => kind == FileType::Directory,
        NodeRef::File(_) => kind == FileType::RegularFile,
        NodeRef::Symlink(_) => kind == FileType::Symlink,
        NodeRef::Fifo => kind == FileType::Fifo,
        NodeRef::Socket => kind == FileType::Socket,
        NodeRef::Device { block, major, minor } => {
            kind == if block { FileType::BlockDevice } else { FileType::CharacterDevice }
                && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (major, minor)
        }
        NodeRef::HardLink(_) => false,
    }
}

/// The first way in which an entry's metadata, attributes apart, is not what it should be.
fn difference(record: &Record<'_>, meta: &Meta, stat: &Stat, lack: Lack) -> Option<&'static str> {
    let set_id = if lack.set_id { SET_ID } else { 0 };
    // A symlink's own mode means nothing, and cannot be set.
    let symlink = matches!(record.node, NodeRef::Symlink(_));
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(u32::MAX);
    if !symlink && stat.st_mode & 0o7777 != u32::from(meta.mode & !set_id) {
        Some("mode")
    } else if !lack.owner && (stat.st_uid, stat.st_gid) != (meta.uid, meta.gid) {
        Some("owner")
    } else if stat.st_mtime != meta.mtime.seconds || nanoseconds > meta.mtime.nanoseconds {
        // A file system with a coarser clock rounds down.
        Some("modification time")
    } else if record.content().is_some_and(|content| u64::try_from(stat.st_size).ok() != Some(content.size)) {
        Some("size")
    } else {
        None
    }
}

/// False if it may not be set here.
fn set_owner(place: Place<'_>, meta: &Meta, now: &Stat) -> io::Result<bool> {
    if (now.st_uid, now.st_gid) == (meta.uid, meta.gid) {
        return Ok(true);
    }
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    match chownat(place.directory, place.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::INVAL) => {
            // One may still give a file to another group of one's own.
            let _ = chownat(place.directory, place.name, None, Some(gid), AtFlags::SYMLINK_NOFOLLOW);
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

/// Sets those that should be there, and removes what an attempt at another tree may have left. False if some may not be
/// set here.
fn set_attributes(place: Place<'_>, meta: &Meta) -> io::Result<bool> {
    let (path, mut all) = (place.proc_path(), true);
    let before = xattrs(place)?;
    for (key, _) in before.iter().filter(|(key, _)| !meta.xattrs.iter().any(|(wanted, _)| wanted == key)) {
        match xattr::remove(&path, OsStr::from_bytes(key)) {
            Err(e) if !forbidden(&e) => return Err(e),
            _ => {}
        }
    }
    for (key, value) in &meta.xattrs {
        match xattr::set(&path, OsStr::from_bytes(key), value) {
            Ok(()) => {}
            Err(e) if forbidden(&e) => all = false,
            Err(e) => return Err(e),
        }
    }
    if all && xattrs(place)? != meta.xattrs {
        return Ok(false);
    }
    Ok(all)
}

fn forbidden(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL))
}

/// False if set-id bits were left off.
fn set_mode(
    place: Place<'_>,
    record: &Record<'_>,
    meta: &Meta,
    now: &Stat,
    owner_lacks: bool,
) -> io::Result<bool> {
    if matches!(record.node, NodeRef::Symlink(_)) {
        return Ok(true);
    }
    let lends = owner_lacks && meta.mode & SET_ID != 0 && !matches!(record.node, NodeRef::Directory);
    let mode = if lends { meta.mode & !SET_ID } else { meta.mode };
    let changed_owner = (now.st_uid, now.st_gid) != (meta.uid, meta.gid);
    if changed_owner || !meta.xattrs.is_empty() || now.st_mode & 0o7777 != u32::from(mode) {
        // Staging is ours alone, so the name cannot have become a symlink.
        chmodat(place.directory, place.name, Mode::from_raw_mode(mode.into()), AtFlags::empty())?;
    }
    Ok(!lends)
}
