//! Custom volumes: copied, sent and received.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::Response;
use futures::future::BoxFuture;
use http::StatusCode;
use jiff::Timestamp;
use schema::kind::transfer::Mode;
use schema::kind::volume::Volume;
use schema::name::{PoolName, SnapshotName, VolumeName};
use schema::record::{Record, RecordKey};
use serde_json::json;

use super::compare::{Own, choose};
use super::making::Making;
use super::{
    Way, begun, bound_to, consistency, header, no_live, oldest_first, origin, parted, pushed_to, read,
};
use crate::api::ApiState;
use crate::api::lxd::answer::LxdError;
use crate::api::lxd::volume::{Users, checked, declared, name_of};
use crate::api::volume::{entity, find, permit_to_fill, size};
use crate::apply::Edit;
use crate::authorize::{Denied, Entitlement, Permit};
use crate::dataset::Dataset;
use crate::storage::config::{self, of_new_volume};
use crate::storage::refresh::Refresh;
use crate::storage::volume_snapshots::step::{Begun, Step};
use crate::storage::volume_snapshots::{All, MOST, SnapshotError};
use crate::storage::{SnapshotTimes, VolumeSnapshot};
use crate::transfer::shipment::{Chosen, Incoming, Kin, Main, Origin, Outgoing};
use crate::trust::Caller;
use crate::wire::lxd::migration::{
    IndexConfig, IndexHeader, MigrationPost, VolumeCopyPost, VolumeIndex, VolumeSnapshotIndex,
};

