//! Custom volumes: copied, sent and received.

use std::sync::{Arc, Mutex, PoisonError};

use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use schema::kind::transfer::Mode;
use schema::kind::volume::Volume;
use schema::name::{PoolName, SnapshotName, VolumeName};
use schema::record::{Record, RecordKey};
use serde_json::json;

use super::compare::{Own, choose};
use super::making::Making;
use super::{Way, begun, bound_to, consistency, header, no_live, oldest_first, parted, pushed_to, read};
use crate::api::ApiState;
use crate::api::lxd::answer::LxdError;
use crate::api::lxd::volume::{checked, declared, name_of};
use crate::api::volume::{entity, find, permit_to_fill};
use crate::apply::Edit;
use crate::authorize::{Denied, Entitlement, Permit};
use crate::dataset::Dataset;
use crate::storage::config::of_new_volume;
use crate::storage::volume_snapshots::All;
use crate::storage::{SnapshotTimes, VolumeSnapshot};
use crate::transfer::shipment::{Chosen, Incoming, Kin, Main, Outgoing};
use crate::trust::Caller;
use crate::wire::lxd::migration::{
    IndexConfig, IndexHeader, MigrationPost, VolumeCopyPost, VolumeIndex, VolumeSnapshotIndex,
};

/// Where a volume is: its pool and its name.
type Place = (PoolName, VolumeName);
/// What was offered and what of it is taken, between choosing and recording.
type Agreed = Arc<Mutex<(IndexHeader, Chosen)>>;

/// Makes a volume, or refreshes one, of another volume here or elsewhere.
pub async fn create_volume(
    state: &ApiState,
    caller: &Caller,
    pool: PoolName,
    bytes: &[u8],
) -> Result<Response, LxdError> {
    let wanted: VolumeCopyPost = read(bytes)?;
    let source = wanted.source;
    let place = (pool, name_of(&wanted.name)?);
    let there = find(&state.store, &place.0, &place.1).await?;
    let permit = permit_to_fill(state, caller, &place.0, &place.1).await??;
    let mode = match (there, source.refresh) {
        (Some(_), false) => {
            return Err(LxdError::new(StatusCode::CONFLICT, "Volume by that name already exists"));
        }
        (Some(_), true) => Mode::Refresh,
        // As LXD has it: what is not there is copied whole.
        (None, _) => Mode::Copy,
    };
    let usual = state.storage_pools.get(&place.0).await?.pool.config;
    let config = checked(&place.1, of_new_volume(&usual, wanted.config))?;
    let volume = Volume { description: wanted.description, config };
    let own = if source.prune && !source.volume_only { Own::Prune } else { Own::Keep };
    let incoming = || incoming(state, &permit, &place, mode, own, volume);
    let operation = match Way::of(&source)? {
        Way::Pull(remote) => begun(&state.transfers.fetch(&permit, incoming().await?, &remote)?, None),
        Way::Push => {
            let (operation, secrets) = state.transfers.await_from(&permit, incoming().await?, None)?;
            begun(&operation, Some(&secrets))
        }
        Way::Copy => {
            let (name, snapshot) = parted(&source.name)?;
            let from = if source.pool.is_empty() { place.0.clone() } else { pool_of(&source.pool)? };
            let from = (from, name_of(name)?);
            let reading = permit_to_send(state, caller, &from)?;
            let whole = !source.volume_only && snapshot.is_none();
            let allow = source.allow_inconsistent;
            let outgoing = outgoing(state, &from, snapshot, whole, allow).await?;
            begun(&state.transfers.copy([&reading, &permit], outgoing, incoming().await?)?, None)
        }
    };
    Ok(operation)
}

/// Sends a volume, or one of its snapshots as a volume.
pub async fn migrate_volume(
    state: &ApiState,
    caller: &Caller,
    place: Place,
    snapshot: Option<SnapshotName>,
    bytes: &[u8],
) -> Result<Response, LxdError> {
    let permit = permit_to_send(state, caller, &place)?;
    let asked: MigrationPost = read(bytes)?;
    if asked.live {
        return Err(no_live());
    }
    let whole = !asked.volume_only && snapshot.is_none();
    let bound_to = bound_to(&asked)?;
    let outgoing = outgoing(state, &place, snapshot, whole, asked.allow_inconsistent).await?;
    Ok(match asked.target {
        Some(target) => begun(&state.transfers.send_to(&permit, outgoing, &pushed_to(target))?, None),
        None => {
            let (operation, secrets) = state.transfers.serve(&permit, outgoing, bound_to)?;
            begun(&operation, Some(&secrets))
        }
    })
}

/// Whoever may take a volume's data away: who may back it up.
fn permit_to_send(state: &ApiState, caller: &Caller, place: &Place) -> Result<Permit, Denied> {
    state.permit(caller, Entitlement::CanManageBackups, entity(&place.0, &place.1))
}

fn pool_of(text: &str) -> Result<PoolName, LxdError> {
    text.parse().map_err(|_| LxdError::new(StatusCode::NOT_FOUND, "Storage pool not found"))
}

