//! `/control/v1/mesh-roots`: what vouches for the certificates of this cluster's services, and having another follow.

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::StatusCode;
use jiff::Timestamp;

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::authorize::{Entitlement, Entity};
use crate::trust::Caller;
use crate::trust::mesh::{Before, MeshError};
use crate::wire::mesh_root::{MeshRoot, MeshRoots, RotateRoot};

pub fn router() -> Router<ApiState> {
    Router::new().route("/mesh-roots", get(show).post(rotate))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<MeshRoots>, Problem> {
    state.permit_reading(&caller)?;
    Ok(Json(shown(&state)))
}

/// For those who may change the server: Consul asks for `operator:write`.
async fn rotate(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Json<MeshRoots>, Problem> {
    let permit = state.permit(&caller, Entitlement::CanEdit, Entity::Server)?;
    let RotateRoot { compromised } = if body.is_empty() {
        RotateRoot::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            // The error's own words may repeat what was sent.
            let (line, column) = (error.line(), error.column());
            let message = format!("the body is not a rotation: line {line}, column {column}");
            Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
        })?
    };
    let before = if compromised { Before::Go } else { Before::Stay };
    state.mesh_ca.rotate(&permit, before, Timestamp::now()).await?;
    Ok(Json(shown(&state)))
}

fn shown(state: &ApiState) -> MeshRoots {
    let (roots, now) = (state.mesh_ca.roots(), Timestamp::now());
    let active = roots.active(now).map(|root| root.fingerprint);
    let root = |root: &std::sync::Arc<crate::trust::mesh::Root>| MeshRoot {
        fingerprint: root.fingerprint.to_string(),
        active: active == Some(root.fingerprint),
        active_from: root.active_from,
        trusted_until: root.ends.map_or(root.not_after, |ends| ends.min(root.not_after)),
    };
    MeshRoots { trust_domain: roots.domain.to_string(), roots: roots.all.iter().map(root).collect() }
}

impl From<MeshError> for Problem {
    fn from(error: MeshError) -> Self {
        match &error {
            MeshError::Announced(_) => Self::new(StatusCode::CONFLICT, "conflict", error.to_string()).hint(
                "Wait until it signs; or, where a key may be in other hands, `comity ca rotate-mesh-root --compromised`.",
            ),
            MeshError::OverLink => Self::new(StatusCode::FORBIDDEN, "forbidden", error.to_string()),
            _ => Self::internal(&error),
        }
    }
}
