//! `/1.0/instances`: what is kept of instances, and everything of them but running.
//!
//! There are containers only, and no runtime: every instance is stopped, and says why when it is to start. `/1.0/containers`
//! is the same under the name that clients before LXD 4 know.

use std::future::Future;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{any, get};
use axum::{Extension, Router};
use http::StatusCode;
use schema::name::{ContainerName, NameError, ProjectName, SnapshotName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, LxdError};
use super::project::asked::default_project;
use super::recursion::Recursion;
use crate::api::ApiState;
use crate::authorize::{Entitlement, Entity, Permit, require_trust};
use crate::operation::{Class, Start};
use crate::storage::backups::Of;
use crate::storage::instances::{Place, url};
use crate::storage::{Held, InstanceError};
use crate::trust::Caller;

mod create;
mod edit;
mod filter;
mod list;
mod petname;
mod relocate;
pub mod shown;
mod snapshot;
mod state;

pub fn router() -> Router<ApiState> {
    let of = |base: &str| {
        let one = format!("{base}/{{name}}");
        Router::new()
            .route(base, get(list::list).post(create::create).put(state::put_all))
            .route(
                &one,
                get(list::show).put(edit::put).patch(edit::patch).post(relocate::post).delete(remove),
            )
            .route(&format!("{one}/state"), get(state::show).put(state::put))
            .route(&format!("{one}/exec"), any(state::runs))
            .route(&format!("{one}/console"), any(state::runs))
            .route(&format!("{one}/files"), any(state::files))
            .route(&format!("{one}/sftp"), any(state::files))
            .route(&format!("{one}/rebuild"), any(state::images))
            .route(&format!("{one}/snapshots"), get(snapshot::list).post(snapshot::create))
            .route(
                &format!("{one}/snapshots/{{snapshot}}"),
                get(snapshot::show)
                    .put(snapshot::put)
                    .patch(snapshot::put)
                    .post(snapshot::post)
                    .delete(snapshot::remove),
            )
            .route(&format!("{one}/logs"), get(nothing))
            .route(&format!("{one}/metadata"), get(metadata))
            .route(&format!("{one}/metadata/templates"), get(nothing))
    };
    let images =
        Router::new().route("/images", any(state::no_images)).route("/images/{*rest}", any(state::no_images));
    of("/instances").merge(of("/containers")).merge(images)
}

/// `?project=`, `?recursion=`, and what lists are asked for besides.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Asked {
    recursion: Recursion,
    project: String,
    all_projects: String,
    filter: String,
    instance_type: String,
}

impl Asked {
    pub fn is_whole(&self) -> bool {
        self.recursion.whole()
    }

    /// The project that is meant. That there is one of that name is known by now.
    pub fn project(&self) -> Result<ProjectName, LxdError> {
        match self.project.as_str() {
            "" => Ok(default_project()),
            name => name.parse().map_err(|_| LxdError::new(StatusCode::NOT_FOUND, "Project not found")),
        }
    }
}

/// The instance's name in a path. What is none is nowhere.
fn named(name: &str) -> Result<ContainerName, LxdError> {
    name.parse().map_err(|_| InstanceError::NotFound.into())
}

fn snapshot_named(name: &str) -> Result<SnapshotName, LxdError> {
    name.parse().map_err(|_| InstanceError::NoSuchSnapshot.into())
}

/// A name for an instance, with LXD's words for what is wrong with it. The name may be a token in the wrong place: no
/// message repeats it.
fn new_name(name: &str) -> Result<ContainerName, LxdError> {
    name.parse().map_err(|error| {
        let why = match error {
            NameError::LeadingDigit => "Name must not start with a number".to_owned(),
            NameError::BadCharacter(_) | NameError::BadHostCharacter(_) => {
                "Name can only contain alphanumeric and hyphen characters".to_owned()
            }
            NameError::BadEdge => "Name must not begin or end with \"-\"".to_owned(),
            NameError::Empty | NameError::TooLong(_) => "Name must be 1-63 characters long".to_owned(),
            other => other.to_string(),
        };
        LxdError::bad_request(format!("Invalid instance name: {why}"))
    })
}

