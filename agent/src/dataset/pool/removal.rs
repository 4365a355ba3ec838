//! Removing a tree, however deep it is.
//!
//! What is removed came from anybody: it is walked with a list of names on the heap, not by recursion, with two
//! directories open at most, and never by a path, which has a longest length and could be led elsewhere meanwhile.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, IFlags, Mode, OFlags, RawDir, Stat, fchmod, fstat, ioctl_getflags,
    ioctl_setflags, openat, statat, unlinkat,
};
use rustix::io::Errno;

use super::PoolError;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How often a directory is looked through again, if something was put into it meanwhile.
const MOST_ROUNDS: usize = 5;

/// Removes a tree, also one with directories that its owner may not write to.
pub fn remove_tree(path: &Path) -> Result<(), PoolError> {
    match remove(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(PoolError::io(path, "removed", e)),
    }
}

/// A directory that is being emptied.
struct Level {
    /// What it is, to know it by on the way back up.
    device: u64,
    inode: u64,
    name: CString,
    /// Directories in it that are still there.
    below: Vec<CString>,
    rounds: usize,
}

fn remove(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    let mut at = Some(open(path)?);
    let mut levels: Vec<Level> = Vec::new();
    let mut next = Some(CString::default());
    while let Some(fd) = at.take() {
        if let Some(name) = next.take() {
            let stat = readied(fd.as_fd())?;
            let below = empty(fd.as_fd())?;
            levels.push(Level { device: stat.st_dev, inode: stat.st_ino, name, below, rounds: 0 });
        }
        let Some(level) = levels.last_mut() else { break };
        if let Some(name) = level.below.pop() {
            match enter(fd.as_fd(), &name) {
                Ok(below) => {
                    at = Some(below);
                    next = Some(name);
                }
                Err(Errno::NOENT) => at = Some(fd),
                Err(e) => return Err(e.into()),
            }
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let Some(above) = levels.last_mut() else { break };
        // Somebody who has the tree open may have moved it: what is above must be what was above before.
        let up = openat(&fd, c"..", DIRECTORY, Mode::empty())?;
        let stat = fstat(&up)?;
        if (stat.st_dev, stat.st_ino) != (above.device, above.inode) {
            return Err(io::Error::other("it was moved while it was removed"));
        }
        match unlink(up.as_fd(), &done.name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) if above.rounds < MOST_ROUNDS => {
                above.rounds += 1;
                above.below.push(done.name);
            }
            result => result?,
        }
        at = Some(up);
    }
    fs::remove_dir(path).or_else(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => {
            unlock(open(path)?.as_fd());
            fs::remove_dir(path)
        }
        _ => Err(e),
    })
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    match openat(CWD, path, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            Ok(openat(CWD, path, DIRECTORY, Mode::empty())?)
        }
        opened => Ok(opened?),
    }
}

/// Opens a directory of the tree, which its owner may not be allowed to read.
fn enter(fd: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    match openat(fd, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let handle = openat(fd, name, OFlags::PATH | DIRECTORY, Mode::empty())?;
            let handle = format!("/proc/self/fd/{}", handle.as_raw_fd());
            rustix::fs::chmod(&*handle, Mode::RWXU)?;
            openat(fd, name, DIRECTORY, Mode::empty())
        }
        opened => opened,
    }
}

/// Lets its owner change what is in a directory. Root may anyway.
fn readied(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    let stat = fstat(fd)?;
    if stat.st_mode & 0o700 != 0o700 && !rustix::process::geteuid().is_root() {
        fchmod(fd, Mode::RWXU)?;
    }
    Ok(stat)
}

/// Removes what is in a directory, except for directories: these it gives back.
fn empty(fd: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut below = Vec::new();
    let mut buffer: Vec<u8> = Vec::with_capacity(32 * 1024);
    let mut entries = RawDir::new(fd, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => match statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(e.into()),
            },
            kind => kind,
        };
        if kind == FileType::Directory {
            below.push(name.to_owned());
        } else {
            unlink(fd, name, AtFlags::empty())?;
        }
    }
    Ok(below)
}

fn unlink(fd: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> rustix::io::Result<()> {
    match unlinkat(fd, name, flags) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::PERM | Errno::ACCESS) => {
            unlock(fd);
            let flags_of =
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            if statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
                matches!(FileType::from_raw_mode(stat.st_mode), FileType::Directory | FileType::RegularFile)
            }) && let Ok(file) = openat(fd, name, flags_of, Mode::empty())
            {
                unlock(file.as_fd());
            }
            unlinkat(fd, name, flags)
        }
        result => result,
    }
}

/// Takes the flags off that keep even root from removing a file, where there are any and that may be done.
fn unlock(file: BorrowedFd<'_>) {
    let locks = IFlags::IMMUTABLE | IFlags::APPEND;
    if let Ok(flags) = ioctl_getflags(file)
        && flags.intersects(locks)
    {
        // Where it fails the removal does, and says so.
        let _ = ioctl_setflags(file, flags - locks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_any_stack_goes() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(dir.path().join("kept"), b"kept").unwrap();
        std::os::unix::fs::symlink(dir.path(), tree.join("out")).unwrap();
        let mut at = openat(CWD, &tree, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, c"a", Mode::RWXU).unwrap();
            rustix::fs::symlinkat(c"a", &at, c"b").unwrap();
            at = openat(&at, c"a", DIRECTORY, Mode::empty()).unwrap();
        }
        drop(at);
        // As small as a thread's stack is anywhere here.
        let path = tree.clone();
        let thread = std::thread::Builder::new().stack_size(128 * 1024);
        thread.spawn(move || remove_tree(&path).unwrap()).unwrap().join().unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read(dir.path().join("kept")).unwrap(), b"kept");
    }

    #[test]
    fn what_its_owner_may_not_change_goes_and_what_is_linked_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, other) = (dir.path().join("tree"), dir.path().join("other"));
        fs::create_dir_all(tree.join("x/y/z")).unwrap();
        for n in 0..300 {
            fs::create_dir(tree.join(format!("x/{n}"))).unwrap();
            fs::write(tree.join(format!("x/{n}/file")), b"file").unwrap();
        }
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), b"kept").unwrap();
        std::os::unix::fs::symlink(&other, tree.join("x/link")).unwrap();
        for (path, mode) in [("x/y/z", 0), ("x/y", 0o100), ("x", 0o500), ("", 0o400)] {
            fs::set_permissions(tree.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && other.join("kept").exists());
        remove_tree(&tree).unwrap();
        std::os::unix::fs::symlink(&other, &tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(fs::symlink_metadata(&tree).is_err() && other.join("kept").exists());
    }
}
