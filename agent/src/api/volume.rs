//! What both surfaces do with volumes: find, make, and record what has arrived.

use std::sync::Arc;

use schema::kind::volume::Volume;
use schema::name::{PoolName, VolumeName};
use schema::plan::Data;
use schema::record::{Record, RecordKey};

use super::ApiState;
use crate::apply::{Apply, ApplyError, Edit};
use crate::authorize::{Denied, Entitlement, Entity, Permit};
use crate::storage::config;
use crate::store::value::{self, Declared, ValueError};
use crate::store::{Store, StoreError, keys};
use crate::transfer::run::Then;
use crate::trust::Caller;

/// Why a volume's record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// A volume's record and its modify revision.
pub async fn find(
    store: &Arc<dyn Store>,
    pool: &PoolName,
    volume: &VolumeName,
) -> Result<Option<(Declared, u64)>, FindError> {
    match store.get(&keys::declared(&key(pool, volume))).await? {
        Some(entry) => Ok(Some((value::decode(&entry)?, entry.modify_revision.0))),
        None => Ok(None),
    }
}

/// Most bytes of data that a volume is to have (LXD: size), where that is set.
pub async fn size(
    store: &Arc<dyn Store>,
    pool: &PoolName,
    volume: &VolumeName,
) -> Result<Option<u64>, FindError> {
    let found = find(store, pool, volume).await?;
    Ok(found.and_then(|(declared, _)| match declared.record {
        Record::Volume(volume) => config::size(&volume.config),
        _ => None,
    }))
}

/// Every volume's record, by pool and name.
pub async fn all(store: &Arc<dyn Store>) -> Result<Vec<(PoolName, VolumeName, Declared)>, FindError> {
    let mut volumes = Vec::new();
    for entry in store.range(&keys::declared_kind(schema::kind::Kind::Volume)).await?.entries {
        if let Some(RecordKey::Volume { pool, volume }) = keys::declared_record(&entry.key) {
            volumes.push((pool, volume, value::decode(&entry)?));
        }
    }
    Ok(volumes)
}

/// Makes a volume that no manifest owns; data of that name that was kept is adopted.
pub async fn create(
    apply: &Arc<Apply>,
    permit: &Permit,
    pool: &PoolName,
    volume: &VolumeName,
    description: String,
) -> Result<(), ApplyError> {
    let record = Record::Volume(Volume { description, ..Volume::default() });
    let edit = Edit::put(key(pool, volume), record).only_at(0);
    apply.edit(permit, vec![edit]).await.map(|_| ())
}

/// Deletes a volume and its data.
pub async fn delete(
    apply: &Arc<Apply>,
    permit: &Permit,
    pool: &PoolName,
    volume: &VolumeName,
) -> Result<(), ApplyError> {
    let edit = Edit::delete(key(pool, volume), Data::Destroy);
    apply.edit(permit, vec![edit]).await.map(|_| ())
}

/// The right to put data into a volume: to edit it where it is declared, else to make one.
pub async fn permit_to_fill(
    state: &ApiState,
    caller: &Caller,
    pool: &PoolName,
    volume: &VolumeName,
) -> Result<Result<Permit, Denied>, FindError> {
    Ok(match find(&state.store, pool, volume).await? {
        Some(_) => state.permit(caller, Entitlement::CanEdit, entity(pool, volume)),
        None => state.permit(caller, Entitlement::CanCreateStorageVolumes, Entity::default_project()),
    })
}

/// What is done when a tree has arrived: it gets a record, unless it has one.
pub fn recorded(
    state: &ApiState,
    permit: &Permit,
    pool: &PoolName,
    volume: &VolumeName,
    description: String,
) -> Then {
    let (store, apply, permit) = (state.store.clone(), state.apply.clone(), permit.clone());
    let (pool, volume) = (pool.clone(), volume.clone());
    Box::new(move || {
        Box::pin(async move {
            let there = find(&store, &pool, &volume).await.map_err(|e| e.to_string())?;
            if there.is_some() {
                return Ok(());
            }
            create(&apply, &permit, &pool, &volume, description).await.map_err(|e| e.to_string())
        })
    })
}

pub fn entity(pool: &PoolName, volume: &VolumeName) -> Entity {
    Entity::Volume { pool: pool.clone(), volume: volume.clone() }
}

fn key(pool: &PoolName, volume: &VolumeName) -> RecordKey {
    RecordKey::Volume { pool: pool.clone(), volume: volume.clone() }
}
