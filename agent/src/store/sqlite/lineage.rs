//! The epoch, and how a restored copy is noticed.
//!
//! The epoch is in the store. Beside the store lies a mark: the epoch, the revision last committed, and which file
//! (inode and birth) it was committed to. On opening, the store gets a new epoch if the mark is missing, names another
//! epoch or another file, or has seen a later revision than the store knows. So an older copy put in the store's
//! place, with or without its mark, is not mistaken for what a plan was made against. What cannot be noticed is a
//! whole file system rolled back beneath us: its mark and its inodes roll back with it.
//!
//! The mark is written after each commit and never synced: it may lag behind after a power cut, which is harmless,
//! and cannot run ahead. A needless new epoch costs one more plan.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::{beside, file};
use crate::store::Revision;

/// The open mark of a store.
pub struct Mark {
    file: File,
    epoch: String,
    identity: String,
}

impl Mark {
    /// Notes that `revision` has been committed.
    pub fn note(&self, revision: Revision) -> std::io::Result<()> {
        let text = format!("{} {:020} {}\n", self.epoch, revision.0, self.identity);
        self.file.write_all_at(text.as_bytes(), 0)
    }
}

/// Compares the store with its mark: the mark, renewed, and the epoch that the store has from now on.
pub fn settle(path: &Path, stored: &str, revision: Revision) -> std::io::Result<(Mark, String)> {
    let identity = identity(path)?;
    let mut file = file::private(&beside(path, "-mark"))?;
    let mut text = String::new();
    // An unreadable mark (not UTF-8, too long) is one that does not match.
    let _ = (&mut file).take(512).read_to_string(&mut text);
    let mut parts = text.trim_end().splitn(3, ' ');
    let (epoch, seen, of) = (parts.next(), parts.next(), parts.next());
    let same = !stored.is_empty()
        && epoch == Some(stored)
        && of == Some(identity.as_str())
        && seen.and_then(|seen| seen.parse().ok()).is_some_and(|seen: u64| seen <= revision.0);
    let epoch = if same { stored.to_owned() } else { uuid::Uuid::new_v4().simple().to_string() };
    file.set_len(0)?;
    let mark = Mark { file, epoch: epoch.clone(), identity };
    mark.note(revision)?;
    Ok((mark, epoch))
}

fn identity(path: &Path) -> std::io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    // Not every file system keeps the birth; those tell files apart by inode alone.
    let born = metadata
        .created()
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |since| since.as_nanos());
    Ok(format!("{}@{born}", metadata.ino()))
}
