//! A tree while it is built: folders and files are made as data for them comes, by several threads at once.
//!
//! Everything is opened from the tree's root, which is held open, and never through a symlink. Names and paths come from
//! a peer, and are checked here before they reach the kernel.
//!
//! The disk begins to write large files while the rest is still coming, so that making the whole durable at the end waits
//! for little. Small files are left to that end.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Advice, Mode, OFlags, fadvise, mkdirat, openat};
use rustix::io::Errno;

use super::beneath::Root;
use super::build::BuildError;
use super::manifest::{MAX_COMPONENT, TreePath};

/// So much of one file goes to the disk at a time, bytes.
const STRETCH: u64 = 8 << 20;
/// Less than this of a file is not worth a way to the disk of its own: with all of them the full copy that the benchmark
/// makes took 1.3 s in place of 1.0.
const LEAST: u64 = 256 * 1024;

/// Folders that are held open.
const MOST_OPEN: usize = 256;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A tree being built.
#[derive(Debug)]
pub struct Site {
    tree: PathBuf,
    root: Root,
    folders: Mutex<HashMap<Vec<u8>, Arc<OwnedFd>>>,
}

impl Site {
    /// Makes `tree`, which must not be there.
    pub fn begin(tree: &Path) -> Result<Self, BuildError> {
        let failed = |e| BuildError::io(&TreePath::root(), e);
        if let Some(above) = tree.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(above).map_err(failed)?;
        }
        fs::DirBuilder::new().mode(0o700).create(tree).map_err(failed)?;
        inherit_nothing(tree).map_err(failed)?;
        let root = Root::open(tree).map_err(failed)?;
        Ok(Self { tree: tree.to_owned(), root, folders: Mutex::default() })
    }

    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// The folder at `path`, made with those above it where they are not there.
    pub fn folder(&self, path: &[u8]) -> Result<Arc<OwnedFd>, BuildError> {
        let lock = || self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = lock().get(path) {
            return Ok(folder.clone());
        }
        let checked = TreePath::new(path.to_vec()).map_err(BuildError::Hostile)?;
        let fd = self.open(&checked)?;
        let folder = Arc::new(fd);
        let mut folders = lock();
        if folders.len() >= MOST_OPEN {
            folders.clear();
        }
        folders.insert(path.to_vec(), folder.clone());
        Ok(folder)
    }

    fn open(&self, path: &TreePath) -> Result<OwnedFd, BuildError> {
        let failed = |e: io::Error| BuildError::io(path, e);
        match self.root.open_directory(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map_err(failed),
        }
        let mut at = self.root.as_fd().try_clone_to_owned().map_err(failed)?;
        for part in path.as_bytes().split(|b| *b == b'/') {
            match mkdirat(&at, part, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(failed(e.into())),
            }
            at = openat(&at, part, FOLDER, Mode::empty()).map_err(|e| failed(e.into()))?;
        }
        Ok(at)
    }
}

/// Takes from a folder that was just made the access control lists that it has from the one above it: they would go on to
/// everything that is made within.
pub(super) fn inherit_nothing(folder: &Path) -> io::Result<()> {
    for name in ["system.posix_acl_default", "system.posix_acl_access"] {
        match xattr::remove(folder, name) {
            Err(e) if !matches!(Errno::from_io_error(&e), Some(Errno::NODATA | Errno::OPNOTSUPP)) => {
                return Err(e);
            }
            _ => {}
        }
    }
    Ok(())
}

/// One thread's hand in it: the folder and the file that it is at.
#[derive(Debug)]
pub struct Hand<'a> {
    site: &'a Site,
    path: Vec<u8>,
    folder: Option<Arc<OwnedFd>>,
    name: Vec<u8>,
    file: Option<File>,
    /// What was written to the file in one go, and is not on its way to the disk.
    fresh: Range<u64>,
}

impl<'a> Hand<'a> {
    pub fn new(site: &'a Site) -> Self {
        Self { site, path: Vec::new(), folder: None, name: Vec::new(), file: None, fresh: 0..0 }
    }

