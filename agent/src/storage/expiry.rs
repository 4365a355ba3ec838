//! Snapshots that are taken by themselves and go by themselves.
//!
//! Once a minute whoever is due has a snapshot taken, and what has expired is deleted, backups with it. How far it has looked is kept in a
//! file, so that a run that was missed while the agent was away is made up for when it is back: once, however many were
//! missed. (LXD leaves them out.) That file is a hint: without it nothing counts as missed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schema::kind::Kind;
use schema::name::{PoolName, VolumeName};
use schema::record::{Record, RecordKey};
use schema::snapshot::Schedule;
use uuid::Uuid;

use super::schedule::{expiry, is_due, next_name};
use super::volume_snapshots::{SnapshotError, VolumeSnapshots, Wanted};
use super::{Backups, InstanceError, Instances};
use crate::authorize::{Denied, Entitlement, Entity, Permit, decide};
use crate::store::value::{Declared, decode};
use crate::store::{Store, StoreError, keys};
use crate::task::Tasks;
use crate::trust::identity::Identities;
use crate::trust::{Caller, Origin, Who};

const MINUTE: u64 = 60;

/// Tells what time it is.
pub type Clock = fn() -> Timestamp;

/// What the task works with.
pub struct ExpiryParts {
    pub store: Arc<dyn Store>,
    pub volumes: Arc<VolumeSnapshots>,
    pub instances: Arc<Instances>,
    pub backups: Backups,
    pub identities: Arc<Identities>,
    /// Where it is kept how far it has looked.
    pub seen: PathBuf,
    pub clock: Clock,
}

/// Takes what is due and deletes what has expired, until `tasks` end.
pub fn start(parts: ExpiryParts, tasks: &Tasks) {
    let ending = tasks.ending();
    tasks.spawn("snapshot expiry", async move {
        ending.run_until_cancelled(parts.run()).await;
    });
}

impl ExpiryParts {
    async fn run(self) {
        let mut since = self.last_seen().unwrap_or_else(self.clock);
        loop {
            let now = (self.clock)();
            self.turn(since, now).await;
            // A clock that was set back is followed: otherwise nothing would be due until it has caught up.
            since = now;
            self.remember(now);
            let into = u64::try_from(now.as_second()).unwrap_or_default() % MINUTE;
            tokio::time::sleep(Duration::from_secs(MINUTE - into)).await;
        }
    }

    /// Does what has come due after `since` and by `now`.
    async fn turn(&self, since: Timestamp, now: Timestamp) {
        // What has expired goes first: its name may be wanted.
        if let Err(error) = self.expire(now).await {
            tracing::error!(%error, "expired snapshots could not be looked for");
        }
        if let Err(error) = self.take(since, now).await {
            tracing::error!(%error, "it could not be seen whose snapshots are due");
        }
        if let Err(error) = self.instances(since, now).await {
            tracing::error!(%error, "the snapshots of instances could not be looked at");
        }
        let backups = self.backups.clone();
        if tokio::task::spawn_blocking(move || backups.expire(now)).await.is_err() {
            tracing::error!("expired backups could not be looked for");
        }
    }

    async fn expire(&self, now: Timestamp) -> Result<(), SnapshotError> {
        for ((pool, volume), all) in self.volumes.every().await? {
            let expired =
                all.iter().filter(|(_, snapshot)| snapshot.times.expires_at.is_some_and(|at| at <= now));
            for (name, _) in expired {
                let Ok(permit) = self.permit(volume_entity(&pool, &volume)) else { continue };
                match self.volumes.delete(&permit, &pool, &volume, name, now).await {
                    Ok(()) => tracing::info!(%pool, %volume, %name, "deleted a snapshot that has expired"),
                    // Tried again in a minute, or gone already.
                    Err(SnapshotError::NotFound) => {}
                    Err(error) => {
                        tracing::warn!(%pool, %volume, %name, %error, "an expired snapshot could not be deleted");
                    }
                }
            }
        }
        Ok(())
    }

