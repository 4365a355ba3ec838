//! `/1.0/profiles`: there is one, `default`, the same in every project. It gives an instance its root disk, in the pool that
//! every agent has, and cannot be changed.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::StatusCode;
use schema::name::ProjectName;

use super::answer::{LxdError, sync};
use super::etag;
use super::instance::{Asked, entity};
use crate::api::ApiState;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::storage::instances::config::{DEFAULT_PROFILE, default_devices};
use crate::storage::instances::url;
use crate::trust::Caller;
use crate::wire::lxd::instance::{Config, ProfileBody};

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/profiles", get(list).post(fixed))
        .route("/profiles/{name}", get(show).put(fixed).patch(fixed).post(fixed).delete(fixed))
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    let project = seen(&state, &caller, &asked)?;
    if !asked.is_whole() {
        return Ok(sync([format!("/1.0/profiles/{DEFAULT_PROFILE}{}", query(&project))]));
    }
    Ok(sync([body(&state, &caller, &project).await?]))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    let project = seen(&state, &caller, &asked)?;
    if name != DEFAULT_PROFILE {
        return Err(LxdError::new(StatusCode::NOT_FOUND, "Profile not found"));
    }
    let shown = body(&state, &caller, &project).await?;
    Ok(etag::put(sync(&shown), &shown.devices))
}

async fn fixed(Extension(caller): Extension<Caller>) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let message = "There is one profile here, \"default\", which cannot be changed: set what an instance is to have on \
                   the instance itself";
    Err(LxdError::new(StatusCode::NOT_IMPLEMENTED, message))
}

/// The project that is meant, if the caller may see into it.
fn seen(state: &ApiState, caller: &Caller, asked: &Asked) -> Result<ProjectName, LxdError> {
    require_trust(caller)?;
    let project = asked.project()?;
    state.permit(caller, Entitlement::CanView, Entity::Project(project.clone()))?;
    Ok(project)
}

async fn body(state: &ApiState, caller: &Caller, project: &ProjectName) -> Result<ProfileBody, LxdError> {
    let mut used_by = Vec::new();
    for (name, held) in state.instances.list(project).await? {
        let uses = held.instance.shape.profiles.iter().any(|profile| profile == DEFAULT_PROFILE);
        if uses && state.permit(caller, Entitlement::CanView, entity((project, &name))).is_ok() {
            used_by.push(url((project, &name)));
        }
    }
    Ok(ProfileBody {
        name: DEFAULT_PROFILE.to_owned(),
        description: "Default Comity profile".to_owned(),
        config: Config::new(),
        devices: default_devices(),
        used_by,
    })
}

fn query(project: &ProjectName) -> String {
    if *project == super::project::asked::default_project() {
        String::new()
    } else {
        format!("?project={project}")
    }
}