    /// Goes to a folder.
    pub fn enter(&mut self, path: &[u8]) -> Result<(), BuildError> {
        if self.folder.is_none() || self.path != path {
            self.close();
            self.folder = Some(self.site.folder(path)?);
            self.path = path.to_vec();
        }
        Ok(())
    }

    /// The path of the folder.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Writes data to a file of the folder, which is made if it is not there.
    pub fn write(&mut self, name: &[u8], offset: u64, data: &[u8]) -> Result<(), BuildError> {
        if self.file.is_none() || self.name != name {
            self.close();
            self.file = Some(self.open(name)?);
            self.name.clear();
            self.name.extend_from_slice(name);
        }
        let Some(file) = &self.file else { return Ok(()) };
        file.write_all_at(data, offset).map_err(|e| self.failed(name, e))?;
        if self.fresh.end != offset || self.fresh.end - self.fresh.start >= STRETCH {
            self.begin_to_store();
            self.fresh.start = offset;
        }
        self.fresh.end = offset + data.len() as u64;
        Ok(())
    }

    fn close(&mut self) {
        self.begin_to_store();
        self.fresh = 0..0;
        self.file = None;
    }

    fn begin_to_store(&self) {
        if let Some(file) = &self.file {
            begin_to_store(file, self.fresh.clone());
        }
    }

    fn open(&mut self, name: &[u8]) -> Result<File, BuildError> {
        check_name(name).map_err(BuildError::Hostile)?;
        if self.folder.is_none() {
            self.enter(b"")?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = match &self.folder {
            Some(folder) => {
                openat(folder.as_fd(), OsStr::from_bytes(name), flags, Mode::from_raw_mode(0o600))
            }
            None => Err(Errno::NOENT),
        };
        fd.map(File::from).map_err(|e| self.failed(name, e))
    }

    fn failed(&self, name: &[u8], error: impl Into<io::Error>) -> BuildError {
        let path = TreePath::new(self.path.clone()).and_then(|folder| folder.join(name));
        BuildError::io(&path.unwrap_or_default(), error)
    }
}

/// Has the kernel begin to write a part of a file to the disk, and does not wait for it. That is what this advice does first
/// on Linux, for which there is no call of its own that is safe to use.
pub(super) fn begin_to_store(file: &File, part: Range<u64>) {
    let len = part.end.saturating_sub(part.start);
    if let Some(len) = NonZero::new(len).filter(|len| len.get() >= LEAST) {
        // Where the advice is not taken, all is written at the end.
        let _ = fadvise(file, part.start, Some(len), Advice::DontNeed);
    }
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        self.begin_to_store();
    }
}

/// A name of an entry, from anywhere.
fn check_name(name: &[u8]) -> Result<(), super::manifest::Hostile> {
    let bad = name.is_empty()
        || name == b"."
        || name == b".."
        || name.len() > MAX_COMPONENT
        || name.contains(&b'/')
        || name.contains(&0);
    if bad { Err(super::manifest::Hostile::Malformed) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_names_stays_within_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::begin(&dir.path().join("tree")).unwrap();
        let mut hand = Hand::new(&site);
        hand.write(b"at the root", 2, b"x").unwrap();
        hand.enter(b"a/b").unwrap();
        hand.write(b"file", 0, b"data").unwrap();
        assert_eq!(fs::read(site.tree().join("a/b/file")).unwrap(), b"data");
        assert_eq!(fs::read(site.tree().join("at the root")).unwrap(), b"\0\0x");
        for path in [&b"../x"[..], b"/etc", b"a/../..", b"a//b"] {
            assert!(matches!(hand.enter(path), Err(BuildError::Hostile(_))), "{path:?}");
        }
        for name in [&b".."[..], b"", b"x/y", b"x\0", &[b'x'; 256]] {
            assert!(hand.write(name, 0, b"").is_err(), "{name:?}");
        }
        // Nobody builds in a tree that is there.
        assert!(Site::begin(site.tree()).is_err());
        // Somebody put symlinks where folders and files are expected.
        std::os::unix::fs::symlink(dir.path(), site.tree().join("out")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", site.tree().join("a/b/link")).unwrap();
        assert!(hand.enter(b"out").is_err() && hand.enter(b"out/x").is_err());
        assert!(hand.write(b"link", 0, b"x").is_err());
    }
}