/// Where a volume is: its pool and its name.
type Place = (PoolName, VolumeName);
/// Longest description of a snapshot.
const MAX_DESCRIPTION: usize = 64 * 1024;

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
    if mode == Mode::Copy && state.pools.has(&Dataset::volume(&place.0, &place.1)) {
        let (pool, name) = &place;
        return Err(LxdError::new(
            StatusCode::CONFLICT,
            format!(
                "Data of a volume {pool}/{name} already exists, though no volume is recorded: if it is not being copied at \
                 this moment, make the volume, which adopts it, and refresh it then, or choose another name"
            ),
        ));
    }
    let volume = Volume { description: wanted.description, config };
    let own = if source.prune && !source.volume_only { Own::Prune } else { Own::Keep };
    let origin = origin(&source);
    let incoming = || incoming(state, &permit, &place, (mode, own, origin), volume);
    let operation = match Way::of(&source)? {
        Way::Pull(remote) => {
            begun(state, &[&permit], &state.transfers.fetch(&permit, incoming().await?, &remote)?, None)
        }
        Way::Push => {
            let (operation, secrets) = state.transfers.await_from(&permit, incoming().await?, None)?;
            begun(state, &[&permit], &operation, Some(&secrets))
        }
        Way::Copy => {
            let (name, snapshot) = parted(&source.name)?;
            let from = if source.pool.is_empty() { place.0.clone() } else { pool_of(&source.pool)? };
            let from = (from, name_of(name)?);
            let reading = permit_to_send(state, caller, &from)?;
            let whole = !source.volume_only && snapshot.is_none();
            let allow = source.allow_inconsistent;
            let outgoing = outgoing(state, &from, snapshot, whole, allow).await?;
            begun(
                state,
                &[&reading, &permit],
                &state.transfers.copy([&reading, &permit], outgoing, incoming().await?)?,
                None,
            )
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
    if asked.moves {
        state.permit(caller, Entitlement::CanDelete, entity(&place.0, &place.1))?;
        Users::of(state, caller).await?.none(&place.0, &place.1)?;
    }
    let bound_to = bound_to(&asked)?;
    let outgoing = outgoing(state, &place, snapshot, whole, asked.allow_inconsistent).await?;
    Ok(if let Some(target) = asked.target {
        begun(state, &[&permit], &state.transfers.send_to(&permit, outgoing, &pushed_to(target))?, None)
    } else {
        let (operation, secrets) = state.transfers.serve(&permit, outgoing, bound_to)?;
        begun(state, &[&permit], &operation, Some(&secrets))
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

/// What was agreed on, between choosing and recording.
struct Agreement {
    /// The records of the snapshots that come.
    taken: All,
    /// With a refresh: what it does to the snapshots that are there.
    refresh: Option<Refresh<VolumeSnapshot>>,
    making: Option<Making>,
}

async fn incoming(
    state: &ApiState,
    permit: &Permit,
    place: &Place,
    (mode, own, origin): (Mode, Own, Origin),
    volume: Volume,
) -> Result<Incoming, LxdError> {
    let dataset = Dataset::volume(&place.0, &place.1);
    let here = state.volume_snapshots.get(&place.0, &place.1).await?;
    let here = here.into_iter().map(|(name, snapshot)| (name, snapshot.times.created_at)).collect();
    let kin = Kin::of(permit.caller());
    let size = match mode {
        Mode::Copy => config::size(&volume.config),
        Mode::Refresh => size(&state.store, &place.0, &place.1).await?,
    };
    let agreed: Arc<Mutex<Option<Agreement>>> = Arc::default();
    let (choosing, to) = (agreed.clone(), (state.clone(), place.clone()));
    let choose = move |told, offered: Vec<SnapshotName>| -> BoxFuture<'static, Result<Chosen, String>> {
        Box::pin(async move {
            let header = header(told);
            let chosen = choose(mode, &offered, &header.config.times(), &here, own);
            let agreement = agree(&to.0, &to.1, mode, &header, &chosen, here.len()).await?;
            *choosing.lock().unwrap_or_else(PoisonError::into_inner) = Some(agreement);
            Ok(chosen)
        })
    };
    let (state, permit, place) = (state.clone(), permit.clone(), place.clone());
    let record = move || -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async move {
            let agreement = agreed.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Agreement { taken, refresh, making } = agreement.ok_or("nothing was agreed on")?;
            let refresh = refresh.as_ref();
            write_down(&state, &permit, &place, mode, volume, (taken, refresh)).await?;
            if let Some(making) = making {
                making.made();
            }
            Ok(())
        })
    };
    Ok(Incoming { dataset, origin, mode, kin, size, choose: Box::new(choose), record: Box::new(record) })
}

/// Checks what would be recorded, and writes down what is about to be done. The volume's place is held by now, and, if the
/// volume is made, empty.
async fn agree(
    state: &ApiState,
    place: &Place,
    mode: Mode,
    header: &IndexHeader,
    chosen: &Chosen,
    here: usize,
) -> Result<Agreement, String> {
    let (pool, name) = place;
    if here.saturating_sub(chosen.drop.len()) + chosen.take.len() > MOST {
        return Err(SnapshotError::TooMany.to_string());
    }
    let taken = taken(name, header, chosen)?;
    let (step, refresh) = match mode {
        Mode::Copy => (Step::Make, None),
        Mode::Refresh => {
            let on_disk = state.pools.contents(&Dataset::volume(pool, name)).map_err(|e| e.to_string())?;
            let refresh = Refresh::new(on_disk, taken.clone(), chosen.drop.clone());
            if refresh.is_empty() {
                return Ok(Agreement { taken, refresh: None, making: None });
            }
            (Step::Refresh(refresh.clone()), Some(refresh))
        }
    };
    let begun = state.volume_snapshots.begin(pool, name, &step).await.map_err(|e| e.to_string())?;
    Ok(Agreement { taken, refresh, making: Some(making(state, place, begun)) })
}

async fn write_down(
    state: &ApiState,
    permit: &Permit,
    (pool, name): &Place,
    mode: Mode,
    volume: Volume,
    (taken, refresh): (All, Option<&Refresh<VolumeSnapshot>>),
) -> Result<(), String> {
    let (snapshots, now) = (&state.volume_snapshots, Timestamp::now());
    match (mode, refresh) {
        (Mode::Copy, _) => {
            if !taken.is_empty() {
                // Said before the volume is there, so that it is never listed without them.
                snapshots.set(permit, pool, name, taken, now).await.map_err(|e| e.to_string())?;
            }
            let key = RecordKey::Volume { pool: pool.clone(), volume: name.clone() };
            let edit = Edit::put(key, Record::Volume(volume)).only_at(0);
            state.apply.edit(permit, vec![edit]).await.map(drop).map_err(|e| e.to_string())
        }
        (Mode::Refresh, None) => Ok(()),
        (Mode::Refresh, Some(refresh)) => {
            snapshots.refreshed(permit, pool, name, refresh, now).await.map_err(|e| e.to_string())
        }
    }
}

/// If nothing is recorded, what was begun is settled once the transfer has let go.
fn making(state: &ApiState, (pool, name): &Place, begun: Begun) -> Making {
    let snapshots = state.volume_snapshots.clone();
    let settle = move || -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Err(error) = snapshots.settle(&begun, Timestamp::now()).await {
                tracing::warn!(%error, ?begun, "what a failed copy has left is seen to at the next start");
            }
        })
    };
    // What is to go is for the step to say.
    let stays = || -> BoxFuture<'static, bool> { Box::pin(async { true }) };
    Making::new(state, &Dataset::volume(pool, name), Box::new(stays), Box::new(settle))
}

/// The records of the snapshots that come, as far as they can be set here.
fn taken(volume: &VolumeName, header: &IndexHeader, chosen: &Chosen) -> Result<All, String> {
    let times = header.config.times();
    let told: BTreeMap<_, _> =
        header.config.volume_snapshots.iter().map(|told| (told.name.as_str(), told)).collect();
    let now = Timestamp::now();
    let record = |name: &SnapshotName| {
        let told = told.get(name.as_str());
        let created_at = times.get(name.as_str()).copied().unwrap_or(now);
        let config = told.map(|told| told.config.clone()).unwrap_or_default();
        let config = checked(volume, config).map_err(|e| format!("snapshot {name}: {}", e.message))?;
        let description = told.map(|told| told.description.clone()).unwrap_or_default();
        if description.len() > MAX_DESCRIPTION {
            return Err(format!("snapshot {name}: a description has at most {MAX_DESCRIPTION} bytes"));
        }
        let times = SnapshotTimes { created_at, expires_at: told.and_then(|told| told.expires_at) };
        Ok((name.clone(), VolumeSnapshot { description, config, times }))
    };
    chosen.take.iter().map(record).collect()
}
