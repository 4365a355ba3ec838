//! Snapshots: frozen trees, each kept once by what is in it, and the references to them.
//!
//! A dataset's snapshots are one small file (`.snapshots/AREA/NAME`), written in one durable step, that says which
//! frozen tree each name stands for. A frozen tree (`.frozen/HASH/tree`, with its `manifest` beside it) is never
//! written to once its folder has that name; it goes when nothing refers to it any more and nobody reads it.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};

use schema::name::{PoolName, SnapshotName};
use serde::{Deserialize, Serialize};

use super::clone::{Alike, Copying};
use super::folder::{blocking, entries_of, make_dir, remove_later, replace_file, sync_all, sync_dir};
use super::hold::{Held, Use};
use super::removal::remove_tree;
use super::switch::{Known, Switch};
use super::{AREAS, PoolError, Pools};
use crate::dataset::Consistency;
use crate::dataset::Dataset;
use crate::dataset::chunk::Hash;
use crate::dataset::packed::Packed;
use crate::dataset::survey::{self, Manner, Survey, Unwatched, Watch};

/// The snapshots of one dataset, oldest first, as the file has them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct References {
    pub snapshots: Vec<Reference>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Reference {
    pub name: SnapshotName,
    pub tree: Hash,
}

impl References {
    fn read(path: &Path) -> Result<Self, PoolError> {
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|_| PoolError::Damaged(path.to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(PoolError::io(path, "read", e)),
        }
    }

    /// Durable when it returns.
    pub fn write(&self, path: &Path) -> Result<(), PoolError> {
        if self.snapshots.is_empty() {
            return match fs::remove_file(path) {
                Ok(()) => path.parent().map_or(Ok(()), sync_dir),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(e) => Err(PoolError::io(path, "removed", e)),
            };
        }
        let text = serde_json::to_vec(self).map_err(|e| PoolError::io(path, "written", e))?;
        replace_file(path, &text)
    }

    fn find(&self, name: &SnapshotName) -> Option<usize> {
        self.snapshots.iter().position(|reference| reference.name == *name)
    }
}

/// A frozen tree. While this is held it is not collected. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Frozen {
    kept: Arc<Kept>,
}

#[derive(Debug)]
struct Kept {
    pools: Pools,
    pool: PoolName,
    hash: Hash,
    folder: PathBuf,
}

impl Frozen {
    /// The hash of its manifest, which is its name.
    pub fn hash(&self) -> Hash {
        self.kept.hash
    }

    /// Where the tree is. Its files may have more names elsewhere: a copy takes what is linked to what from the manifest.
    pub fn tree(&self) -> PathBuf {
        self.kept.folder.join("tree")
    }

    /// What is in it.
    pub fn packed(&self) -> Result<Packed, PoolError> {
        let path = self.kept.folder.join("manifest");
        let bytes = fs::read(&path).map_err(|e| PoolError::io(&path, "read", e))?;
        Packed::decode_as(bytes, self.kept.hash).map_err(|_| PoolError::Damaged(path))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut reading = self.pools.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (self.pool.clone(), self.hash);
        if let Some(count) = reading.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                reading.remove(&key);
            }
        }
    }
}

impl Pools {
    /// The dataset's snapshots, oldest first.
    pub fn snapshots(&self, dataset: &Dataset) -> Result<Vec<SnapshotName>, PoolError> {
        Ok(self.references(dataset)?.snapshots.into_iter().map(|reference| reference.name).collect())
    }

    /// What is in each of the dataset's snapshots.
    pub fn contents(&self, dataset: &Dataset) -> Result<BTreeMap<SnapshotName, Hash>, PoolError> {
        let references = self.references(dataset)?.snapshots.into_iter();
        Ok(references.map(|reference| (reference.name, reference.tree)).collect())
    }

    /// A snapshot's tree, for as long as it is held.
    pub fn snapshot(&self, dataset: &Dataset, name: &SnapshotName) -> Result<Frozen, PoolError> {
        let _turn = self.turn();
        let references = self.references(dataset)?;
        let at = references.find(name).ok_or_else(|| no_such(dataset, name))?;
        self.frozen(&dataset.pool, references.snapshots[at].tree)
    }

    /// The frozen tree of this pool with that hash, if there is one: whatever it is a snapshot of.
    pub fn frozen_by_hash(&self, pool: &PoolName, hash: Hash) -> Result<Option<Frozen>, PoolError> {
        let _turn = self.turn();
        let there = self.pool(pool)?.join(".frozen").join(hash.to_string()).is_dir();
        if there { self.frozen(pool, hash).map(Some) } else { Ok(None) }
    }

