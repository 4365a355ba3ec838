//! `POST /1.0/instances/{name}`: another name, another pool, another project.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use schema::name::{PoolName, ProjectName};

use super::create::pairs;
use super::{Asked, begin, find, named, new_name};
use crate::api::ApiState;
use crate::api::lxd::answer::LxdError;
use crate::api::lxd::{body, migration};
use crate::authorize::{Entitlement, Entity};
use crate::storage::backups::Of;
use crate::storage::instances::config::{expanded_devices, root_disk};
use crate::storage::{Held, Instance, InstanceError};
use crate::trust::Caller;
use crate::wire::lxd::instance::InstancePost;

pub(super) async fn post(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    let wanted: InstancePost = body::read(&bytes)?;
    let migrates = wanted.migration == Some(true);
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (pool, target_project) = (said(&wanted.pool), said(&wanted.project));
    if migrates && (wanted.target.is_some() || (pool.is_none() && target_project.is_none())) {
        return migration::migrate_instance(&state, &caller, (project, name), None, &bytes).await;
    }
    let (permit, held) = find(&state, &caller, Entitlement::CanEdit, (&project, &name)).await?;
    let to_project = match &target_project {
        Some(target) if migrates => existing_project(&state, &caller, target)?,
        _ => project.clone(),
    };
    if to_project != project {
        state.permit(&caller, Entitlement::CanCreateInstances, Entity::Project(to_project.clone()))?;
    }
    let to_name = match said(&wanted.name) {
        Some(to) => new_name(&to)?,
        None if migrates => name.clone(),
        None => return Err(LxdError::bad_request("No name provided")),
    };
    let instance = moved(&state, &held, wanted, pool.filter(|_| migrates)).await?;
    let (from, to) = ((project, name), (to_project, to_name));
    let stays = from == to;
    if stays && instance.pool == held.instance.pool {
        let message = format!("Name {:?} already in use", to.1.as_str());
        return Err(LxdError::new(StatusCode::CONFLICT, message));
    }
    if !stays && state.instances.get(&to.0, &to.1).await?.is_some() {
        let message = format!("Name {:?} already in use", to.1.as_str());
        return Err(LxdError::new(StatusCode::CONFLICT, message));
    }
    let doing = if migrates { "migrate" } else { "rename" };
    let busy = state.instances.hold((&from.0, &from.1), doing)?;
    let there = if stays { None } else { Some(state.instances.hold((&to.0, &to.1), doing)?) };
    let description = if migrates { "Migrating instance" } else { "Renaming instance" };
    let instances = state.instances.clone();
    let (place, backups) = (from.clone(), state.backups.clone());
    let work = async move {
        let followed = [&from, &to].map(|(project, name)| Of::Instance(project.clone(), name.clone()));
        let (from, to, now) = ((&from.0, &from.1), (&to.0, &to.1), Timestamp::now());
        match there {
            Some(there) if instance.pool == held.instance.pool => {
                instances.rename(&permit, from, to, &instance, (busy, there), now).await?;
            }
            there => instances.change_pool(&permit, from, to, &instance, (busy, there), now).await?,
        }
        if from != to {
            backups.follow(&followed[0], &followed[1]);
        }
        Ok::<(), InstanceError>(())
    };
    Ok(begin(&state, caller, description, (&place.0, &place.1), work))
}

/// A project that the caller may know of.
fn existing_project(state: &ApiState, caller: &Caller, name: &str) -> Result<ProjectName, LxdError> {
    let missing = || LxdError::new(StatusCode::NOT_FOUND, "Project not found");
    let project: ProjectName = name.parse().map_err(|_| missing())?;
    state.permit(caller, Entitlement::CanView, Entity::Project(project.clone()))?;
    if state.projects.contains(project.as_str()) { Ok(project) } else { Err(missing()) }
}

/// What the instance is where it goes: with what is overridden, and with a root disk of its own where it goes to another
/// pool, as LXD does it.
async fn moved(
    state: &ApiState,
    held: &Held,
    wanted: InstancePost,
    pool: Option<String>,
) -> Result<Instance, LxdError> {
    let mut instance = held.instance.clone();
    if wanted.migration == Some(true) {
        if let Some(config) = wanted.config {
            instance.shape.config.extend(pairs(Some(config)));
        }
        for (name, device) in wanted.devices.unwrap_or_default() {
            match device {
                Some(device) => instance.shape.devices.insert(name, device),
                None => instance.shape.devices.remove(&name),
            };
        }
        if let Some(profiles) = wanted.profiles {
            instance.shape.profiles = profiles;
        }
    }
    if let Some(pool) = pool {
        let devices = expanded_devices(&instance.shape);
        let (root, _) = root_disk(&devices).map_err(crate::storage::InstanceError::from)?;
        let mut device = devices[root].clone();
        device.insert("pool".to_owned(), pool);
        let root = root.to_owned();
        instance.shape.devices.insert(root, device);
    }
    let pool: PoolName = state.instances.check(&instance.shape).await?;
    instance.pool = pool;
    Ok(instance)
}
