//! A tree that is being made of what an archive says, entry by entry, in the archive's order.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, linkat, makedev,
    mkdirat, mknodat, openat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::super::beneath::{Place, Root};
use super::super::manifest::{Time, TreePath};
use super::ArchiveError;

const SET_ID: u16 = 0o6000;
/// Zeros of this length, and so aligned, become a hole.
const HOLE: usize = 4096;

/// Metadata of one entry.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug)]
pub enum Kind {
    Directory,
    File,
    Symlink(Vec<u8>),
    /// Another name of an entry of the same tree.
    Link(TreePath),
    Fifo,
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
}

/// A tree in the making.
pub struct Target {
    root: Root,
    /// What is set of directories when everything is in them. What is in one comes after it.
    directories: BTreeMap<TreePath, Given>,
    lacks: Lacks,
}

/// What could not be made or set.
#[derive(Default)]
struct Lacks {
    /// Devices: what is linked to one that is not there cannot be made either.
    node: BTreeSet<TreePath>,
    owner: Lack,
    set_id: Lack,
    xattrs: Lack,
}

/// The first entry that lacks something, and how many more.
#[derive(Default)]
struct Lack {
    first: Option<TreePath>,
    more: usize,
}

impl Lack {
    fn add(&mut self, path: &TreePath) {
        if self.first.is_some() {
            self.more += 1;
        } else {
            self.first = Some(path.clone());
        }
    }
}

impl Target {
    /// An empty tree at `folder`, which must not be there.
    pub fn new(folder: &Path) -> Result<Self, ArchiveError> {
        let at = |e: io::Error| ArchiveError::write(&TreePath::root(), e);
        DirBuilder::new().mode(0o700).create(folder).map_err(at)?;
        let root = Root::open(folder).map_err(at)?;
        // What the archive says nothing of is as a new volume is.
        let usual = Given { mode: 0o755, uid: rustix::process::geteuid().as_raw(), ..Given::default() };
        let usual = Given { gid: rustix::process::getegid().as_raw(), ..usual };
        let directories = BTreeMap::from([(TreePath::root(), usual)]);
        Ok(Self { root, directories, lacks: Lacks::default() })
    }

