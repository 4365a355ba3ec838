//! `/1.0/instances/{name}/snapshots`.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Asked, begin, find, named, new_snapshot_name, shown, snapshot_named};
use crate::api::ApiState;
use crate::api::lxd::answer::{LxdError, sync};
use crate::api::lxd::{body, etag, migration};
use crate::authorize::Entitlement;
use crate::storage::InstanceError;
use crate::storage::instances::snapshot_url;
use crate::storage::schedule::{expiry, next_name};
use crate::trust::Caller;
use crate::wire::lxd::instance::{SnapshotPost, SnapshotsPost, moment};

/// What of a snapshot can be changed.
const CHANGEABLE: &str = "expires_at";

pub(super) async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    let place = (&project, &name);
    let (_, held) = find(&state, &caller, Entitlement::CanView, place).await?;
    let all = shown::by_age(&held.instance).into_iter();
    Ok(if asked.recursion.whole() {
        sync(all.map(|(name, taken)| shown::snapshot(name, taken)).collect::<Vec<_>>())
    } else {
        sync(all.map(|(name, _)| snapshot_url(place, name)).collect::<Vec<_>>())
    })
}

pub(super) async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((name, snapshot)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    let (_, held) = find(&state, &caller, Entitlement::CanView, (&project, &name)).await?;
    let snapshot = snapshot_named(&snapshot)?;
    let taken = held.instance.snapshots.get(&snapshot).ok_or(InstanceError::NoSuchSnapshot)?;
    Ok(etag::put(sync(shown::snapshot(&snapshot, taken)), &taken.times.expires_at))
}

pub(super) async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    let place = (&project, &name);
    let wanted: SnapshotsPost = if bytes.is_empty() { SnapshotsPost::default() } else { body::read(&bytes)? };
    let (permit, _) = find(&state, &caller, Entitlement::CanManageSnapshots, place).await?;
    if wanted.stateful == Some(true) {
        let message = "Unable to create a stateful snapshot. The instance isn't running";
        return Err(LxdError::bad_request(message));
    }
    let busy = state.instances.hold(place, "snapshot")?;
    let (held, now) = (state.instances.find(&project, &name).await?, Timestamp::now());
    let config = &held.instance.shape.config;
    let snapshot = match wanted.name.as_deref().unwrap_or_default() {
        "" => next_name(config, held.instance.snapshots.keys(), now).map_err(InstanceError::from)?,
        given => new_snapshot_name(given)?,
    };
    if held.instance.snapshots.contains_key(&snapshot) {
        return Err(InstanceError::SnapshotExists(name, snapshot).into());
    }
    let expires_at = match wanted.expires_at {
        Some(at) => moment(at),
        None => expiry(config, now).map_err(InstanceError::from)?,
    };
    let work = {
        let (instances, project, name) = (state.instances.clone(), project.clone(), name.clone());
        async move { instances.take_snapshot(&permit, (&project, &name), &snapshot, expires_at, busy, now).await }
    };
    Ok(begin(&state, caller, "Snapshotting instance", place, work))
}

/// Says when it expires; all else of a snapshot is as it was when it was taken.
pub(super) async fn put(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((name, snapshot)): Path<(String, String)>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    let place = (&project, &name);
    let (permit, held) = find(&state, &caller, Entitlement::CanManageSnapshots, place).await?;
    let snapshot = snapshot_named(&snapshot)?;
    let taken = held.instance.snapshots.get(&snapshot).ok_or(InstanceError::NoSuchSnapshot)?;
    etag::check(&headers, &taken.times.expires_at)?;
    let wanted: Map<String, Value> = body::read(&bytes)?;
    let as_shown = serde_json::to_value(shown::snapshot(&snapshot, taken)).unwrap_or_default();
    let other = wanted.iter().any(|(key, value)| key != CHANGEABLE && as_shown.get(key) != Some(value));
    if other {
        let message = "Only \"expires_at\" field(s) can be modified for instance snapshots";
        return Err(LxdError::bad_request(message));
    }
    let expires_at = match wanted.get(CHANGEABLE) {
        Some(Value::String(text)) => {
            let at: Timestamp = text.parse().map_err(|_| {
                LxdError::bad_request("Invalid expiry: it is a time, as in 2030-01-01T00:00:00Z")
            })?;
            moment(at)
        }
        _ => None,
    };
    let busy = state.instances.hold(place, "update")?;
    let work = {
        let (instances, project, name) = (state.instances.clone(), project.clone(), name.clone());
        async move {
            let _busy = busy;
            instances.set_expiry(&permit, (&project, &name), &snapshot, expires_at, Timestamp::now()).await
        }
    };
    Ok(begin(&state, caller, "Updating snapshot", place, work))
}

pub(super) async fn post(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((name, snapshot)): Path<(String, String)>,
    Query(asked): Query<Asked>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    let place = (&project, &name);
    let wanted: SnapshotPost = body::read(&bytes)?;
    let from = snapshot_named(&snapshot)?;
    if wanted.migration == Some(true) {
        return migration::migrate_instance(&state, &caller, (project, name), Some(from), &bytes).await;
    }
    let (permit, held) = find(&state, &caller, Entitlement::CanManageSnapshots, place).await?;
    if !held.instance.snapshots.contains_key(&from) {
        return Err(InstanceError::NoSuchSnapshot.into());
    }
    let to = new_snapshot_name(wanted.name.as_deref().unwrap_or_default())?;
    if held.instance.snapshots.contains_key(&to) {
        return Err(InstanceError::SnapshotExists(name, to).into());
    }
    let busy = state.instances.hold(place, "rename")?;
    let work = {
        let (instances, project, name) = (state.instances.clone(), project.clone(), name.clone());
        async move {
            instances.move_snapshot(&permit, (&project, &name), (&from, &to), busy, Timestamp::now()).await
        }
    };
    Ok(begin(&state, caller, "Renaming snapshot", place, work))
}

pub(super) async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((name, snapshot)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    let place = (&project, &name);
    let (permit, held) = find(&state, &caller, Entitlement::CanManageSnapshots, place).await?;
    let snapshot = snapshot_named(&snapshot)?;
    if !held.instance.snapshots.contains_key(&snapshot) {
        return Err(InstanceError::NoSuchSnapshot.into());
    }
    let busy = state.instances.hold(place, "delete")?;
    let work = {
        let (instances, project, name) = (state.instances.clone(), project.clone(), name.clone());
        async move {
            instances.remove_snapshot(&permit, (&project, &name), &snapshot, busy, Timestamp::now()).await
        }
    };
    Ok(begin(&state, caller, "Deleting snapshot", place, work))
}
