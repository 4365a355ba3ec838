//! Instances as records: one value holds an instance with all its snapshots, so that whoever reads it sees a whole.
//!
//! Trees are made before their record and removed after it. What is done to a tree meanwhile is written down first
//! ([`step`]), so that what a crash leaves behind is known for certain to be ours to take away. Whoever changes an
//! instance or its trees holds it ([`Instances::hold`]) until all is done: two changes never mix.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use schema::name::{ContainerName, PoolName, ProjectName, SnapshotName, VolumeName};
use schema::record::RecordKey;
use schema::snapshot::{LifetimeError, PatternError};

use super::{Instance, InstanceSnapshot, Shape};
use crate::audit::{Action, Audit, Record, Writes};
use crate::authorize::Permit;
use crate::dataset::{Dataset, PoolError, Pools};
use crate::store::value::{ValueError, decode, encode};
use crate::store::{CommitError, Entry, Guard, Op, Revision, Store, StoreError, Txn, keys};
use crate::trust::entity::DEFAULT_PROJECT;

mod busy;
pub mod config;
mod mend;
mod reference;
pub mod step;
#[cfg(test)]
mod tests;
pub mod work;

pub use busy::Busy;
pub use config::ConfigError;

/// Tries of a commit that others get in the way of.
const TRIES: usize = 10;
/// Most instances of a project.
const MOST: usize = 10_000;
/// Most snapshots of an instance: each change of one writes them all.
pub const MOST_SNAPSHOTS: usize = 2_000;

/// An instance, and the revision that last changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub instance: Instance,
    pub revision: Revision,
}

