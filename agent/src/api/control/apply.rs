//! `POST /control/v1/apply`: a plan, made true.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Extension, Json, Router};
use http::StatusCode;
use schema::kind::Kind;

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::apply::ApplyError;
use crate::authorize::{Entitlement, Entity};
use crate::trust::Caller;
use crate::wire::control::{ApplyRequest, ApplyResponse, MAX_APPLY_BODY};

pub fn router() -> Router<ApiState> {
    Router::new().route("/apply", post(apply).layer(DefaultBodyLimit::max(MAX_APPLY_BODY)))
}

async fn apply(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ApplyResponse>, Problem> {
    // Asked before a large body is read into a plan; asked again below, when it is known what it touches.
    state.permit(&caller, Entitlement::CanEdit, Entity::Server)?;
    let body = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let limit = MAX_APPLY_BODY >> 20;
            return Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("a plan has at most {limit} MiB"),
            )
            .hint("Divide the declarations among several manifests.");
        }
        Problem::new(rejection.status(), "bad_request", "the request broke off")
    })?;
    let request = parse(body).await?;
    // Who may write groups and what links may do may give himself every right: that takes no less than all of them.
    let grants = |kind| matches!(kind, Kind::AuthGroup | Kind::ClusterLink);
    let entitlement = if request.plan.changes.iter().any(|change| grants(change.key.kind())) {
        Entitlement::Admin
    } else {
        Entitlement::CanEdit
    };
    let permit = state.permit(&caller, entitlement, Entity::Server)?;
    Ok(Json(state.apply.apply(&permit, request).await?))
}

async fn parse(body: Bytes) -> Result<ApplyRequest, Problem> {
    // Large plans take a while, which other requests need not wait for.
    let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice::<ApplyRequest>(&body)).await;
    parsed.map_err(|error| Problem::internal(&error))?.map_err(|error| {
        // The error's own words may repeat what was sent.
        let (line, column) = (error.line(), error.column());
        let message = format!("the body is no plan of this version: line {line}, column {column}");
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
            .hint("Use the same version of comity on both sides.")
    })
}

impl From<ApplyError> for Problem {
    fn from(error: ApplyError) -> Self {
        let (status, code) = match &error {
            ApplyError::NotPermitted => (StatusCode::FORBIDDEN, "forbidden"),
            ApplyError::Bound { .. } => (StatusCode::FORBIDDEN, "bound"),
            ApplyError::OtherStore => (StatusCode::CONFLICT, "other_store"),
            ApplyError::Moved(_) | ApplyError::StillGoing { .. } | ApplyError::Arriving { .. } => {
                (StatusCode::CONFLICT, "conflict")
            }
            ApplyError::Owned(..) | ApplyError::OwnedPart(..) | ApplyError::GroupOwns { .. } => {
                (StatusCode::CONFLICT, "owned")
            }
            ApplyError::GroupInUse { .. } | ApplyError::SamenessGroupInUse { .. } => {
                (StatusCode::CONFLICT, "in_use")
            }
            // LXD's status for it.
            ApplyError::LinkInUse { .. } | ApplyError::VolumeInUse { .. } => {
                (StatusCode::BAD_REQUEST, "in_use")
            }
            ApplyError::LinkExists(_)
            | ApplyError::VolumeExists
            | ApplyError::DataExists(..)
            | ApplyError::NameOfCaller(_)
            | ApplyError::Exists(_)
            | ApplyError::IdTaken { .. }
            | ApplyError::SourceExists { .. } => (StatusCode::CONFLICT, "exists"),
            ApplyError::NoSuchLink(_) | ApplyError::NoSuchPart(_) | ApplyError::NoSuchVolume(..) => {
                (StatusCode::NOT_FOUND, "not_found")
            }
            ApplyError::MetaGiven | ApplyError::Protocol { .. } => (StatusCode::BAD_REQUEST, "invalid"),
            ApplyError::BuiltIn(_) => (StatusCode::BAD_REQUEST, "built_in"),
            ApplyError::Malformed(..) | ApplyError::TooLarge(..) => (StatusCode::BAD_REQUEST, "bad_request"),
            ApplyError::NoSuchGroup { .. } | ApplyError::NoSuchPool { .. } => {
                (StatusCode::BAD_REQUEST, "dangling")
            }
            ApplyError::NoConsent(_) => (StatusCode::BAD_REQUEST, "no_consent"),
            ApplyError::Ended => (StatusCode::SERVICE_UNAVAILABLE, "ending"),
            ApplyError::Links(_)
            | ApplyError::Commit(_)
            | ApplyError::Store(_)
            | ApplyError::Value(_)
            | ApplyError::Observe(_)
            | ApplyError::Pool(_)
            | ApplyError::Forget(_) => return Self::internal(&error),
        };
        let problem = Self::new(status, code, error.to_string());
        match error.hint() {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}
