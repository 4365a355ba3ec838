//! Reads a tree: first all of it into a manifest, then the chunks that are asked for.
//!
//! A tree in use may change meanwhile. What was seen of each entry is remembered, and looked at again around every
//! read and at the end, so that a copy is of one moment or is refused; it is never silently of two.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, OFlags, SeekFrom, Stat, fgetxattr, flistxattr, fstat, readlinkat, seek, statat,
};
use rustix::io::Errno;

use super::beneath::{Place, Root};
use super::chunk::{ChunkRef, Cutter};
use super::manifest::{Content, Entry, Extent, Hostile, MAX_XATTR, Manifest, Meta, Node, Time, TreePath};

/// Attributes that belong to a machine, not to data.
const NOT_COPIED: [&[u8]; 1] = [b"security.selinux"];

/// Why a tree could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("{0} changed while it was read; try again when nothing writes to it")]
    Changed(TreePath),
    #[error("{path} could not be read: {source}")]
    Io { path: TreePath, source: io::Error },
    #[error("the tree cannot be copied: {0}")]
    Unfit(#[from] Hostile),
    #[error("another file system is mounted at {0}; unmount it, since what is in it is not the volume's")]
    Mounted(TreePath),
    #[error("stopped")]
    Stopped,
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::io(&TreePath::root(), error)
    }
}

impl ScanError {
    pub(super) fn io(path: &TreePath, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            // It was there a moment ago, when its directory was listed.
            io::ErrorKind::NotFound => Self::Changed(path.clone()),
            _ => Self::Io { path: path.clone(), source },
        }
    }
}

/// Told the bytes read so far; false stops the scan.
pub type Progress<'a> = &'a mut dyn FnMut(u64) -> bool;

/// A tree as it was read.
#[derive(Debug)]
pub struct Scan {
    pub manifest: Manifest,
    root: Root,
    stamps: Vec<Stamp>,
    open: Option<(usize, File)>,
}

/// What shows that an entry is still the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: i64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    // The widths of these fields differ between architectures; the casts are what stat(2) means everywhere.
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap)]
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as i64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

impl Scan {
    /// Reads the whole tree at `path`.
    pub fn read(path: &Path, progress: Progress<'_>) -> Result<Self, ScanError> {
        let root = Root::open(path).map_err(|e| ScanError::io(&TreePath::root(), e))?;
        let mut walk = Walk {
            root,
            entries: Vec::new(),
            stamps: Vec::new(),
            links: HashMap::new(),
            cutter: Cutter::default(),
            bytes: 0,
        };
        walk.all(progress)?;
        let manifest = Manifest::new(walk.entries)?;
        Ok(Self { manifest, root: walk.root, stamps: walk.stamps, open: None })
    }