fn new_snapshot_name(name: &str) -> Result<SnapshotName, LxdError> {
    name.parse().map_err(|error| {
        LxdError::bad_request(match error {
            NameError::BadCharacter(' ' | '/') => {
                "Invalid instance snapshot name: Cannot contain space or / characters".to_owned()
            }
            other => format!("Invalid instance snapshot name: {other}"),
        })
    })
}

pub fn entity(place: Place<'_>) -> Entity {
    Entity::Instance { project: place.0.clone(), name: place.1.to_string() }
}

/// The instance, if the caller has `entitlement` on it. What it may not know of is not there.
pub async fn find(
    state: &ApiState,
    caller: &Caller,
    entitlement: Entitlement,
    place: Place<'_>,
) -> Result<(Permit, Held), LxdError> {
    require_trust(caller)?;
    let permit = state.permit(caller, entitlement, entity(place))?;
    Ok((permit, state.instances.find(place.0, place.1).await?))
}

/// Begins an operation on an instance and answers with it. It cannot be cancelled: records and trees are not left half
/// changed.
fn begin<F>(
    state: &ApiState,
    caller: Caller,
    description: &'static str,
    place: Place<'_>,
    work: F,
) -> Response
where
    F: Future<Output = Result<(), InstanceError>> + Send + 'static,
{
    let start = Start { class: Class::Task, description, by: caller, resources: vec![url(place)] };
    let work = async move { work.await.map(|()| Value::Null).map_err(|error| said(&error)) };
    let operation = state.operations.start_unstoppable(&state.tasks, start, work);
    answer::operation(&format!("/1.0/operations/{}", operation.id), super::operation::body(&operation))
}

/// An error with its causes, in one line.
fn said(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !line.contains(&next) {
            line = format!("{line}: {next}");
        }
        cause = error.source();
    }
    line
}

async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    axum::extract::Query(asked): axum::extract::Query<Asked>,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    let (permit, held) = find(&state, &caller, Entitlement::CanDelete, (&project, &name)).await?;
    if shown::is_protected(&held.instance) {
        return Err(LxdError::bad_request("Instance is protected"));
    }
    let busy = state.instances.hold((&project, &name), "delete")?;
    let instances = state.instances.clone();
    let place = (project, name);
    let work = {
        let ((project, name), backups) = (place.clone(), state.backups.clone());
        async move {
            instances.remove(&permit, (&project, &name), busy, jiff::Timestamp::now()).await?;
            backups.forget(&Of::Instance(project, name));
            Ok::<(), InstanceError>(())
        }
    };
    Ok(begin(&state, caller, "Deleting instance", (&place.0, &place.1), work))
}

/// What there is none of here, as LXD lists it.
async fn nothing(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    axum::extract::Query(asked): axum::extract::Query<Asked>,
) -> Result<Response, LxdError> {
    find(&state, &caller, Entitlement::CanView, (&asked.project()?, &named(&name)?)).await?;
    Ok(answer::sync(Vec::<String>::new()))
}

async fn metadata(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    axum::extract::Query(asked): axum::extract::Query<Asked>,
) -> Result<Response, LxdError> {
    find(&state, &caller, Entitlement::CanView, (&asked.project()?, &named(&name)?)).await?;
    let none: Option<Value> = None;
    Ok(answer::sync(json!({
        "architecture": "", "creation_date": 0, "expiry_date": 0, "properties": none, "templates": none,
    })))
}

impl From<InstanceError> for LxdError {
    fn from(error: InstanceError) -> Self {
        use InstanceError as E;
        let status = match &error {
            E::NotFound | E::NoSuchSnapshot | E::NoSuchProject | E::NoSuchPool(_) => StatusCode::NOT_FOUND,
            E::Exists(_) | E::SnapshotExists(..) | E::Busy(_) | E::InTheWay(_) => StatusCode::CONFLICT,
            E::Config(_) | E::TooMany | E::TooManySnapshots | E::Pattern(_) | E::Lifetime(_) => {
                StatusCode::BAD_REQUEST
            }
            E::Contended => StatusCode::PRECONDITION_FAILED,
            E::Pool(_) => {
                let E::Pool(error) = error else { unreachable!("it was one a line ago") };
                return error.into();
            }
            E::Crashed(_) | E::Store(_) | E::Value(_) | E::Commit(_) => return LxdError::internal(&error),
        };
        LxdError::new(status, error.to_string())
    }
}
