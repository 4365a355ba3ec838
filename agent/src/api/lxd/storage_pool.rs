//! `/1.0/storage-pools`. There is one kind of pool, directories (LXD: driver `dir`).

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use schema::name::{PoolName, ProjectName, VolumeName};
use serde_json::json;

use super::answer::{self, LxdError};
use super::recursion::Depth;
use super::{body, etag};
use crate::api::ApiState;
use crate::api::volume::{self, entity};
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::storage::config::{self, ConfigError};
use crate::storage::instances;
use crate::storage::pools::{Held, Source, StoragePool, StoragePoolError};
use crate::storage::volume_snapshots::url;
use crate::trust::Caller;
use crate::wire::storage::{StoragePoolPut, StoragePoolsPost};
use crate::wire::volume::{PoolResources, StoragePool as Shown, Usage};

/// The one driver that there is.
const DRIVER: &str = "dir";

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/storage-pools", get(list).post(create))
        .route("/storage-pools/{pool}", get(show).put(put).patch(patch).delete(remove))
        .route("/storage-pools/{pool}/resources", get(resources))
}

impl From<StoragePoolError> for LxdError {
    fn from(error: StoragePoolError) -> Self {
        let status = match error {
            StoragePoolError::NotFound => StatusCode::NOT_FOUND,
            StoragePoolError::Exists
            | StoragePoolError::InUse
            | StoragePoolError::Default
            | StoragePoolError::Source
            | StoragePoolError::TooMany => StatusCode::BAD_REQUEST,
            StoragePoolError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            StoragePoolError::Contended => StatusCode::PRECONDITION_FAILED,
            StoragePoolError::Pool(error) => return error.into(),
            StoragePoolError::Store(_) | StoragePoolError::Value(_) | StoragePoolError::Commit(_) => {
                return Self::internal(&error);
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<ConfigError> for LxdError {
    fn from(error: ConfigError) -> Self {
        Self::bad_request(error.to_string())
    }
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(depth): Query<Depth>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let all = state.storage_pools.all().await?;
    if !depth.recursion.whole() {
        return Ok(answer::sync(all.keys().map(pool_url).collect::<Vec<_>>()));
    }
    let used = Used::of(&state).await?;
    let shown = all.into_iter().map(|(name, held)| shown(&state, &caller, &name, held, &used));
    Ok(answer::sync(shown.collect::<Vec<_>>()))
}

async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let permit = state.permit(&caller, Entitlement::CanCreateStoragePools, Entity::Server)?;
    let wanted: StoragePoolsPost = body::read(&bytes)?;
    if wanted.name.is_empty() {
        return Err(LxdError::bad_request("No name provided"));
    }
    if wanted.name.contains('/') {
        return Err(LxdError::bad_request("Storage pool names may not contain slashes"));
    }
    match wanted.driver.as_str() {
        "" => return Err(LxdError::bad_request("No driver provided")),
        DRIVER => {}
        _ => {
            let message =
                "Storage driver not supported: this server keeps pools in directories, driver \"dir\"";
            return Err(LxdError::bad_request(message));
        }
    }
    // The name may be a token in the wrong place: the message does not repeat it.
    let name: PoolName = wanted
        .name
        .parse()
        .map_err(|error| LxdError::bad_request(format!("Invalid storage pool name: {error}")))?;
    let config = config::read(wanted.config)?;
    let pool = StoragePool { description: wanted.description, config };
    let source = state.storage_pools.create(&permit, &name, pool, Timestamp::now()).await?;
    // LXD says nothing here, and its clients pass over it.
    Ok(answer::created(&pool_url(&name), json!({ "made_source": source == Source::Made })))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<PoolName>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let held = state.storage_pools.get(&name).await?;
    let used = Used::of(&state).await?;
    let pool = held.pool.clone();
    Ok(etag::put(answer::sync(shown(&state, &caller, &name, held, &used)), &pool))
}

async fn put(
    state: State<ApiState>,
    caller: Extension<Caller>,
    path: Path<PoolName>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    change(state, caller, path, headers, bytes, |_, wanted| StoragePool {
        description: wanted.description.unwrap_or_default(),
        config: wanted.config.unwrap_or_default(),
    })
    .await
}

async fn patch(
    state: State<ApiState>,
    caller: Extension<Caller>,
    path: Path<PoolName>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    change(state, caller, path, headers, bytes, |mut pool, wanted| {
        pool.config.extend(wanted.config.unwrap_or_default());
        pool.description = wanted.description.unwrap_or(pool.description);
        pool
    })
    .await
}

async fn change(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<PoolName>,
    headers: HeaderMap,
    bytes: Bytes,
    edit: impl FnOnce(StoragePool, StoragePoolPut) -> StoragePool,
) -> Result<Response, LxdError> {
    let permit = state.permit(&caller, Entitlement::CanEdit, Entity::Pool(name.clone()))?;
    let held = state.storage_pools.get(&name).await?;
    etag::check(&headers, &held.pool)?;
    let mut pool = edit(held.pool.clone(), body::read(&bytes)?);
    pool.config = config::read(pool.config)?;
    state.storage_pools.update(&permit, &name, &held, pool, Timestamp::now()).await?;
    Ok(answer::empty())
}

async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<PoolName>,
) -> Result<Response, LxdError> {
    let permit = state.permit(&caller, Entitlement::CanDelete, Entity::Pool(name.clone()))?;
    state.storage_pools.delete(&permit, &name, Timestamp::now()).await?;
    Ok(answer::empty())
}

async fn resources(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<PoolName>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    state.permit(&caller, Entitlement::CanViewResources, Entity::Server)?;
    let (total, used, _) = state.pools.space(&existing(&state, name)?)?;
    let space = Usage { used, total };
    Ok(answer::sync(PoolResources { space, inodes: Usage::default() }))
}

/// The pool, which is to be there.
pub fn existing(state: &ApiState, pool: PoolName) -> Result<PoolName, LxdError> {
    if state.pools.exists(&pool) {
        Ok(pool)
    } else if state.pools.is_away(&pool) {
        Err(StoragePoolError::Unavailable(pool).into())
    } else {
        Err(StoragePoolError::NotFound.into())
    }
}

/// What is in pools.
struct Used {
    volumes: Vec<(PoolName, VolumeName)>,
    instances: Vec<(PoolName, ProjectName, schema::name::ContainerName)>,
}

impl Used {
    async fn of(state: &ApiState) -> Result<Self, LxdError> {
        let volumes = volume::all(&state.store).await?;
        let instances = state.instances.all().await.map_err(|error| LxdError::internal(&error))?;
        Ok(Self {
            volumes: volumes.into_iter().map(|(pool, name, _)| (pool, name)).collect(),
            instances: instances
                .into_iter()
                .map(|(project, name, held)| (held.instance.pool, project, name))
                .collect(),
        })
    }
}

fn shown(state: &ApiState, caller: &Caller, name: &PoolName, held: Held, used: &Used) -> Shown {
    let sees = |entity| state.permit(caller, Entitlement::CanView, entity).is_ok();
    let instances = used.instances.iter().filter(|(pool, project, instance)| {
        pool == name && sees(Entity::Instance { project: project.clone(), name: instance.to_string() })
    });
    let mut used_by: Vec<String> =
        instances.map(|(_, project, instance)| instances::url((project, instance))).collect();
    let volumes = used.volumes.iter().filter(|(pool, volume)| pool == name && sees(entity(pool, volume)));
    used_by.extend(volumes.map(|(pool, volume)| url(pool, volume, None)));
    // Where things are on this machine is for those who may change it.
    let edits = state.permit(caller, Entitlement::CanEdit, Entity::Pool(name.clone())).is_ok();
    Shown {
        name: name.clone(),
        description: held.pool.description,
        driver: DRIVER.to_owned(),
        // LXD's word for one that cannot be reached.
        status: if state.pools.is_away(name) { "Unavailable" } else { "Created" }.to_owned(),
        locations: vec!["none".to_owned()],
        config: if edits { held.pool.config } else { BTreeMap::new() },
        used_by,
    }
}

fn pool_url(pool: &PoolName) -> String {
    format!("/1.0/storage-pools/{pool}")
}
