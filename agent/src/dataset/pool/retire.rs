//! The tree that was, on its way out, and what is known of the one in its place.
//!
//! A refreshed tree has its unchanged files by hard link from the tree before, and losing a name moves a file's ctime,
//! which would have all of them read again the next time. So each is looked at just before and just after its old name
//! goes: if nothing but that moved its ctime, the file is still what it was.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, fstat, openat, statat, unlinkat};

use super::folder::remove_later;
use super::removal::remove_tree;
use super::switch::Known;
use crate::dataset::beneath::Root;
use crate::dataset::survey::Stamp;
use crate::dataset::survey::index::Adoption;

/// Folders within each other that are looked into; what is deeper is read again.
const DEEPEST: usize = 200;

/// The tree that came.
pub(super) struct Successor {
    pub tree: PathBuf,
    /// What is in it.
    pub known: Known,
    /// Where that is kept.
    pub index: PathBuf,
    /// When it was put in place, by this machine's clock.
    pub since: i64,
}

/// Removes what is in `bin` without anybody waiting for it, and keeps what is known of the tree that came.
pub(super) fn retire(bin: PathBuf, new: Successor) {
    let old = bin.clone();
    let work = move || {
        let kept = Adoption::of(&new.tree, &new.known.packed, &new.known.linked, new.since).and_then(
            |mut adoption| {
                if adoption.shares_any() {
                    part(&old, &mut adoption);
                    adoption.confirm(&new.tree, &new.known.packed)?;
                }
                adoption.write(&new.index, &new.known.packed)
            },
        );
        if let Err(e) = kept {
            tracing::info!(tree = %new.tree.display(), reason = %e, "a new tree is read the next time");
        }
        if let Err(e) = remove_tree(&old) {
            tracing::warn!(path = %old.display(), reason = %e, "a tree on its way out could not be removed");
        }
    };
    if std::thread::Builder::new().name("retire".to_owned()).spawn(work).is_err() {
        remove_later(bin);
    }
}

/// Takes the old names from files that the new tree has too. What cannot be done here is left to the removal.
fn part(old: &Path, adoption: &mut Adoption) {
    if let Ok(root) = Root::open(old) {
        folder(root.as_fd(), adoption, 0);
    }
}

fn folder(fd: BorrowedFd<'_>, adoption: &mut Adoption, depth: usize) {
    let mut buffer: Vec<u8> = Vec::with_capacity(16 * 1024);
    let mut entries = RawDir::new(fd, buffer.spare_capacity_mut());
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth < DEEPEST => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(below) = openat(fd, name, flags, Mode::empty()) {
                    folder(below.as_fd(), adoption, depth + 1);
                }
            }
            FileType::RegularFile if stat.st_nlink > 1 && adoption.shares(Stamp::of(&stat).inode) => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(file) = openat(fd, name, flags, Mode::empty()) {
                    unname(fd, name, &file, adoption);
                }
            }
            _ => {}
        }
    }
}

fn unname(fd: BorrowedFd<'_>, name: &std::ffi::CStr, file: &OwnedFd, adoption: &mut Adoption) {
    let Ok(before) = fstat(file) else { return };
    if unlinkat(fd, name, AtFlags::empty()).is_err() {
        return;
    }
    if let Ok(after) = fstat(file) {
        adoption.lost_a_name(&before, &after);
    }
}
