//! Compares a tree on disk with its manifest: every entry, every byte, every attribute, and nothing besides.
//!
//! In two parts. What is in the tree is read back while all of it is still open to its owner; each entry's metadata
//! when it has been set, as nobody but root can look into what shuts out its owner.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FileType, OFlags, Stat, fstat, readlinkat, statat};

use super::beneath::{Place, Root};
use super::chunk::{ChunkRef, MAX_CHUNK};
use super::finish::{Lack, Unset};
use super::manifest::{Content, Entry, Manifest, Node, Time, TreePath};
use super::scan::{Progress, data_after, meta_of, names, xattrs};

/// How a tree differs from its manifest.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{path} is not as it should be: its {what} differs")]
    Differs { path: TreePath, what: &'static str },
    #[error("{0} holds something that should not be there")]
    Extra(TreePath),
    #[error("{path} could not be read back: {source}")]
    Io { path: TreePath, source: io::Error },
    #[error("stopped")]
    Stopped,
}

/// Checks what the whole tree holds, except for what is known not to have been made.
pub fn contents(
    root: &mut Root,
    manifest: &Manifest,
    unset: &Unset,
    progress: Progress<'_>,
) -> Result<(), VerifyError> {
    let mut identities: Vec<(u64, u64)> = Vec::with_capacity(manifest.entries().len());
    let (mut bytes, mut expected, mut found) = (0, 0, 0);
    for (at, entry) in manifest.entries().iter().enumerate() {
        if unset.of(at).is_some_and(|lack| lack.node) {
            identities.push((0, 0));
            continue;
        }
        expected += usize::from(!entry.path.is_root());
        let io = |source: io::Error| VerifyError::Io { path: entry.path.clone(), source };
        if entry.node == Node::Directory {
            found += names(root, &entry.path).map_err(io)?.len();
        }
        let place = root.place(&entry.path).map_err(io)?;
        let stat =
            statat(place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| io(e.into()))?;
        identities.push((stat.st_dev, stat.st_ino));
        let differs = |what| Err(VerifyError::Differs { path: entry.path.clone(), what });
        if !kind_matches(entry, &stat, &identities) {
            return differs("kind");
        }
        match &entry.node {
            Node::Symlink(to) => {
                let link = readlinkat(place.directory, place.name, Vec::new()).map_err(|e| io(e.into()))?;
                if link.as_bytes() != &to[..] {
                    return differs("target");
                }
            }
            Node::File(content) => {
                let file = place.open(OFlags::RDONLY).map_err(io)?;
                if !same_bytes(&file, content).map_err(io)? {
                    return differs("content");
                }
                bytes += content.chunks().map(|(_, chunk)| u64::from(chunk.len)).sum::<u64>();
            }
            _ => {}
        }
        if !progress(bytes) {
            return Err(VerifyError::Stopped);
        }
    }
    if expected == found { Ok(()) } else { Err(VerifyError::Extra(TreePath::root())) }
}

fn kind_matches(entry: &Entry, stat: &Stat, identities: &[(u64, u64)]) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    match &entry.node {
        Node::Directory => kind == FileType::Directory,
        Node::File(_) => kind == FileType::RegularFile,
        Node::Symlink(_) => kind == FileType::Symlink,
        Node::Fifo => kind == FileType::Fifo,
        Node::Socket => kind == FileType::Socket,
        Node::Device { block, major, minor } => {
            kind == if *block { FileType::BlockDevice } else { FileType::CharacterDevice }
                && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (*major, *minor)
        }
        Node::HardLink(to) => identities.get(*to as usize) == identities.last(),
    }
}

/// The first way in which an entry's metadata, attributes apart, is not what it should be.
pub(super) fn metadata(entry: &Entry, actual: &Stat, lack: &Lack) -> Result<(), VerifyError> {
    let (wanted, actual) = (&entry.meta, meta_of(actual, Vec::new()));
    let set_id = if lack.set_id { 0o6000 } else { 0 };
    // A symlink's own mode means nothing, and cannot be set.
    let what = if !matches!(entry.node, Node::Symlink(_)) && actual.mode != wanted.mode & !set_id {
        "mode"
    } else if !lack.owner && (actual.uid, actual.gid) != (wanted.uid, wanted.gid) {
        "owner"
    } else if !as_near_as_can_be(actual.mtime, wanted.mtime) {
        "modification time"
    } else {
        return Ok(());
    };
    Err(VerifyError::Differs { path: entry.path.clone(), what })
}

/// A file system with a coarser clock rounds down.
fn as_near_as_can_be(actual: Time, wanted: Time) -> bool {
    actual.seconds == wanted.seconds && actual.nanoseconds <= wanted.nanoseconds
}

/// The same of its extended attributes.
pub(super) fn attributes(entry: &Entry, place: Place<'_>, lack: &Lack) -> Result<(), VerifyError> {
    let actual = xattrs(place).map_err(|source| VerifyError::Io { path: entry.path.clone(), source })?;
    let left_out = |name: &Vec<u8>| lack.xattrs.contains(name);
    let wanted = entry.meta.xattrs.iter().filter(|(name, _)| !left_out(name));
    if wanted.eq(actual.iter().filter(|(name, _)| !left_out(name))) {
        Ok(())
    } else {
        Err(VerifyError::Differs { path: entry.path.clone(), what: "extended attributes" })
    }
}

/// Whether the chunks are there and everything else reads as zeros.
fn same_bytes(file: &File, content: &Content) -> io::Result<bool> {
    if u64::try_from(fstat(file)?.st_size) != Ok(content.size) {
        return Ok(false);
    }
    let mut buffer = vec![0; MAX_CHUNK as usize];
    let mut end = 0;
    for extent in &content.extents {
        if !zeros(file, end, extent.offset, &mut buffer)? {
            return Ok(false);
        }
        end = extent.offset;
        for chunk in &extent.chunks {
            // No chunk of a manifest is longer than the buffer.
            let Some(data) = buffer.get_mut(..chunk.len as usize) else { return Ok(false) };
            file.read_exact_at(data, end)?;
            if ChunkRef::of(data) != *chunk {
                return Ok(false);
            }
            end += u64::from(chunk.len);
        }
    }
    zeros(file, end, content.size, &mut buffer)
}

fn zeros(file: &File, mut at: u64, end: u64, buffer: &mut [u8]) -> io::Result<bool> {
    while at < end {
        let Some((start, stop)) = data_after(file, at, end)? else { return Ok(true) };
        at = start;
        while at < stop {
            let len = usize::try_from(stop - at).unwrap_or(usize::MAX).min(buffer.len());
            file.read_exact_at(&mut buffer[..len], at)?;
            if buffer[..len].iter().any(|b| *b != 0) {
                return Ok(false);
            }
            at += len as u64;
        }
    }
    Ok(true)
}
