//! A second tree like a first one, on the same machine.
//!
//! Data is shared where the file system can share it (reflinks) and copied otherwise. Where the new tree is a frozen one, a
//! file that is equal in everything to one of an earlier frozen tree is that file, by another hard link: neither is ever
//! written to. Each file of the earlier tree is used once at most, so that two files never become one.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    copy_file_range, fchmod, fchown, fsetxattr, futimens, ioctl_ficlone, linkat, makedev, mkdirat, mknodat,
    openat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::{PoolError, Pools};
use crate::dataset::beneath::{Place, Root};
use crate::dataset::manifest::TreePath;
use crate::dataset::packed::{Child, Children, ContentRef, Directories, MetaRef, NodeRef, Packed, Step};
use crate::dataset::scan::ScanError;
use crate::dataset::site::{begin_to_store, inherit_nothing};
use crate::dataset::survey::{Manner, Survey, Unwatched, in_parallel};

/// So many entries of a directory are one thread's work.
const PART: usize = 256;
/// Or so many bytes, with the file that reaches them.
const PART_BYTES: u64 = 16 << 20;
/// Up to this size a file is copied through memory.
const SMALL: u64 = 64 * 1024;
/// So much of a file is copied, and goes to the disk, at a time, bytes.
const STRETCH: usize = 8 << 20;
/// Equal files that are looked through for one that is not in use yet.
const MOST_ALIKE: usize = 64;
const SET_ID: u16 = 0o6000;

impl Pools {
    /// Copies the tree at `from` to `to`, which must not be there, with everything that a copy keeps. Data is shared where
    /// the file system can share it, never by hard links. A tree that changes meanwhile is refused.
    pub async fn clone_tree(&self, from: &Path, to: &Path) -> Result<(), PoolError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        super::folder::blocking(move || {
            let survey = Survey::read(&from, Manner::default(), &Unwatched)?;
            Copying { from: &from, packed: survey.packed(), to: &to, like: None }.run()?;
            Ok(survey.unchanged()?)
        })
        .await
    }
}

/// A copy to be made.
pub(super) struct Copying<'a> {
    pub from: &'a Path,
    /// What is in `from`.
    pub packed: &'a Packed,
    pub to: &'a Path,
    /// A frozen tree whose files the new one may share.
    pub like: Option<Alike<'a>>,
}

impl Copying<'_> {
    /// Makes the copy. Nothing is durable yet, and what could not be set here is in the log.
    pub fn run(self) -> Result<(), PoolError> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(self.to)
            .and_then(|()| inherit_nothing(self.to))
            .map_err(|e| PoolError::io(self.to, "created", e))?;
        let open = |path: &Path| Root::open(path).map_err(|e| PoolError::io(path, "opened", e));
        let (from, to) = (open(self.from)?, open(self.to)?);
        let directories = Directories::of(self.packed);
        let copy = Copy {
            asked: &self,
            directories: &directories,
            no_reflinks: AtomicBool::new(false),
            lacks: Mutex::default(),
        };
        let parts = copy.make_directories(to.reopen().map_err(|e| PoolError::io(self.to, "opened", e))?)?;
        let begin = || {
            let roots = from.reopen().and_then(|from| Ok((from, to.reopen()?)));
            let (from, to) = roots.map_err(|e| PoolError::io(self.to, "opened", e))?;
            let like = match &self.like {
                Some(like) => Some(open(like.tree)?),
                None => None,
            };
            Ok(Hands { from, to, like, buffer: vec![0; 64 * 1024] })
        };
        in_parallel(parts.len(), begin, |hands: &mut Hands, at| {
            let (directory, children, files) = &parts[at];
            let path = copy.path(*directory, b"")?;
            children
                .clone()
                .filter(|child| child.directory.is_none())
                .take(*files)
                .try_for_each(|child| copy.entry(hands, &path, &child))
        })?;
        drop(parts);
        let mut hands = begin()?;
        copy.hard_links(&mut hands)?;
        copy.dress_directories(&mut hands)?;
        copy.report();
        Ok(())
    }
}

/// What one thread holds.
struct Hands {
    from: Root,
    to: Root,
    like: Option<Root>,
    buffer: Vec<u8>,
}

/// A copy that is being made.
struct Copy<'a> {
    asked: &'a Copying<'a>,
    directories: &'a Directories,
    no_reflinks: AtomicBool,
    /// What could not be set: of each kind the first, and how many.
    lacks: Mutex<BTreeMap<&'static str, (TreePath, usize)>>,
}

