//! The one step in which what was built takes the place of what was there: the tree and snapshots together.
//!
//! What is to be done is written down first (`STAGING/switching`), and that file's appearance, durable, is the step: a
//! crash before it leaves everything as it was, after it the next start does what it says. Doing it twice does no harm.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use schema::name::SnapshotName;
use serde::{Deserialize, Serialize};

use super::folder::{loosen, make_dir, remove_later, replace_file, set_mode, sync_all, sync_dir};
use super::removal::remove_tree;
use super::retire::{Successor, retire};
use super::snapshot::{Frozen, Reference, References};
use super::{Held, PoolError, Pools};
use crate::dataset::Dataset;
use crate::dataset::packed::Packed;
use crate::dataset::stock::Linked;
use crate::dataset::survey;
use crate::task::crash;

/// The file of a staging area that says what is being switched.
pub(super) const SWITCHING: &str = "switching";

/// What is put in place in one step.
#[derive(Debug, Default)]
pub struct Switch {
    /// The new tree, built in staging.
    pub main: Option<PathBuf>,
    /// What is in it, if all of that could be set here: then it need not be read the next time.
    pub known: Option<Known>,
    /// Snapshots that come, oldest first. One that is there under that name is replaced.
    pub snapshots: Vec<(SnapshotName, Arrived)>,
    /// Snapshots that go.
    pub drop: Vec<SnapshotName>,
}

/// What is in a tree that was built, and which of its files are also of the tree that was there.
#[derive(Debug)]
pub struct Known {
    pub packed: Packed,
    /// By number, ascending.
    pub linked: Vec<Linked>,
}

/// A snapshot's tree, as it comes.
#[derive(Debug)]
pub enum Arrived {
    /// Built in staging. It is read, to learn what is in it.
    Built(PathBuf),
    /// The same, where it is known what is in it and all of that could be set here.
    Known { tree: PathBuf, packed: Packed },
    /// The pool has a tree like it already.
    Kept(Frozen),
}