    /// Reads the chunk at `offset` of the file at `index` into `into`.
    pub fn chunk(
        &mut self,
        index: usize,
        offset: u64,
        chunk: ChunkRef,
        into: &mut Vec<u8>,
    ) -> Result<(), ScanError> {
        let path = self.manifest.entries()[index].path.clone();
        if self.open.as_ref().is_none_or(|(open, _)| *open != index) {
            self.close()?;
            let file = self.root.file(&path).map_err(|e| ScanError::io(&path, e))?;
            self.check(index, &file)?;
            self.open = Some((index, file));
        }
        let Some((_, file)) = &self.open else { return Err(ScanError::Changed(path)) };
        into.resize(chunk.len as usize, 0);
        match file.read_exact_at(into, offset) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(ScanError::Changed(path)),
            Err(e) => return Err(ScanError::io(&path, e)),
        }
        if ChunkRef::of(into) == chunk { Ok(()) } else { Err(ScanError::Changed(path)) }
    }

    /// Looks at every entry again.
    pub fn unchanged(&mut self) -> Result<(), ScanError> {
        self.close()?;
        for (entry, stamp) in self.manifest.entries().iter().zip(&self.stamps) {
            let place = self.root.place(&entry.path).map_err(|e| ScanError::io(&entry.path, e))?;
            let stat = statat(place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| ScanError::io(&entry.path, e))?;
            if Stamp::of(&stat) != *stamp {
                return Err(ScanError::Changed(entry.path.clone()));
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), ScanError> {
        match self.open.take() {
            Some((index, file)) => self.check(index, &file),
            None => Ok(()),
        }
    }

    fn check(&self, index: usize, file: &File) -> Result<(), ScanError> {
        let path = &self.manifest.entries()[index].path;
        let stat = fstat(file).map_err(|e| ScanError::io(path, e))?;
        if Stamp::of(&stat) == self.stamps[index] { Ok(()) } else { Err(ScanError::Changed(path.clone())) }
    }
}

struct Walk {
    root: Root,
    entries: Vec<Entry>,
    stamps: Vec<Stamp>,
    /// First place of each inode that has several names.
    links: HashMap<(u64, u64), u32>,
    cutter: Cutter,
    bytes: u64,
}

impl Walk {
    fn all(&mut self, progress: Progress<'_>) -> Result<(), ScanError> {
        self.entry(TreePath::root(), progress)?;
        // A directory's entries follow one another, and are sorted, so that a tree has one manifest.
        let mut todo = vec![TreePath::root()];
        while let Some(directory) = todo.pop() {
            for name in names(&mut self.root, &directory).map_err(|e| ScanError::io(&directory, e))? {
                let path = directory.join(&name)?;
                if self.entry(path.clone(), progress)? {
                    todo.push(path);
                }
            }
        }
        Ok(())
    }

    /// Adds one entry; true if it is a directory.
    fn entry(&mut self, path: TreePath, progress: Progress<'_>) -> Result<bool, ScanError> {
        let at = |e: io::Error| ScanError::io(&path, e);
        let place = self.root.place(&path).map_err(at)?;
        let stat =
            statat(place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| at(e.into()))?;
        let stamp = Stamp::of(&stat);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let directory = kind == FileType::Directory;
        if !directory && stat.st_nlink > 1 {
            let here = u32::try_from(self.entries.len()).map_err(|_| Hostile::TooMany)?;
            let first = *self.links.entry((stamp.device, stamp.inode)).or_insert(here);
            if first != here {
                self.entries.push(Entry { path, node: Node::HardLink(first), meta: Meta::default() });
                self.stamps.push(stamp);
                return Ok(false);
            }
        }
        let node = match kind {
            FileType::Directory => Node::Directory,
            FileType::RegularFile => {
                let file = place.open(OFlags::RDONLY).map_err(at)?;
                let mut stopped = false;
                let content =
                    content(&file, &stat, &mut self.cutter, &mut self.bytes, progress, &mut stopped);
                if stopped {
                    return Err(ScanError::Stopped);
                }
                let content = content.map_err(at)?;
                let after = fstat(&file).map_err(|e| at(e.into()))?;
                if Stamp::of(&after) != stamp {
                    return Err(ScanError::Changed(path));
                }
                Node::File(content)
            }
            FileType::Symlink => Node::Symlink(
                readlinkat(place.directory, place.name, Vec::new()).map_err(|e| at(e.into()))?.into_bytes(),
            ),
            FileType::Fifo => Node::Fifo,
            FileType::Socket => Node::Socket,
            FileType::CharacterDevice | FileType::BlockDevice => Node::Device {
                block: kind == FileType::BlockDevice,
                major: rustix::fs::major(stat.st_rdev),
                minor: rustix::fs::minor(stat.st_rdev),
            },
            FileType::Unknown => return Err(at(io::Error::other("is of a kind that cannot be copied"))),
        };
        let meta = meta_of(&stat, xattrs(place).map_err(at)?);
        self.entries.push(Entry { path, node, meta });
        self.stamps.push(stamp);
        Ok(directory)
    }
}

/// What `stat` says of an entry's metadata.
pub(super) fn meta_of(stat: &Stat, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Meta {
    Meta {
        // The low twelve bits always fit.
        mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time {
            seconds: stat.st_mtime,
            // The kernel gives less than a thousand million.
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
        xattrs,
    }
}

/// The names in a directory, sorted.
pub(super) fn names(root: &mut Root, directory: &TreePath) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(root.directory(directory)?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Every extended attribute that is copied, sorted by name, of what is open.
pub(super) fn attributes_of(fd: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // Nearly every file has none, and then this is one call.
    let mut names = vec![0; 1024];
    let len = loop {
        match flistxattr(fd, &mut names) {
            Ok(len) => break len,
            Err(Errno::RANGE) if names.len() < MAX_XATTR => names.resize(MAX_XATTR, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(e) => return Err(e.into()),
        }
    };
    let mut all = Vec::new();
    for name in names[..len].split(|b| *b == 0).filter(|name| !name.is_empty() && !NOT_COPIED.contains(name))
    {
        let mut value = vec![0; 256];
        loop {
            match fgetxattr(fd, name, &mut value) {
                Ok(len) => {
                    value.truncate(len);
                    all.push((name.to_vec(), value));
                    break;
                }
                Err(Errno::RANGE) if value.len() < MAX_XATTR => value.resize(MAX_XATTR, 0),
                // Gone since it was listed: the entry's ctime tells of the change.
                Err(Errno::NODATA) => break,
                Err(e) => return Err(e.into()),
            }
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// Every extended attribute that is copied, sorted by name.
pub(super) fn xattrs(place: Place<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = place.proc_path();
    let names = match xattr::list(&path) {
        Ok(names) => names,
        Err(e) if Errno::from_io_error(&e) == Some(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut all = Vec::new();
    for name in names.filter(|name| !NOT_COPIED.contains(&name.as_bytes())) {
        // Gone since it was listed is as good as never there: the entry's ctime tells of the change.
        if let Some(value) = xattr::get(&path, OsStr::new(&name))? {
            all.push((name.as_bytes().to_vec(), value));
        }
    }
    all.sort_unstable();
    Ok(all)
}

fn content(
    file: &File,
    stat: &Stat,
    cutter: &mut Cutter,
    bytes: &mut u64,
    progress: Progress<'_>,
    stopped: &mut bool,
) -> io::Result<Content> {
    let size = u64::try_from(stat.st_size).map_err(io::Error::other)?;
    let mut extents = Vec::new();
    let mut at = 0;
    // Only a file with fewer blocks than its size needs can have holes.
    let holes = u64::try_from(stat.st_blocks).unwrap_or(0) * 512 < size;
    while at < size {
        let (start, end) = if holes {
            match data_after(file, at, size)? {
                Some(run) => run,
                None => break,
            }
        } else {
            (0, size)
        };
        let run = Run { file, at: start, end, bytes, progress, stopped };
        let chunks = cutter.cut(run)?;
        if !chunks.is_empty() {
            extents.push(Extent { offset: start, chunks });
        }
        at = end;
    }
    Ok(Content { size, extents })
}

/// The next run of data at or after `at`.
pub(super) fn data_after(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // The file system knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, size))),
        Err(e) => return Err(e.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?.min(size);
    Ok((start < end).then_some((start, end)))
}

/// Reads a run of a file, counting.
struct Run<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    bytes: &'a mut u64,
    progress: &'a mut dyn FnMut(u64) -> bool,
    stopped: &'a mut bool,
}

impl Read for Run<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = into.len().min(left).min(1 << 20);
        let n = self.file.read_at(&mut into[..len], self.at)?;
        self.at += n as u64;
        *self.bytes += n as u64;
        if !(self.progress)(*self.bytes) {
            *self.stopped = true;
            return Err(io::Error::other("stopped"));
        }
        Ok(n)
    }
}