impl Copy<'_> {
    fn path(&self, directory: u32, name: &[u8]) -> Result<TreePath, PoolError> {
        TreePath::new(self.directories.path(self.asked.packed, directory, name))
            .map_err(|unfit| PoolError::Scan(ScanError::Unfit(unfit)))
    }

    fn wrote(&self, path: &TreePath) -> impl Fn(io::Error) -> PoolError {
        let place = self.asked.to.join(std::ffi::OsStr::from_bytes(path.as_bytes()));
        move |e| PoolError::io(&place, "written", e)
    }

    fn lacks(&self, what: &'static str, path: &TreePath) {
        let mut lacks = self.lacks.lock().unwrap_or_else(PoisonError::into_inner);
        lacks.entry(what).or_insert_with(|| (path.clone(), 0)).1 += 1;
    }

    fn report(&self) {
        for (what, (path, count)) in &*self.lacks.lock().unwrap_or_else(PoisonError::into_inner) {
            tracing::warn!(%path, count, "{what} in a copy on this machine, for want of permission");
        }
    }

    /// Makes every directory, private as yet, and parts their contents into pieces of work.
    fn make_directories(&self, mut to: Root) -> Result<Vec<(u32, Children<'_>, usize)>, PoolError> {
        let mut parts = Vec::new();
        for at in 0..u32::try_from(self.directories.all().len()).unwrap_or(u32::MAX) {
            let path = self.path(at, b"")?;
            if at > 0 {
                let made =
                    to.place(&path).and_then(|place| Ok(mkdirat(place.directory, place.name, Mode::RWXU)?));
                made.map_err(self.wrote(&path))?;
            }
            let mut children = self.directories.children(self.asked.packed, at);
            let (mut begun, mut files, mut bytes) = (children.clone(), 0, 0);
            while let Some(child) = children.next() {
                if child.directory.is_none() {
                    files += 1;
                    bytes += child.record.content().map_or(0, |content| content.size);
                }
                if files >= PART || bytes >= PART_BYTES {
                    parts.push((at, std::mem::replace(&mut begun, children.clone()), files));
                    (files, bytes) = (0, 0);
                }
            }
            if files > 0 {
                parts.push((at, begun, files));
            }
        }
        Ok(parts)
    }

    fn entry(&self, hands: &mut Hands, directory: &TreePath, child: &Child<'_>) -> Result<(), PoolError> {
        let record = &child.record;
        let unfit = |unfit| PoolError::Scan(ScanError::Unfit(unfit));
        let path = directory.join(record.name).map_err(unfit)?;
        let Some(meta) = record.meta() else { return Ok(()) };
        if let NodeRef::File(content) = record.node {
            return self.file(hands, &path, record.body, content, meta);
        }
        let place = hands.to.place(&path).map_err(self.wrote(&path))?;
        let (at, name, private) = (place.directory, place.name, Mode::RUSR | Mode::WUSR);
        let made = match record.node {
            NodeRef::Symlink(to) => symlinkat(to, at, name),
            NodeRef::Fifo => mknodat(at, name, FileType::Fifo, private, 0),
            NodeRef::Socket => mknodat(at, name, FileType::Socket, private, 0),
            NodeRef::Device { block, major, minor } => {
                let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
                match mknodat(at, name, kind, private, makedev(major, minor)) {
                    Err(Errno::PERM) => {
                        self.lacks("a device is not made", &path);
                        return Ok(());
                    }
                    made => made,
                }
            }
            NodeRef::File(_) | NodeRef::Directory | NodeRef::HardLink(_) => Ok(()),
        };
        made.map_err(|e| self.wrote(&path)(e.into()))?;
        let symlink = matches!(record.node, NodeRef::Symlink(_));
        self.dress_closed(place, &path, meta, symlink).map_err(self.wrote(&path))
    }

    fn file(
        &self,
        hands: &mut Hands,
        path: &TreePath,
        body: &[u8],
        content: ContentRef<'_>,
        meta: MetaRef<'_>,
    ) -> Result<(), PoolError> {
        if let (Some(like), Some(root)) = (&self.asked.like, &mut hands.like)
            && let Some(other) = like.take(body)
        {
            let from = root.place(&other).map_err(self.wrote(path))?;
            let to = hands.to.place(path).map_err(self.wrote(path))?;
            match linkat(from.directory, from.name, to.directory, to.name, AtFlags::empty()) {
                Ok(()) => return Ok(()),
                // It has as many names as it can have.
                Err(Errno::MLINK) => {}
                Err(e) => return Err(self.wrote(path)(e.into())),
            }
        }
        let source = hands.from.file(path).map_err(|e| ScanError::io(path, e))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = hands.to.place(path).map_err(self.wrote(path))?;
        let made = openat(place.directory, place.name, flags, Mode::RUSR | Mode::WUSR);
        let made = File::from(made.map_err(|e| self.wrote(path)(e.into()))?);
        self.fill(&source, &made, content, &mut hands.buffer, path)?;
        self.dress(made.as_fd(), path, meta, true).map_err(self.wrote(path))
    }

    /// Gives a new file what another has: all of it at once by reflink, or its data, leaving out the holes.
    fn fill(
        &self,
        from: &File,
        to: &File,
        content: ContentRef<'_>,
        buffer: &mut [u8],
        path: &TreePath,
    ) -> Result<(), PoolError> {
        if content.size == 0 {
            return Ok(());
        }
        if !self.no_reflinks.load(Ordering::Relaxed) {
            match ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                Err(Errno::NOSPC | Errno::DQUOT) => return Err(self.wrote(path)(Errno::NOSPC.into())),
                Err(_) => self.no_reflinks.store(true, Ordering::Relaxed),
            }
        }
        let mut end = 0;
        let mut run: Option<(u64, u64)> = None;
        for (offset, chunk) in content.chunks() {
            let stop = offset + u64::from(chunk.len);
            run = match run {
                Some((start, before)) if before == offset => Some((start, stop)),
                Some((start, before)) => {
                    self.copy_run(from, to, start, before, buffer, path)?;
                    Some((offset, stop))
                }
                None => Some((offset, stop)),
            };
            end = stop;
        }
        if let Some((start, stop)) = run {
            self.copy_run(from, to, start, stop, buffer, path)?;
        }
        if end < content.size { to.set_len(content.size).map_err(self.wrote(path)) } else { Ok(()) }
    }

    fn copy_run(
        &self,
        from: &File,
        to: &File,
        mut at: u64,
        end: u64,
        buffer: &mut [u8],
        path: &TreePath,
    ) -> Result<(), PoolError> {
        let mut in_kernel = end - at > SMALL;
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX).min(STRETCH);
            if in_kernel {
                let (mut read, mut write) = (at, at);
                match copy_file_range(from, Some(&mut read), to, Some(&mut write), left) {
                    Ok(0) => return Err(PoolError::Scan(ScanError::Changed(path.clone()))),
                    Ok(n) => {
                        begin_to_store(to, at..at + n as u64);
                        at += n as u64;
                    }
                    Err(Errno::NOSPC | Errno::DQUOT) => return Err(self.wrote(path)(Errno::NOSPC.into())),
                    // Not between these two; by hand then.
                    Err(_) => in_kernel = false,
                }
                continue;
            }
            let len = left.min(buffer.len());
            let n = from.read_at(&mut buffer[..len], at).map_err(|e| ScanError::io(path, e))?;
            if n == 0 {
                return Err(PoolError::Scan(ScanError::Changed(path.clone())));
            }
            to.write_all_at(&buffer[..n], at).map_err(self.wrote(path))?;
            at += n as u64;
        }
        Ok(())
    }

    /// Owner, attributes, mode and time of what is open, in this order: a change of owner clears set-id bits and
    /// capabilities.
    fn dress(&self, fd: BorrowedFd<'_>, path: &TreePath, meta: MetaRef<'_>, file: bool) -> io::Result<()> {
        let owned = match fchown(fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid))) {
            Ok(()) => true,
            Err(Errno::PERM | Errno::INVAL) => false,
            Err(e) => return Err(e.into()),
        };
        for (name, value) in meta.attributes() {
            let set = fsetxattr(fd, name, value, XattrFlags::empty());
            self.attribute(set.map_err(Into::into), path)?;
        }
        fchmod(fd, Mode::from_raw_mode(self.mode(path, meta, owned, file).into()))?;
        Ok(futimens(fd, &times(meta))?)
    }

    /// The same of what must not be opened.
    fn dress_closed(
        &self,
        place: Place<'_>,
        path: &TreePath,
        meta: MetaRef<'_>,
        symlink: bool,
    ) -> io::Result<()> {
        let Place { directory, name } = place;
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        let owned = match chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => true,
            Err(Errno::PERM | Errno::INVAL) => false,
            Err(e) => return Err(e.into()),
        };
        for (key, value) in meta.attributes() {
            self.attribute(xattr::set(place.proc_path(), std::ffi::OsStr::from_bytes(key), value), path)?;
        }
        let mode = self.mode(path, meta, owned, !symlink);
        if !symlink {
            // The tree is ours alone as yet, so the name cannot have become a symlink.
            chmodat(directory, name, Mode::from_raw_mode(mode.into()), AtFlags::empty())?;
        }
        Ok(utimensat(directory, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Set-id bits are not put on a file whose owner could not be set: they would lend out the wrong one's rights.
    fn mode(&self, path: &TreePath, meta: MetaRef<'_>, owned: bool, file: bool) -> u16 {
        if owned {
            return meta.mode;
        }
        self.lacks("an owner is not set", path);
        if file { meta.mode & !SET_ID } else { meta.mode }
    }

    fn attribute(&self, set: io::Result<()>, path: &TreePath) -> io::Result<()> {
        match set {
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => {
                    self.lacks("an extended attribute is not set", path);
                    Ok(())
                }
                _ => Err(e),
            },
            Ok(()) => Ok(()),
        }
    }

    fn hard_links(&self, hands: &mut Hands) -> Result<(), PoolError> {
        let mut targets: HashMap<u32, Option<TreePath>> = HashMap::new();
        let mut walk = self.asked.packed.walk();
        while let Some(step) = walk.next() {
            if let Step::Entry(record) = step
                && let NodeRef::HardLink(to) = record.node
            {
                targets.insert(to, None);
            }
        }
        if targets.is_empty() {
            return Ok(());
        }
        let unfit = |unfit| PoolError::Scan(ScanError::Unfit(unfit));
        let mut walk = self.asked.packed.walk();
        while let Some(step) = walk.next() {
            let Step::Entry(record) = step else { continue };
            if let Some(target) = targets.get_mut(&record.number) {
                *target = Some(TreePath::new(walk.path().to_vec()).map_err(unfit)?);
            }
            if let NodeRef::HardLink(to) = record.node
                && let Some(Some(target)) = targets.get(&to)
            {
                let path = TreePath::new(walk.path().to_vec()).map_err(unfit)?;
                let mut other = hands.to.reopen().map_err(self.wrote(&path))?;
                let linked = other.place(target).and_then(|from| {
                    let to = hands.to.place(&path)?;
                    Ok(linkat(from.directory, from.name, to.directory, to.name, AtFlags::empty())?)
                });
                match linked {
                    Ok(()) => {}
                    // Its device was not made either.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        self.lacks("a device is not made", &path);
                    }
                    Err(e) => return Err(self.wrote(&path)(e)),
                }
            }
        }
        Ok(())
    }

    /// Last, and what is below first: making an entry moves its directory's time, and a mode may shut its owner out.
    fn dress_directories(&self, hands: &mut Hands) -> Result<(), PoolError> {
        for at in (0..u32::try_from(self.directories.all().len()).unwrap_or(u32::MAX)).rev() {
            let path = self.path(at, b"")?;
            let this = &self.directories.all()[at as usize];
            let meta = if at == 0 {
                match self.asked.packed.walk().next() {
                    Some(Step::Enter(root)) => root.meta(),
                    _ => None,
                }
            } else {
                self.asked.packed.record(this.record, this.number).and_then(|record| record.meta())
            };
            let Some(meta) = meta else { continue };
            let dressed =
                hands.to.open_directory(&path).and_then(|fd| self.dress(fd.as_fd(), &path, meta, false));
            dressed.map_err(self.wrote(&path))?;
        }
        Ok(())
    }
}

