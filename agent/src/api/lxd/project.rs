//! `/1.0/projects`.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use schema::name::ProjectName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::{LxdError, created, empty, operation as begun, sync};
use super::operation::body as operation_body;
use super::recursion::Depth;
use super::{body, etag};
use crate::api::ApiState;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::operation::{Class, Start};
use crate::project::{Config, ConfigError, Held, Project, ProjectError};
use crate::trust::Caller;

pub mod asked;

/// Everything that a `GET` shows can be sent back.
const KEYS: &[&str] = &["name", "description", "config", "used_by", "access_entitlements"];

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/projects", get(list).post(create))
        .route("/projects/{project}", get(show).put(put).patch(patch).post(rename).delete(remove))
        .route("/projects/{project}/state", get(usage))
}

impl From<ConfigError> for LxdError {
    fn from(error: ConfigError) -> Self {
        LxdError::bad_request(error.to_string())
    }
}

impl From<ProjectError> for LxdError {
    fn from(error: ProjectError) -> Self {
        let status = match &error {
            ProjectError::NotFound => StatusCode::NOT_FOUND,
            ProjectError::Exists(_) => StatusCode::CONFLICT,
            ProjectError::Default(_) => StatusCode::FORBIDDEN,
            ProjectError::NotEmpty(_) | ProjectError::TooMany => StatusCode::BAD_REQUEST,
            ProjectError::Contended => StatusCode::PRECONDITION_FAILED,
            ProjectError::Store(_) | ProjectError::Value(_) | ProjectError::Commit(_) => {
                return LxdError::internal(&error);
            }
        };
        LxdError::new(status, error.to_string())
    }
}

/// A project as LXD shows it.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    description: String,
    config: BTreeMap<String, String>,
    used_by: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Given {
    name: String,
    description: Option<String>,
    config: Option<BTreeMap<String, Option<String>>>,
}

impl Given {
    fn pairs(self) -> impl Iterator<Item = (String, String)> {
        let config = self.config.unwrap_or_default().into_iter();
        config.map(|(key, value)| (key, value.unwrap_or_default()))
    }
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(Depth { recursion }): Query<Depth>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let mut all = state.projects.all();
    all.retain(|name, _| state.permit(&caller, Entitlement::CanView, Entity::Project(name.clone())).is_ok());
    if !recursion.whole() {
        return Ok(sync(all.keys().map(url).collect::<Vec<_>>()));
    }
    let mut shown = Vec::new();
    for (name, held) in &all {
        shown.push(body_of(&state, &caller, name, held).await?);
    }
    Ok(sync(shown))
}

async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let permit = state.permit(&caller, Entitlement::CanCreateProjects, Entity::Server)?;
    let given: Given = body::decode(&bytes, KEYS)?;
    let name = name_of(&given.name)?;
    let description = given.description.clone().unwrap_or_default();
    let config = Config::read(given.pairs())?.with_usual();
    state.projects.create(&permit, &name, Project { description, config }, Timestamp::now()).await?;
    Ok(created(&url(&name), Value::Null))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, LxdError> {
    let (name, held) = find(&state, &caller, Entitlement::CanView, &name)?;
    Ok(etag::put(sync(body_of(&state, &caller, &name, &held).await?), &held.project))
}

async fn put(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let (name, held) = find(&state, &caller, Entitlement::CanEdit, &name)?;
    let permit = state.permit(&caller, Entitlement::CanEdit, Entity::Project(name.clone()))?;
    etag::check(&headers, &held.project)?;
    let given: Given = body::decode(&bytes, KEYS)?;
    let description = given.description.clone().unwrap_or_default();
    let project = Project { description, config: Config::read(given.pairs())? };
    state.projects.update(&permit, &name, held.revision, project, Timestamp::now()).await?;
    Ok(empty())
}

