//! `POST /1.0/instances`: makes an instance, empty, of another one, or of a backup file.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Query, Request, State};
use axum::response::Response;
use jiff::Timestamp;
use schema::name::{ContainerName, ProjectName};
use serde_json::Value;

use super::{Asked, begin, new_name, petname};
use crate::api::ApiState;
use crate::api::lxd::answer::LxdError;
use crate::api::lxd::backup::import;
use crate::api::lxd::{body, migration};
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::storage::instances::config::DEFAULT_PROFILE;
use crate::storage::{Instance, InstanceError, Shape};
use crate::trust::Caller;
use crate::wire::lxd::instance::{InstancePut, InstancesPost};

/// Tries at a name that nobody has.
const TRIES: usize = 20;

pub(super) async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Asked>,
    request: Request,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let project = asked.project()?;
    if import::is_import(request.headers()) {
        let permit =
            state.permit(&caller, Entitlement::CanCreateInstances, Entity::Project(project.clone()))?;
        let (parts, body) = request.into_parts();
        return import::instance(&state, caller, permit, project, &parts.headers, body).await;
    }
    let bytes = Bytes::from_request(request, &state).await;
    let bytes = bytes.map_err(|error| LxdError::new(error.status(), error.body_text()))?;
    let mut wanted: InstancesPost = body::read(&bytes)?;
    let source = wanted.source.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if matches!(source.as_str(), "copy" | "migration") {
        let bytes = if wanted.name.as_deref().unwrap_or_default().is_empty() {
            let name = unused_name(&state, &project).await?;
            named(&bytes, &name)?
        } else {
            bytes
        };
        return migration::create_instance(&state, &caller, project, &bytes).await;
    }
    let permit = state.permit(&caller, Entitlement::CanCreateInstances, Entity::Project(project.clone()))?;
    match wanted.kind.as_deref().unwrap_or_default() {
        "" | "container" => {}
        "virtual-machine" => {
            let message = "Instance type \"virtual-machine\" is not supported on this server: \
                           it keeps containers only";
            return Err(LxdError::bad_request(message));
        }
        _ => return Err(LxdError::bad_request("Invalid instance type")),
    }
    match source.as_str() {
        "none" => {}
        "image" => {
            let message = "There are no images here to make an instance of: make an empty one (source \
                           type \"none\", `--empty`), or copy one from another server";
            return Err(LxdError::bad_request(message));
        }
        other => {
            let shown: String = other.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
            return Err(LxdError::bad_request(format!("Unknown source type {shown}")));
        }
    }
    if wanted.start == Some(true) {
        return Err(LxdError::bad_request(super::state::NO_RUNTIME));
    }
    let name = match wanted.name.take().unwrap_or_default().as_str() {
        "" => unused_name(&state, &project).await?,
        name => new_name(name)?,
    };
    let shape = shape_of(wanted.put);
    let pool = state.instances.check(&shape).await?;
    let now = Timestamp::now();
    let instance = Instance { pool, shape, created_at: now, last_used_at: None, snapshots: BTreeMap::new() };
    let busy = state.instances.hold((&project, &name), "create")?;
    if state.instances.get(&project, &name).await?.is_some() {
        return Err(InstanceError::Exists(name).into());
    }
    let work = {
        let (instances, project, name) = (state.instances.clone(), project.clone(), name.clone());
        async move { instances.make_empty(&permit, (&project, &name), instance, busy, now).await }
    };
    Ok(begin(&state, caller, "Creating instance", (&project, &name), work))
}

/// The same body with a name in it.
fn named(bytes: &[u8], name: &ContainerName) -> Result<Bytes, LxdError> {
    let mut body: serde_json::Map<String, Value> = body::read(bytes)?;
    body.insert("name".to_owned(), Value::from(name.as_str()));
    Ok(Value::Object(body).to_string().into())
}

async fn unused_name(state: &ApiState, project: &ProjectName) -> Result<ContainerName, LxdError> {
    for _ in 0..TRIES {
        let name = petname::next();
        if state.instances.get(project, &name).await?.is_none() {
            return Ok(name);
        }
    }
    Err(LxdError::bad_request("No name could be found that is not taken; give one"))
}

/// What a new instance is like: what is not said is as LXD has it.
pub fn shape_of(put: InstancePut) -> Shape {
    let mut config: BTreeMap<String, String> = pairs(put.config);
    config.entry("volatile.uuid".to_owned()).or_insert_with(|| uuid::Uuid::new_v4().to_string());
    Shape {
        description: put.description.unwrap_or_default(),
        architecture: put
            .architecture
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        config,
        devices: put
            .devices
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, device)| Some((name, device?)))
            .collect(),
        profiles: put.profiles.unwrap_or_else(|| vec![DEFAULT_PROFILE.to_owned()]),
        ephemeral: put.ephemeral.unwrap_or_default(),
    }
}

/// Keys with values: what is set to nothing is not set.
pub fn pairs(config: Option<BTreeMap<String, Option<String>>>) -> BTreeMap<String, String> {
    let config = config.unwrap_or_default().into_iter();
    config.filter_map(|(key, value)| Some((key, value.filter(|value| !value.is_empty())?))).collect()
}
