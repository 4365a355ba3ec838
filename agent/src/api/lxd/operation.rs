//! `/1.0/operations`: what runs, what became of it, and how to stop it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::StatusCode;
use jiff::Timestamp;
use schema::name::ProjectName;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::answer::{self, LxdError};
use super::project::asked::default_project;
use super::recursion::Recursion;
use crate::api::ApiState;
use crate::api::websocket;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::operation::{Class, Operation, Status};
use crate::transfer::offer::{Carrier, ClaimError};
use crate::trust::Caller;
use crate::trust::client_token::ClientError;
use crate::trust::entity::DEFAULT_PROJECT;
use crate::wire::lxd::operation::{OperationBody, Requestor};
use crate::wire::token::Secret;

pub mod tokens;

/// A wait without a limit of its own ends after this; clients ask again.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/operations", get(list))
        .route("/operations/{id}", get(show).delete(cancel))
        .route("/operations/{id}/wait", get(wait))
        .route("/operations/{id}/websocket", get(connect))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Asked {
    #[serde(default)]
    recursion: Recursion,
    #[serde(default)]
    project: String,
    #[serde(default)]
    all_projects: String,
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let all = matches!(asked.all_projects.as_str(), "true" | "1");
    if all && !asked.project.is_empty() {
        return Err(LxdError::bad_request("Cannot specify a project when requesting all projects"));
    }
    let mut seen = Vec::new();
    let project = if asked.project.is_empty() { DEFAULT_PROJECT } else { &asked.project };
    let running = state.operations.list();
    let there = running.iter().filter(|operation| all || project_of(operation).as_str() == project);
    seen.extend(there.filter(|operation| sees(&state, &caller, operation)).map(body));
    // Tokens are the server's, which LXD lists with the default project.
    if (all || project == DEFAULT_PROJECT) && sees_tokens(&state, &caller) {
        seen.extend(tokens::pending(&state).await?);
    }
    let mut by_status = BTreeMap::<String, Vec<Value>>::new();
    for operation in seen {
        let shown = match asked.recursion.0 {
            0 => json!(url(operation.id)),
            1 => json!(operation),
            _ => {
                let mut whole = json!(operation);
                whole["children"] = json!([]);
                whole
            }
        };
        by_status.entry(operation.status.to_lowercase()).or_default().push(shown);
    }
    Ok(answer::sync(by_status))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<Response, LxdError> {
    Ok(answer::sync(visible(&state, &caller, id).await?))
}

#[derive(Debug, Deserialize)]
struct Wait {
    /// Seconds; -1 for as long as it takes.
    #[serde(default = "forever")]
    timeout: i64,
    /// Of the operation: who has one need not be known here.
    #[serde(default)]
    secret: String,
}

fn forever() -> i64 {
    -1
}

/// Answers with the operation, whether it succeeded, failed or goes on: what clients up to LXD 5 expect, and what
/// later ones read as well.
async fn wait(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    Query(Wait { timeout, secret }): Query<Wait>,
) -> Result<Response, LxdError> {
    let operation = match state.operations.get(id) {
        Some(operation) if !secret.is_empty() && state.transfers.knows(id, &Secret::new(secret)) => {
            body(&operation)
        }
        _ => visible(&state, &caller, id).await?,
    };
    let limit = u64::try_from(timeout).map_or(LONGEST_WAIT, Duration::from_secs).min(LONGEST_WAIT);
    if operation.class == "token" {
        return Ok(answer::sync(redeemed(&state, operation, limit).await?));
    }
    let operation = state.operations.wait(id, limit).await.map(|operation| body(&operation));
    Ok(answer::sync(operation.ok_or_else(not_found)?))
}

/// The operation of a token, once that is used, revoked or expired, or after `limit`.
async fn redeemed(
    state: &ApiState,
    operation: OperationBody,
    limit: Duration,
) -> Result<OperationBody, LxdError> {
    let deadline = Instant::now() + limit;
    let mut told = state.audit.subscribe();
    loop {
        if let Some(still) = tokens::find(state, operation.id).await? {
            // Expiry is told too, when the token is pruned.
            if tokio::time::timeout_at(deadline, told.recv()).await.is_err() {
                return Ok(still);
            }
        } else {
            let mut ended = tokens::outline(operation.id, operation.created_at, Status::Cancelled);
            (ended.updated_at, ended.metadata) = (Timestamp::now(), operation.metadata);
            return Ok(ended);
        }
    }
}

async fn cancel(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<Response, LxdError> {
    let operation = visible(&state, &caller, id).await?;
    if operation.class == "token" {
        let permit = state.permit(&caller, Entitlement::CanDeleteIdentities, Entity::Server)?;
        return match state.clients.revoke(&permit, &id.to_string(), Timestamp::now()).await {
            Ok(_) => Ok(answer::empty()),
            Err(ClientError::Unknown) => Err(not_found()),
            Err(error) => Err(error.into()),
        };
    }
    let owns = state.operations.get(id).is_some_and(|operation| owns(&caller, &operation));
    if !owns {
        state.permit(&caller, Entitlement::Admin, Entity::Server)?;
    }
    state.operations.cancel(id).map_err(|error| LxdError::bad_request(error.to_string()))?;
    Ok(answer::empty())
}

#[derive(Debug, Deserialize)]
struct Connect {
    #[serde(default)]
    secret: String,
}

/// A connection to an operation that waits for one: whoever has its secret may, a stranger as well. An operation that has
/// ended is not there for strangers.
async fn connect(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    Query(Connect { secret }): Query<Connect>,
    mut request: Request,
) -> Result<Response, LxdError> {
    if secret.is_empty() {
        return Err(LxdError::bad_request("Missing websocket secret"));
    }
    let operation = state.operations.get(id).filter(|operation| !operation.status.ended());
    let operation = operation.ok_or_else(not_found)?;
    if operation.class != Class::Websocket {
        return Err(LxdError::bad_request("Only websocket operations can be connected"));
    }
    if operation.status != Status::Running {
        return Err(LxdError::bad_request("Only running operations can be connected"));
    }
    let secret = Secret::new(secret);
    let claim = state.transfers.take_up(id, &secret, caller.fingerprint());
    let claim = claim.map_err(|reason| {
        tracing::warn!(operation = %id, %caller, %reason, "refused a websocket");
        match reason {
            ClaimError::Taken => LxdError::new(StatusCode::CONFLICT, "Connection already established"),
            ClaimError::Unknown => not_found(),
            ClaimError::WrongSecret | ClaimError::NotYou => LxdError::plain(StatusCode::FORBIDDEN),
        }
    })?;
    let (response, pending) =
        websocket::take_over(&mut request).map_err(|error| LxdError::bad_request(error.to_string()))?;
    let ending = state.tasks.ending();
    state.tasks.spawn("websocket of an operation", async move {
        if let Some(Some(stream)) = ending.run_until_cancelled(pending.stream()).await {
            claim.serve(Carrier::Websocket, Box::new(stream));
        }
    });
    Ok(response)
}

fn owns(caller: &Caller, operation: &Operation) -> bool {
    caller.is_trusted() && caller.identity() == operation.by.identity()
}

/// Whether the caller may know of an operation.
pub fn sees(state: &ApiState, caller: &Caller, operation: &Operation) -> bool {
    let may = |entity| state.permit(caller, Entitlement::CanViewOperations, entity).is_ok();
    owns(caller, operation) || may(Entity::Project(project_of(operation))) || may(Entity::Server)
}

/// The project that an operation is of: that of the first thing that it works on.
pub fn project_of(operation: &Operation) -> ProjectName {
    let query = operation.resources.first().and_then(|path| path.split_once('?')).map(|(_, query)| query);
    let named = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("project=")));
    named.and_then(|name| name.parse().ok()).unwrap_or_else(default_project)
}