    /// Makes anything but a file.
    pub fn make(&mut self, path: &TreePath, given: Given, kind: &Kind) -> Result<(), ArchiveError> {
        if let Kind::Directory = kind {
            return self.directory(path, given);
        }
        if path.is_root() {
            return Err(ArchiveError::Kind { path: path.to_string(), what: "the tree's root and no folder" });
        }
        self.parents(path)?;
        if let Kind::Link(to) = kind {
            return self.link(path, to);
        }
        let made = self.node(path, kind);
        match made {
            Ok(()) => self.settle(path, &given, matches!(kind, Kind::Symlink(_))),
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::PERM) if matches!(kind, Kind::Device { .. }) => {
                    self.lacks.node.insert(path.clone());
                    Ok(())
                }
                Some(Errno::EXIST) => Err(ArchiveError::Twice(path.clone())),
                _ => Err(ArchiveError::write(path, e)),
            },
        }
    }

    /// Makes a file of what `from` gives, of `most` bytes; how many there were.
    pub fn file(
        &mut self,
        path: &TreePath,
        given: &Given,
        from: &mut impl Read,
        most: u64,
        stopped: &dyn Fn() -> bool,
    ) -> Result<u64, ArchiveError> {
        if path.is_root() {
            return Err(ArchiveError::Kind { path: path.to_string(), what: "the tree's root and no folder" });
        }
        self.parents(path)?;
        let place = self.root.place(path).map_err(|e| ArchiveError::write(path, e))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(place.directory, place.name, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => File::from(fd),
            Err(Errno::EXIST) => return Err(ArchiveError::Twice(path.clone())),
            Err(e) => return Err(ArchiveError::write(path, e)),
        };
        let size = fill(&file, path, from, most, stopped)?;
        drop(file);
        self.settle(path, given, false)?;
        Ok(size)
    }

    /// Sets what is left to set. Tells what could not be, in sentences.
    pub fn finish(mut self) -> Result<Vec<String>, ArchiveError> {
        for (path, given) in std::mem::take(&mut self.directories).into_iter().rev() {
            self.settle(&path, &given, false)?;
        }
        let mut report = Vec::new();
        let mut tell = |what: &str, first: Option<&TreePath>, more: usize| match (first, more) {
            (None, _) => {}
            (Some(only), 0) => report.push(format!("{what}: {only}")),
            (Some(first), more) => report.push(format!("{what}: {first} and {more} more")),
        };
        let Lacks { node, owner, set_id, xattrs } = &self.lacks;
        tell("not made, for want of permission", node.first(), node.len().saturating_sub(1));
        tell("owner not set, for want of permission", owner.first.as_ref(), owner.more);
        tell("set-id bits left off, since the owner could not be set", set_id.first.as_ref(), set_id.more);
        tell("extended attributes not set", xattrs.first.as_ref(), xattrs.more);
        Ok(report)
    }

    fn directory(&mut self, path: &TreePath, given: Given) -> Result<(), ArchiveError> {
        if path.is_root() {
            self.directories.insert(path.clone(), given);
            return Ok(());
        }
        self.parents(path)?;
        let place = self.root.place(path).map_err(|e| ArchiveError::write(path, e))?;
        match mkdirat(place.directory, place.name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            // Made for what is in it, which came first; or named again, and then the last word counts.
            Err(Errno::EXIST) if self.directories.contains_key(path) => {}
            Err(Errno::EXIST) => return Err(ArchiveError::Twice(path.clone())),
            Err(e) => return Err(ArchiveError::write(path, e)),
        }
        self.directories.insert(path.clone(), given);
        Ok(())
    }

    /// Makes the directories above an entry that the archive has not spoken of.
    fn parents(&mut self, path: &TreePath) -> Result<(), ArchiveError> {
        let Some((parent, _)) = path.split() else { return Ok(()) };
        if self.root.directory(&parent).is_ok() {
            return Ok(());
        }
        self.parents(&parent)?;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        self.directory(&parent, Given { mode: 0o755, uid, gid, ..Given::default() })
    }

    fn node(&mut self, path: &TreePath, kind: &Kind) -> io::Result<()> {
        let Place { directory, name } = self.root.place(path)?;
        let special = |kind, device: Dev| mknodat(directory, name, kind, Mode::from_raw_mode(0o600), device);
        match kind {
            Kind::Symlink(to) => symlinkat(&to[..], directory, name)?,
            Kind::Fifo => special(FileType::Fifo, 0)?,
            Kind::Device { block, major, minor } => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                special(kind, makedev(*major, *minor))?;
            }
            Kind::Directory | Kind::File | Kind::Link(_) => {}
        }
        Ok(())
    }

    fn link(&mut self, path: &TreePath, to: &TreePath) -> Result<(), ArchiveError> {
        if self.lacks.node.contains(to) {
            self.lacks.node.insert(path.clone());
            return Ok(());
        }
        let at = |e: io::Error| ArchiveError::write(path, e);
        let mut other = self.root.reopen().map_err(at)?;
        let from = other.place(to).map_err(|_| ArchiveError::Link(path.clone()))?;
        let place = self.root.place(path).map_err(at)?;
        match linkat(from.directory, from.name, place.directory, place.name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // A directory cannot have two names.
            Err(Errno::NOENT | Errno::PERM | Errno::ISDIR) => Err(ArchiveError::Link(path.clone())),
            Err(Errno::EXIST) => Err(ArchiveError::Twice(path.clone())),
            Err(e) => Err(at(e.into())),
        }
    }

    /// Sets an entry's metadata. In this order: a change of owner clears set-id bits and capabilities, and attributes need
    /// a writable file.
    fn settle(&mut self, path: &TreePath, given: &Given, symlink: bool) -> Result<(), ArchiveError> {
        let at = |e: Errno| ArchiveError::write(path, e);
        let place = self.root.place(path).map_err(|e| ArchiveError::write(path, e))?;
        let Place { directory, name } = place;
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(at)?;
        let mut owned = (stat.st_uid, stat.st_gid) == (given.uid, given.gid);
        if !owned {
            let (uid, gid) = (Uid::from_raw(given.uid), Gid::from_raw(given.gid));
            match chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) => owned = true,
                Err(Errno::PERM | Errno::INVAL) => {
                    // One may still give a file to another group of one's own.
                    let _ = chownat(directory, name, None, Some(gid), AtFlags::SYMLINK_NOFOLLOW);
                    self.lacks.owner.add(path);
                }
                Err(e) => return Err(at(e)),
            }
        }
        let mut complete = true;
        for (key, value) in &given.xattrs {
            match xattr::set(place.proc_path(), OsStr::from_bytes(key), value) {
                Ok(()) => {}
                Err(e) => match Errno::from_io_error(&e) {
                    Some(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL | Errno::RANGE) => {
                        complete = false;
                    }
                    _ => return Err(ArchiveError::write(path, e)),
                },
            }
        }
        if !complete {
            self.lacks.xattrs.add(path);
        }
        if !symlink {
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            // They would lend out the wrong one's rights.
            let lends = !owned && given.mode & SET_ID != 0 && !is_directory;
            if lends {
                self.lacks.set_id.add(path);
            }
            let mode = if lends { given.mode & !SET_ID } else { given.mode };
            // Staging is ours alone, so the name cannot have become a symlink.
            chmodat(directory, name, Mode::from_raw_mode(mode.into()), AtFlags::empty()).map_err(at)?;
        }
        let time = Timespec { tv_sec: given.mtime.seconds, tv_nsec: given.mtime.nanoseconds.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(at)
    }
}

/// Writes what `from` gives, with holes where it gives nothing but zeros.
fn fill(
    file: &File,
    path: &TreePath,
    from: &mut impl Read,
    most: u64,
    stopped: &dyn Fn() -> bool,
) -> Result<u64, ArchiveError> {
    let mut buffer = vec![0; 64 * HOLE];
    let mut at = 0_u64;
    let mut written = 0_u64;
    loop {
        let mut have = 0;
        while have < buffer.len() {
            match from.read(&mut buffer[have..]) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(ArchiveError::Input(e)),
            }
        }
        if have == 0 {
            break;
        }
        // A hole may be larger than anybody waits for.
        if stopped() {
            return Err(ArchiveError::Stopped);
        }
        for block in buffer[..have].chunks(HOLE) {
            if block.iter().any(|byte| *byte != 0) {
                file.write_all_at(block, at).map_err(|e| ArchiveError::write(path, e))?;
                written = at + block.len() as u64;
            }
            at += block.len() as u64;
        }
        if at > most {
            return Err(ArchiveError::TooLarge(most));
        }
    }
    if at > written {
        file.set_len(at).map_err(|e| ArchiveError::write(path, e))?;
    }
    Ok(at)
}
