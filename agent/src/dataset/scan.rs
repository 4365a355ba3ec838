//! What is read of each entry of a tree, and why a tree could not be read.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Dir, SeekFrom, Stat, fgetxattr, flistxattr, seek};
use rustix::io::Errno;

use super::beneath::{Place, Root};
use super::manifest::{Hostile, MAX_XATTR, Meta, Time, TreePath};

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
