//! What a crash has left of work on trees is finished or undone when the agent starts, before anybody asks.

use jiff::Timestamp;
use schema::name::SnapshotName;

use super::step::{Left, Step};
use super::{InstanceError, Instances, Place, dataset};
use crate::audit::{Action, Actor, Record, Writes};
use crate::dataset::Dataset;
use crate::storage::Instance;
use crate::store::value::encode;
use crate::store::{Guard, Op, Revision, Txn, keys};

impl Instances {
    /// Finishes or undoes what was cut short. What cannot be now is told and tried again at the next start.
    pub async fn mend(&self, now: Timestamp) -> Result<(), InstanceError> {
        for left in self.left().await? {
            if let Err(error) = self.mend_one(&left, now).await {
                tracing::error!(%error, pool = %left.pool, project = %left.project, instance = %left.name, step = ?left.step,
                    "work on an instance that was cut short could not be mended");
            }
        }
        for (project, name, held) in self.all().await? {
            let tree = dataset((&project, &name), &held.instance.pool);
            if let Err(error) = self.drop_strays(&tree, &held.instance).await {
                tracing::warn!(%error, %tree, "the snapshots of an instance could not be looked through");
            }
        }
        Ok(())
    }

    async fn mend_one(&self, left: &Left, now: Timestamp) -> Result<(), InstanceError> {
        let place: Place<'_> = (&left.project, &left.name);
        let tree = dataset(place, &left.pool);
        let record = self.get(place.0, place.1).await?.filter(|held| held.instance.pool == left.pool);
        match (&left.step, record) {
            (Step::Remove, None) if self.pools.has(&tree) => self.pools.destroy(&tree).await?,
            (Step::Rename { project, name }, None) => {
                let old = dataset((project, name), &left.pool);
                if self.pools.has(&tree) && !self.pools.has(&old) {
                    self.pools.rename(&tree, &old).await?;
                }
            }
            (Step::RenameSnapshot { from, to }, Some(held)) => {
                let on_disk = self.pools.snapshots(&tree)?;
                let recorded = &held.instance.snapshots;
                if recorded.contains_key(from) && on_disk.contains(to) && !on_disk.contains(from) {
                    self.pools.rename_snapshot(&tree, to, from).await?;
                }
            }
            (Step::Restore { snapshot }, Some(held)) => {
                if let Ok(restored) = Self::as_of(&held.instance, snapshot) {
                    self.pools.restore_snapshot(&tree, snapshot).await?;
                    self.mended(place, held.revision, &restored, Action::InstanceRestored, now).await?;
                }
            }
            (Step::Refresh(refresh), Some(held)) => {
                if refresh.is_done(&self.pools.contents(&tree)?) {
                    let mut refreshed = held.instance;
                    refresh.put(&mut refreshed.snapshots);
                    self.mended(place, held.revision, &refreshed, Action::InstanceUpdated, now).await?;
                }
            }
            // The record came after all: the tree is its. Or there is no tree yet, and what a transfer has staged of it is
            // kept: begun again, it goes on from there. Or there is no record any more of which something could be told.
            (Step::Remove | Step::Rename { .. }, Some(_))
            | (Step::Remove | Step::RenameSnapshot { .. } | Step::Restore { .. } | Step::Refresh(_), None) => {
            }
        }
        self.end(&left.pool, place.0, place.1).await
    }

    /// Settles a step that nothing has come of, if it is still the one that is written down. Nobody may hold the tree.
    pub async fn settle(&self, left: &Left, now: Timestamp) -> Result<(), InstanceError> {
        if self.begun(&left.pool, &left.project, &left.name).await?.as_ref() == Some(&left.step) {
            self.mend_one(left, now).await?;
        }
        Ok(())
    }

    async fn mended(
        &self,
        place: Place<'_>,
        base: Revision,
        instance: &Instance,
        action: Action,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let key = keys::container(place.0, place.1);
        let guards = vec![Guard { key: key.clone(), modify_revision: base }];
        let txn = Txn { guards, ops: vec![Op::Put { key, value: encode(instance) }] };
        let writes = Writes::of(&txn);
        let revision = self.store.commit(txn).await?;
        let told = Record::new(Actor::agent(), action, now);
        self.audit.record(told.on(super::url(place)).committed(writes, revision));
        Ok(())
    }

    /// Lets go of snapshots on disk that the record does not have: they were being taken, or being deleted. Where one of
    /// the record's is missing on disk nothing is certain, and nothing goes.
    async fn drop_strays(&self, tree: &Dataset, instance: &Instance) -> Result<(), InstanceError> {
        let on_disk = self.pools.snapshots(tree)?;
        if let Some(missing) = instance.snapshots.keys().find(|name| !on_disk.contains(name)) {
            tracing::error!(%tree, snapshot = %missing, "a snapshot's tree is not there; it cannot be restored");
            return Ok(());
        }
        let strays = on_disk.iter().filter(|name| !instance.snapshots.contains_key(name));
        for stray in strays.collect::<Vec<&SnapshotName>>() {
            self.pools.delete_snapshot(tree, stray).await?;
        }
        Ok(())
    }
}
