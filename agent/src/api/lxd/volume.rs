//! `/1.0/storage-pools/{pool}/volumes`: custom volumes.
//!
//! There is one content type, file systems. Instances' root volumes are listed with them, as LXD does, and are seen to at
//! `/1.0/instances`; images' volumes there are none.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequest as _, Path, Query, Request, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use schema::kind::volume::Volume;
use schema::kind::volume::config::{self, ConfigError};
use schema::name::{PoolName, ProjectName, VolumeName};
use schema::record::{Record, RecordKey};
use serde::{Deserialize, Serialize};

use super::answer::{self, LxdError};
use super::backup::import;
use super::migration;
use super::recursion::Recursion;
use super::storage_pool::existing;
use super::{body, etag};
use crate::api::ApiState;
use crate::api::volume::{self, FindError, entity};
use crate::apply::Edit;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::dataset::pool::Use;
use crate::dataset::{Dataset, PoolError};
use crate::storage::StoragePoolError;
use crate::storage::backups::Of;
use crate::storage::config::of_new_volume;
use crate::storage::volume_snapshots::url;
use crate::store::value::Declared;
use crate::trust::Caller;
use crate::trust::entity::DEFAULT_PROJECT;
use crate::wire::storage::StorageVolumePost;
use crate::wire::volume::{
    OWNER_KEY, StorageVolume, StorageVolumePut, StorageVolumeState, StorageVolumesPost, Usage,
};

mod list;
mod relocate;
mod used;

pub use used::Users;

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/storage-pools/{pool}/volumes", get(list::all).post(create))
        .route("/storage-pools/{pool}/volumes/custom", get(list::custom).post(create))
        .route("/storage-pools/{pool}/volumes/{kind}", get(list::others))
        .route(
            "/storage-pools/{pool}/volumes/custom/{volume}",
            get(show).put(put).patch(patch).post(post).delete(delete),
        )
        .route("/storage-pools/{pool}/volumes/custom/{volume}/state", get(usage))
}

/// What a request about volumes says besides its path.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    #[serde(default)]
    recursion: Recursion,
    #[serde(default)]
    project: String,
}

impl Asked {
    /// Whether it is about the project that volumes are in. (That there is such a project is known by now.)
    pub fn is_default(&self) -> bool {
        matches!(self.project.as_str(), "" | DEFAULT_PROJECT)
    }

    /// For what is asked of one volume.
    pub fn check(&self) -> Result<(), LxdError> {
        if self.is_default() { Ok(()) } else { Err(LxdError::plain(StatusCode::NOT_FOUND)) }
    }

    /// The project that is asked for.
    pub fn project_name(&self) -> Option<ProjectName> {
        if self.is_default() { DEFAULT_PROJECT.parse().ok() } else { self.project.parse().ok() }
    }

    /// Whether whole entries are wanted of a list.
    pub fn whole(&self) -> bool {
        self.recursion.whole()
    }
}

async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(pool): Path<PoolName>,
    Query(asked): Query<Asked>,
    request: Request,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    if !asked.is_default() {
        let message = "Storage volumes can be made in the project \"default\" only, as yet";
        return Err(LxdError::bad_request(message));
    }
    if import::is_import(request.headers()) {
        let permit =
            state.permit(&caller, Entitlement::CanCreateStorageVolumes, Entity::default_project())?;
        let pool = existing(&state, pool)?;
        let (parts, body) = request.into_parts();
        return import::volume(&state, caller, permit, pool, &parts.headers, body).await;
    }
    let bytes = Bytes::from_request(request, &state).await;
    let bytes = bytes.map_err(|error| LxdError::new(error.status(), error.body_text()))?;
    let wanted: StorageVolumesPost = body::read(&bytes)?;
    let source = wanted.source["type"].as_str().unwrap_or_default();
    let copied = !matches!(source, "" | "none");
    // To refresh one takes no right to make one: that is looked at by whom it is handed to.
    let permit = if copied {
        require_trust(&caller).map(|()| None)?
    } else {
        Some(state.permit(&caller, Entitlement::CanCreateStorageVolumes, Entity::default_project())?)
    };
    let pool = existing(&state, pool)?;
    if !matches!(wanted.kind.as_str(), "" | "custom") {
        return Err(LxdError::bad_request("Currently not allowed to create storage volumes of this type"));
    }
    if !matches!(wanted.content_type.as_str(), "" | "filesystem") {
        return Err(LxdError::bad_request("Invalid content type: only filesystem is supported"));
    }
    let Some(permit) = permit else {
        return migration::create_volume(&state, &caller, pool, &bytes).await;
    };
    let name = name_of(&wanted.name)?;
    if volume::find(&state.store, &pool, &name).await?.is_some() {
        return Err(LxdError::new(StatusCode::CONFLICT, "Volume by that name already exists"));
    }
    let usual = state.storage_pools.get(&pool).await?.pool.config;
    let config = checked(&name, of_new_volume(&usual, wanted.config))?;
    let record = Record::Volume(Volume { description: wanted.description, config });
    let edit = Edit::put(key(&pool, &name), record).only_at(0);
    if let Err(PoolError::Busy(_)) = state.pools.hold(&Dataset::volume(&pool, &name), Use::Replacing) {
        let message = format!(
            "A volume {pool}/{name} is just arriving by a copy: choose another name, or wait until that has ended"
        );
        return Err(LxdError::new(StatusCode::CONFLICT, message));
    }
    state.apply.edit(&permit, vec![edit]).await?;
    Ok(answer::created(&url(&pool, &name, None), serde_json::Map::new()))
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
    let users = Users::of(&state, &caller).await?;
    let tagged = Tagged::of(&declared);
    Ok(etag::put(answer::sync(shown(&pool, &name, declared, &users)), &tagged))
}

