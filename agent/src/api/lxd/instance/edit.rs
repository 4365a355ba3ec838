//! `PUT` and `PATCH` of an instance: what it is set to, and going back to a snapshot.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use super::create::pairs;
use super::{Asked, begin, find, named, snapshot_named};
use crate::api::ApiState;
use crate::api::lxd::answer::{self, LxdError};
use crate::api::lxd::{body, etag};
use crate::authorize::Entitlement;
use crate::storage::{Instance, Shape};
use crate::trust::Caller;
use crate::wire::lxd::instance::InstancePut;

/// What stays as it is though whoever sets the rest leaves it out.
const KEPT: &str = "volatile.uuid";

/// Replaces what is set. In an operation, as LXD's clients expect.
pub(super) async fn put(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    let place = (&project, &name);
    let wanted: InstancePut = body::read(&bytes)?;
    if let Some(snapshot) = wanted.restore.filter(|snapshot| !snapshot.is_empty()) {
        return restore(&state, caller, (&project, &name), &snapshot).await;
    }
    let (permit, _) = find(&state, &caller, Entitlement::CanEdit, place).await?;
    let busy = state.instances.hold(place, "update")?;
    let held = state.instances.find(&project, &name).await?;
    etag::check(&headers, &held.instance.shape)?;
    let mut shape = Shape {
        description: wanted.description.unwrap_or_default(),
        architecture: wanted
            .architecture
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| held.instance.shape.architecture.clone()),
        config: pairs(wanted.config),
        devices: wanted
            .devices
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, device)| Some((name, device?)))
            .collect(),
        profiles: wanted.profiles.unwrap_or_default(),
        ephemeral: wanted.ephemeral.unwrap_or_default(),
    };
    if let Some(own) = held.instance.shape.config.get(KEPT) {
        shape.config.entry(KEPT.to_owned()).or_insert_with(|| own.clone());
    }
    let instance = changed(&state, &held.instance, shape).await?;
    let work = {
        let (instances, project, name) = (state.instances.clone(), project.clone(), name.clone());
        async move {
            let _busy = busy;
            let now = Timestamp::now();
            instances.update(&permit, &project, &name, held.revision, &instance, now).await
        }
    };
    Ok(begin(&state, caller, "Updating instance", place, work))
}

/// Changes what is named and leaves the rest: keys and devices one by one.
pub(super) async fn patch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    let place = (&project, &name);
    let wanted: InstancePut = body::read(&bytes)?;
    let (permit, _) = find(&state, &caller, Entitlement::CanEdit, place).await?;
    let _busy = state.instances.hold(place, "update")?;
    let held = state.instances.find(&project, &name).await?;
    etag::check(&headers, &held.instance.shape)?;
    let mut shape = held.instance.shape.clone();
    if let Some(description) = wanted.description {
        shape.description = description;
    }
    if let Some(architecture) = wanted.architecture.filter(|name| !name.is_empty()) {
        shape.architecture = architecture;
    }
    for (key, value) in wanted.config.unwrap_or_default() {
        match value.filter(|value| !value.is_empty()) {
            Some(value) => shape.config.insert(key, value),
            None => shape.config.remove(&key),
        };
    }
    for (name, device) in wanted.devices.unwrap_or_default() {
        match device {
            Some(device) => shape.devices.insert(name, device),
            None => shape.devices.remove(&name),
        };
    }
    if let Some(profiles) = wanted.profiles {
        shape.profiles = profiles;
    }
    if let Some(ephemeral) = wanted.ephemeral {
        shape.ephemeral = ephemeral;
    }
    let instance = changed(&state, &held.instance, shape).await?;
    state.instances.update(&permit, &project, &name, held.revision, &instance, Timestamp::now()).await?;
    Ok(answer::empty())
}

/// The instance with another shape, if it can have that.
async fn changed(state: &ApiState, instance: &Instance, shape: Shape) -> Result<Instance, LxdError> {
    let pool = state.instances.check(&shape).await?;
    if pool != instance.pool {
        let message = "The storage pool of the root disk cannot be changed like this: move the instance to \
                       another pool instead (lxc move NAME --storage POOL)";
        return Err(LxdError::bad_request(message));
    }
    Ok(Instance { shape, ..instance.clone() })
}

async fn restore(
    state: &ApiState,
    caller: Caller,
    place: crate::storage::instances::Place<'_>,
    snapshot: &str,
) -> Result<Response, LxdError> {
    let (permit, held) = find(state, &caller, Entitlement::CanManageSnapshots, place).await?;
    // lxc 5.0 names it with its instance, `c1/snap0`; pylxd does not.
    let own = snapshot.split_once('/').filter(|(of, _)| *of == place.1.as_str());
    let snapshot = own.map_or(snapshot, |(_, snapshot)| snapshot);
    let found = snapshot_named(snapshot).ok().filter(|name| held.instance.snapshots.contains_key(name));
    let Some(snapshot) = found else {
        let shown: String = snapshot.chars().take(64).collect();
        let message = format!("Snapshot {}/{shown} does not exist", place.1);
        return Err(LxdError::new(StatusCode::NOT_FOUND, message));
    };
    let busy = state.instances.hold(place, "restore")?;
    let work = {
        let (instances, project, name) = (state.instances.clone(), place.0.clone(), place.1.clone());
        async move { instances.restore(&permit, (&project, &name), &snapshot, busy, Timestamp::now()).await }
    };
    Ok(begin(state, caller, "Restoring snapshot", place, work))
}