async fn outgoing(
    state: &ApiState,
    place: &Place,
    snapshot: Option<SnapshotName>,
    whole: bool,
    allow_inconsistent: bool,
) -> Result<Outgoing, LxdError> {
    let (pool, name) = place;
    let (declared, _) = declared(state, pool, name).await?;
    let Record::Volume(volume) = declared.record else {
        return Err(LxdError::new(StatusCode::NOT_FOUND, "Storage volume not found"));
    };
    let all = state.volume_snapshots.get(pool, name).await?;
    let of = match &snapshot {
        None => (volume.description, volume.config),
        Some(snapshot) => {
            let missing = || LxdError::new(StatusCode::NOT_FOUND, "Storage volume snapshot not found");
            let of = all.get(snapshot).ok_or_else(missing)?;
            (of.description.clone(), of.config.clone())
        }
    };
    let mut snapshots = Vec::new();
    let mut told = Vec::new();
    if whole {
        snapshots = oldest_first(all.iter().map(|(name, snapshot)| (name, snapshot.times.created_at)));
        told = snapshots.iter().filter_map(|name| Some(index_of(name, all.get(name)?))).collect();
    }
    let volume = VolumeIndex {
        name: name.to_string(),
        description: of.0,
        kind: "custom".to_owned(),
        content_type: "filesystem".to_owned(),
        config: of.1,
        ..VolumeIndex::default()
    };
    let config = IndexConfig { volume: Some(volume), volume_snapshots: told, ..IndexConfig::default() };
    Ok(Outgoing {
        dataset: Dataset::volume(pool, name),
        snapshots,
        main: snapshot.map_or(Main::Live, Main::Snapshot),
        consistency: consistency(allow_inconsistent),
        header: json!(IndexHeader { config }),
    })
}

fn index_of(name: &SnapshotName, snapshot: &VolumeSnapshot) -> VolumeSnapshotIndex {
    VolumeSnapshotIndex {
        name: name.to_string(),
        description: snapshot.description.clone(),
        content_type: "filesystem".to_owned(),
        config: snapshot.config.clone(),
        created_at: snapshot.times.created_at,
        expires_at: snapshot.times.expires_at,
    }
}

async fn incoming(
    state: &ApiState,
    permit: &Permit,
    place: &Place,
    mode: Mode,
    own: Own,
    volume: Volume,
) -> Result<Incoming, LxdError> {
    let dataset = Dataset::volume(&place.0, &place.1);
    let here = state.volume_snapshots.get(&place.0, &place.1).await?;
    let here = here.into_iter().map(|(name, snapshot)| (name, snapshot.times.created_at)).collect();
    let agreed = Agreed::default();
    let choosing = agreed.clone();
    let choose = move |told, offered: Vec<SnapshotName>| -> futures::future::BoxFuture<'static, _> {
        let header = header(told);
        let chosen = choose(mode, &offered, |name| header.config.taken_at(name.as_str()), &here, own);
        *choosing.lock().unwrap_or_else(PoisonError::into_inner) = (header, chosen.clone());
        Box::pin(async move { Ok(chosen) })
    };
    let kin = Kin::of(permit.caller());
    let making = (mode == Mode::Copy).then(|| making(state, &dataset, place));
    let (state, permit, place) = (state.clone(), permit.clone(), place.clone());
    let record = move || -> futures::future::BoxFuture<'static, Result<(), String>> {
        Box::pin(async move {
            if making.is_some() {
                let key = RecordKey::Volume { pool: place.0.clone(), volume: place.1.clone() };
                let edit = Edit::put(key, Record::Volume(volume)).only_at(0);
                state.apply.edit(&permit, vec![edit]).await.map_err(|e| e.to_string())?;
            }
            let (header, chosen) =
                std::mem::take(&mut *agreed.lock().unwrap_or_else(PoisonError::into_inner));
            record_snapshots(&state, &permit, &place, &header, &chosen).await?;
            if let Some(making) = making {
                making.made();
            }
            Ok(())
        })
    };
    Ok(Incoming { dataset, mode, kin, choose: Box::new(choose), record: Box::new(record) })
}

fn making(state: &ApiState, dataset: &Dataset, place: &Place) -> Making {
    let (store, (pool, name)) = (state.store.clone(), place.clone());
    let is_recorded = move || -> futures::future::BoxFuture<'static, bool> {
        // What cannot be read is not taken for nothing.
        Box::pin(async move { !matches!(find(&store, &pool, &name).await, Ok(None)) })
    };
    Making::new(state, dataset, Box::new(is_recorded), Box::new(|| Box::pin(async {})))
}

async fn record_snapshots(
    state: &ApiState,
    permit: &Permit,
    (pool, name): &Place,
    header: &IndexHeader,
    chosen: &Chosen,
) -> Result<(), String> {
    if chosen.take.is_empty() && chosen.drop.is_empty() {
        return Ok(());
    }
    let now = Timestamp::now();
    let mut all: All = state.volume_snapshots.get(pool, name).await.map_err(|e| e.to_string())?;
    all.retain(|name, _| !chosen.drop.contains(name));
    for name in &chosen.take {
        let told = header.config.volume_snapshots.iter().find(|told| told.name == name.as_str());
        let created_at = header.config.taken_at(name.as_str()).unwrap_or(now);
        let snapshot = VolumeSnapshot {
            description: told.map(|told| told.description.clone()).unwrap_or_default(),
            config: told.map(|told| told.config.clone()).unwrap_or_default(),
            times: SnapshotTimes { created_at, expires_at: told.and_then(|told| told.expires_at) },
        };
        all.insert(name.clone(), snapshot);
    }
    state.volume_snapshots.set(permit, pool, name, all, now).await.map_err(|e| e.to_string())
}
