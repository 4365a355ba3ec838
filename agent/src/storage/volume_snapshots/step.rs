//! What is being done on disk to a volume and to its snapshots, written down before it is done.
//!
//! A step goes in the commit that records what it has come to. One that is still there when the agent starts was cut
//! short, and is finished or undone. A tree without a record and without a step is nobody's to remove.

use jiff::Timestamp;
use schema::name::{PoolName, SnapshotName, VolumeName};
use schema::record::RecordKey;
use serde::{Deserialize, Serialize};

use super::{SnapshotError, VolumeSnapshots, url};
use crate::audit::{Action, Actor, Record};
use crate::dataset::Dataset;
use crate::storage::VolumeSnapshot;
use crate::storage::refresh::Refresh;
use crate::store::value::{decode, encode};
use crate::store::{CommitError, Entry, Guard, Op, Revision, Txn, keys};

/// What is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A volume is being made with what is in it: unless it is declared by then, its tree goes.
    Make,
    /// A volume's snapshots are being brought to those of another: their records follow what is on disk.
    Refresh(Refresh<VolumeSnapshot>),
    /// A snapshot is being given another name: it has the old one again unless the record has followed.
    RenameSnapshot { from: SnapshotName, to: SnapshotName },
}

/// A step that was written down, as it was then.
#[derive(Debug, Clone)]
pub struct Begun {
    pool: PoolName,
    volume: VolumeName,
    key: String,
    at: Revision,
}

/// Where it is said that a volume arrives: whoever holds its tree writes it.
pub fn arriving(pool: &PoolName, volume: &VolumeName) -> String {
    keys::volume_step(pool, volume, "arriving")
}

/// Where it is said that a snapshot is renamed: whoever has the turn of the volume's snapshots writes it.
pub(super) fn renaming(pool: &PoolName, volume: &VolumeName) -> String {
    keys::volume_step(pool, volume, "renaming")
}

impl VolumeSnapshots {
    /// Writes down what is about to be done. Of a volume that is to be made, only once its place is held and empty.
    pub async fn begin(
        &self,
        pool: &PoolName,
        volume: &VolumeName,
        step: &Step,
    ) -> Result<Begun, SnapshotError> {
        let key = match step {
            Step::Make | Step::Refresh(_) => arriving(pool, volume),
            Step::RenameSnapshot { .. } => renaming(pool, volume),
        };
        let put = Op::Put { key: key.clone(), value: encode(step) };
        let at = self.store.commit(Txn { guards: vec![], ops: vec![put] }).await?;
        Ok(Begun { pool: pool.clone(), volume: volume.clone(), key, at })
    }

    /// Nothing has come of it, and there is nothing to be put right.
    pub async fn end(&self, begun: &Begun) -> Result<(), SnapshotError> {
        self.forget(&begun.key, begun.at, Vec::new()).await
    }

    /// Finishes what has become of it on disk, or undoes it, unless it is recorded by now. Nobody may hold the tree.
    pub async fn settle(&self, begun: &Begun, now: Timestamp) -> Result<(), SnapshotError> {
        match self.store.get(&begun.key).await? {
            Some(entry) if entry.modify_revision == begun.at => {
                self.mend_one(&begun.pool, &begun.volume, &entry, now).await
            }
            _ => Ok(()),
        }
    }

    /// Puts right what a crash left, when the agent starts.
    pub async fn mend(&self, now: Timestamp) -> Result<(), SnapshotError> {
        for entry in self.store.range(keys::VOLUME_STEP).await?.entries {
            let parts: Vec<&str> = entry.key[keys::VOLUME_STEP.len()..].split('/').collect();
            if let [pool, volume, _] = parts[..]
                && let (Ok(pool), Ok(volume)) = (pool.parse(), volume.parse())
                && let Err(error) = self.mend_one(&pool, &volume, &entry, now).await
            {
                tracing::error!(%error, %pool, %volume, "work on a volume that was cut short could not be mended");
            }
        }
        for ((pool, volume), all) in self.every().await? {
            let dataset = Dataset::volume(&pool, &volume);
            let there = self.pools.snapshots(&dataset).unwrap_or_default();
            let lost: Vec<&SnapshotName> = all.keys().filter(|name| !there.contains(name)).collect();
            let unlisted: Vec<&SnapshotName> = there.iter().filter(|name| !all.contains_key(name)).collect();
            if !lost.is_empty() && !unlisted.is_empty() {
                tracing::error!(
                    %pool, %volume, ?lost, ?unlisted,
                    "the snapshots on disk are not those that are listed; they are left alone"
                );
                continue;
            }
            for name in unlisted {
                tracing::warn!(%pool, %volume, %name, "a snapshot that was not finished is removed");
                self.pools.delete_snapshot(&dataset, name).await?;
            }
        }
        Ok(())
    }