fn times(meta: MetaRef<'_>) -> Timestamps {
    let time = Timespec { tv_sec: meta.mtime.seconds, tv_nsec: meta.mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// The files of a frozen tree, by what is in them and about them.
pub(super) struct Alike<'a> {
    tree: &'a Path,
    packed: &'a Packed,
    directories: Directories,
    /// Digest, place and number of each, sorted.
    files: Vec<(u64, u32, u32)>,
    used: Vec<AtomicU64>,
}

impl<'a> Alike<'a> {
    pub fn of(tree: &'a Path, packed: &'a Packed) -> Self {
        let mut files = Vec::with_capacity(packed.sums().files as usize);
        let mut walk = packed.walk();
        while let Some(step) = walk.next() {
            if let Step::Entry(record) = step
                && record.content().is_some_and(|content| content.size > 0)
            {
                files.push((digest(record.body), record.at, record.number));
            }
        }
        files.sort_unstable();
        let used = (0..files.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { tree, packed, directories: Directories::of(packed), files, used }
    }

    /// The path of a file with that body, which nobody has taken yet.
    fn take(&self, body: &[u8]) -> Option<TreePath> {
        let digest = digest(body);
        let first = self.files.partition_point(|file| file.0 < digest);
        for (at, file) in self.files.iter().enumerate().skip(first).take(MOST_ALIKE) {
            let record = self.packed.record(file.1, file.2).filter(|_| file.0 == digest)?;
            let bit = 1 << (at % 64);
            if record.body == body && self.used[at / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
                let directory = self.directories.around(file.1)?;
                return TreePath::new(self.directories.path(self.packed, directory, record.name)).ok();
            }
        }
        None
    }
}

fn digest(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}