    async fn take(&self, since: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        let zone = TimeZone::system();
        for entry in self.store.range(&keys::declared_kind(Kind::Volume)).await?.entries {
            let Some(RecordKey::Volume { pool, volume }) = keys::declared_record(&entry.key) else {
                continue;
            };
            let Ok(Declared { record: Record::Volume(of), .. }) = decode(&entry) else { continue };
            if !due(&of.config, since, now, &zone) {
                continue;
            }
            let Ok(permit) = self.permit(volume_entity(&pool, &volume)) else { continue };
            match self.volumes.create(&permit, &pool, &volume, Wanted::default(), now).await {
                Ok(name) => tracing::info!(%pool, %volume, %name, "took a snapshot by schedule"),
                Err(error) => {
                    tracing::warn!(%pool, %volume, %error, "a snapshot that was due could not be taken");
                }
            }
        }
        Ok(())
    }

    /// The same for instances. None runs, so only those are taken that say so (`snapshots.schedule.stopped`).
    async fn instances(&self, since: Timestamp, now: Timestamp) -> Result<(), InstanceError> {
        let zone = TimeZone::system();
        for (project, name, held) in self.instances.all().await? {
            let place = (&project, &name);
            let entity = Entity::Instance { project: project.clone(), name: name.to_string() };
            let Ok(permit) = self.permit(entity) else { continue };
            for (snapshot, of) in &held.instance.snapshots {
                if of.times.expires_at.is_none_or(|at| at > now) {
                    continue;
                }
                let removed = async {
                    let busy = self.instances.hold(place, "snapshot")?;
                    self.instances.remove_snapshot(&permit, place, snapshot, busy, now).await
                };
                match removed.await {
                    Ok(()) => {
                        tracing::info!(%project, %name, %snapshot, "deleted a snapshot that has expired");
                    }
                    Err(InstanceError::NoSuchSnapshot) => {}
                    Err(error) => {
                        tracing::warn!(%project, %name, %snapshot, %error, "an expired snapshot could not be deleted");
                    }
                }
            }
            let config = &held.instance.shape.config;
            let stopped = config.get("snapshots.schedule.stopped").is_some_and(|value| is_true(value));
            if !stopped || !due(config, since, now, &zone) {
                continue;
            }
            let taken = async {
                let busy = self.instances.hold(place, "snapshot")?;
                let instance = self.instances.find(&project, &name).await?.instance;
                let config = &instance.shape.config;
                let snapshot = next_name(config, instance.snapshots.keys(), now)?;
                let expires = expiry(config, now)?;
                self.instances.take_snapshot(&permit, place, &snapshot, expires, busy, now).await
            };
            match taken.await {
                Ok(()) => tracing::info!(%project, %name, "took a snapshot by schedule"),
                Err(error) => {
                    tracing::warn!(%project, %name, %error, "a snapshot that was due could not be taken");
                }
            }
        }
        Ok(())
    }

    /// Whoever set the schedule has asked for it, so this is done by nobody else's right than the agent's own.
    fn permit(&self, entity: Entity) -> Result<Permit, Denied> {
        let uid = rustix::process::geteuid().as_raw();
        let origin = Origin { request: Uuid::new_v4(), address: None, session: None };
        let agent = Caller { who: Who::Local { uid }, origin, shown: None };
        let permit = decide(&agent, Entitlement::CanManageSnapshots, entity, &self.identities.policy());
        permit.inspect_err(|denied| tracing::error!(%denied, "the agent may not manage snapshots"))
    }

    fn last_seen(&self) -> Option<Timestamp> {
        std::fs::read_to_string(&self.seen).ok()?.trim().parse().ok()
    }

    fn remember(&self, now: Timestamp) {
        let next = self.seen.with_extension("next");
        let written =
            std::fs::write(&next, now.to_string()).and_then(|()| std::fs::rename(&next, &self.seen));
        if let Err(error) = written {
            tracing::warn!(%error, path = %self.seen.display(), "it could not be noted that schedules were looked at");
        }
    }
}

fn volume_entity(pool: &PoolName, volume: &VolumeName) -> Entity {
    Entity::Volume { pool: pool.clone(), volume: volume.clone() }
}

fn is_true(value: &str) -> bool {
    ["true", "1", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
}

/// Whether what is set like this (`snapshots.schedule`) is due. What cannot be read is never due; it is checked when it
/// is set.
pub fn due(config: &BTreeMap<String, String>, since: Timestamp, now: Timestamp, zone: &TimeZone) -> bool {
    let schedule = config.get("snapshots.schedule").and_then(|text| text.parse::<Schedule>().ok());
    schedule.is_some_and(|schedule| is_due(&schedule, since, now, zone))
}
