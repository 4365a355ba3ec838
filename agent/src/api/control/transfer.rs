//! `/control/v1/transfers`: which transfers this agent has received, and what interrupted ones have left.

use axum::extract::State;
use axum::routing::{delete, get};
use axum::{Extension, Json, Router};
use http::StatusCode;
use jiff::Timestamp;

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::authorize::{Entitlement, Entity};
use crate::dataset::pool::Left as LeftBehind;
use crate::dataset::{Dataset, Owner, PoolError};
use crate::transfer::run::path;
use crate::trust::Caller;
use crate::wire::transfer::{Left, Transfers, Whose};

pub fn router() -> Router<ApiState> {
    Router::new().route("/transfers", get(list)).route("/transfers/left", delete(discard))
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Transfers>, Problem> {
    state.permit(&caller, Entitlement::CanViewOperations, Entity::Server)?;
    let runs = state.history.list().await.map_err(|error| Problem::internal(&error))?;
    let left = left(&state).await?.iter().map(shown).collect();
    Ok(Json(Transfers { runs, left }))
}

async fn discard(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Json(whose): Json<Whose>,
) -> Result<Json<()>, Problem> {
    let _permit = state.permit(&caller, Entitlement::CanEdit, Entity::Server)?;
    let found = left(&state).await?.into_iter().find(|left| path(&left.dataset) == whose.target);
    let nothing = || {
        Problem::new(StatusCode::NOT_FOUND, "not_found", "no interrupted transfer has left anything of that")
            .hint("`comity transfer list` shows those that have.")
    };
    let dataset = found.ok_or_else(nothing)?.dataset;
    let pools = state.pools.clone();
    let discarded = tokio::task::spawn_blocking(move || pools.discard(&dataset)).await;
    match discarded.map_err(|error| Problem::internal(&error))? {
        Ok(true) => Ok(Json(())),
        Ok(false) => Err(nothing()),
        Err(error @ PoolError::Busy(_)) => Err(Problem::new(StatusCode::CONFLICT, "busy", error.to_string())
            .hint("It is being resumed: cancel that operation instead.")),
        Err(error) => Err(Problem::internal(&error)),
    }
}

async fn left(state: &ApiState) -> Result<Vec<LeftBehind>, Problem> {
    let pools = state.pools.clone();
    let walked = tokio::task::spawn_blocking(move || pools.left()).await;
    walked.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))
}

fn shown(left: &LeftBehind) -> Left {
    let Dataset { pool, owner } = &left.dataset;
    let name = match owner {
        Owner::Volume(volume) => format!("{pool}/{volume}"),
        Owner::Instance { name, .. } => name.to_string(),
    };
    let last_written_at = left.last_written.and_then(|time| Timestamp::try_from(time).ok());
    Left { name, target: path(&left.dataset), bytes: left.bytes, last_written_at }
}