impl Switch {
    /// A new tree, and nothing else.
    pub fn main(tree: PathBuf) -> Self {
        Self { main: Some(tree), ..Self::default() }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Intent {
    main: Option<NewTree>,
    snapshots: Vec<Reference>,
}

/// A tree to be switched in: where it is within staging, and what tells whether it has been.
#[derive(Debug, Serialize, Deserialize)]
struct NewTree {
    at: PathBuf,
    inode: u64,
    mode: Option<u32>,
}

impl Held {
    /// Makes everything in staging durable, then does all of `switch` in one step. The staging area goes with it, in its
    /// own time, and so does the tree that was there.
    pub fn switch_in(&self, switch: Switch) -> Result<(), PoolError> {
        // A tree that was frozen and that nothing refers to goes, whatever came between.
        let collect = || self.pools.collect(&self.dataset.pool);
        match self.in_one_step(switch) {
            Ok(()) => collect(),
            Err(error) => {
                let _ =
                    collect().inspect_err(|e| tracing::warn!(reason = %e, "frozen trees were left behind"));
                Err(error)
            }
        }
    }

    fn in_one_step(&self, switch: Switch) -> Result<(), PoolError> {
        let staging = self.staging()?;
        self.fits(&switch)?;
        let mut frozen = Vec::new();
        for (name, arrived) in switch.snapshots {
            let kept = match arrived {
                Arrived::Built(tree) => self.pools.keep(&self.dataset, &tree, None)?,
                Arrived::Known { tree, packed } => self.pools.keep(&self.dataset, &tree, Some(&packed))?,
                Arrived::Kept(kept) => kept,
            };
            frozen.push((name, kept));
        }
        let main = match &switch.main {
            Some(tree) => Some(NewTree {
                at: tree.strip_prefix(&staging).map_err(|_| PoolError::Foreign(tree.clone()))?.to_owned(),
                inode: fs::metadata(tree).map_err(|e| PoolError::io(tree, "read", e))?.ino(),
                mode: loosen(tree)?,
            }),
            None => None,
        };
        sync_all(&staging)?;
        crash::point("transfer-before-switch");
        let switched = survey::now();
        let turn = self.pools.turn();
        let mut snapshots = self.pools.references(&self.dataset)?.snapshots;
        let gone: BTreeSet<&SnapshotName> =
            switch.drop.iter().chain(frozen.iter().map(|(name, _)| name)).collect();
        snapshots.retain(|reference| !gone.contains(&reference.name));
        snapshots.extend(
            frozen.iter().map(|(name, frozen)| Reference { name: name.clone(), tree: frozen.hash() }),
        );
        let intent = Intent { main, snapshots };
        let text = serde_json::to_vec(&intent).map_err(|e| PoolError::io(&staging, "written", e))?;
        replace_file(&staging.join(SWITCHING), &text)?;
        let place = self.pools.place(&self.dataset)?;
        carry_out(&intent, &staging, &place, &self.pools.references_at(&self.dataset)?)?;
        let bin = self.pools.bin(&self.dataset.pool)?;
        fs::rename(&staging, &bin).map_err(|e| PoolError::io(&staging, "removed", e))?;
        staging.parent().map_or(Ok(()), sync_dir)?;
        match switch.known.filter(|_| switch.main.is_some()) {
            Some(known) => {
                let index = self.pools.index_at(&self.dataset)?;
                retire(bin, Successor { tree: place, known, index, since: switched });
            }
            None => remove_later(bin),
        }
        drop(turn);
        Ok(())
    }
}

impl Held {
    /// Refuses a tree with more data than there is to be room for.
    fn fits(&self, switch: &Switch) -> Result<(), PoolError> {
        let (Some(size), Some(tree)) = (self.size, &switch.main) else { return Ok(()) };
        let data = switch.known.as_ref().map_or_else(|| data_of(tree), |known| known.packed.sums().data);
        within(&self.dataset, size, data)
    }
}

impl Pools {
    /// Refuses a snapshot with more data than its dataset is to have room for. It reads.
    pub fn snapshot_fits(
        &self,
        dataset: &Dataset,
        snapshot: &SnapshotName,
        size: Option<u64>,
    ) -> Result<(), PoolError> {
        match size {
            Some(size) => within(dataset, size, self.snapshot(dataset, snapshot)?.packed()?.sums().data),
            None => Ok(()),
        }
    }
}

fn within(dataset: &Dataset, size: u64, data: u64) -> Result<(), PoolError> {
    if data <= size { Ok(()) } else { Err(PoolError::TooSmall { dataset: dataset.clone(), size, data }) }
}

/// Bytes of data in the files of a tree: each file once however many names it has, and holes not counted.
fn data_of(tree: &Path) -> u64 {
    let mut seen = BTreeSet::new();
    let files = walkdir::WalkDir::new(tree).into_iter().flatten().filter_map(|entry| entry.metadata().ok());
    files
        .filter(|meta| meta.is_file() && (meta.nlink() < 2 || seen.insert((meta.dev(), meta.ino()))))
        .map(|meta| meta.len().min(meta.blocks() * 512))
        .sum()
}

/// Does what an intent says, as far as it has not been done.
fn carry_out(intent: &Intent, staging: &Path, place: &Path, references: &Path) -> Result<(), PoolError> {
    if let Some(new) = &intent.main {
        let inode = fs::metadata(place).map(|meta| meta.ino());
        if inode.ok() != Some(new.inode) {
            exchange(&staging.join(&new.at), place, staging)?;
        }
        crash::point("transfer-after-switch");
        if let Some(mode) = new.mode {
            set_mode(place, mode)?;
        }
        place.parent().map_or(Ok(()), sync_dir)?;
        sync_dir(staging)?;
    }
    References { snapshots: intent.snapshots.clone() }.write(references)
}

fn exchange(new: &Path, place: &Path, staging: &Path) -> Result<(), PoolError> {
    if !place.exists() {
        return fs::rename(new, place).map_err(|e| PoolError::io(place, "switched in", e));
    }
    loosen(place)?;
    match renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS) => {
            let aside = staging.join("aside");
            fs::rename(place, &aside).map_err(|e| PoolError::io(place, "set aside", e))?;
            fs::rename(new, place).map_err(|e| PoolError::io(place, "switched in", e))
        }
        Err(e) => Err(PoolError::io(place, "switched in", e)),
    }
}

/// Finishes, at a start, what a staging area says was being switched. True if there was something.
pub(super) fn finish(staging: &Path, place: &Path, references: &Path) -> Result<bool, PoolError> {
    let path = staging.join(SWITCHING);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(PoolError::io(&path, "read", e)),
    };
    let intent: Intent = serde_json::from_slice(&text).map_err(|_| PoolError::Damaged(path))?;
    references.parent().map_or(Ok(()), make_dir)?;
    carry_out(&intent, staging, place, references)?;
    remove_tree(staging)?;
    Ok(true)
}
