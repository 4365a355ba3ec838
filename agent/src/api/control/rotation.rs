//! `/control/v1/link-rotation`: renewing the cluster certificate. `/control/v1/succession`: the proof of it, for
//! anybody, since whoever pinned the old certificate cannot trust the new one before it has read this.

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::StatusCode;
use jiff::SignedDuration;
use serde::Deserialize;

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::authorize::{Entitlement, Entity};
use crate::peering::rotation::{RotationError, RotationRequest};
use crate::trust::certificate::CertificateError;
use crate::trust::succession::Chain;
use crate::trust::{Caller, Fingerprint};
use crate::wire::rotation::{RotateRequest, RotationReport};

pub fn router() -> Router<ApiState> {
    Router::new().route("/link-rotation", get(show).post(rotate)).route("/succession", get(succession))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<RotationReport>, Problem> {
    state.permit_reading(&caller)?;
    let mut report = state.peering.rotation().await?;
    if let Some(rotation) = &mut report.rotation {
        let sees = |name: &schema::name::LinkName| {
            state.permit(&caller, Entitlement::CanView, Entity::ClusterLink(name.clone())).is_ok()
        };
        rotation.heard.retain(sees);
        rotation.missing.retain(sees);
    }
    Ok(Json(report))
}

/// The cluster is another to everybody afterwards: for those who may do everything.
async fn rotate(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Json<RotationReport>, Problem> {
    let permit = state.permit(&caller, Entitlement::Admin, Entity::Server)?;
    let request: RotateRequest = if body.is_empty() {
        RotateRequest::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            // The error's own words may repeat what was sent, and that may be a token.
            let message =
                format!("the body is not a rotation: line {}, column {}", error.line(), error.column());
            Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
        })?
    };
    let request = RotationRequest {
        deadline: request.deadline_seconds.map(SignedDuration::from_secs),
        force: request.force,
        compromised: request.compromised,
    };
    Ok(Json(state.peering.rotate(&permit, request).await?))
}

#[derive(Debug, Deserialize)]
struct Asked {
    from: Option<String>,
}

async fn succession(
    State(state): State<ApiState>,
    Query(asked): Query<Asked>,
) -> Result<Json<Chain>, Problem> {
    let Some(Ok(from)) = asked.from.as_deref().map(str::parse::<Fingerprint>) else {
        let message = "`from` is the fingerprint of the certificate that is pinned: 64 hexadecimal digits";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", message));
    };
    state.peering.succession(&from).await?.map(Json).ok_or_else(Problem::not_found)
}

impl From<RotationError> for Problem {
    fn from(error: RotationError) -> Self {
        let problem = match &error {
            RotationError::Deadline => Self::new(StatusCode::BAD_REQUEST, "bad_deadline", error.to_string()),
            RotationError::GivingUp | RotationError::Superseded | RotationError::Sign(_) => {
                Self::new(StatusCode::CONFLICT, "conflict", error.to_string())
            }
            RotationError::Certificate(CertificateError::NotPrepared { .. }) => {
                Self::new(StatusCode::CONFLICT, "not_prepared", error.to_string())
            }
            RotationError::Certificate(_)
            | RotationError::Peering(_)
            | RotationError::Store(_)
            | RotationError::Value(_) => return Self::internal(&error),
        };
        match error.hint() {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}
