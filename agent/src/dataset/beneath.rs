//! Files reached from a directory that is held open, and never through a symlink.
//!
//! Whoever may write to a volume could otherwise swap a directory for a symlink while the agent, perhaps root, walks
//! or builds the tree, and have it read or write elsewhere. `openat2` has the kernel refuse that; where it is
//! missing (old kernels, some sandboxes) the path is walked one component at a time, which is as safe, only slower.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::manifest::TreePath;

/// The root of a tree, held open.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// The directory last asked for: entries come in an order that asks for the same one many times.
    last: Option<(TreePath, OwnedFd)>,
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Root {
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd, last: None })
    }

    /// The same root, to have two of its directories at hand at once.
    pub fn reopen(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, last: None })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The directory `path`, opened for reading.
    pub fn directory(&mut self, path: &TreePath) -> io::Result<BorrowedFd<'_>> {
        if path.is_root() {
            return Ok(self.fd.as_fd());
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let fd = open_beneath(self.fd.as_fd(), path, DIRECTORY)?;
            self.last = Some((path.clone(), fd));
        }
        match &self.last {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The directory `path`, to be kept open.
    pub fn open_directory(&self, path: &TreePath) -> io::Result<OwnedFd> {
        if path.is_root() { self.fd.try_clone() } else { open_beneath(self.fd.as_fd(), path, DIRECTORY) }
    }

    /// The directory that holds `path`, and the entry's name in it; for the root, itself and `.`.
    pub fn place<'a>(&'a mut self, path: &'a TreePath) -> io::Result<Place<'a>> {
        let (parent, name) = path.split().unwrap_or((TreePath::root(), b"."));
        Ok(Place { directory: self.directory(&parent)?, name: OsStr::from_bytes(name) })
    }

    /// Opens the regular file `path` for reading.
    pub fn file(&mut self, path: &TreePath) -> io::Result<File> {
        self.place(path)?.open(OFlags::RDONLY)
    }
}

/// An entry, by the open directory it is in.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub directory: BorrowedFd<'a>,
    pub name: &'a OsStr,
}

impl Place<'_> {
    /// Opens an existing regular file. Non-blocking, so that a fifo put in its place cannot hang the agent.
    pub fn open(self, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = openat(self.directory, self.name, flags, Mode::empty())?;
        let file = File::from(fd);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::other("is no longer a regular file"))
        }
    }

    /// A path for calls that take only paths (extended attributes of what must not be opened): it resolves from the
    /// open directory, so only the name itself is looked up.
    pub fn proc_path(self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.directory.as_raw_fd().to_string()).join(self.name)
    }
}

/// The kernel takes no longer paths in one call.
const MOST_AT_ONCE: usize = 4095;

fn open_beneath(root: BorrowedFd<'_>, path: &TreePath, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    if path.as_bytes().len() > MOST_AT_ONCE {
        return open_stepwise(root, path, flags);
    }
    for _ in 0..16 {
        match openat2(root, path.as_bytes(), flags, Mode::empty(), resolve) {
            Ok(fd) => return Ok(fd),
            // Something was renamed meanwhile, and the kernel could not tell whether the path stayed beneath.
            Err(Errno::AGAIN) => {}
            Err(Errno::NOSYS | Errno::PERM) => return open_stepwise(root, path, flags),
            Err(e) => return Err(e.into()),
        }
    }
    Err(Errno::AGAIN.into())
}

fn open_stepwise(root: BorrowedFd<'_>, path: &TreePath, flags: OFlags) -> io::Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    for part in path.as_bytes().split(|b| *b == b'/') {
        let directory = at.as_ref().map_or(root, AsFd::as_fd);
        let next = openat(directory, part, flags, Mode::empty())?;
        at = Some(next);
    }
    at.ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symlink_on_the_way_is_refused_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("a/out")).unwrap();
        let mut root = Root::open(dir.path()).unwrap();
        let path = |text: &str| TreePath::new(text.into()).unwrap();
        assert!(root.directory(&path("a/b")).is_ok());
        assert!(root.directory(&path("a/out")).is_err());
        assert!(root.directory(&path("a/out/ssl")).is_err());
        assert!(root.file(&path("a/out/passwd")).is_err());
        assert!(open_stepwise(root.as_fd(), &path("a/b"), DIRECTORY).is_ok());
        assert!(open_stepwise(root.as_fd(), &path("a/out/ssl"), DIRECTORY).is_err());
    }
}
