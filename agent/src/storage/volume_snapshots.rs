//! The snapshots of custom volumes: their records, and the trees behind them.
//!
//! A snapshot's tree is made before its record, and its record goes before its tree. What a crash leaves between the two is
//! a tree that nothing lists; it goes when the agent starts, but only where there is a record of the volume's snapshots at
//! all: a store that was lost is no reason to delete data. Whatever else is done on disk is written down first ([`step`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use schema::kind::volume::Volume;
use schema::name::{PoolName, SnapshotName, VolumeName};
use schema::record::{Record as Declared, RecordKey};
use schema::snapshot::{LifetimeError, PatternError};
use tokio::sync::oneshot;

use self::step::{Step, renaming};
use super::refresh::Refresh;
use super::schedule::{expiry, next_name};
use super::{SnapshotTimes, VolumeSnapshot};
use crate::audit::{Action, Audit, Record, Writes};
use crate::authorize::Permit;
use crate::dataset::{Dataset, PoolError, Pools};
use crate::store::value::{self, ValueError, decode, encode};
use crate::store::{CommitError, Guard, Op, Revision, Store, StoreError, Txn, keys};
use crate::task::{Tasks, crash};

pub mod step;

/// Most snapshots of one volume.
pub const MOST: usize = 5000;
/// Tries of a commit that others get in the way of.
const TRIES: usize = 10;

/// The snapshots of one volume.
pub type All = BTreeMap<SnapshotName, VolumeSnapshot>;

/// A snapshot to be taken.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// `None`: the next name of the volume's pattern.
    pub name: Option<SnapshotName>,
    /// `None`: the volume's own.
    pub description: Option<String>,
    pub expires: Expires,
}

/// When a snapshot that is taken is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expires {
    /// As the volume says (`snapshots.expiry`).
    #[default]
    AsConfigured,
    Never,
    At(Timestamp),
}

