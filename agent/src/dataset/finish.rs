//! The last step of building: owners, modes, attributes and times, and an account of what could not be set.
//!
//! Only root may give files away, make devices and set some attributes. Anyone else gets as much as may be set, and a
//! report of the rest, as rsync's users expect; nothing is left out in silence. Set-id bits are not put on a file
//! whose owner could not be set: they would lend out the wrong one's rights.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, chmodat, chownat, statat, utimensat};
use rustix::io::Errno;

use super::beneath::{Place, Root};
use super::build::BuildError;
use super::manifest::{Entry, Manifest, Node};

const SET_ID: u16 = 0o6000;

/// What of each entry could not be made or set.
#[derive(Debug, Default)]
pub struct Unset {
    entries: BTreeMap<usize, Lack>,
}

/// What one entry lacks.
#[derive(Debug, Default)]
pub struct Lack {
    /// It is not there at all.
    pub node: bool,
    pub owner: bool,
    /// Set-id bits were left off.
    pub set_id: bool,
    pub xattrs: Vec<Vec<u8>>,
}

impl Unset {
    pub fn of(&self, entry: usize) -> Option<&Lack> {
        self.entries.get(&entry)
    }

    pub fn lacks_node(&mut self, entry: usize) {
        self.entries.entry(entry).or_default().node = true;
    }

    /// In sentences: how many, and the first as an example.
    pub fn report(&self, manifest: &Manifest) -> Vec<String> {
        let mut report = Vec::new();
        let mut tell = |what: &str, lacks: &dyn Fn(&Lack) -> bool| {
            let mut with = self.entries.iter().filter(|(_, lack)| lacks(lack)).map(|(at, _)| *at);
            if let Some(first) = with.next() {
                let path = &manifest.entries()[first].path;
                report.push(match with.count() {
                    0 => format!("{what}: {path}"),
                    more => format!("{what}: {path} and {more} more"),
                });
            }
        };
        tell("not made, for want of permission", &|lack| lack.node);
        tell("owner not set, for want of permission", &|lack| lack.owner);
        tell("set-id bits left off, since the owner could not be set", &|lack| lack.set_id);
        tell("extended attributes not set", &|lack| !lack.xattrs.is_empty());
        report
    }
}

/// The entries that are not there in a tree made earlier.
pub(super) fn not_made(manifest: &Manifest, tree: &Path) -> Unset {
    let mut unset = Unset::default();
    let devices = manifest.entries().iter().any(|e| matches!(e.node, Node::Device { .. }));
    if devices && let Ok(mut root) = Root::open(tree) {
        for (at, entry) in manifest.entries().iter().enumerate() {
            let there = root
                .place(&entry.path)
                .is_ok_and(|place| statat(place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW).is_ok());
            if !there {
                unset.lacks_node(at);
            }
        }
    }
    unset
}

/// Sets everything, what is in a directory before the directory.
pub(super) fn set_metadata(
    root: &mut Root,
    manifest: &Manifest,
    unset: &mut Unset,
) -> Result<(), BuildError> {
    for (at, entry) in manifest.entries().iter().enumerate().rev() {
        let skip = matches!(entry.node, Node::HardLink(_)) || unset.of(at).is_some_and(|lack| lack.node);
        if skip {
            continue;
        }
        let place = root.place(&entry.path).map_err(|e| BuildError::io(&entry.path, e))?;
        let lack = set(place, entry).map_err(|e| BuildError::io(&entry.path, e))?;
        if lack.owner || lack.set_id || !lack.xattrs.is_empty() {
            unset.entries.insert(at, lack);
        }
    }
    Ok(())
}

fn set(place: Place<'_>, entry: &Entry) -> io::Result<Lack> {
    let (meta, Place { directory, name }) = (&entry.meta, place);
    let symlink = matches!(entry.node, Node::Symlink(_));
    let mut lack = Lack::default();

    // In this order: a change of owner clears set-id bits and capabilities, and attributes need a writable file.
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    let now = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (now.st_uid, now.st_gid) != (meta.uid, meta.gid) {
        match chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::INVAL) => {
                lack.owner = true;
                // One may still give a file to another group of one's own.
                let _ = chownat(directory, name, None, Some(gid), AtFlags::SYMLINK_NOFOLLOW);
            }
            Err(e) => return Err(e.into()),
        }
    }
    let path = place.proc_path();
    for (key, value) in &meta.xattrs {
        match xattr::set(&path, OsStr::from_bytes(key), value) {
            Ok(()) => {}
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => {
                    lack.xattrs.push(key.clone());
                }
                _ => return Err(e),
            },
        }
    }
    if !symlink {
        let mut mode = meta.mode;
        if lack.owner && mode & SET_ID != 0 && !matches!(entry.node, Node::Directory) {
            (mode, lack.set_id) = (mode & !SET_ID, true);
        }
        // Staging is ours alone, so the name cannot have become a symlink.
        chmodat(directory, name, Mode::from_raw_mode(mode.into()), AtFlags::empty())?;
    }
    let time = Timespec { tv_sec: meta.mtime.seconds, tv_nsec: meta.mtime.nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(lack)
}
