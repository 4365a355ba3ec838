//! Lists of volumes. LXD lists snapshots of volumes among them, and root volumes of instances.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use schema::name::{PoolName, ProjectName};

use super::{Asked, Users, existing, sees, shown};
use crate::api::ApiState;
use crate::api::lxd::answer::{self, LxdError};
use crate::api::volume;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::storage::instances;
use crate::storage::volume_snapshots::url;
use crate::trust::Caller;
use crate::trust::entity::DEFAULT_PROJECT;
use crate::wire::volume::StorageVolume;

/// Every volume.
pub async fn all(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(pool): Path<PoolName>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let pool = existing(&state, pool)?;
    let mut found = roots(&state, &caller, &pool, &asked).await?;
    found.extend(customs(&state, &caller, &pool, &asked).await?);
    Ok(listed(found, &asked))
}

/// Custom volumes, and their snapshots.
pub async fn custom(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(pool): Path<PoolName>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let pool = existing(&state, pool)?;
    let found = customs(&state, &caller, &pool, &asked).await?;
    Ok(listed(found, &asked))
}

/// Volumes of one of LXD's other types.
pub async fn others(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, kind)): Path<(PoolName, String)>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let pool = existing(&state, pool)?;
    let found = match kind.as_str() {
        "container" => roots(&state, &caller, &pool, &asked).await?,
        "virtual-machine" | "image" => Vec::new(),
        _ => return Err(LxdError::new(StatusCode::BAD_REQUEST, "Invalid storage volume type")),
    };
    Ok(listed(found, &asked))
}

/// A volume and its path.
type Found = (String, StorageVolume);

fn listed(found: Vec<Found>, asked: &Asked) -> Response {
    if asked.whole() {
        answer::sync(found.into_iter().map(|(_, volume)| volume).collect::<Vec<_>>())
    } else {
        answer::sync(found.into_iter().map(|(path, _)| path).collect::<Vec<_>>())
    }
}

async fn customs(
    state: &ApiState,
    caller: &Caller,
    pool: &PoolName,
    asked: &Asked,
) -> Result<Vec<Found>, LxdError> {
    if !asked.is_default() {
        return Ok(Vec::new());
    }
    let mut volumes = volume::all(&state.store).await?;
    volumes.retain(|(in_pool, name, _)| in_pool == pool && sees(state, caller, pool, name));
    let users = Users::of(state, caller).await?;
    let mut snapshots = state.volume_snapshots.every().await?;
    let mut found = Vec::new();
    for (pool, name, declared) in volumes {
        let volume = shown(&pool, &name, declared, &users);
        let taken = snapshots.remove(&(pool.clone(), name.clone())).unwrap_or_default();
        let taken: Vec<Found> = taken
            .into_iter()
            .map(|(snapshot, of)| {
                let body = StorageVolume {
                    name: format!("{name}/{snapshot}"),
                    description: of.description,
                    config: of.config,
                    used_by: Vec::new(),
                    ..volume.clone()
                };
                (url(&pool, &name, Some(&snapshot)), body)
            })
            .collect();
        found.push((url(&pool, &name, None), volume));
        found.extend(taken);
    }
    Ok(found)
}

/// The root volumes of instances of the project that is asked for.
async fn roots(
    state: &ApiState,
    caller: &Caller,
    pool: &PoolName,
    asked: &Asked,
) -> Result<Vec<Found>, LxdError> {
    let project = if asked.is_default() { DEFAULT_PROJECT } else { &asked.project };
    let Ok(project) = project.parse::<ProjectName>() else { return Ok(Vec::new()) };
    let all = state.instances.list(&project).await.map_err(|error| LxdError::internal(&error))?;
    let seen = all.into_iter().filter(|(name, held)| {
        let entity = Entity::Instance { project: project.clone(), name: name.to_string() };
        held.instance.pool == *pool && state.permit(caller, Entitlement::CanView, entity).is_ok()
    });
    let found = seen.map(|(name, _)| {
        let volume = StorageVolume {
            name: name.to_string(),
            kind: "container".to_owned(),
            pool: pool.clone(),
            description: String::new(),
            content_type: "filesystem".to_owned(),
            project: project.to_string(),
            location: "none".to_owned(),
            config: BTreeMap::new(),
            used_by: vec![instances::url((&project, &name))],
        };
        let query = if asked.is_default() { String::new() } else { format!("?project={project}") };
        (format!("/1.0/storage-pools/{pool}/volumes/container/{name}{query}"), volume)
    });
    Ok(found.collect())
}