/// Whether the caller may know of tokens that are out: who may manage identities may.
pub fn sees_tokens(state: &ApiState, caller: &Caller) -> bool {
    [Entitlement::CanCreateIdentities, Entitlement::CanDeleteIdentities]
        .into_iter()
        .any(|entitlement| state.permit(caller, entitlement, Entity::Server).is_ok())
}

/// The operation, of whatever kind, if the caller may know of it.
async fn visible(state: &ApiState, caller: &Caller, id: Uuid) -> Result<OperationBody, LxdError> {
    require_trust(caller)?;
    match state.operations.get(id) {
        Some(operation) if sees(state, caller, &operation) => Ok(body(&operation)),
        None if sees_tokens(state, caller) => tokens::find(state, id).await?.ok_or_else(not_found),
        _ => Err(not_found()),
    }
}

fn not_found() -> LxdError {
    LxdError::plain(StatusCode::NOT_FOUND)
}

/// As LXD shows an operation.
pub fn body(operation: &Operation) -> OperationBody {
    let class = match operation.class {
        Class::Task => "task",
        Class::Websocket => "websocket",
        Class::Token => "token",
    };
    let mut resources = BTreeMap::<String, Vec<String>>::new();
    for path in &operation.resources {
        let kind = kind_of(path);
        // LXD leaves the project out here.
        let path = path.split('?').next().unwrap_or(path);
        resources.entry(kind.to_owned()).or_default().push(path.to_owned());
    }
    OperationBody {
        id: operation.id,
        class: class.to_owned(),
        description: operation.description.to_owned(),
        created_at: operation.created_at,
        updated_at: operation.updated_at,
        status: operation.status.as_str().to_owned(),
        status_code: operation.status.code(),
        resources,
        metadata: operation.metadata.clone(),
        may_cancel: operation.stoppable && operation.status == Status::Running,
        err: operation.error.clone().unwrap_or_default(),
        err_code: if operation.status == Status::Failure { 500 } else { 0 },
        child_count: 0,
        location: "none".to_owned(),
        requestor: Some(Requestor {
            username: operation.by.username(),
            protocol: operation.by.method().unwrap_or_default().to_owned(),
            address: operation.by.origin.address.map(|address| address.to_string()).unwrap_or_default(),
        }),
    }
}

/// What LXD calls the kind of thing that a path is of, among an operation's resources.
fn kind_of(path: &str) -> &'static str {
    let path = path.split('?').next().unwrap_or_default();
    let mut parts = path.strip_prefix("/1.0/").unwrap_or_default().split('/');
    let first = parts.next();
    if path.contains("/backups/") {
        return "backups";
    }
    match first {
        Some("instances") if parts.any(|part| part == "snapshots") => "instances_snapshots",
        Some("instances") => "instances",
        Some("projects") => "projects",
        _ if parts.any(|part| part == "snapshots") => "storage_volume_snapshots",
        _ => "storage_volumes",
    }
}

fn url(id: Uuid) -> String {
    format!("/1.0/operations/{id}")
}
