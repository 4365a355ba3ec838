//! Moving volumes: `/control/v1/volumes/{pool}/{volume}/{offer,pull,import,export}`, and the stream that an offer is
//! taken up with, `/control/v1/transfers/{id}/stream`.

use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Json, Router};
use http::StatusCode;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use schema::kind::transfer::Mode;
use schema::name::{PoolName, VolumeName};
use uuid::Uuid;

use crate::api::ApiState;
use crate::api::lxd::operation;
use crate::api::problem::Problem;
use crate::api::upgrade::{end_if_revoked, revoked, take_over};
use crate::api::volume::{FindError, entity, permit_to_fill, recorded};
use crate::audit::{Action, Record};
use crate::authorize::{Entitlement, Permit};
use crate::client::upgrade::SECRET_HEADER;
use crate::dataset::{Dataset, PoolError};
use crate::operation::{Class, Start};
use crate::transfer::TransferError;
use crate::transfer::direct::Target;
use crate::transfer::offer::Carrier;
use crate::trust::Caller;
use crate::wire::lxd::operation::OperationBody;
use crate::wire::token::Secret;
use crate::wire::volume::{OfferRequest, PullRequest, PullSource, Pulled, RemoteSource, TRANSFER_PROTOCOL};

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/volumes/{pool}/{volume}/offer", post(offer))
        .route("/volumes/{pool}/{volume}/pull", post(pull))
        .route("/volumes/{pool}/{volume}/import", post(import))
        .route("/volumes/{pool}/{volume}/export", post(export))
        .route("/transfers/{id}/stream", post(stream))
}

type VolumePath = Path<(PoolName, VolumeName)>;

async fn offer(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, volume)): VolumePath,
    Json(asked): Json<OfferRequest>,
) -> Result<Json<RemoteSource>, Problem> {
    let permit = state.permit(&caller, Entitlement::CanManageBackups, entity(&pool, &volume))?;
    let bound_to = match asked.target_fingerprint.map(|text| text.parse()) {
        None => None,
        Some(Ok(fingerprint)) => Some(fingerprint),
        Some(Err(_)) => {
            let message = "`target_fingerprint` is 64 hexadecimal digits (SHA-256)";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", message));
        }
    };
    if state.addresses.current().is_empty() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "not_listening",
            "this agent does not listen on the network",
        )
        .hint("Start the source's agent with --listen, so that the target can pull from it."));
    }
    let (operation, secret) = state.transfers.offer(&permit, &pool, &volume, bound_to)?;
    end_if_revoked(&state, &[&permit], &operation);
    Ok(Json(RemoteSource {
        addresses: state.addresses.current().to_vec(),
        fingerprint: state.identity.fingerprint().to_string(),
        operation: operation.id,
        secret,
    }))
}

async fn pull(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((pool, volume)): VolumePath,
    Json(asked): Json<PullRequest>,
) -> Result<(StatusCode, Json<OperationBody>), Problem> {
    let permit = permit_to_fill(&state, &caller, &pool, &volume).await??;
    let from = match &asked.source {
        PullSource::Local { pool, volume } => {
            Some(state.permit(&caller, Entitlement::CanManageBackups, entity(pool, volume))?)
        }
        PullSource::Remote(_) => None,
    };
    let target = Target { pool, volume, mode: asked.mode };
    state.transfers.check_target(&target)?;
    let start = Start {
        class: Class::Task,
        description: if asked.mode == Mode::Refresh {
            "Refreshing storage volume"
        } else {
            "Copying storage volume"
        },
        by: caller.clone(),
        resources: vec![format!("/1.0/storage-pools/{}/volumes/custom/{}", target.pool, target.volume)],
    };
    let then = recorded(&state, &permit, &target.pool, &target.volume, asked.description);
    let (transfers, audit) = (state.transfers.clone(), state.audit.clone());
    let permits: Vec<Permit> = from.iter().chain([&permit]).cloned().collect();
    let operation = state.operations.start(&state.tasks, start, |handle| async move {
        let received = match (asked.source, from) {
            (PullSource::Remote(source), _) => transfers.pull(&permit, &source, &target, &handle, then).await,
            (PullSource::Local { pool, volume }, from) => {
                let permits: [&Permit; 2] = [from.as_ref().unwrap_or(&permit), &permit];
                transfers.copy_volume(permits, (&pool, &volume), &target, &handle, then).await
            }
        };
        let received = received.map_err(|e| e.to_string())?;
        audit.record(told(&permit, &target));
        let pulled = Pulled { total: received.total, received: received.moved, unset: received.unset };
        serde_json::to_value(pulled).map_err(|e| e.to_string())
    });
    end_if_revoked(&state, &permits.iter().collect::<Vec<_>>(), &operation);
    Ok((StatusCode::ACCEPTED, Json(operation::body(&operation))))
}

/// What the audit log is told of data that was taken in.
fn told(permit: &Permit, target: &Target) -> Record {
    let Target { pool, volume, .. } = target;
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
    let target = Target { pool, volume, mode: Mode::Refresh };
    state.transfers.check_target(&target)?;
    let (response, upgrade) = take_over(&mut request, TRANSFER_PROTOCOL)?;
    let (tasks, ending) = (state.tasks.clone(), state.tasks.ending());
    tasks.spawn("import", async move {
        let transfers = &state.transfers;
        let work = async {
            let stream = upgrade.await.map_err(|e| e.to_string())?;
            let stream = Box::new(TokioIo::new(stream));
            transfers.import(&permit, &target, stream, then).await.map_err(|e| e.to_string())
        };
        tokio::select! {
            imported = work => match imported {
                Ok(done) => {
                    state.audit.record(told(&permit, &target));
                    let caller = permit.caller();
                    let volume = format_args!("{}/{}", target.pool, target.volume);
                    tracing::info!(%caller, %volume, total = done.total, received = done.moved, "imported");
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
    if !state.pools.exists(&pool) || !state.pools.has(&Dataset::volume(&pool, &volume)) {
        return Err(Problem::from(TransferError::Pool(PoolError::NoSuchDataset(Dataset::volume(
            &pool, &volume,
        )))));
    }
    let (response, upgrade) = take_over(&mut request, TRANSFER_PROTOCOL)?;
    let (tasks, ending) = (state.tasks.clone(), state.tasks.ending());
    tasks.spawn("export", async move {
        let transfers = &state.transfers;
        let work = async {
            let stream = upgrade.await.map_err(|e| e.to_string())?;
            let stream = Box::new(TokioIo::new(stream));
            transfers.export(&permit, &pool, &volume, stream).await.map_err(|e| e.to_string())
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