    async fn mend_one(
        &self,
        pool: &PoolName,
        volume: &VolumeName,
        entry: &Entry,
        now: Timestamp,
    ) -> Result<(), SnapshotError> {
        let turn = self.turn(&(pool.clone(), volume.clone()));
        let _turn = turn.lock().await;
        let tree = Dataset::volume(pool, volume);
        let declared = keys::declared(&RecordKey::Volume { pool: pool.clone(), volume: volume.clone() });
        let declared = self.store.get(&declared).await?.is_some();
        let mut besides = Vec::new();
        match decode::<Step>(entry)? {
            Step::Make if !declared => {
                if self.pools.has(&tree) {
                    tracing::warn!(%tree, "what has come of a volume that was not recorded is removed");
                    self.pools.destroy(&tree).await?;
                }
                // They may have been said before the volume was.
                besides.push(Op::Delete { key: keys::volume_snapshots(pool, volume) });
            }
            Step::Refresh(refresh) if declared => {
                if refresh.is_done(&self.pools.contents(&tree)?) {
                    let changed = self.change(pool, volume, Vec::new(), |all| {
                        refresh.put(all);
                        Ok(())
                    });
                    let (writes, revision) = changed.await?;
                    let told = Record::new(Actor::agent(), Action::StorageVolumeUpdated, now);
                    self.audit.record(told.on(url(pool, volume, None)).committed(writes, revision));
                }
            }
            Step::RenameSnapshot { from, to } if declared => {
                let (all, on_disk) = (self.get(pool, volume).await?, self.pools.snapshots(&tree)?);
                let renamed = on_disk.contains(&to) && !on_disk.contains(&from);
                if renamed && all.contains_key(&from) && !all.contains_key(&to) {
                    self.pools.rename_snapshot(&tree, &to, &from).await?;
                }
            }
            Step::Make | Step::Refresh(_) | Step::RenameSnapshot { .. } => {}
        }
        self.forget(&entry.key, entry.modify_revision, besides).await
    }

