//! `/1.0/storage-pools/{pool}/volumes/custom/{volume}/snapshots`.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use schema::name::{PoolName, SnapshotName, VolumeName};
use serde_json::Value;

use super::answer::{self, LxdError};
use super::migration;
use super::operation::body as operation_body;
use super::volume::{Asked, declared};
use super::{body, etag};
use crate::api::ApiState;
use crate::api::volume::entity;
use crate::authorize::{Entitlement, Permit};
use crate::operation::{Class, Start};
use crate::storage::VolumeSnapshot;
use crate::storage::volume_snapshots::{Expires, SnapshotError, Wanted, url};
use crate::trust::Caller;
use crate::wire::storage::{
    StorageVolumePost, StorageVolumeSnapshot, StorageVolumeSnapshotPut, StorageVolumeSnapshotsPost,
};

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/storage-pools/{pool}/volumes/custom/{volume}/snapshots", get(list).post(create))
        .route(
            "/storage-pools/{pool}/volumes/custom/{volume}/snapshots/{snapshot}",
            get(show).put(put).patch(patch).post(post).delete(remove),
        )
}

impl From<SnapshotError> for LxdError {
    fn from(error: SnapshotError) -> Self {
        let status = match error {
            SnapshotError::NoSuchVolume | SnapshotError::NotFound => StatusCode::NOT_FOUND,
            SnapshotError::Exists(_) => StatusCode::CONFLICT,
            SnapshotError::TooMany | SnapshotError::Pattern(_) | SnapshotError::Lifetime(_) => {
                StatusCode::BAD_REQUEST
            }
            SnapshotError::Contended => StatusCode::PRECONDITION_FAILED,
            SnapshotError::Ended => StatusCode::SERVICE_UNAVAILABLE,
            SnapshotError::Pool(error) => return error.into(),
            SnapshotError::Store(_) | SnapshotError::Value(_) | SnapshotError::Commit(_) => {
                return Self::internal(&error);
            }
        };
        Self::new(status, error.to_string())
    }
}

type Volume = (PoolName, VolumeName);
type Snapshot = (PoolName, VolumeName, SnapshotName);

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, volume)): Path<Volume>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    asked.check()?;
    state.permit(&caller, Entitlement::CanView, entity(&pool, &volume))?;
    declared(&state, &pool, &volume).await?;
    let all = state.volume_snapshots.get(&pool, &volume).await?;
    if !asked.whole() {
        return Ok(answer::sync(all.keys().map(|name| url(&pool, &volume, Some(name))).collect::<Vec<_>>()));
    }
    // LXD names them whole here, and lxc 5.0 looks for the slash.
    let shown = all.into_iter().map(|(name, snapshot)| shown(format!("{volume}/{name}"), snapshot));
    Ok(answer::sync(shown.collect::<Vec<_>>()))
}

async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, volume)): Path<Volume>,
    Query(asked): Query<Asked>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    asked.check()?;
    let permit = state.permit(&caller, Entitlement::CanManageSnapshots, entity(&pool, &volume))?;
    let (of, _) = declared(&state, &pool, &volume).await?;
    let wanted: StorageVolumeSnapshotsPost = body::read(&bytes)?;
    let now = Timestamp::now();
    let taken = state.volume_snapshots.get(&pool, &volume).await?;
    let name = if wanted.name.is_empty() {
        let config = match of.record {
            schema::record::Record::Volume(volume) => volume.config,
            _ => std::collections::BTreeMap::new(),
        };
        let next = crate::storage::schedule::next_name(&config, taken.keys(), now);
        next.map_err(SnapshotError::from)?
    } else {
        name_of(&wanted.name)?
    };
    if taken.contains_key(&name) {
        return Err(SnapshotError::Exists(name).into());
    }
    let expires = match wanted.expires_at {
        None => Expires::AsConfigured,
        Some(at) => at.0.map_or(Expires::Never, Expires::At),
    };
    let resources = vec![url(&pool, &volume, None), url(&pool, &volume, Some(&name))];
    let wanted = Wanted { name: Some(name), description: wanted.description, expires };
    let snapshots = state.volume_snapshots.clone();
    Ok(begin(&state, caller, "Creating storage volume snapshot", resources, async move {
        snapshots.create(&permit, &pool, &volume, wanted, now).await.map(drop)
    }))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, volume, name)): Path<Snapshot>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    asked.check()?;
    state.permit(&caller, Entitlement::CanView, entity(&pool, &volume))?;
    let snapshot = find(&state, &pool, &volume, &name).await?;
    let tag = tag(&snapshot);
    Ok(etag::put(answer::sync(shown(name.to_string(), snapshot)), &tag))
}

async fn put(
    state: State<ApiState>,
    caller: Extension<Caller>,
    path: Path<Snapshot>,
    asked: Query<Asked>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    change(state, caller, path, asked, headers, bytes, true).await
}

