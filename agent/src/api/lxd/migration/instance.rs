//! Instances: copied, sent and received.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::Response;
use futures::future::BoxFuture;
use http::StatusCode;
use jiff::Timestamp;
use schema::kind::transfer::Mode;
use schema::name::{ContainerName, PoolName, ProjectName, SnapshotName};
use serde_json::json;
use uuid::Uuid;

use super::compare::{Own, choose};
use super::making::Making;
use super::{
    Way, begun, bound_to, consistency, header, no_live, oldest_first, origin, parted, pushed_to, read,
};
use crate::api::ApiState;
use crate::api::lxd::answer::LxdError;
use crate::authorize::{Denied, Entitlement, Entity, Permit};
use crate::dataset::Dataset;
use crate::project::Held;
use crate::storage::instances::step::{Left, Step};
use crate::storage::instances::{Busy, InstanceError, MOST_SNAPSHOTS, config, dataset};
use crate::storage::refresh::Refresh;
use crate::storage::{Instance, InstanceSnapshot, Shape, SnapshotTimes};
use crate::transfer::shipment::{Chosen, Incoming, Kin, Main, Origin, Outgoing};
use crate::trust::Caller;
use crate::wire::lxd::migration::{
    IndexConfig, IndexHeader, InstanceCopyPost, InstanceIndex, InstanceSnapshotIndex, MigrationPost, Source,
    said,
};

/// Where an instance is: its project and its name.
type Place = (ProjectName, ContainerName);
/// The records of snapshots.
type Snapshots = BTreeMap<SnapshotName, InstanceSnapshot>;

/// What was agreed on, between choosing and recording.
struct Agreement {
    taken: Snapshots,
    /// With a refresh: what it does to the snapshots that are there.
    refresh: Option<(Refresh<InstanceSnapshot>, Making)>,
}

/// LXD's names of keys that a copy has of its own.
const UUID: &str = "volatile.uuid";
const BASE_IMAGE: &str = "volatile.base_image";
/// What of the `volatile.*` keys goes along with a copy within one server.
const COPIED: [&str; 2] = [BASE_IMAGE, "volatile.last_state.idmap"];

/// Makes an instance, or refreshes one, of another here or elsewhere.
pub async fn create_instance(
    state: &ApiState,
    caller: &Caller,
    project: ProjectName,
    bytes: &[u8],
) -> Result<Response, LxdError> {
    let wanted: InstanceCopyPost = read(bytes)?;
    if !matches!(wanted.kind.as_str(), "" | "container") {
        return Err(LxdError::bad_request("Only instances of type \"container\" can be copied here"));
    }
    let name = wanted.name.parse();
    let name: ContainerName =
        name.map_err(|error| LxdError::bad_request(format!("Invalid instance name: {error}")))?;
    let place = (project, name);
    let way = Way::of(&wanted.source)?;
    let restricted = |held: Arc<Held>| held.project.config.is_restricted();
    if matches!(way, Way::Pull(_)) && state.projects.get(&place.0).is_some_and(restricted) {
        let message = "Restricted projects are not allowed to use pull mode migration";
        return Err(LxdError::new(StatusCode::FORBIDDEN, message));
    }
    let there = state.instances.get(&place.0, &place.1).await?;
    let permit = match &there {
        Some(_) => state.permit(caller, Entitlement::CanEdit, entity(&place))?,
        None => state.permit(caller, Entitlement::CanCreateInstances, Entity::Project(place.0.clone()))?,
    };
    if there.is_some() && !wanted.source.refresh {
        return Err(InstanceError::Exists(place.1).into());
    }
    let from = match &way {
        Way::Copy => Some(copied(state, caller, &place.0, &wanted.source).await?),
        Way::Pull(_) | Way::Push => None,
    };
    let only = wanted.source.instance_only || wanted.source.container_only;
    let own = if wanted.source.prune && !only { Own::Prune } else { Own::Keep };
    let origin = origin(&wanted.source);
    let target = if let Some(held) = there {
        // A refresh is of the data and of snapshots; what is to be set besides, clients set afterwards.
        Target { pool: held.instance.pool, made: None }
    } else {
        let shape = shape(wanted, from.as_ref().map(|from| &from.shape));
        Target { pool: state.instances.check(&shape).await?, made: Some(shape) }
    };
    let doing = if target.made.is_some() { "create" } else { "migrate" };
    let busy = state.instances.hold((&place.0, &place.1), doing)?;
    let incoming = Incoming { origin, ..incoming(state, &permit, &place, target, own, busy).await? };
    Ok(match (way, from) {
        (Way::Pull(remote), _) => {
            begun(state, &[&permit], &state.transfers.fetch(&permit, incoming, &remote)?, None)
        }
        (Way::Copy, Some(from)) => begun(
            state,
            &[&from.permit, &permit],
            &state.transfers.copy([&from.permit, &permit], from.outgoing, incoming)?,
            None,
        ),
        (Way::Push | Way::Copy, _) => {
            let (operation, secrets) = state.transfers.await_from(&permit, incoming, None)?;
            begun(state, &[&permit], &operation, Some(&secrets))
        }
    })
}