    async fn forget(&self, key: &str, at: Revision, besides: Vec<Op>) -> Result<(), SnapshotError> {
        let guards = vec![Guard { key: key.to_owned(), modify_revision: at }];
        let mut ops = besides;
        ops.push(Op::Delete { key: key.to_owned() });
        match self.store.commit(Txn { guards, ops }).await {
            // Somebody has, or has begun anew.
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::slice;
    use std::sync::Arc;

    use schema::kind::volume::Volume;
    use schema::record::Record as Declaration;

    use super::*;
    use crate::audit::Audit;
    use crate::authorize::{Entitlement, Entity, Permit, decide};
    use crate::dataset::Pools;
    use crate::dataset::pool::{Arrived, Switch, Use};
    use crate::storage::SnapshotTimes;
    use crate::storage::volume_snapshots::{All, Wanted};
    use crate::store::sqlite::SqliteStore;
    use crate::store::value::Declared;
    use crate::task::Tasks;
    use crate::trust::Caller;
    use crate::trust::policy::Policy;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    struct Bench {
        snapshots: Arc<VolumeSnapshots>,
        tree: Dataset,
        pool: PoolName,
        volume: VolumeName,
        permit: Permit,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let pools = Pools::open(folder.path()).unwrap();
            let (pool, volume): (PoolName, VolumeName) = ("default".parse().unwrap(), "dst".parse().unwrap());
            let permit = decide(&Caller::local(0), Entitlement::Admin, Entity::Server, &Policy::default());
            let store = SqliteStore::scratch();
            Self {
                tree: Dataset::volume(&pool, &volume),
                snapshots: VolumeSnapshots::new(store, pools, Audit::none(), &Tasks::new()),
                pool,
                volume,
                permit: permit.unwrap(),
                _folder: folder,
            }
        }

        async fn declare(&self) {
            let key = RecordKey::Volume { pool: self.pool.clone(), volume: self.volume.clone() };
            let value = encode(&Declared::by_hand(Declaration::Volume(Volume::default())));
            let put = Op::Put { key: keys::declared(&key), value };
            self.snapshots.store.commit(Txn { guards: vec![], ops: vec![put] }).await.unwrap();
        }

        async fn take(&self, text: &str, name: &SnapshotName) {
            self.snapshots.pools.ensure(&self.tree).await.unwrap();
            fs::write(self.snapshots.pools.tree(&self.tree).unwrap().join("file"), text).unwrap();
            let wanted = Wanted { name: Some(name.clone()), ..Wanted::default() };
            self.snapshots.create(&self.permit, &self.pool, &self.volume, wanted, NOW).await.unwrap();
        }

        /// Puts a tree and a snapshot in place, as a transfer does.
        fn switch(&self, text: &str, take: &SnapshotName, drop: Vec<SnapshotName>) {
            let held = self.snapshots.pools.hold(&self.tree, Use::Replacing).unwrap();
            let staging = held.staging().unwrap();
            let mut built = Vec::new();
            for name in ["main", "snapshot"] {
                let tree = staging.join(name);
                fs::create_dir(&tree).unwrap();
                fs::write(tree.join("file"), text).unwrap();
                built.push(tree);
            }
            let snapshots = vec![(take.clone(), Arrived::Built(built.remove(1)))];
            held.switch_in(Switch { snapshots, drop, ..Switch::main(built.remove(0)) }).unwrap();
        }

        async fn begin(&self, step: &Step) -> Begun {
            self.snapshots.begin(&self.pool, &self.volume, step).await.unwrap()
        }

        async fn listed(&self) -> All {
            self.snapshots.get(&self.pool, &self.volume).await.unwrap()
        }

        async fn steps(&self) -> usize {
            self.snapshots.store.range(keys::VOLUME_STEP).await.unwrap().entries.len()
        }
    }

    fn at(second: i64) -> VolumeSnapshot {
        let created_at = Timestamp::from_second(second).unwrap();
        let times = SnapshotTimes { created_at, expires_at: None };
        VolumeSnapshot { description: String::new(), config: BTreeMap::new(), times }
    }

    fn names() -> (SnapshotName, SnapshotName) {
        ("old".parse().unwrap(), "new".parse().unwrap())
    }

    #[tokio::test]
    async fn snapshots_that_were_switched_in_have_their_own_records_after_a_crash() {
        let (bench, (old, new)) = (Bench::new(), names());
        bench.declare().await;
        bench.take("one", &old).await;
        let contents = bench.snapshots.pools.contents(&bench.tree).unwrap();
        let take = BTreeMap::from([(new.clone(), at(7))]);
        let step = Step::Refresh(Refresh::new(contents, take, vec![old.clone()]));

        // Cut off before the switch: all is as it was.
        bench.begin(&step).await;
        bench.snapshots.mend(NOW).await.unwrap();
        assert_eq!(bench.listed().await.into_keys().collect::<Vec<_>>(), slice::from_ref(&old));
        assert_eq!(bench.steps().await, 0);

        // After it: what is there is listed as what it is.
        bench.begin(&step).await;
        bench.switch("two", &new, vec![old.clone()]);
        bench.snapshots.mend(NOW).await.unwrap();
        assert_eq!(bench.listed().await, BTreeMap::from([(new.clone(), at(7))]));
        assert_eq!(bench.snapshots.pools.snapshots(&bench.tree).unwrap(), slice::from_ref(&new));
        assert_eq!(bench.steps().await, 0);

        // Where nothing was written down nothing is guessed.
        bench.switch("three", &old, vec![new.clone()]);
        bench.snapshots.mend(NOW).await.unwrap();
        assert_eq!(bench.listed().await, BTreeMap::from([(new, at(7))]));
        assert_eq!(bench.snapshots.pools.snapshots(&bench.tree).unwrap(), [old]);
    }

    #[tokio::test]
    async fn a_renaming_that_was_cut_short_is_undone() {
        let (bench, (old, new)) = (Bench::new(), names());
        bench.declare().await;
        bench.take("one", &old).await;
        bench.begin(&Step::RenameSnapshot { from: old.clone(), to: new.clone() }).await;
        bench.snapshots.pools.rename_snapshot(&bench.tree, &old, &new).await.unwrap();
        bench.snapshots.mend(NOW).await.unwrap();
        assert_eq!(bench.snapshots.pools.snapshots(&bench.tree).unwrap(), slice::from_ref(&old));
        let place = (&bench.pool, &bench.volume);
        bench.snapshots.rename(&bench.permit, place.0, place.1, &old, &new, NOW).await.unwrap();
        assert_eq!(bench.listed().await.into_keys().collect::<Vec<_>>(), [new]);
        assert_eq!(bench.steps().await, 0);
    }

    #[tokio::test]
    async fn a_volume_that_was_not_recorded_goes_and_data_that_is_nobodys_stays() {
        let (bench, (_, new)) = (Bench::new(), names());
        let begun = bench.begin(&Step::Make).await;
        bench.switch("one", &new, vec![]);
        let all = BTreeMap::from([(new.clone(), at(7))]);
        bench.snapshots.set(&bench.permit, &bench.pool, &bench.volume, all, NOW).await.unwrap();
        bench.snapshots.settle(&begun, NOW).await.unwrap();
        assert!(!bench.snapshots.pools.has(&bench.tree));
        assert_eq!((bench.listed().await.len(), bench.steps().await), (0, 0));

        // No step: a volume that was forgotten.
        bench.switch("two", &new, vec![]);
        bench.snapshots.mend(NOW).await.unwrap();
        assert!(bench.snapshots.pools.has(&bench.tree));
        // Somebody else's step is not one's own to settle; a declared volume's data stays.
        bench.begin(&Step::Make).await;
        bench.snapshots.settle(&begun, NOW).await.unwrap();
        assert_eq!(bench.steps().await, 1);
        bench.declare().await;
        bench.snapshots.mend(NOW).await.unwrap();
        assert!(bench.snapshots.pools.has(&bench.tree));
        assert_eq!(bench.steps().await, 0);
    }
}
