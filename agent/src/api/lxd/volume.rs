//! `/1.0/storage-pools` and the custom volumes in them.
//!
//! There is one kind of pool, directories, and one content type, file systems. LXD's volume types of instances and
//! images exist in name only: their lists are empty.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::StatusCode;
use schema::name::{PoolName, VolumeName};
use schema::record::{Record, RecordKey};
use serde::Deserialize;

use super::answer::{self, LxdError};
use super::recursion::Recursion;
use crate::api::ApiState;
use crate::api::volume::{self, FindError, entity};
use crate::apply::Edit;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::dataset::{Dataset, PoolError};
use crate::store::value::Declared;
use crate::trust::Caller;
use crate::trust::entity::DEFAULT_PROJECT;
use crate::wire::volume::{
    OWNER_KEY, PoolResources, StoragePool, StorageVolume, StorageVolumePut, StorageVolumeState,
    StorageVolumesPost, Usage,
};

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/storage-pools", get(pools))
        .route("/storage-pools/{pool}", get(pool))
        .route("/storage-pools/{pool}/resources", get(resources))
        .route("/storage-pools/{pool}/volumes", get(volumes).post(create))
        .route("/storage-pools/{pool}/volumes/custom", get(volumes).post(create))
        .route(
            "/storage-pools/{pool}/volumes/custom/{volume}",
            get(show).put(put).patch(patch).delete(delete),
        )
        .route("/storage-pools/{pool}/volumes/custom/{volume}/state", get(usage))
}

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    recursion: Recursion,
    #[serde(default)]
    project: String,
}

impl Asked {
    /// Whether it is about the project that volumes are in. (That there is such a project is known by now.)
    fn is_default(&self) -> bool {
        matches!(self.project.as_str(), "" | DEFAULT_PROJECT)
    }

    /// For what is asked of one volume.
    fn check(&self) -> Result<(), LxdError> {
        if self.is_default() { Ok(()) } else { Err(LxdError::plain(StatusCode::NOT_FOUND)) }
    }
}

async fn pools(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let pools = state.pools.list()?;
    if !asked.recursion.whole() {
        return Ok(answer::sync(pools.iter().map(pool_url).collect::<Vec<_>>()));
    }
    let volumes = volume::all(&state.store).await?;
    Ok(answer::sync(
        pools.into_iter().map(|pool| pool_body(&state, &caller, pool, &volumes)).collect::<Vec<_>>(),
    ))
}

async fn pool(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(pool): Path<PoolName>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let pool = existing(&state, pool)?;
    let volumes = volume::all(&state.store).await?;
    Ok(answer::sync(pool_body(&state, &caller, pool, &volumes)))
}

async fn resources(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(pool): Path<PoolName>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    state.permit(&caller, Entitlement::CanViewResources, Entity::Server)?;
    let (total, free) = state.pools.space(&existing(&state, pool)?)?;
    let space = Usage { used: total.saturating_sub(free), total };
    Ok(answer::sync(PoolResources { space, inodes: Usage::default() }))
}

async fn volumes(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(pool): Path<PoolName>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let pool = existing(&state, pool)?;
    if !asked.is_default() {
        return Ok(answer::sync(Vec::<String>::new()));
    }
    let mut seen = volume::all(&state.store).await?;
    seen.retain(|(in_pool, name, _)| *in_pool == pool && sees(&state, &caller, &pool, name));
    if !asked.recursion.whole() {
        return Ok(answer::sync(seen.iter().map(|(pool, name, _)| url(pool, name)).collect::<Vec<_>>()));
    }
    Ok(answer::sync(seen.into_iter().map(|(pool, name, is)| body(pool, name, is)).collect::<Vec<_>>()))
}

async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(pool): Path<PoolName>,
    Query(asked): Query<Asked>,
    Json(wanted): Json<StorageVolumesPost>,
) -> Result<Response, LxdError> {
    if !asked.is_default() {
        let message = "Storage volumes can be made in the project \"default\" only, as yet";
        return Err(LxdError::bad_request(message));
    }
    let permit = state.permit(&caller, Entitlement::CanCreateStorageVolumes, Entity::default_project())?;
    let pool = existing(&state, pool)?;
    if !matches!(wanted.kind.as_str(), "" | "custom") {
        return Err(LxdError::bad_request("Currently not allowed to create storage volumes of this type"));
    }
    if !matches!(wanted.content_type.as_str(), "" | "filesystem") {
        return Err(LxdError::bad_request("Invalid content type: only filesystem is supported"));
    }
    if let Some(key) = wanted.config.keys().next() {
        return Err(LxdError::bad_request(format!("Invalid option for volume: {key:?}")));
    }
    let source = &wanted.source["type"];
    if !source.is_null() && source != "" && source != "none" {
        return Err(LxdError::bad_request(format!("Unknown source type {source}")));
    }
    // The name may be a token in the wrong place: the message does not repeat it.
    let name: VolumeName =
        wanted.name.parse().map_err(|e| LxdError::bad_request(format!("Invalid volume name: {e}")))?;
    if volume::find(&state.store, &pool, &name).await?.is_some() {
        return Err(LxdError::new(StatusCode::CONFLICT, "Volume by that name already exists"));
    }
    volume::create(&state.apply, &permit, &pool, &name, wanted.description).await?;
    Ok(answer::created(&url(&pool, &name), serde_json::Map::new()))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, name)): Path<(PoolName, VolumeName)>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    asked.check()?;
    state.permit(&caller, Entitlement::CanView, entity(&pool, &name))?;
    let (declared, _) = declared(&state, &pool, &name).await?;
    Ok(answer::sync(body(pool, name, declared)))
}