/// Why a snapshot was not read, made or changed, in LXD's words where it has some.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("Storage volume not found")]
    NoSuchVolume,
    #[error("Storage volume snapshot not found")]
    NotFound,
    #[error("Snapshot {:?} already in use", .0.as_str())]
    Exists(SnapshotName),
    #[error("A volume has at most {MOST} snapshots")]
    TooMany,
    #[error("snapshots.pattern: {0}")]
    Pattern(#[from] PatternError),
    #[error("snapshots.expiry: {0}")]
    Lifetime(#[from] LifetimeError),
    #[error("the agent is ending")]
    Ended,
    #[error("others keep changing the same; try again")]
    Contended,
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

type Turns = HashMap<(PoolName, VolumeName), Arc<tokio::sync::Mutex<()>>>;

/// Snapshots of volumes.
pub struct VolumeSnapshots {
    store: Arc<dyn Store>,
    pools: Pools,
    audit: Arc<Audit>,
    tasks: Tasks,
    /// Work on the snapshots of one volume takes turns.
    turns: Mutex<Turns>,
}

impl VolumeSnapshots {
    pub fn new(store: Arc<dyn Store>, pools: Pools, audit: Arc<Audit>, tasks: &Tasks) -> Arc<Self> {
        Arc::new(Self { store, pools, audit, tasks: tasks.clone(), turns: Mutex::default() })
    }

    /// The snapshots of one volume; none where nobody took one.
    pub async fn get(&self, pool: &PoolName, volume: &VolumeName) -> Result<All, SnapshotError> {
        Ok(self.held(pool, volume).await?.0)
    }

    /// The snapshots of every volume that has had some.
    pub async fn every(&self) -> Result<BTreeMap<(PoolName, VolumeName), All>, SnapshotError> {
        let mut every = BTreeMap::new();
        for entry in self.store.range(keys::VOLUME_SNAPSHOT).await?.entries {
            let place = entry.key.strip_prefix(keys::VOLUME_SNAPSHOT).and_then(|rest| rest.split_once('/'));
            if let Some((pool, volume)) = place
                && let (Ok(pool), Ok(volume)) = (pool.parse(), volume.parse())
            {
                every.insert((pool, volume), decode(&entry)?);
            }
        }
        Ok(every)
    }

    /// Takes a snapshot, and tells its name.
    pub async fn create(
        self: &Arc<Self>,
        permit: &Permit,
        pool: &PoolName,
        volume: &VolumeName,
        wanted: Wanted,
        now: Timestamp,
    ) -> Result<SnapshotName, SnapshotError> {
        let (this, permit, place) = (Arc::clone(self), permit.clone(), (pool.clone(), volume.clone()));
        self.whole(async move {
            let turn = this.turn(&place);
            let _turn = turn.lock().await;
            this.create_now(&permit, &place.0, &place.1, wanted, now).await
        })
        .await
    }

    async fn create_now(
        &self,
        permit: &Permit,
        pool: &PoolName,
        volume: &VolumeName,
        wanted: Wanted,
        now: Timestamp,
    ) -> Result<SnapshotName, SnapshotError> {
        let of = self.volume(pool, volume).await?;
        let (all, revision) = self.held(pool, volume).await?;
        if all.len() >= MOST {
            return Err(SnapshotError::TooMany);
        }
        let name = match wanted.name {
            Some(name) => name,
            None => next_name(&of.config, all.keys(), now)?,
        };
        if all.contains_key(&name) {
            return Err(SnapshotError::Exists(name));
        }
        let expires_at = match wanted.expires {
            Expires::AsConfigured => expiry(&of.config, now)?,
            Expires::Never => None,
            Expires::At(at) => Some(at),
        };
        if revision == Revision(0) {
            // From now on a tree that is not listed is known to be one that was not finished.
            self.change(pool, volume, Vec::new(), |_| Ok(())).await?;
        }
        let dataset = Dataset::volume(pool, volume);
        if self.pools.snapshots(&dataset)?.contains(&name) {
            tracing::warn!(%pool, %volume, %name, "a snapshot that was not finished is replaced");
            self.pools.delete_snapshot(&dataset, &name).await?;
        }
        self.pools.take_snapshot(&dataset, &name).await?;
        crash::point("snapshot-before-record");
        let snapshot = VolumeSnapshot {
            description: wanted.description.unwrap_or(of.description),
            config: of.config,
            times: SnapshotTimes { created_at: now, expires_at },
        };
        let recorded =
            self.change(pool, volume, Vec::new(), |all| match all.insert(name.clone(), snapshot.clone()) {
                Some(_) => Err(SnapshotError::Exists(name.clone())),
                None => Ok(()),
            });
        match recorded.await {
            Ok(done) => {
                self.tell(
                    permit,
                    Action::StorageVolumeSnapshotCreated,
                    (pool, volume, Some(&name)),
                    done,
                    now,
                );
                Ok(name)
            }
            Err(error) => {
                if let Err(error) = self.pools.delete_snapshot(&dataset, &name).await {
                    tracing::warn!(%error, "a snapshot without a record stays until the agent starts again");
                }
                Err(error)
            }
        }
    }

    /// Puts the volume's data back to what it was.
    pub async fn restore(
        self: &Arc<Self>,
        permit: &Permit,
        pool: &PoolName,
        volume: &VolumeName,
        name: &SnapshotName,
        now: Timestamp,
    ) -> Result<(), SnapshotError> {
        let (this, permit, name) = (Arc::clone(self), permit.clone(), name.clone());
        let place = (pool.clone(), volume.clone());
        self.whole(async move {
            let turn = this.turn(&place);
            let _turn = turn.lock().await;
            let (pool, volume) = &place;
            if !this.get(pool, volume).await?.contains_key(&name) {
                return Err(SnapshotError::NotFound);
            }
            let size = super::config::size(&this.volume(pool, volume).await?.config);
            this.pools.snapshot_fits(&Dataset::volume(pool, volume), &name, size)?;
            this.pools.restore_snapshot(&Dataset::volume(pool, volume), &name).await?;
            let told = Record::new(permit.caller(), Action::StorageVolumeRestored, now)
                .on(url(pool, volume, None))
                .with("snapshot", name.to_string());
            this.audit.record(told);
            Ok(())
        })
        .await
    }

    /// Changes what is said of a snapshot.
    pub async fn update(
        &self,
        permit: &Permit,
        pool: &PoolName,
        volume: &VolumeName,
        name: &SnapshotName,
        edit: impl Fn(&mut VolumeSnapshot),
        now: Timestamp,
    ) -> Result<(), SnapshotError> {
        let changed = self.change(pool, volume, Vec::new(), |all| {
            edit(all.get_mut(name).ok_or(SnapshotError::NotFound)?);
            Ok(())
        });
        let done = changed.await?;
        self.tell(permit, Action::StorageVolumeSnapshotUpdated, (pool, volume, Some(name)), done, now);
        Ok(())
    }

    pub async fn rename(
        self: &Arc<Self>,
        permit: &Permit,
        pool: &PoolName,
        volume: &VolumeName,
        from: &SnapshotName,
        to: &SnapshotName,
        now: Timestamp,
    ) -> Result<(), SnapshotError> {
        let (this, permit) = (Arc::clone(self), permit.clone());
        let (place, from, to) = ((pool.clone(), volume.clone()), from.clone(), to.clone());
        self.whole(async move {
            let turn = this.turn(&place);
            let _turn = turn.lock().await;
            let (pool, volume) = &place;
            let all = this.get(pool, volume).await?;
            if !all.contains_key(&from) {
                return Err(SnapshotError::NotFound);
            }
            if all.contains_key(&to) {
                return Err(SnapshotError::Exists(to));
            }
            let dataset = Dataset::volume(pool, volume);
            let step = Step::RenameSnapshot { from: from.clone(), to: to.clone() };
            let begun = this.begin(pool, volume, &step).await?;
            if let Err(error) = this.pools.rename_snapshot(&dataset, &from, &to).await {
                this.end(&begun).await?;
                return Err(error.into());
            }
            crash::point("snapshot-renamed-before-record");
            let done = vec![Op::Delete { key: renaming(pool, volume) }];
            let renamed = this.change(pool, volume, done, |all| {
                let snapshot = all.remove(&from).ok_or(SnapshotError::NotFound)?;
                all.insert(to.clone(), snapshot);
                Ok(())
            });
            match renamed.await {
                Ok(done) => {
                    let action = Action::StorageVolumeSnapshotRenamed;
                    this.tell(&permit, action, (pool, volume, Some(&to)), done, now);
                    Ok(())
                }
                Err(error) => {
                    // If this fails too, the next start does it.
                    this.pools.rename_snapshot(&dataset, &to, &from).await?;
                    this.end(&begun).await?;
                    Err(error)
                }
            }
        })
        .await
    }

    pub async fn delete(
        self: &Arc<Self>,
        permit: &Permit,
        pool: &PoolName,
        volume: &VolumeName,
        name: &SnapshotName,
        now: Timestamp,
    ) -> Result<(), SnapshotError> {
        let (this, permit, name) = (Arc::clone(self), permit.clone(), name.clone());
        let place = (pool.clone(), volume.clone());
        self.whole(async move {
            let turn = this.turn(&place);
            let _turn = turn.lock().await;
            let (pool, volume) = &place;
            let changed = this.change(pool, volume, Vec::new(), |all| match all.remove(&name) {
                Some(_) => Ok(()),
                None => Err(SnapshotError::NotFound),
            });
            let done = changed.await?;
            crash::point("snapshot-after-record");
            this.tell(&permit, Action::StorageVolumeSnapshotDeleted, (pool, volume, Some(&name)), done, now);
            this.pools.delete_snapshot(&Dataset::volume(pool, volume), &name).await?;
            Ok(())
        })
        .await
    }

    /// Records what a refresh has done on disk, for which there was a step.
    pub async fn refreshed(
        &self,
        permit: &Permit,
        pool: &PoolName,
        volume: &VolumeName,
        refresh: &Refresh<VolumeSnapshot>,
        now: Timestamp,
    ) -> Result<(), SnapshotError> {
        let done = vec![Op::Delete { key: step::arriving(pool, volume) }];
        let changed = self.change(pool, volume, done, |all| {
            refresh.put(all);
            Ok(())
        });
        let done = changed.await?;
        self.tell(permit, Action::StorageVolumeUpdated, (pool, volume, None), done, now);
        Ok(())
    }

    /// Records the snapshots of a volume that is being made: `all` is what there is on disk by now.
    pub async fn set(
        &self,
        permit: &Permit,
        pool: &PoolName,
        volume: &VolumeName,
        all: All,
        now: Timestamp,
    ) -> Result<(), SnapshotError> {
        if all.len() > MOST {
            return Err(SnapshotError::TooMany);
        }
        let changed = self.change(pool, volume, Vec::new(), |now| {
            now.clone_from(&all);
            Ok(())
        });
        let done = changed.await?;
        self.tell(permit, Action::StorageVolumeUpdated, (pool, volume, None), done, now);
        Ok(())
    }

    /// Makes a change to the record of the volume's snapshots, and `besides`, again if somebody was quicker.
    async fn change(
        &self,
        pool: &PoolName,
        volume: &VolumeName,
        besides: Vec<Op>,
        edit: impl Fn(&mut All) -> Result<(), SnapshotError>,
    ) -> Result<(Writes, Revision), SnapshotError> {
        let key = keys::volume_snapshots(pool, volume);
        for _ in 0..TRIES {
            let (mut all, revision) = self.held(pool, volume).await?;
            edit(&mut all)?;
            let guard = Guard { key: key.clone(), modify_revision: revision };
            let put = Op::Put { key: key.clone(), value: encode(&all) };
            let mut txn = Txn { guards: vec![guard], ops: vec![put] };
            txn.ops.extend(besides.iter().cloned());
            let writes = Writes::of(&txn);
            match self.store.commit(txn).await {
                Ok(revision) => return Ok((writes, revision)),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(SnapshotError::Contended)
    }

    fn tell(
        &self,
        permit: &Permit,
        action: Action,
        on: (&PoolName, &VolumeName, Option<&SnapshotName>),
        (writes, revision): (Writes, Revision),
        now: Timestamp,
    ) {
        let told = Record::new(permit.caller(), action, now).on(url(on.0, on.1, on.2));
        self.audit.record(told.committed(writes, revision));
    }

    async fn held(&self, pool: &PoolName, volume: &VolumeName) -> Result<(All, Revision), SnapshotError> {
        Ok(match self.store.get(&keys::volume_snapshots(pool, volume)).await? {
            Some(entry) => (decode(&entry)?, entry.modify_revision),
            None => (All::new(), Revision(0)),
        })
    }

    /// The volume itself, as it is declared.
    async fn volume(&self, pool: &PoolName, volume: &VolumeName) -> Result<Volume, SnapshotError> {
        let key = RecordKey::Volume { pool: pool.clone(), volume: volume.clone() };
        let entry = self.store.get(&keys::declared(&key)).await?.ok_or(SnapshotError::NoSuchVolume)?;
        match decode::<value::Declared>(&entry)?.record {
            Declared::Volume(volume) => Ok(volume),
            _ => Err(SnapshotError::NoSuchVolume),
        }
    }

    fn turn(&self, place: &(PoolName, VolumeName)) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(place.clone()).or_default())
    }

    /// Runs `work` to its end, even if nobody waits for it any more: half a snapshot is of no use to anybody.
    async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, SnapshotError>> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let (reply, answer) = oneshot::channel();
        self.tasks.spawn("snapshot", async move {
            let _ = reply.send(work.await);
        });
        answer.await.map_err(|_| SnapshotError::Ended)?
    }
}

/// A volume's path, or that of one of its snapshots.
pub fn url(pool: &PoolName, volume: &VolumeName, snapshot: Option<&SnapshotName>) -> String {
    let volume = format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}");
    match snapshot {
        Some(snapshot) => format!("{volume}/snapshots/{snapshot}"),
        None => volume,
    }
}
