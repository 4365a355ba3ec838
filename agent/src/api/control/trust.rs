//! `/control/v1/certificate`: what to pin. `/control/v1/trust/tokens`: tokens that can still be redeemed. (They are made and used under `/1.0/certificates`.)

use axum::extract::{Path, State};
use axum::routing::{delete, get};
use axum::{Extension, Json, Router};
use http::StatusCode;
use jiff::Timestamp;

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::authorize::{Entitlement, Entity};
use crate::trust::Caller;
use crate::trust::client_token::ClientError;
use crate::wire::trust::{ClusterCertificate, PendingToken};

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/certificate", get(certificate))
        .route("/trust/tokens", get(list))
        .route("/trust/tokens/{token}", delete(revoke))
}

/// The cluster's own certificate, for whoever has verified the one that is for clients: to pin the one that outlives it.
/// Anybody may ask, for each handshake of a link shows it to anybody.
async fn certificate(State(state): State<ApiState>) -> Json<ClusterCertificate> {
    Json(ClusterCertificate { certificate: state.identity.current().pem.clone() })
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<PendingToken>>, Problem> {
    state.permit(&caller, Entitlement::CanViewIdentities, Entity::Server)?;
    let pending = state.clients.pending(Timestamp::now()).await.map_err(|error| Problem::internal(&error))?;
    let shown = pending.into_iter().map(|token| PendingToken {
        id: token.id.to_string(),
        name: token.name,
        created_at: token.created_at,
        expires_at: token.expires_at,
    });
    Ok(Json(shown.collect()))
}

async fn revoke(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(token): Path<String>,
) -> Result<Json<()>, Problem> {
    let permit = state.permit(&caller, Entitlement::CanDeleteIdentities, Entity::Server)?;
    match state.clients.revoke(&permit, &token, Timestamp::now()).await {
        Ok(_) => Ok(Json(())),
        Err(ClientError::Unknown) => {
            let message = "No token with this name or id can still be redeemed";
            Err(Problem::new(StatusCode::NOT_FOUND, "not_found", message)
                .hint("`comity trust list-tokens` shows those that can."))
        }
        Err(error) => Err(Problem::internal(&error)),
    }
}