async fn put(
    state: State<ApiState>,
    caller: Extension<Caller>,
    path: Path<(PoolName, VolumeName)>,
    Json(mut wanted): Json<StorageVolumePut>,
) -> Result<Response, LxdError> {
    wanted.description.get_or_insert_default();
    patch(state, caller, path, Json(wanted)).await
}

async fn patch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, name)): Path<(PoolName, VolumeName)>,
    Json(wanted): Json<StorageVolumePut>,
) -> Result<Response, LxdError> {
    let permit = state.permit(&caller, Entitlement::CanEdit, entity(&pool, &name))?;
    let (declared, revision) = declared(&state, &pool, &name).await?;
    if let Some(key) = wanted.config.iter().flat_map(BTreeMap::keys).find(|key| *key != OWNER_KEY) {
        return Err(LxdError::bad_request(format!("Invalid option for volume: {key:?}")));
    }
    if let (Record::Volume(mut volume), Some(description)) = (declared.record, wanted.description) {
        volume.description = description;
        let key = RecordKey::Volume { pool, volume: name };
        let edit = Edit::put(key, Record::Volume(volume)).only_at(revision);
        state.apply.edit(&permit, vec![edit]).await?;
    }
    Ok(answer::empty())
}

async fn delete(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, name)): Path<(PoolName, VolumeName)>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    asked.check()?;
    let permit = state.permit(&caller, Entitlement::CanDelete, entity(&pool, &name))?;
    declared(&state, &pool, &name).await?;
    volume::delete(&state.apply, &permit, &pool, &name).await?;
    Ok(answer::empty())
}

async fn usage(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, name)): Path<(PoolName, VolumeName)>,
) -> Result<Response, LxdError> {
    state.permit(&caller, Entitlement::CanView, entity(&pool, &name))?;
    declared(&state, &pool, &name).await?;
    let used = state.pools.usage(&Dataset::volume(&pool, &name)).await?;
    Ok(answer::sync(StorageVolumeState { usage: Usage { used, total: 0 } }))
}

fn sees(state: &ApiState, caller: &Caller, pool: &PoolName, name: &VolumeName) -> bool {
    state.permit(caller, Entitlement::CanView, entity(pool, name)).is_ok()
}

fn existing(state: &ApiState, pool: PoolName) -> Result<PoolName, LxdError> {
    if state.pools.exists(&pool) {
        Ok(pool)
    } else {
        Err(LxdError::new(StatusCode::NOT_FOUND, "Storage pool not found"))
    }
}

async fn declared(state: &ApiState, pool: &PoolName, name: &VolumeName) -> Result<(Declared, u64), LxdError> {
    volume::find(&state.store, pool, name)
        .await?
        .ok_or_else(|| LxdError::new(StatusCode::NOT_FOUND, "Storage volume not found"))
}

fn pool_url(pool: &PoolName) -> String {
    format!("/1.0/storage-pools/{pool}")
}

fn url(pool: &PoolName, name: &VolumeName) -> String {
    format!("/1.0/storage-pools/{pool}/volumes/custom/{name}")
}

fn pool_body(
    state: &ApiState,
    caller: &Caller,
    pool: PoolName,
    volumes: &[(PoolName, VolumeName, Declared)],
) -> StoragePool {
    let used_by = volumes
        .iter()
        .filter(|(in_pool, name, _)| *in_pool == pool && sees(state, caller, &pool, name))
        .map(|(pool, name, _)| url(pool, name))
        .collect();
    StoragePool {
        name: pool,
        description: String::new(),
        driver: "dir".to_owned(),
        status: "Created".to_owned(),
        locations: vec!["none".to_owned()],
        config: BTreeMap::new(),
        used_by,
    }
}

fn body(pool: PoolName, name: VolumeName, declared: Declared) -> StorageVolume {
    let description = match declared.record {
        Record::Volume(volume) => volume.description,
        _ => String::new(),
    };
    let config = declared.owner.map(|owner| (OWNER_KEY.to_owned(), owner.to_string())).into_iter().collect();
    StorageVolume {
        name,
        kind: "custom".to_owned(),
        pool,
        description,
        content_type: "filesystem".to_owned(),
        project: "default".to_owned(),
        location: "none".to_owned(),
        config,
        used_by: Vec::new(),
    }
}

impl From<FindError> for LxdError {
    fn from(error: FindError) -> Self {
        Self::internal(&error)
    }
}

impl From<PoolError> for LxdError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::NoSuchPool(_) | PoolError::NoSuchDataset(_) | PoolError::NoSuchSnapshot { .. } => {
                Self::new(StatusCode::NOT_FOUND, error.to_string())
            }
            PoolError::Busy(_)
            | PoolError::Exists(_)
            | PoolError::PoolExists(_)
            | PoolError::SnapshotExists { .. } => Self::new(StatusCode::CONFLICT, error.to_string()),
            PoolError::BadSource { .. } | PoolError::NotEmpty { .. } | PoolError::Default(_) => {
                Self::new(StatusCode::BAD_REQUEST, error.to_string())
            }
            _ => Self::internal(&error),
        }
    }
}