/// Why an instance was not read or changed. LXD's words where it has some.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error("Instance not found")]
    NotFound,
    #[error("Instance snapshot not found")]
    NoSuchSnapshot,
    #[error("Project not found")]
    NoSuchProject,
    #[error("Instance {:?} already exists", .0.as_str())]
    Exists(ContainerName),
    #[error("Snapshot \"{0}/{1}\" already exists")]
    SnapshotExists(ContainerName, SnapshotName),
    #[error("Instance is busy running a {0:?} operation")]
    Busy(&'static str),
    #[error(
        "There are files of an instance of that name already ({0}) that belong to no instance here. Look at them, and take \
         them away"
    )]
    InTheWay(Dataset),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("Failed loading storage pool \"{0}\": Storage pool not found")]
    NoSuchPool(PoolName),
    #[error("the snapshot cannot be named: {0}")]
    Pattern(#[from] PatternError),
    #[error("snapshots.expiry: {0}")]
    Lifetime(#[from] LifetimeError),
    #[error("A project has at most {MOST} instances")]
    TooMany,
    #[error("An instance has at most {MOST_SNAPSHOTS} snapshots: delete some")]
    TooManySnapshots,
    #[error("others keep changing the same; try again")]
    Contended,
    #[error("the work on the disk was cut off: {0}")]
    Crashed(String),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The instances of the store.
pub struct Instances {
    store: Arc<dyn Store>,
    pools: Pools,
    audit: Arc<Audit>,
    holds: busy::Holds,
}

/// Where an instance is: its project and its name within it.
pub type Place<'a> = (&'a ProjectName, &'a ContainerName);

impl Instances {
    pub fn new(store: Arc<dyn Store>, pools: Pools, audit: Arc<Audit>) -> Arc<Self> {
        Arc::new(Self { store, pools, audit, holds: busy::Holds::default() })
    }

    pub async fn get(
        &self,
        project: &ProjectName,
        name: &ContainerName,
    ) -> Result<Option<Held>, InstanceError> {
        let entry = self.store.get(&keys::container(project, name)).await?;
        entry.as_ref().map(held).transpose()
    }

    /// The instance, which is to be there.
    pub async fn find(&self, project: &ProjectName, name: &ContainerName) -> Result<Held, InstanceError> {
        self.get(project, name).await?.ok_or(InstanceError::NotFound)
    }

    /// The instances of a project, by name.
    pub async fn list(&self, project: &ProjectName) -> Result<Vec<(ContainerName, Held)>, InstanceError> {
        let mut found = Vec::new();
        for entry in self.store.range(&keys::containers(project)).await?.entries {
            if let Ok(name) = keys::last_part(&entry.key).parse() {
                found.push((name, held(&entry)?));
            }
        }
        Ok(found)
    }

    /// Every instance, by project and name.
    pub async fn all(&self) -> Result<Vec<(ProjectName, ContainerName, Held)>, InstanceError> {
        let mut found = Vec::new();
        for entry in self.store.range(keys::CONTAINER).await?.entries {
            let place = entry.key.strip_prefix(keys::CONTAINER).and_then(|place| place.split_once('/'));
            if let Some((project, name)) = place
                && let (Ok(project), Ok(name)) = (project.parse(), name.parse())
            {
                found.push((project, name, held(&entry)?));
            }
        }
        Ok(found)
    }

    /// Whether an instance can be like that here: its keys, devices and profiles, its pool, and the volumes that are
    /// attached to it. Gives the pool of its root disk.
    pub async fn check(&self, shape: &Shape) -> Result<PoolName, InstanceError> {
        let root = config::check(shape)?;
        if !self.pools.exists(&root) {
            return Err(InstanceError::NoSuchPool(root));
        }
        for (name, device) in &shape.devices {
            let Some((pool, volume)) = attached(device) else { continue };
            let wrong = |why: &str| ConfigError::Device(name.clone(), why.to_owned());
            let pool: PoolName = pool.parse().map_err(|_| wrong("Storage pool not found"))?;
            let volume: VolumeName = volume.parse().map_err(|_| wrong("Storage volume not found"))?;
            if !self.pools.exists(&pool) {
                return Err(wrong("Storage pool not found").into());
            }
            let key = keys::declared(&RecordKey::Volume { pool, volume });
            if self.store.get(&key).await?.is_none() {
                return Err(wrong("Storage volume not found").into());
            }
        }
        Ok(root)
    }

    /// Keeps everybody else from changing the instance until the answer is dropped. `doing` is what they are told that
    /// it is busy with (LXD's words: `create`, `update`, `snapshot`, `restore`, …).
    pub fn hold(&self, place: Place<'_>, doing: &'static str) -> Result<Busy, InstanceError> {
        self.holds.take(place, doing)
    }

    /// Writes down a new instance, whose tree is there by now. What was to be done to the tree after a crash is not any
    /// more.
    pub async fn create(
        &self,
        permit: &Permit,
        project: &ProjectName,
        name: &ContainerName,
        instance: Instance,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        if instance.snapshots.len() > MOST_SNAPSHOTS {
            return Err(InstanceError::TooManySnapshots);
        }
        if self.store.range(&keys::containers(project)).await?.entries.len() >= MOST {
            return Err(InstanceError::TooMany);
        }
        for _ in 0..TRIES {
            let key = keys::container(project, name);
            if self.store.get(&key).await?.is_some() {
                return Err(InstanceError::Exists(name.clone()));
            }
            let mut txn = Txn::default();
            self.come_into(&mut txn, project).await?;
            txn.guards.push(Guard { key: key.clone(), modify_revision: Revision(0) });
            txn.ops.push(Op::Put { key, value: encode(&instance) });
            txn.ops.push(Op::Delete { key: keys::container_step(&instance.pool, project, name) });
            match self.commit(permit, Action::InstanceCreated, url((project, name)), txn, now).await {
                Err(InstanceError::Commit(CommitError::Conflict(_))) => {}
                done => return done,
            }
        }
        Err(InstanceError::Contended)
    }

    /// Puts `instance` in place of what it was at `base`. `Contended` if it has moved since. It stays in its pool:
    /// [`Instances::relocate`] moves it.
    pub async fn update(
        &self,
        permit: &Permit,
        project: &ProjectName,
        name: &ContainerName,
        base: Revision,
        instance: &Instance,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let action = Action::InstanceUpdated;
        self.replace(permit, (project, name), base, instance, (action, url((project, name))), now).await
    }

    /// As [`Instances::update`]: what was restored of a snapshot.
    pub async fn restored(
        &self,
        permit: &Permit,
        project: &ProjectName,
        name: &ContainerName,
        base: Revision,
        instance: &Instance,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let action = Action::InstanceRestored;
        self.replace(permit, (project, name), base, instance, (action, url((project, name))), now).await
    }

    /// Moves the record, with every permission on the instance, to another name, project or pool, where its tree is by
    /// now. Of the tree that it leaves, if that is another, it is written down that it goes.
    pub async fn relocate(
        &self,
        permit: &Permit,
        from: Place<'_>,
        to: Place<'_>,
        instance: &Instance,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        for _ in 0..TRIES {
            let there = self.find(from.0, from.1).await?;
            let (old, new) = (keys::container(from.0, from.1), keys::container(to.0, to.1));
            let mut txn = Txn::default();
            txn.guards.push(Guard { key: old.clone(), modify_revision: there.revision });
            if old != new {
                if self.store.get(&new).await?.is_some() {
                    return Err(InstanceError::Exists(to.1.clone()));
                }
                self.come_into(&mut txn, to.0).await?;
                txn.guards.push(Guard { key: new.clone(), modify_revision: Revision(0) });
                txn.ops.push(Op::Delete { key: old });
                reference::rewrite(&*self.store, &mut txn, from, Some(to)).await?;
            }
            txn.ops.push(Op::Put { key: new, value: encode(instance) });
            txn.ops.push(Op::Delete { key: keys::container_step(&instance.pool, to.0, to.1) });
            if there.instance.pool != instance.pool {
                let key = keys::container_step(&there.instance.pool, from.0, from.1);
                txn.ops.push(Op::Put { key, value: encode(&step::Step::Remove) });
            }
            let action = if from == to { Action::InstanceUpdated } else { Action::InstanceRenamed };
            match self.commit(permit, action, url(to), txn, now).await {
                Err(InstanceError::Commit(CommitError::Conflict(_))) => {}
                done => return done,
            }
        }
        Err(InstanceError::Contended)
    }

    /// Deletes the record, with every permission on the instance. Of its tree it is written down that it goes.
    pub async fn delete(
        &self,
        permit: &Permit,
        project: &ProjectName,
        name: &ContainerName,
        now: Timestamp,
    ) -> Result<Instance, InstanceError> {
        for _ in 0..TRIES {
            let there = self.find(project, name).await?;
            let key = keys::container(project, name);
            let mut txn = Txn::default();
            txn.guards.push(Guard { key: key.clone(), modify_revision: there.revision });
            txn.ops.push(Op::Delete { key });
            let key = keys::container_step(&there.instance.pool, project, name);
            txn.ops.push(Op::Put { key, value: encode(&step::Step::Remove) });
            reference::rewrite(&*self.store, &mut txn, (project, name), None).await?;
            match self.commit(permit, Action::InstanceDeleted, url((project, name)), txn, now).await {
                Err(InstanceError::Commit(CommitError::Conflict(_))) => {}
                done => return done.map(|()| there.instance),
            }
        }
        Err(InstanceError::Contended)
    }

    /// Writes down a snapshot that was taken; one of that name is an error.
    pub async fn put_snapshot(
        &self,
        permit: &Permit,
        place: Place<'_>,
        snapshot: &SnapshotName,
        taken: InstanceSnapshot,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let told = (Action::InstanceSnapshotCreated, snapshot_url(place, snapshot));
        self.change(permit, place, told, now, |instance| {
            if instance.snapshots.contains_key(snapshot) {
                return Err(InstanceError::SnapshotExists(place.1.clone(), snapshot.clone()));
            }
            if instance.snapshots.len() >= MOST_SNAPSHOTS {
                return Err(InstanceError::TooManySnapshots);
            }
            instance.snapshots.insert(snapshot.clone(), taken.clone());
            Ok(())
        })
        .await
    }

    /// Says anew when a snapshot goes.
    pub async fn set_expiry(
        &self,
        permit: &Permit,
        place: Place<'_>,
        snapshot: &SnapshotName,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let told = (Action::InstanceSnapshotUpdated, snapshot_url(place, snapshot));
        self.change(permit, place, told, now, |instance| {
            let kept = instance.snapshots.get_mut(snapshot).ok_or(InstanceError::NoSuchSnapshot)?;
            kept.times.expires_at = expires_at;
            Ok(())
        })
        .await
    }

    pub async fn rename_snapshot(
        &self,
        permit: &Permit,
        place: Place<'_>,
        from: &SnapshotName,
        to: &SnapshotName,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let told = (Action::InstanceSnapshotRenamed, snapshot_url(place, to));
        self.change(permit, place, told, now, |instance| {
            if instance.snapshots.contains_key(to) {
                return Err(InstanceError::SnapshotExists(place.1.clone(), to.clone()));
            }
            let kept = instance.snapshots.remove(from).ok_or(InstanceError::NoSuchSnapshot)?;
            instance.snapshots.insert(to.clone(), kept);
            Ok(())
        })
        .await
    }

    pub async fn delete_snapshot(
        &self,
        permit: &Permit,
        place: Place<'_>,
        snapshot: &SnapshotName,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let told = (Action::InstanceSnapshotDeleted, snapshot_url(place, snapshot));
        self.change(permit, place, told, now, |instance| {
            instance.snapshots.remove(snapshot).map(drop).ok_or(InstanceError::NoSuchSnapshot)
        })
        .await
    }

    /// Changes the instance as it is at the moment, whatever else is changing.
    async fn change(
        &self,
        permit: &Permit,
        place: Place<'_>,
        told: (Action, String),
        now: Timestamp,
        edit: impl Fn(&mut Instance) -> Result<(), InstanceError>,
    ) -> Result<(), InstanceError> {
        for _ in 0..TRIES {
            let mut there = self.find(place.0, place.1).await?;
            edit(&mut there.instance)?;
            match self.replace(permit, place, there.revision, &there.instance, told.clone(), now).await {
                Err(InstanceError::Contended) => {}
                done => return done,
            }
        }
        Err(InstanceError::Contended)
    }

    async fn replace(
        &self,
        permit: &Permit,
        place: Place<'_>,
        base: Revision,
        instance: &Instance,
        (action, on): (Action, String),
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        if instance.snapshots.len() > MOST_SNAPSHOTS {
            return Err(InstanceError::TooManySnapshots);
        }
        let key = keys::container(place.0, place.1);
        let guards = vec![Guard { key: key.clone(), modify_revision: base }];
        let txn = Txn { guards, ops: vec![Op::Put { key, value: encode(instance) }] };
        match self.commit(permit, action, on, txn, now).await {
            Err(InstanceError::Commit(CommitError::Conflict(_))) => Err(InstanceError::Contended),
            done => done,
        }
    }

    /// Makes `txn` fail if the project goes meanwhile, and the project's removal fail if `txn` comes first.
    async fn come_into(&self, txn: &mut Txn, project: &ProjectName) -> Result<(), InstanceError> {
        if project.as_str() != DEFAULT_PROJECT {
            let key = keys::project(project);
            let there = self.store.get(&key).await?.ok_or(InstanceError::NoSuchProject)?;
            txn.guards.push(Guard { key, modify_revision: there.modify_revision });
        }
        txn.ops.push(Op::Put { key: keys::project_use(project), value: encode(&()) });
        Ok(())
    }

    async fn commit(
        &self,
        permit: &Permit,
        action: Action,
        on: String,
        txn: Txn,
        now: Timestamp,
    ) -> Result<(), InstanceError> {
        let writes = Writes::of(&txn);
        let revision = self.store.commit(txn).await?;
        self.audit.record(Record::new(permit.caller(), action, now).on(on).committed(writes, revision));
        Ok(())
    }
}

/// The tree of an instance, in whichever pool it is.
pub fn dataset(place: Place<'_>, pool: &PoolName) -> Dataset {
    Dataset::instance(pool, place.0, place.1)
}

/// `/1.0/instances/c1`, with the project where it is not the usual one.
pub fn url(place: Place<'_>) -> String {
    format!("/1.0/instances/{}{}", place.1, query(place.0))
}

pub fn snapshot_url(place: Place<'_>, snapshot: &SnapshotName) -> String {
    format!("/1.0/instances/{}/snapshots/{snapshot}{}", place.1, query(place.0))
}

/// The pool and the custom volume that a disk is of.
fn attached(device: &BTreeMap<String, String>) -> Option<(&str, &str)> {
    let of = |key| device.get(key).map(String::as_str).filter(|value: &&str| !value.is_empty());
    (of("type") == Some("disk")).then(|| Some((of("pool")?, of("source")?))).flatten()
}

fn query(project: &ProjectName) -> String {
    if project.as_str() == DEFAULT_PROJECT { String::new() } else { format!("?project={project}") }
}

fn held(entry: &Entry) -> Result<Held, InstanceError> {
    Ok(Held { instance: decode(entry)?, revision: entry.modify_revision })
}