/// Sends an instance, or one of its snapshots as an instance.
pub async fn migrate_instance(
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
    if asked.moves {
        state.permit(caller, Entitlement::CanDelete, entity(&place))?;
    }
    let bound_to = bound_to(&asked)?;
    let whole = !asked.instance_only && !asked.container_only;
    let (outgoing, _) = outgoing(state, &place, snapshot, whole, asked.allow_inconsistent).await?;
    Ok(if let Some(target) = asked.target {
        begun(state, &[&permit], &state.transfers.send_to(&permit, outgoing, &pushed_to(target))?, None)
    } else {
        let (operation, secrets) = state.transfers.serve(&permit, outgoing, bound_to)?;
        begun(state, &[&permit], &operation, Some(&secrets))
    })
}

/// Who may take an instance's data away: who may back it up, and, as with LXD, who may edit it.
fn permit_to_send(state: &ApiState, caller: &Caller, place: &Place) -> Result<Permit, Denied> {
    state
        .permit(caller, Entitlement::CanManageBackups, entity(place))
        .or_else(|_| state.permit(caller, Entitlement::CanEdit, entity(place)))
}

fn entity(place: &Place) -> Entity {
    Entity::Instance { project: place.0.clone(), name: place.1.to_string() }
}

/// The instance, or snapshot of one, that is copied within this server.
struct Copied {
    permit: Permit,
    outgoing: Outgoing,
    shape: Shape,
}

async fn copied(
    state: &ApiState,
    caller: &Caller,
    project: &ProjectName,
    source: &Source,
) -> Result<Copied, LxdError> {
    let (name, snapshot) = parted(&source.within)?;
    let missing = || LxdError::new(StatusCode::NOT_FOUND, "Instance not found");
    let project = match source.project.as_str() {
        "" => project.clone(),
        other => other.parse().map_err(|_| missing())?,
    };
    let place = (project, name.parse().map_err(|_| missing())?);
    let permit = permit_to_send(state, caller, &place)?;
    let whole = !source.instance_only && !source.container_only;
    let (outgoing, shape) = outgoing(state, &place, snapshot, whole, source.allow_inconsistent).await?;
    Ok(Copied { permit, outgoing, shape })
}

/// What is sent of an instance, and what it is that arrives.
async fn outgoing(
    state: &ApiState,
    place: &Place,
    snapshot: Option<SnapshotName>,
    whole: bool,
    allow_inconsistent: bool,
) -> Result<(Outgoing, Shape), LxdError> {
    let Instance { pool, shape, created_at, last_used_at, snapshots: all } =
        state.instances.find(&place.0, &place.1).await?.instance;
    let shape = match &snapshot {
        None => shape,
        Some(snapshot) => all.get(snapshot).ok_or(InstanceError::NoSuchSnapshot)?.shape.clone(),
    };
    let mut snapshots = Vec::new();
    if whole && snapshot.is_none() {
        snapshots = oldest_first(all.iter().map(|(name, snapshot)| (name, snapshot.times.created_at)));
    }
    let told = snapshots.iter().filter_map(|name| Some(index_of(name, all.get(name)?))).collect();
    let of = shape.clone();
    let instance = InstanceIndex {
        name: place.1.to_string(),
        description: of.description,
        architecture: of.architecture,
        config: of.config,
        devices: of.devices,
        profiles: of.profiles,
        ephemeral: of.ephemeral,
        kind: "container".to_owned(),
        status: "Stopped".to_owned(),
        status_code: 102,
        created_at,
        last_used_at: last_used_at.unwrap_or(Timestamp::UNIX_EPOCH),
    };
    let config = IndexConfig { instance: Some(instance), snapshots: told, ..IndexConfig::default() };
    let outgoing = Outgoing {
        dataset: dataset((&place.0, &place.1), &pool),
        snapshots,
        main: snapshot.map_or(Main::Live, Main::Snapshot),
        consistency: consistency(allow_inconsistent),
        header: json!(IndexHeader { config }),
    };
    Ok((outgoing, shape))
}