async fn patch(
    state: State<ApiState>,
    caller: Extension<Caller>,
    path: Path<Snapshot>,
    asked: Query<Asked>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    change(state, caller, path, asked, headers, bytes, false).await
}

/// Says anew what can be said of a snapshot. `whole`: what is not given is nothing.
async fn change(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, volume, name)): Path<Snapshot>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    bytes: Bytes,
    whole: bool,
) -> Result<Response, LxdError> {
    asked.check()?;
    let permit = manage(&state, &caller, &pool, &volume)?;
    let snapshot = find(&state, &pool, &volume, &name).await?;
    etag::check(&headers, &tag(&snapshot))?;
    let wanted: StorageVolumeSnapshotPut = body::read(&bytes)?;
    let expires_at = match wanted.expires_at {
        Some(at) => at.0,
        None if whole => None,
        None => snapshot.times.expires_at,
    };
    let description = match wanted.description {
        Some(description) => description,
        None if whole => String::new(),
        None => snapshot.description,
    };
    let edit = |snapshot: &mut VolumeSnapshot| {
        snapshot.times.expires_at = expires_at;
        snapshot.description.clone_from(&description);
    };
    state.volume_snapshots.update(&permit, &pool, &volume, &name, edit, Timestamp::now()).await?;
    Ok(answer::empty())
}

/// Another name, or a migration.
async fn post(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, volume, name)): Path<Snapshot>,
    Query(asked): Query<Asked>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    asked.check()?;
    let wanted: StorageVolumePost = body::read(&bytes)?;
    if wanted.migration {
        return migration::migrate_volume(&state, &caller, (pool, volume), Some(name), &bytes).await;
    }
    let permit = manage(&state, &caller, &pool, &volume)?;
    find(&state, &pool, &volume, &name).await?;
    let to = name_of(wanted.name.rsplit('/').next().unwrap_or_default())?;
    let snapshots = state.volume_snapshots.clone();
    let resources = vec![url(&pool, &volume, Some(&name))];
    Ok(begin(&state, caller, "Renaming storage volume snapshot", resources, async move {
        snapshots.rename(&permit, &pool, &volume, &name, &to, Timestamp::now()).await
    }))
}

async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, volume, name)): Path<Snapshot>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    asked.check()?;
    let permit = manage(&state, &caller, &pool, &volume)?;
    find(&state, &pool, &volume, &name).await?;
    let snapshots = state.volume_snapshots.clone();
    let resources = vec![url(&pool, &volume, Some(&name))];
    Ok(begin(&state, caller, "Deleting storage volume snapshot", resources, async move {
        snapshots.delete(&permit, &pool, &volume, &name, Timestamp::now()).await
    }))
}

fn manage(
    state: &ApiState,
    caller: &Caller,
    pool: &PoolName,
    volume: &VolumeName,
) -> Result<Permit, LxdError> {
    Ok(state.permit(caller, Entitlement::CanManageSnapshots, entity(pool, volume))?)
}

async fn find(
    state: &ApiState,
    pool: &PoolName,
    volume: &VolumeName,
    name: &SnapshotName,
) -> Result<VolumeSnapshot, LxdError> {
    declared(state, pool, volume).await?;
    let mut all = state.volume_snapshots.get(pool, volume).await?;
    all.remove(name).ok_or_else(|| SnapshotError::NotFound.into())
}

fn name_of(text: &str) -> Result<SnapshotName, LxdError> {
    // The name may be a token in the wrong place: the message does not repeat it.
    text.parse().map_err(|error| LxdError::bad_request(format!("Invalid snapshot name: {error}")))
}

fn begin(
    state: &ApiState,
    by: Caller,
    description: &'static str,
    resources: Vec<String>,
    work: impl Future<Output = Result<(), SnapshotError>> + Send + 'static,
) -> Response {
    let start = Start { class: Class::Task, description, by, resources };
    let operation = state.operations.start(&state.tasks, start, |_| async {
        work.await.map(|()| Value::Null).map_err(|error| said(&error))
    });
    answer::operation(&format!("/1.0/operations/{}", operation.id), operation_body(&operation))
}

/// The error with what lies beneath it.
fn said(error: &SnapshotError) -> String {
    let mut text = error.to_string();
    let mut at = std::error::Error::source(error);
    while let Some(source) = at {
        let more = source.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        at = source.source();
    }
    text
}

/// What an ETag of a snapshot is made of.
fn tag(snapshot: &VolumeSnapshot) -> (String, Option<Timestamp>) {
    (snapshot.description.clone(), snapshot.times.expires_at)
}

fn shown(name: String, snapshot: VolumeSnapshot) -> StorageVolumeSnapshot {
    StorageVolumeSnapshot {
        name,
        description: snapshot.description,
        content_type: "filesystem".to_owned(),
        config: snapshot.config,
        created_at: Some(snapshot.times.created_at),
        expires_at: snapshot.times.expires_at,
    }
}
