//! Instances and their trees together: what a surface is asked for, from beginning to end.
//!
//! Whoever calls holds the instance ([`Instances::hold`]) and hands over the hold, so that it lasts as long as the work.
//! None of it may be dropped half done: run it in a task of its own.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use jiff::Timestamp;
use schema::name::SnapshotName;

use super::config::{self, fit};
use super::step::Step;
use super::{Busy, InstanceError, Instances, Place, dataset};
use crate::authorize::Permit;
use crate::dataset::pool::{Arrived, Switch, Use};
use crate::dataset::{Dataset, PoolError};
use crate::storage::{Instance, InstanceSnapshot, SnapshotTimes};

/// What every instance's tree holds (LXD: what the instance sees as `/`).
const ROOTFS: &str = "rootfs";
/// What stays as it is when an instance is restored.
const OWN_KEYS: [&str; 1] = ["volatile.uuid"];

impl Instances {
    /// Makes an instance with nothing in it.
    pub async fn make_empty(
        &self,
        permit: &Permit,
        place: Place<'_>,
        instance: Instance,
        busy: Busy,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let _busy = busy;
        if self.get(place.0, place.1).await?.is_some() {
            return Err(InstanceError::Exists(place.1.clone()));
        }
        let tree = dataset(place, &instance.pool);
        self.make_room(place, &tree).await?;
        self.begin(&tree.pool, place.0, place.1, &Step::Remove).await?;
        let made = async {
            self.pools.ensure(&tree).await?;
            let root = self.pools.tree(&tree)?.join(ROOTFS);
            blocking(root.clone(), "created", move || fs::DirBuilder::new().mode(0o755).create(root)).await?;
            self.create(permit, place.0, place.1, instance, now).await
        };
        match made.await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.sweep(place, &tree).await;
                Err(error)
            }
        }
    }

    /// Deletes an instance with its snapshots and its trees.
    pub async fn remove(
        &self,
        permit: &Permit,
        place: Place<'_>,
        busy: Busy,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let _busy = busy;
        let there = self.find(place.0, place.1).await?;
        let tree = dataset(place, &there.instance.pool);
        // Somebody may be copying it. The hold itself is taken again by what destroys.
        drop(self.pools.hold(&tree, Use::Replacing)?);
        self.delete(permit, place.0, place.1, now).await?;
        self.sweep(place, &tree).await;
        Ok(())
    }

    /// Gives an instance another name, or takes it to another project, within its pool. `instance` is what it is then.
    pub async fn rename(
        &self,
        permit: &Permit,
        from: Place<'_>,
        to: Place<'_>,
        instance: &Instance,
        busy: (Busy, Busy),
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let _busy = busy;
        let there = self.find(from.0, from.1).await?;
        if self.get(to.0, to.1).await?.is_some() {
            return Err(InstanceError::Exists(to.1.clone()));
        }
        let pool = &there.instance.pool;
        let (old, new) = (dataset(from, pool), dataset(to, pool));
        self.make_room(to, &new).await?;
        let step = Step::Rename { project: from.0.clone(), name: from.1.clone() };
        self.begin(pool, to.0, to.1, &step).await?;
        if let Err(error) = self.pools.rename(&old, &new).await {
            self.end(pool, to.0, to.1).await?;
            return Err(error.into());
        }
        match self.relocate(permit, from, to, instance, now).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // If this fails too, the next start does it.
                self.pools.rename(&new, &old).await?;
                self.end(pool, to.0, to.1).await?;
                Err(error)
            }
        }
    }

    /// Takes an instance to another pool, with its snapshots, and perhaps to another name or project. `instance` is what
    /// it is then, its new pool included.
    pub async fn change_pool(
        &self,
        permit: &Permit,
        from: Place<'_>,
        to: Place<'_>,
        instance: &Instance,
        busy: (Busy, Option<Busy>),
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let _busy = busy;
        let there = self.find(from.0, from.1).await?;
        if from != to && self.get(to.0, to.1).await?.is_some() {
            return Err(InstanceError::Exists(to.1.clone()));
        }
        let (old, new) = (dataset(from, &there.instance.pool), dataset(to, &instance.pool));
        self.make_room(to, &new).await?;
        self.begin(&new.pool, to.0, to.1, &Step::Remove).await?;
        let moved = async {
            self.copy(&old, &new).await?;
            self.relocate(permit, from, to, instance, now).await
        };
        match moved.await {
            Ok(()) => {
                self.sweep(from, &old).await;
                Ok(())
            }
            Err(error) => {
                self.sweep(to, &new).await;
                Err(error)
            }
        }
    }

    /// Copies a tree with its snapshots to where there is none yet.
    async fn copy(&self, from: &Dataset, to: &Dataset) -> Result<(), InstanceError> {
        let (_source, target) = (self.pools.hold(from, Use::Reading)?, self.pools.hold(to, Use::Replacing)?);
        let staging = target.staging()?;
        let mut switch = Switch::default();
        let mut before = None;
        for name in self.pools.snapshots(from)? {
            let kept = self.pools.keep_in(to, &self.pools.snapshot(from, &name)?, before.as_ref()).await?;
            before = Some(kept.clone());
            switch.snapshots.push((name, Arrived::Kept(kept)));
        }
        let main = staging.join("main");
        self.pools.clone_tree(&self.pools.tree(from)?, &main).await?;
        switch.main = Some(main);
        let switched = tokio::task::spawn_blocking(move || target.switch_in(switch)).await;
        switched.map_err(|error| InstanceError::Crashed(error.to_string()))??;
        Ok(())
    }

    /// Takes a snapshot of an instance.
    pub async fn take_snapshot(
        &self,
        permit: &Permit,
        place: Place<'_>,
        snapshot: &SnapshotName,
        expires_at: Option<Timestamp>,
        busy: Busy,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let _busy = busy;
        let there = self.find(place.0, place.1).await?.instance;
        if there.snapshots.contains_key(snapshot) {
            return Err(InstanceError::SnapshotExists(place.1.clone(), snapshot.clone()));
        }
        let tree = dataset(place, &there.pool);
        // One that is in no record was not taken whole, or is on its way out.
        self.pools.delete_snapshot(&tree, snapshot).await?;
        self.pools.take_snapshot(&tree, snapshot).await?;
        let times = SnapshotTimes { created_at: now, expires_at };
        let taken = InstanceSnapshot { shape: there.shape, times };
        match self.put_snapshot(permit, place, snapshot, taken, now).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.pools.delete_snapshot(&tree, snapshot).await?;
                Err(error)
            }
        }
    }

    /// Makes an instance, its config and its tree, what it was when the snapshot was taken.
    pub async fn restore(
        &self,
        permit: &Permit,
        place: Place<'_>,
        snapshot: &SnapshotName,
        busy: Busy,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let _busy = busy;
        let there = self.find(place.0, place.1).await?;
        let restored = restored(&there.instance, snapshot)?;
        // It may be from elsewhere, or of a time when there was more here.
        self.check(&restored.shape).await?;
        let tree = dataset(place, &there.instance.pool);
        self.pools.snapshot_fits(&tree, snapshot, config::size(&restored.shape))?;
        self.begin(&tree.pool, place.0, place.1, &Step::Restore { snapshot: snapshot.clone() }).await?;
        if let Err(error) = self.pools.restore_snapshot(&tree, snapshot).await {
            self.end(&tree.pool, place.0, place.1).await?;
            return Err(error.into());
        }
        self.restored(permit, place.0, place.1, there.revision, &restored, now).await?;
        self.end(&tree.pool, place.0, place.1).await
    }

    /// Deletes a snapshot with its tree.
    pub async fn remove_snapshot(
        &self,
        permit: &Permit,
        place: Place<'_>,
        snapshot: &SnapshotName,
        busy: Busy,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let _busy = busy;
        let pool = self.find(place.0, place.1).await?.instance.pool;
        self.delete_snapshot(permit, place, snapshot, now).await?;
        if let Err(error) = self.pools.delete_snapshot(&dataset(place, &pool), snapshot).await {
            tracing::warn!(%error, %snapshot, instance = %place.1, "what a deleted snapshot held goes at the next start");
        }
        Ok(())
    }

    /// Gives a snapshot another name.
    pub async fn move_snapshot(
        &self,
        permit: &Permit,
        place: Place<'_>,
        (from, to): (&SnapshotName, &SnapshotName),
        busy: Busy,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let _busy = busy;
        let there = self.find(place.0, place.1).await?.instance;
        if !there.snapshots.contains_key(from) {
            return Err(InstanceError::NoSuchSnapshot);
        }
        if there.snapshots.contains_key(to) {
            return Err(InstanceError::SnapshotExists(place.1.clone(), to.clone()));
        }
        let tree = dataset(place, &there.pool);
        self.pools.delete_snapshot(&tree, to).await?;
        let step = Step::RenameSnapshot { from: from.clone(), to: to.clone() };
        self.begin(&tree.pool, place.0, place.1, &step).await?;
        self.pools.rename_snapshot(&tree, from, to).await?;
        let renamed = self.rename_snapshot(permit, place, from, to, now).await;
        if renamed.is_err() {
            self.pools.rename_snapshot(&tree, to, from).await?;
        }
        self.end(&tree.pool, place.0, place.1).await?;
        renamed
    }

    /// Makes sure that nothing is where a tree is to be: what was on its way out goes now, and what is nobody's is told.
    pub async fn make_room(&self, place: Place<'_>, tree: &Dataset) -> Result<(), InstanceError> {
        if self.begun(&tree.pool, place.0, place.1).await? == Some(Step::Remove) {
            // What is staged of it, and nothing more, is a transfer's that may go on.
            if self.pools.has(tree) {
                self.pools.destroy(tree).await?;
            }
            self.end(&tree.pool, place.0, place.1).await?;
        }
        if self.pools.has(tree) { Err(InstanceError::InTheWay(tree.clone())) } else { Ok(()) }
    }

    /// Removes a tree that is no record's, and that it is written down of. What cannot be removed now goes at the next
    /// start.
    pub async fn sweep(&self, place: Place<'_>, tree: &Dataset) {
        let swept = async {
            self.pools.destroy(tree).await?;
            self.end(&tree.pool, place.0, place.1).await
        };
        if let Err(error) = swept.await {
            tracing::warn!(%error, %tree, "a tree that is not needed any more goes at the next start");
        }
    }

    /// The step of making an instance what it was at a snapshot, on its record alone.
    pub(super) fn as_of(instance: &Instance, snapshot: &SnapshotName) -> Result<Instance, InstanceError> {
        restored(instance, snapshot)
    }
}

fn restored(instance: &Instance, snapshot: &SnapshotName) -> Result<Instance, InstanceError> {
    let of = instance.snapshots.get(snapshot).ok_or(InstanceError::NoSuchSnapshot)?;
    let mut restored = Instance { shape: of.shape.clone(), ..instance.clone() };
    for key in OWN_KEYS {
        if let Some(own) = instance.shape.config.get(key) {
            restored.shape.config.insert(key.to_owned(), own.clone());
        }
    }
    fit(&mut restored.shape, &instance.shape, &instance.pool);
    Ok(restored)
}

async fn blocking(
    path: PathBuf,
    doing: &'static str,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), InstanceError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| InstanceError::Crashed(error.to_string()))?;
    done.map_err(|source| InstanceError::Pool(PoolError::Io { path, doing, source }))
}