    /// Keeps the tree as it is now under `name`. It must not be in anybody's hands that replaces it; if it changes while
    /// it is read nothing is kept.
    pub async fn take_snapshot(&self, dataset: &Dataset, name: &SnapshotName) -> Result<(), PoolError> {
        let (pools, dataset, name) = (self.clone(), dataset.clone(), name.clone());
        blocking(move || {
            let held = pools.hold(&dataset, Use::Reading)?;
            if pools.references(&dataset)?.find(&name).is_some() {
                return Err(PoolError::SnapshotExists { dataset, snapshot: name });
            }
            let survey = pools.survey(&dataset, Consistency::Strict, &Unwatched)?;
            for note in survey.notes() {
                tracing::warn!(%dataset, snapshot = %name, "{note}");
            }
            let frozen = match pools.frozen_by_hash(&dataset.pool, survey.packed().hash())? {
                Some(frozen) => {
                    survey.unchanged()?;
                    frozen
                }
                None => pools.freeze(&dataset, &survey)?,
            };
            let _turn = pools.turn();
            let mut references = pools.references(&dataset)?;
            if references.find(&name).is_some() {
                return Err(PoolError::SnapshotExists { dataset, snapshot: name });
            }
            references.snapshots.push(Reference { name, tree: frozen.hash() });
            references.write(&pools.references_at(&dataset)?)?;
            drop(held);
            Ok(())
        })
        .await
    }

    /// Makes the tree what it was when the snapshot was taken.
    pub async fn restore_snapshot(&self, dataset: &Dataset, name: &SnapshotName) -> Result<(), PoolError> {
        let (pools, dataset, name) = (self.clone(), dataset.clone(), name.clone());
        blocking(move || {
            let held = pools.hold(&dataset, Use::Replacing)?;
            let frozen = pools.snapshot(&dataset, &name)?;
            let (tree, packed) = (frozen.tree(), frozen.packed()?);
            let new = held.staging()?.join(format!("restored-{}", uuid::Uuid::new_v4()));
            Copying { from: &tree, packed: &packed, to: &new, like: None }
                .run()
                .inspect_err(|_| remove_later(new.clone()))?;
            let known = Known { packed, linked: Vec::new() };
            held.switch_in(Switch { known: Some(known), ..Switch::main(new) })
        })
        .await
    }

    /// A frozen tree like `frozen` in another pool; in its own, and where there is one like it, that costs nothing. It
    /// shares what it can with `before`, a frozen tree of that pool. To be used in a [`Switch`] while it is held.
    pub async fn keep_in(
        &self,
        to: &Dataset,
        frozen: &Frozen,
        before: Option<&Frozen>,
    ) -> Result<Frozen, PoolError> {
        let (pools, to, frozen, before) = (self.clone(), to.clone(), frozen.clone(), before.cloned());
        blocking(move || {
            if let Some(there) = pools.frozen_by_hash(&to.pool, frozen.hash())? {
                return Ok(there);
            }
            let (tree, packed) = (frozen.tree(), frozen.packed()?);
            pools.freeze_copy(&to, &tree, &packed, before.as_ref(), || Ok(()))
        })
        .await
    }

    /// Lets go of a snapshot; that it was not there is no error, so that a step can be run twice.
    pub async fn delete_snapshot(&self, dataset: &Dataset, name: &SnapshotName) -> Result<(), PoolError> {
        let (pools, dataset, name) = (self.clone(), dataset.clone(), name.clone());
        blocking(move || {
            {
                let _turn = pools.turn();
                let mut references = pools.references(&dataset)?;
                references.snapshots.retain(|reference| reference.name != name);
                references.write(&pools.references_at(&dataset)?)?;
            }
            pools.collect(&dataset.pool)
        })
        .await
    }

    pub async fn rename_snapshot(
        &self,
        dataset: &Dataset,
        from: &SnapshotName,
        to: &SnapshotName,
    ) -> Result<(), PoolError> {
        let (pools, dataset, from, to) = (self.clone(), dataset.clone(), from.clone(), to.clone());
        blocking(move || {
            let _turn = pools.turn();
            let mut references = pools.references(&dataset)?;
            let at = references.find(&from).ok_or_else(|| no_such(&dataset, &from))?;
            if references.find(&to).is_some_and(|other| other != at) {
                return Err(PoolError::SnapshotExists { dataset, snapshot: to });
            }
            references.snapshots[at].name = to;
            references.write(&pools.references_at(&dataset)?)
        })
        .await
    }

