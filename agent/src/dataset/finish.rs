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
use super::verify;

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
        let lack = set(place, entry)?;
        if lack.owner || lack.set_id || !lack.xattrs.is_empty() {
            unset.entries.insert(at, lack);
        }
    }
    Ok(())
}

/// Sets an entry's metadata, and looks whether it took.
fn set(place: Place<'_>, entry: &Entry) -> Result<Lack, BuildError> {
    let failed = |e: io::Error| BuildError::io(&entry.path, e);
    // In this order: a change of owner clears set-id bits and capabilities, and attributes need a writable file.
    let owner = !set_owner(place, entry).map_err(failed)?;
    let xattrs = set_attributes(place, entry).map_err(failed)?;
    let mut lack = Lack { owner, xattrs, ..Lack::default() };
    verify::attributes(entry, place, &lack)?;
    lack.set_id = !set_mode(place, entry, lack.owner).map_err(failed)?;
    let meta = &entry.meta;
    let time = Timespec { tv_sec: meta.mtime.seconds, tv_nsec: meta.mtime.nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    let (directory, name) = (place.directory, place.name);
    utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(e.into()))?;
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(e.into()))?;
    verify::metadata(entry, &stat, &lack)?;
    Ok(lack)
}

/// False if it may not be set here.
fn set_owner(place: Place<'_>, entry: &Entry) -> io::Result<bool> {
    let Place { directory, name } = place;
    let now = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (now.st_uid, now.st_gid) == (entry.meta.uid, entry.meta.gid) {
        return Ok(true);
    }
    let (uid, gid) = (Uid::from_raw(entry.meta.uid), Gid::from_raw(entry.meta.gid));
    match chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::INVAL) => {
            // One may still give a file to another group of one's own.
            let _ = chownat(directory, name, None, Some(gid), AtFlags::SYMLINK_NOFOLLOW);
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

/// The names of those that may not be set here.
fn set_attributes(place: Place<'_>, entry: &Entry) -> io::Result<Vec<Vec<u8>>> {
    let (path, mut unset) = (place.proc_path(), Vec::new());
    for (key, value) in &entry.meta.xattrs {
        match xattr::set(&path, OsStr::from_bytes(key), value) {
            Ok(()) => {}
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => {
                    unset.push(key.clone());
                }
                _ => return Err(e),
            },
        }
    }
    Ok(unset)
}

/// False if set-id bits were left off.
fn set_mode(place: Place<'_>, entry: &Entry, owner_lacks: bool) -> io::Result<bool> {
    if matches!(entry.node, Node::Symlink(_)) {
        return Ok(true);
    }
    let mode = entry.meta.mode;
    let lends = owner_lacks && mode & SET_ID != 0 && entry.node != Node::Directory;
    let mode = if lends { mode & !SET_ID } else { mode };
    // Staging is ours alone, so the name cannot have become a symlink.
    chmodat(place.directory, place.name, Mode::from_raw_mode(mode.into()), AtFlags::empty())?;
    Ok(!lends)
}