async fn patch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let (name, held) = find(&state, &caller, Entitlement::CanEdit, &name)?;
    let permit = state.permit(&caller, Entitlement::CanEdit, Entity::Project(name.clone()))?;
    etag::check(&headers, &held.project)?;
    let given: Given = body::decode(&bytes, KEYS)?;
    let description = given.description.clone().unwrap_or_else(|| held.project.description.clone());
    let mut pairs = held.project.config.entries().clone();
    pairs.extend(given.pairs());
    let project = Project { description, config: Config::read(pairs)? };
    state.projects.update(&permit, &name, held.revision, project, Timestamp::now()).await?;
    Ok(empty())
}

/// LXD renames in an operation, and its clients wait for one.
async fn rename(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(from): Path<String>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let (from, _) = find(&state, &caller, Entitlement::CanEdit, &from)?;
    let permit = state.permit(&caller, Entitlement::CanEdit, Entity::Project(from.clone()))?;
    let given: Given = body::decode(&bytes, &["name"])?;
    let to = name_of(&given.name)?;
    state.projects.rename(&permit, &from, &to, Timestamp::now()).await?;
    let start =
        Start { class: Class::Task, description: "Renaming project", by: caller, resources: vec![url(&to)] };
    let operation = state.operations.start(&state.tasks, start, |_| async { Ok(Value::Null) });
    Ok(begun(&format!("/1.0/operations/{}", operation.id), operation_body(&operation)))
}

async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, LxdError> {
    let (name, _) = find(&state, &caller, Entitlement::CanDelete, &name)?;
    let permit = state.permit(&caller, Entitlement::CanDelete, Entity::Project(name.clone()))?;
    state.projects.delete(&permit, &name, Timestamp::now()).await?;
    Ok(empty())
}

/// Nothing is limited; what is counted is what there is.
async fn usage(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, LxdError> {
    let (name, _) = find(&state, &caller, Entitlement::CanView, &name)?;
    let used = |usage: usize| json!({ "limit": -1, "usage": usage });
    let instances = state.instances.list(&name).await?.len();
    Ok(sync(json!({
        "resources": {
            "containers": used(instances), "instances": used(instances), "virtual-machines": used(0), "disk": used(0),
        }
    })))
}

/// The project, if the caller has `entitlement` on it. What it may not know of is not there.
fn find(
    state: &ApiState,
    caller: &Caller,
    entitlement: Entitlement,
    name: &str,
) -> Result<(ProjectName, std::sync::Arc<Held>), LxdError> {
    require_trust(caller)?;
    let missing = || LxdError::new(StatusCode::NOT_FOUND, "Project not found");
    let name: ProjectName = name.parse().map_err(|_| missing())?;
    state.permit(caller, entitlement, Entity::Project(name.clone()))?;
    let held = state.projects.get(&name).ok_or_else(missing)?;
    Ok((name, held))
}

fn name_of(text: &str) -> Result<ProjectName, LxdError> {
    if text.is_empty() {
        return Err(LxdError::bad_request("No name provided"));
    }
    // The name may be a token in the wrong place: the message does not repeat it.
    text.parse().map_err(|error| LxdError::bad_request(format!("Invalid project name: {error}")))
}

async fn body_of(
    state: &ApiState,
    caller: &Caller,
    name: &ProjectName,
    held: &Held,
) -> Result<Shown, LxdError> {
    let mut used_by = Vec::new();
    for (instance, _) in state.instances.list(name).await? {
        let place = (name, &instance);
        if state.permit(caller, Entitlement::CanView, super::instance::entity(place)).is_ok() {
            used_by.push(crate::storage::instances::url(place));
        }
    }
    if *name == asked::default_project() {
        let volumes = crate::api::volume::all(&state.store).await?;
        let sees = |entity| state.permit(caller, Entitlement::CanView, entity).is_ok();
        let seen = volumes.iter().filter(|(pool, volume, _)| sees(crate::api::volume::entity(pool, volume)));
        used_by.extend(
            seen.map(|(pool, volume, _)| format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}")),
        );
    }
    Ok(Shown {
        name: name.to_string(),
        description: held.project.description.clone(),
        config: held.project.config.entries().clone(),
        used_by,
    })
}

fn url(name: &ProjectName) -> String {
    format!("/1.0/projects/{name}")
}