    /// Reads the dataset's tree, with what is remembered of it, and remembers what was seen.
    pub fn survey<W: Watch>(
        &self,
        dataset: &Dataset,
        consistency: Consistency,
        watch: &W,
    ) -> Result<Survey, PoolError> {
        let (tree, index) = (self.tree(dataset)?, self.index_at(dataset)?);
        let survey = Survey::read(&tree, Manner { consistency, index: Some(&index) }, watch)?;
        if !survey.as_known()
            && let Err(e) = survey.write_index(&index)
        {
            tracing::warn!(%dataset, reason = %e, "what was seen of a tree could not be kept; it is read again the next time");
        }
        Ok(survey)
    }

    /// The same, but every file is read, so that `watch` sees all of it.
    pub fn survey_anew<W: Watch>(
        &self,
        dataset: &Dataset,
        consistency: Consistency,
        watch: &W,
    ) -> Result<Survey, PoolError> {
        let (tree, index) = (self.tree(dataset)?, self.index_at(dataset)?);
        let survey = Survey::read(&tree, Manner { consistency, index: None }, watch)?;
        if let Err(e) = survey.write_index(&index) {
            tracing::warn!(%dataset, reason = %e, "what was seen of a tree could not be kept; it is read again the next time");
        }
        Ok(survey)
    }

    /// What was seen of the dataset's tree the last time, whatever has become of it since: a place to look for chunks.
    pub fn remembered(&self, dataset: &Dataset) -> Option<Packed> {
        survey::index::manifest(&self.index_at(dataset).ok()?)
    }

    pub(super) fn index_at(&self, dataset: &Dataset) -> Result<PathBuf, PoolError> {
        let owner = &dataset.owner;
        let folder = self.pool(&dataset.pool)?.join(".index").join(owner.area());
        make_dir(&folder)?;
        Ok(folder.join(owner.folder()))
    }

    /// Freezes a copy of the dataset's tree, as it was surveyed. It shares what it can with the newest snapshot.
    fn freeze(&self, dataset: &Dataset, survey: &Survey) -> Result<Frozen, PoolError> {
        let newest = self.references(dataset)?.snapshots.pop();
        let newest =
            newest.map(|newest| self.frozen_by_hash(&dataset.pool, newest.tree)).transpose()?.flatten();
        let tree = self.tree(dataset)?;
        self.freeze_copy(dataset, &tree, survey.packed(), newest.as_ref(), || Ok(survey.unchanged()?))
    }

    /// Copies a tree, sharing what it can with `before`, and freezes the copy if it is `sure` of it by then.
    fn freeze_copy(
        &self,
        dataset: &Dataset,
        tree: &Path,
        packed: &Packed,
        before: Option<&Frozen>,
        sure: impl FnOnce() -> Result<(), PoolError>,
    ) -> Result<Frozen, PoolError> {
        let before = match before.filter(|before| before.kept.pool == dataset.pool) {
            Some(before) => Some((before.tree(), before.packed()?)),
            None => None,
        };
        let like = before.as_ref().map(|(tree, packed)| Alike::of(tree, packed));
        let copy = self.bin(&dataset.pool)?;
        Copying { from: tree, packed, to: &copy, like }
            .run()
            .and_then(|()| sure())
            .and_then(|()| self.keep(dataset, &copy, Some(packed)))
            .inspect_err(|_| remove_later(copy.clone()))
    }

    /// Freezes `tree`, which is ours and on the pool's file system: it is moved, or removed if there is one like it. It
    /// is read, unless it is known what is in it.
    pub(super) fn keep(
        &self,
        dataset: &Dataset,
        tree: &Path,
        packed: Option<&Packed>,
    ) -> Result<Frozen, PoolError> {
        let packed = match packed {
            Some(packed) => packed.clone(),
            None => Survey::read(tree, Manner::default(), &Unwatched)?.packed().clone(),
        };
        let hash = packed.hash();
        let _turn = self.turn();
        let folder = self.pool(&dataset.pool)?.join(".frozen");
        make_dir(&folder)?;
        let place = folder.join(hash.to_string());
        if place.is_dir() {
            let bin = self.bin(&dataset.pool)?;
            fs::rename(tree, &bin).map_err(|e| PoolError::io(tree, "removed", e))?;
            remove_later(bin);
        } else {
            let new = folder.join(format!("new-{}", uuid::Uuid::new_v4()));
            make_dir(&new)?;
            super::folder::loosen(tree)?;
            let manifest = new.join("manifest");
            fs::write(&manifest, packed.bytes()).map_err(|e| PoolError::io(&manifest, "written", e))?;
            fs::rename(tree, new.join("tree")).map_err(|e| PoolError::io(tree, "kept", e))?;
            sync_all(&new)?;
            fs::rename(&new, &place).map_err(|e| PoolError::io(&place, "kept", e))?;
            sync_dir(&folder)?;
        }
        self.frozen(&dataset.pool, hash)
    }