async fn put(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, name)): Path<(PoolName, VolumeName)>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    asked.check()?;
    let wanted: StorageVolumePut = body::read(&bytes)?;
    if wanted.restore.is_empty() {
        let described = wanted.description.unwrap_or_default();
        let config = wanted.config.unwrap_or_default();
        return change(&state, &caller, (pool, name), &headers, |_| Volume {
            description: described,
            config,
        })
        .await;
    }
    let permit = state.permit(&caller, Entitlement::CanEdit, entity(&pool, &name))?;
    let (declared, _) = declared(&state, &pool, &name).await?;
    etag::check(&headers, &Tagged::of(&declared))?;
    let missing = || LxdError::new(StatusCode::NOT_FOUND, "Storage volume snapshot not found");
    // Clients may give it whole: VOLUME/SNAPSHOT.
    let snapshot = wanted.restore.rsplit('/').next().unwrap_or_default().parse().map_err(|_| missing())?;
    state.volume_snapshots.restore(&permit, &pool, &name, &snapshot, Timestamp::now()).await?;
    Ok(answer::empty())
}

async fn patch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, name)): Path<(PoolName, VolumeName)>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    asked.check()?;
    let wanted: StorageVolumePut = body::read(&bytes)?;
    change(&state, &caller, (pool, name), &headers, |mut volume| {
        volume.config.extend(wanted.config.unwrap_or_default());
        volume.description = wanted.description.unwrap_or(volume.description);
        volume
    })
    .await
}

async fn change(
    state: &ApiState,
    caller: &Caller,
    (pool, name): (PoolName, VolumeName),
    headers: &HeaderMap,
    edit: impl FnOnce(Volume) -> Volume,
) -> Result<Response, LxdError> {
    let permit = state.permit(caller, Entitlement::CanEdit, entity(&pool, &name))?;
    let (declared, revision) = declared(state, &pool, &name).await?;
    etag::check(headers, &Tagged::of(&declared))?;
    let mut volume = edit(of(declared));
    volume.config = checked(&name, volume.config)?;
    let edit = Edit::put(key(&pool, &name), Record::Volume(volume)).only_at(revision);
    state.apply.edit(&permit, vec![edit]).await?;
    Ok(answer::empty())
}

/// Another name, another pool, or a migration.
async fn post(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, name)): Path<(PoolName, VolumeName)>,
    Query(asked): Query<Asked>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    asked.check()?;
    let wanted: StorageVolumePost = body::read(&bytes)?;
    if wanted.migration {
        return migration::migrate_volume(&state, &caller, (pool, name), None, &bytes).await;
    }
    let permit = state.permit(&caller, Entitlement::CanEdit, entity(&pool, &name))?;
    declared(&state, &pool, &name).await?;
    if !matches!(wanted.project.as_str(), "" | DEFAULT_PROJECT) {
        let message = "Storage volumes can be moved within the project \"default\" only, as yet";
        return Err(LxdError::bad_request(message));
    }
    Users::of(&state, &caller).await?.none(&pool, &name)?;
    let to = name_of(&wanted.name)?;
    if wanted.pool.is_empty() || wanted.pool == pool.as_str() {
        let from = Of::Volume(pool.clone(), name.clone());
        state.apply.relocate_volume(&permit, (pool.clone(), name), (pool.clone(), to.clone())).await?;
        state.backups.follow(&from, &Of::Volume(pool.clone(), to.clone()));
        return Ok(answer::created(&url(&pool, &to, None), serde_json::Map::new()));
    }
    let not_found = || LxdError::new(StatusCode::NOT_FOUND, "Storage pool not found");
    let target = existing(&state, wanted.pool.parse().map_err(|_| not_found())?)?;
    // It is made anew there.
    state.permit(&caller, Entitlement::CanCreateStorageVolumes, Entity::default_project())?;
    relocate::start(&state, &caller, permit, (pool, name), (target, to)).await
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
    Users::of(&state, &caller).await?.none(&pool, &name)?;
    // A transfer that reads or writes it is not to lose it half way.
    drop(state.pools.hold(&Dataset::volume(&pool, &name), Use::Replacing)?);
    volume::delete(&state.apply, &permit, &pool, &name).await?;
    state.backups.forget(&Of::Volume(pool, name));
    Ok(answer::empty())
}