fn index_of(name: &SnapshotName, snapshot: &InstanceSnapshot) -> InstanceSnapshotIndex {
    let of = snapshot.shape.clone();
    InstanceSnapshotIndex {
        name: name.to_string(),
        architecture: of.architecture,
        config: of.config,
        devices: of.devices,
        profiles: of.profiles,
        ephemeral: of.ephemeral,
        stateful: false,
        created_at: snapshot.times.created_at,
        expires_at: snapshot.times.expires_at.unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

/// What is made: as the request says, and what it leaves open, as the source is, where that is known here.
fn shape(wanted: InstanceCopyPost, source: Option<&Shape>) -> Shape {
    let mut shape = Shape {
        description: wanted.description,
        architecture: wanted.architecture,
        config: wanted.config,
        devices: wanted.devices,
        profiles: wanted.profiles.clone().unwrap_or_default(),
        ephemeral: wanted.ephemeral,
    };
    if let Some(source) = source {
        for (key, value) in &source.config {
            if !key.starts_with("volatile.") || COPIED.contains(&key.as_str()) {
                shape.config.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        for (name, device) in &source.devices {
            shape.devices.entry(name.clone()).or_insert_with(|| device.clone());
        }
        if wanted.profiles.is_none() {
            shape.profiles.clone_from(&source.profiles);
        }
        if shape.architecture.is_empty() {
            shape.architecture.clone_from(&source.architecture);
        }
    } else if wanted.profiles.is_none() {
        shape.profiles = vec!["default".to_owned()];
    }
    if !wanted.source.base_image.is_empty() {
        shape.config.entry(BASE_IMAGE.to_owned()).or_insert(wanted.source.base_image);
    }
    shape.config.entry(UUID.to_owned()).or_insert_with(|| Uuid::new_v4().to_string());
    shape
}

/// Where it arrives, and what it is to be if it is made.
struct Target {
    pool: PoolName,
    made: Option<Shape>,
}

async fn incoming(
    state: &ApiState,
    permit: &Permit,
    place: &Place,
    target: Target,
    own: Own,
    busy: Busy,
) -> Result<Incoming, LxdError> {
    let tree = dataset((&place.0, &place.1), &target.pool);
    let (mode, shape, here) = match &target.made {
        None => {
            let Instance { shape, snapshots: all, .. } =
                state.instances.find(&place.0, &place.1).await?.instance;
            let here = all.into_iter().map(|(name, of)| (name, of.times.created_at)).collect();
            (Mode::Refresh, shape, here)
        }
        Some(shape) => (Mode::Copy, shape.clone(), BTreeMap::new()),
    };
    let size = config::size(&shape);
    let mut making = None;
    if target.made.is_some() {
        let at = (&place.0, &place.1);
        state.instances.make_room(at, &tree).await?;
        state.instances.begin(&tree.pool, at.0, at.1, &Step::Remove).await?;
        making = Some(unless_made(state, &tree, place));
    }
    let agreed: Arc<Mutex<Option<Agreement>>> = Arc::default();
    let (choosing, to, at) = (agreed.clone(), state.clone(), (tree.clone(), place.clone()));
    let choose = move |told, offered: Vec<SnapshotName>| -> BoxFuture<'static, Result<Chosen, String>> {
        Box::pin(async move {
            let header = header(told);
            let chosen = choose(mode, &offered, &header.config.times(), &here, own);
            if here.len().saturating_sub(chosen.drop.len()) + chosen.take.len() > MOST_SNAPSHOTS {
                return Err(InstanceError::TooManySnapshots.to_string());
            }
            let taken = taken(&header, &chosen, &shape, &at.0.pool)?;
            let refresh = match mode {
                Mode::Copy => None,
                Mode::Refresh => {
                    let begun = refreshing(&to, &at.0, &at.1, taken.clone(), chosen.drop.clone()).await;
                    begun.map_err(|error| error.to_string())?
                }
            };
            let agreement = Agreement { taken, refresh };
            *choosing.lock().unwrap_or_else(PoisonError::into_inner) = Some(agreement);
            Ok(chosen)
        })
    };
    let kin = Kin::of(permit.caller());
    let (state, permit, place) = (state.clone(), permit.clone(), place.clone());
    let record = move || -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async move {
            let _busy = busy;
            let agreement = agreed.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Agreement { taken, refresh } = agreement.ok_or("nothing was agreed on")?;
            let recorded = match target.made {
                Some(shape) => create(&state, &permit, &place, target.pool, shape, taken).await,
                None => refreshed(&state, &permit, &place, refresh.as_ref().map(|(of, _)| of)).await,
            };
            recorded.map_err(|error| error.to_string())?;
            for making in making.into_iter().chain(refresh.map(|(_, making)| making)) {
                making.made();
            }
            Ok(())
        })
    };
    let (choose, record) = (Box::new(choose), Box::new(record));
    let origin = Origin::default();
    Ok(Incoming { dataset: tree, origin, mode, kin, size, choose, record })
}

/// Writes down what is about to be done to the snapshots of an instance that is there.
async fn refreshing(
    state: &ApiState,
    tree: &Dataset,
    place: &Place,
    take: Snapshots,
    drop: Vec<SnapshotName>,
) -> Result<Option<(Refresh<InstanceSnapshot>, Making)>, InstanceError> {
    let refresh = Refresh::new(state.pools.contents(tree)?, take, drop);
    if refresh.is_empty() {
        return Ok(None);
    }
    let step = Step::Refresh(refresh.clone());
    state.instances.begin(&tree.pool, &place.0, &place.1, &step).await?;
    let (instances, (project, name)) = (state.instances.clone(), place.clone());
    let left = Left { pool: tree.pool.clone(), project, name, step };
    let settle = move || -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Err(error) = instances.settle(&left, Timestamp::now()).await {
                tracing::warn!(%error, instance = %left.name, "what a failed refresh has left is seen to at the next start");
            }
        })
    };
    // What is to go is for the step to say.
    let stays = || -> BoxFuture<'static, bool> { Box::pin(async { true }) };
    Ok(Some((refresh, Making::new(state, tree, Box::new(stays), Box::new(settle)))))
}

