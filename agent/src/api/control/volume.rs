//! Volumes' data over a client's own connection, `/control/v1/volumes/{pool}/{volume}/{import,export}`, and the connections
//! by which one agent sends to another, `/control/v1/transfers/{id}/stream`.

use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use http::StatusCode;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use schema::name::{PoolName, VolumeName};
use uuid::Uuid;

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::api::upgrade::{revoked, take_over};
use crate::api::volume::{FindError, entity, permit_to_fill, recorded, size};
use crate::audit::{Action, Record};
use crate::authorize::{Entitlement, Permit};
use crate::client::upgrade::SECRET_HEADER;
use crate::dataset::{Dataset, PoolError};
use crate::transfer::TransferError;
use crate::transfer::offer::Carrier;
use crate::trust::Caller;
use crate::wire::token::Secret;
use crate::wire::volume::TRANSFER_PROTOCOL;

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/volumes/{pool}/{volume}/import", post(import))
        .route("/volumes/{pool}/{volume}/export", post(export))
        .route("/transfers/{id}/stream", post(stream))
}

type VolumePath = Path<(PoolName, VolumeName)>;

/// What the audit log is told of data that was taken in.
fn told(permit: &Permit, pool: &PoolName, volume: &VolumeName) -> Record {
    Record::new(permit.caller(), Action::TransferReceived, Timestamp::now())
        .on(format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}"))
}

async fn import(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, volume)): VolumePath,
    mut request: Request,
) -> Result<Response, Problem> {
    let permit = permit_to_fill(&state, &caller, &pool, &volume).await??;
    let then = recorded(&state, &permit, &pool, &volume, String::new());
    let target = Dataset::volume(&pool, &volume);
    let size = size(&state.store, &pool, &volume).await?;
    state.transfers.check_target(&target)?;
    let (response, upgrade) = take_over(&mut request, TRANSFER_PROTOCOL)?;
    let (tasks, ending) = (state.tasks.clone(), state.tasks.ending());
    tasks.spawn("import", async move {
        let transfers = &state.transfers;
        let work = async {
            let stream = upgrade.await.map_err(|e| e.to_string())?;
            let stream = Box::new(TokioIo::new(stream));
            transfers.import(&permit, &target, size, stream, then).await.map_err(|e| e.to_string())
        };
        tokio::select! {
            imported = work => match imported {
                Ok(done) => {
                    state.audit.record(told(&permit, &pool, &volume));
                    let caller = permit.caller();
                    tracing::info!(%caller, %pool, %volume, total = done.total, received = done.moved, "imported");
                }
                Err(reason) => tracing::warn!(reason, "an import failed"),
            },
            () = revoked(&state, &permit) => tracing::warn!("an import was cut off: the caller lost the right to it"),
            () = ending.cancelled() => tracing::warn!("an import was cut off by the agent's end"),
        }
    });
    Ok(response)
}

async fn export(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, volume)): VolumePath,
    mut request: Request,
) -> Result<Response, Problem> {
    let permit = state.permit(&caller, Entitlement::CanManageBackups, entity(&pool, &volume))?;
    let source = Dataset::volume(&pool, &volume);
    if !state.pools.exists(&pool) || !state.pools.has(&source) {
        return Err(TransferError::Pool(PoolError::NoSuchDataset(source)).into());
    }
    let (response, upgrade) = take_over(&mut request, TRANSFER_PROTOCOL)?;
    let (tasks, ending) = (state.tasks.clone(), state.tasks.ending());
    tasks.spawn("export", async move {
        let transfers = &state.transfers;
        let work = async {
            let stream = upgrade.await.map_err(|e| e.to_string())?;
            let stream = Box::new(TokioIo::new(stream));
            transfers.export(&permit, &source, stream).await.map_err(|e| e.to_string())
        };
        tokio::select! {
            exported = work => if let Err(reason) = exported {
                tracing::warn!(reason, "an export failed");
            },
            () = revoked(&state, &permit) => tracing::warn!("an export was cut off: the caller lost the right to it"),
            () = ending.cancelled() => tracing::warn!("an export was cut off by the agent's end"),
        }
    });
    Ok(response)
}

/// Whoever has the secret may have the tree: nothing else is asked, as the target may be a stranger here.
async fn stream(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    mut request: Request,
) -> Result<Response, Problem> {
    let refused = || Problem::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden");
    let secret = request
        .headers_mut()
        .remove(SECRET_HEADER)
        .and_then(|value| value.to_str().ok().map(|text| Secret::new(text.to_owned())))
        .ok_or_else(refused)?;
    let (response, upgrade) = take_over(&mut request, TRANSFER_PROTOCOL)?;
    let claim = state.transfers.take_up(id, &secret, caller.fingerprint()).map_err(|reason| {
        tracing::warn!(operation = %id, %caller, %reason, "refused a transfer");
        refused()
    })?;
    let ending = state.tasks.ending();
    state.tasks.spawn("transfer", async move {
        tokio::select! {
            stream = upgrade => match stream {
                Ok(stream) => claim.serve(Carrier::Bytes, Box::new(TokioIo::new(stream))),
                Err(reason) => tracing::warn!(operation = %id, %reason, "a transfer did not begin"),
            },
            () = ending.cancelled() => {}
        }
    });
    Ok(response)
}

impl From<FindError> for Problem {
    fn from(error: FindError) -> Self {
        Self::internal(&error)
    }
}

impl From<TransferError> for Problem {
    fn from(error: TransferError) -> Self {
        let problem = |status, code| Self::new(status, code, error.to_string());
        match &error {
            TransferError::Exists(..) => problem(StatusCode::CONFLICT, "already_exists")
                .hint("Use --refresh to bring it to the source's state."),
            TransferError::Itself | TransferError::Remote(_) => {
                problem(StatusCode::BAD_REQUEST, "bad_request")
            }
            TransferError::Pool(PoolError::NoSuchPool(_) | PoolError::NoSuchDataset(_)) => {
                problem(StatusCode::NOT_FOUND, "not_found")
            }
            TransferError::Pool(PoolError::Busy(..)) => {
                problem(StatusCode::CONFLICT, "busy").hint("Try again when that one has ended.")
            }
            _ => Self::internal(&error),
        }
    }
}
