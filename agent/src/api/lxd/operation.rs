//! `/1.0/operations`: what runs, what became of it, and how to stop it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::StatusCode;
use serde::Deserialize;
use uuid::Uuid;

use super::answer::{self, LxdError};
use crate::api::ApiState;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::operation::Operation;
use crate::trust::Caller;
use crate::wire::volume::OperationBody;

/// A wait without a limit of its own ends after this; clients ask again.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/operations", get(list))
        .route("/operations/{id}", get(show).delete(cancel))
        .route("/operations/{id}/wait", get(wait))
}

#[derive(Debug, Deserialize)]
struct Recursion {
    #[serde(default)]
    recursion: u8,
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(Recursion { recursion }): Query<Recursion>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let seen = state.operations.list().into_iter().filter(|operation| sees(&state, &caller, operation));
    if recursion == 0 {
        let mut by_status = BTreeMap::<String, Vec<String>>::new();
        for operation in seen {
            by_status.entry(operation.status.as_str().to_lowercase()).or_default().push(url(operation.id));
        }
        return Ok(answer::sync(by_status));
    }
    let mut by_status = BTreeMap::<String, Vec<OperationBody>>::new();
    for operation in seen {
        by_status.entry(operation.status.as_str().to_lowercase()).or_default().push((&operation).into());
    }
    Ok(answer::sync(by_status))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<Response, LxdError> {
    let operation = visible(&state, &caller, state.operations.get(id))?;
    Ok(answer::sync(OperationBody::from(&operation)))
}

#[derive(Debug, Deserialize)]
struct Wait {
    /// Seconds; -1 for as long as it takes.
    #[serde(default = "forever")]
    timeout: i64,
}

fn forever() -> i64 {
    -1
}

async fn wait(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    Query(Wait { timeout }): Query<Wait>,
) -> Result<Response, LxdError> {
    visible(&state, &caller, state.operations.get(id))?;
    let limit = u64::try_from(timeout).map_or(LONGEST_WAIT, Duration::from_secs).min(LONGEST_WAIT);
    let operation = visible(&state, &caller, state.operations.wait(id, limit).await)?;
    Ok(answer::sync(OperationBody::from(&operation)))
}

async fn cancel(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<Response, LxdError> {
    let operation = visible(&state, &caller, state.operations.get(id))?;
    if !owns(&caller, &operation) {
        state.permit(&caller, Entitlement::Admin, Entity::Server)?;
    }
    if state.operations.cancel(id) {
        Ok(answer::empty())
    } else {
        Err(LxdError::bad_request("Operation has already ended"))
    }
}

fn owns(caller: &Caller, operation: &Operation) -> bool {
    caller.is_trusted() && caller.identity() == operation.owner
}

fn sees(state: &ApiState, caller: &Caller, operation: &Operation) -> bool {
    owns(caller, operation)
        || state.permit(caller, Entitlement::CanViewOperations, Entity::default_project()).is_ok()
}

fn visible(state: &ApiState, caller: &Caller, operation: Option<Operation>) -> Result<Operation, LxdError> {
    operation
        .filter(|operation| sees(state, caller, operation))
        .ok_or_else(|| LxdError::plain(StatusCode::NOT_FOUND))
}

fn url(id: Uuid) -> String {
    format!("/1.0/operations/{id}")
}