fn unless_made(state: &ApiState, tree: &Dataset, place: &Place) -> Making {
    let (instances, pool) = (state.instances.clone(), tree.pool.clone());
    let (there, (project, name)) = (instances.clone(), place.clone());
    let is_recorded = move || -> BoxFuture<'static, bool> {
        // What cannot be read is not taken for nothing.
        Box::pin(async move { !matches!(there.get(&project, &name).await, Ok(None)) })
    };
    let (project, name) = place.clone();
    let then = move || -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Err(error) = instances.end(&pool, &project, &name).await {
                tracing::warn!(%error, instance = %name, "that nothing came of an instance is seen to at the next start");
            }
        })
    };
    Making::new(state, tree, Box::new(is_recorded), Box::new(then))
}

async fn create(
    state: &ApiState,
    permit: &Permit,
    place: &Place,
    pool: PoolName,
    shape: Shape,
    snapshots: Snapshots,
) -> Result<(), InstanceError> {
    let now = Timestamp::now();
    let instance = Instance { pool, shape, created_at: now, last_used_at: None, snapshots };
    state.instances.create(permit, &place.0, &place.1, instance, now).await
}

async fn refreshed(
    state: &ApiState,
    permit: &Permit,
    place: &Place,
    refresh: Option<&Refresh<InstanceSnapshot>>,
) -> Result<(), InstanceError> {
    let held = state.instances.find(&place.0, &place.1).await?;
    let mut instance = held.instance;
    if let Some(refresh) = refresh {
        refresh.put(&mut instance.snapshots);
    }
    let now = Timestamp::now();
    state.instances.update(permit, &place.0, &place.1, held.revision, &instance, now).await?;
    if refresh.is_some() {
        state.instances.end(&instance.pool, &place.0, &place.1).await?;
    }
    Ok(())
}

/// The records of the snapshots that come, as far as they can be set here. Of one that the source tells nothing of, the
/// instance's own is all that is known.
fn taken(header: &IndexHeader, chosen: &Chosen, shape: &Shape, pool: &PoolName) -> Result<Snapshots, String> {
    let times = header.config.times();
    let told: BTreeMap<_, _> =
        header.config.snapshots.iter().map(|told| (told.name.as_str(), told)).collect();
    let now = Timestamp::now();
    let record = |name: &SnapshotName| {
        let told = told.get(name.as_str());
        let created_at = times.get(name.as_str()).copied().unwrap_or(now);
        let shape = match told {
            None => shape.clone(),
            Some(told) => {
                let mut theirs = Shape {
                    description: String::new(),
                    architecture: told.architecture.clone(),
                    config: told.config.clone(),
                    devices: told.devices.clone(),
                    profiles: told.profiles.clone(),
                    ephemeral: told.ephemeral,
                };
                config::fit(&mut theirs, shape, pool);
                config::check(&theirs).map_err(|error| format!("snapshot {name}: {error}"))?;
                theirs
            }
        };
        let times = SnapshotTimes { created_at, expires_at: told.and_then(|told| said(told.expires_at)) };
        Ok((name.clone(), InstanceSnapshot { shape, times }))
    };
    chosen.take.iter().map(record).collect()
}