    /// Removes the frozen trees of a pool that nothing refers to and nobody reads.
    pub(super) fn collect(&self, pool: &PoolName) -> Result<(), PoolError> {
        let _turn = self.turn();
        let base = self.pool(pool)?;
        let mut wanted = HashSet::new();
        for area in AREAS {
            let folder = base.join(".snapshots").join(area);
            if folder.is_dir() {
                for path in entries_of(&folder)? {
                    // A file that cannot be read refers to nobody knows what: then nothing is removed.
                    let references = References::read(&path)?;
                    wanted
                        .extend(references.snapshots.into_iter().map(|reference| reference.tree.to_string()));
                }
            }
        }
        {
            let reading = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
            wanted.extend(reading.keys().filter(|(of, _)| of == pool).map(|(_, hash)| hash.to_string()));
        }
        let frozen = base.join(".frozen");
        if !frozen.is_dir() {
            return Ok(());
        }
        for path in entries_of(&frozen)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !wanted.contains(&*name) {
                let bin = self.bin(pool)?;
                fs::rename(&path, &bin).map_err(|e| PoolError::io(&path, "removed", e))?;
                remove_later(bin);
            }
        }
        Ok(())
    }

    fn frozen(&self, pool: &PoolName, hash: Hash) -> Result<Frozen, PoolError> {
        let folder = self.pool(pool)?.join(".frozen").join(hash.to_string());
        if !folder.is_dir() {
            return Err(PoolError::Damaged(folder));
        }
        *self
            .frozen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((pool.clone(), hash))
            .or_insert(0) += 1;
        Ok(Frozen { kept: Arc::new(Kept { pools: self.clone(), pool: pool.clone(), hash, folder }) })
    }

    /// One at a time reads, changes and writes references, and collects.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn references(&self, dataset: &Dataset) -> Result<References, PoolError> {
        References::read(&self.references_at(dataset)?)
    }

    pub(super) fn references_at(&self, dataset: &Dataset) -> Result<PathBuf, PoolError> {
        let owner = &dataset.owner;
        let folder = self.pool(&dataset.pool)?.join(".snapshots").join(owner.area());
        make_dir(&folder)?;
        Ok(folder.join(owner.folder()))
    }

    /// Moves the references from one name to another: those of `to` are written before those of `from` go.
    pub(super) fn move_references(&self, from: &Dataset, to: &Dataset) -> Result<(), PoolError> {
        self.references(from)?.write(&self.references_at(to)?)
    }

    pub(super) fn drop_references(&self, dataset: &Dataset) -> Result<(), PoolError> {
        References::default().write(&self.references_at(dataset)?)
    }
}

impl Held {
    /// Freezes a copy of `tree`, which is in staging and goes on being built there. It shares what it can with `before`, and
    /// what was seen of the tree is kept beside it for the next time. To be used in a [`Switch`] while it is held.
    pub async fn freeze(&self, tree: &Path, before: Option<&Frozen>) -> Result<Frozen, PoolError> {
        let (pools, dataset) = (self.pools.clone(), self.dataset.clone());
        let (tree, before) = (tree.to_owned(), before.cloned());
        blocking(move || {
            let index = tree.with_extension("index");
            let manner = Manner { index: Some(&index), ..Manner::default() };
            let survey = Survey::read(&tree, manner, &Unwatched)?;
            survey.write_index(&index).map_err(|e| PoolError::io(&index, "written", e))?;
            if let Some(there) = pools.frozen_by_hash(&dataset.pool, survey.packed().hash())? {
                return Ok(there);
            }
            pools.freeze_copy(&dataset, &tree, survey.packed(), before.as_ref(), || Ok(survey.unchanged()?))
        })
        .await
    }
}

/// Removes references and indexes of trees that are not there: what a crash between two steps of a removal or renaming leaves.
pub(super) fn forget_strays(base: &Path) -> Result<(), PoolError> {
    for area in AREAS {
        for ours in [".snapshots", ".index"] {
            let folder = base.join(ours).join(area);
            make_dir(&folder)?;
            for path in entries_of(&folder)? {
                let stray = path.file_name().is_none_or(|name| !base.join(area).join(name).is_dir());
                if stray {
                    fs::remove_file(&path).map_err(|e| PoolError::io(&path, "removed", e))?;
                }
            }
        }
    }
    let frozen = base.join(".frozen");
    make_dir(&frozen)?;
    for path in entries_of(&frozen)? {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("new-")) {
            remove_tree(&path)?;
        }
    }
    Ok(())
}

fn no_such(dataset: &Dataset, name: &SnapshotName) -> PoolError {
    PoolError::NoSuchSnapshot { dataset: dataset.clone(), snapshot: name.clone() }
}