async fn usage(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, name)): Path<(PoolName, VolumeName)>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    asked.check()?;
    state.permit(&caller, Entitlement::CanView, entity(&pool, &name))?;
    let (declared, _) = declared(&state, &pool, &name).await?;
    let used = state.pools.usage(&Dataset::volume(&pool, &name)).await?;
    let total = of(declared).config.get("size").and_then(|size| config::size(size)).unwrap_or_default();
    Ok(answer::sync(StorageVolumeState { usage: Usage { used, total } }))
}

/// What an ETag of a volume is made of.
#[derive(Debug, Serialize)]
struct Tagged {
    description: String,
    config: BTreeMap<String, String>,
}

impl Tagged {
    fn of(declared: &Declared) -> Self {
        match &declared.record {
            Record::Volume(volume) => {
                Self { description: volume.description.clone(), config: volume.config.clone() }
            }
            _ => Self { description: String::new(), config: BTreeMap::new() },
        }
    }
}

/// The volume, which is to be there.
pub async fn declared(
    state: &ApiState,
    pool: &PoolName,
    name: &VolumeName,
) -> Result<(Declared, u64), LxdError> {
    volume::find(&state.store, pool, name)
        .await?
        .ok_or_else(|| LxdError::new(StatusCode::NOT_FOUND, "Storage volume not found"))
}

fn sees(state: &ApiState, caller: &Caller, pool: &PoolName, name: &VolumeName) -> bool {
    state.permit(caller, Entitlement::CanView, entity(pool, name)).is_ok()
}

pub fn name_of(text: &str) -> Result<VolumeName, LxdError> {
    if text.is_empty() {
        return Err(LxdError::bad_request("No name provided"));
    }
    // The name may be a token in the wrong place: the message does not repeat it.
    text.parse().map_err(|error| LxdError::bad_request(format!("Invalid volume name: {error}")))
}

/// What a volume is to be set to, if that makes sense, without what is not for anybody to set.
pub fn checked(
    name: &VolumeName,
    mut pairs: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, LxdError> {
    pairs.retain(|key, value| key != OWNER_KEY && !value.is_empty());
    if pairs.len() > config::MAX_KEYS {
        return Err(LxdError::bad_request(format!("At most {} keys can be set", config::MAX_KEYS)));
    }
    for (key, value) in &pairs {
        let shown: String = key.chars().take(64).collect();
        let name = name.as_str();
        config::check(key, value).map_err(|error| {
            LxdError::bad_request(match error {
                ConfigError::Unknown { near: Some(near) } => {
                    format!("Invalid option for volume {name:?} option {shown:?}, did you mean {near:?}?")
                }
                ConfigError::Unknown { near: None } => {
                    format!("Invalid option for volume {name:?} option {shown:?}")
                }
                error => format!("Invalid value for volume {name:?} option {shown:?}: {error}"),
            })
        })?;
    }
    Ok(pairs)
}

fn of(declared: Declared) -> Volume {
    match declared.record {
        Record::Volume(volume) => volume,
        _ => Volume::default(),
    }
}

fn key(pool: &PoolName, name: &VolumeName) -> RecordKey {
    RecordKey::Volume { pool: pool.clone(), volume: name.clone() }
}

fn shown(pool: &PoolName, name: &VolumeName, declared: Declared, users: &Users) -> StorageVolume {
    let owner = declared.owner.as_ref().map(|owner| (OWNER_KEY.to_owned(), owner.to_string()));
    let Volume { description, mut config } = of(declared);
    config.extend(owner);
    StorageVolume {
        name: name.to_string(),
        kind: "custom".to_owned(),
        pool: pool.clone(),
        description,
        content_type: "filesystem".to_owned(),
        project: DEFAULT_PROJECT.to_owned(),
        location: "none".to_owned(),
        config,
        used_by: users.of_volume(pool, name),
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
            PoolError::BadSource { .. }
            | PoolError::NotEmpty { .. }
            | PoolError::Default(_)
            | PoolError::TooSmall { .. } => Self::new(StatusCode::BAD_REQUEST, error.to_string()),
            // Where it would be on this machine is for the log.
            PoolError::Unavailable { ref pool, .. } => {
                tracing::warn!(reason = %error, "a request needs a storage pool that is away");
                StoragePoolError::Unavailable(pool.clone()).into()
            }
            _ => Self::internal(&error),
        }
    }
}
