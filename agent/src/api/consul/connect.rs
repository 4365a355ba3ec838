//! `/v1/connect/ca` and `/v1/agent/connect`: the mesh CA's roots, services' certificates, and whether whoever shows one
//! may connect.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use schema::name::ServiceName;
use tokio::time::Instant;

use super::answer::{Answer, ConsulError};
use super::asked::Asked;
use super::blocking::{self, Changes, Found};
use super::body::Sent;
use crate::api::ApiState;
use crate::authorize::{Entitlement, Entity, Permit, require_trust};
use crate::trust::Caller;
use crate::trust::mesh::{LEAF_LIFE, Leaf, MeshError, Root, Roots};
use crate::wire::consul::connect::{self, CaConfiguration, CaProvider, CaRoot, CaRoots};

mod authorize;

const MOMENT: Duration = Duration::from_secs(1);
/// A root's key, as Consul names its kind.
const KEY: (&str, u32) = ("ec", 256);

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/connect/ca/roots", get(roots))
        .route("/agent/connect/ca/roots", get(roots))
        .route("/connect/ca/configuration", get(configuration))
        .route("/agent/connect/ca/leaf/{service}", get(leaf).put(sign).post(sign))
        // Consul has POST alone; py-consul 1.8 sends PUT.
        .route("/agent/connect/authorize", post(authorize::authorize).put(authorize::authorize))
}

impl From<MeshError> for ConsulError {
    fn from(error: MeshError) -> Self {
        match error {
            MeshError::OverLink => {
                ConsulError::new(StatusCode::FORBIDDEN, format!("Permission denied: {error}"))
            }
            MeshError::Request(why) => ConsulError::bad_request(why.to_string()),
            MeshError::Announced(_) => ConsulError::new(StatusCode::CONFLICT, error.to_string()),
            MeshError::NoKey => ConsulError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            other => ConsulError::internal(&other),
        }
    }
}

/// Whoever is known here may have them: they are shown in every handshake.
async fn roots(State(state): State<ApiState>, asked: Asked) -> Result<Response, ConsulError> {
    require_trust(&asked.caller)?;
    if matches!(asked.get("pem"), "1" | "true" | "t") {
        let mut response = state.mesh_ca.bundle().roots.concat().into_response();
        let kind = HeaderValue::from_static("application/pem-certificate-chain");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        return Ok(response);
    }
    let answer = blocking::answer(&state, &asked, state.mesh_ca.subscribe(), |caller| {
        require_trust(caller)?;
        let (roots, now) = (state.mesh_ca.roots(), Timestamp::now());
        Ok(Found::new(roots_index(&roots, now), shown(&roots, now)))
    });
    Ok(answer.await?.into_response())
}

/// Moves with every change of the record, and with each root that begins to sign without one.
fn roots_index(roots: &Roots, now: Timestamp) -> u64 {
    let begun = roots.all.iter().filter(|root| root.active_from <= now).count();
    roots.modified.0.saturating_mul(16).saturating_add(u64::try_from(begun).unwrap_or_default())
}

fn shown(roots: &Roots, now: Timestamp) -> CaRoots {
    let active = roots.active(now);
    let root = |root: &Arc<Root>| CaRoot {
        id: root.id(),
        name: "Comity CA Root Cert".to_owned(),
        serial_number: root.serial,
        signing_key_id: root.key_id.clone(),
        external_trust_domain: roots.domain.cluster_id().to_owned(),
        not_before: root.not_before,
        not_after: root.not_after,
        root_cert: root.pem.clone(),
        intermediate_certs: None,
        active: active.is_some_and(|active| active.fingerprint == root.fingerprint),
        private_key_type: KEY.0.to_owned(),
        private_key_bits: KEY.1,
        create_index: roots.created.0,
        modify_index: roots.modified.0,
    };
    CaRoots {
        active_root_id: active.map(|root| root.id()).unwrap_or_default(),
        trust_domain: roots.domain.to_string(),
        roots: roots.all.iter().map(root).collect(),
    }
}

/// What there is to know of it; nothing of it can be changed, so a PUT is not taken.
async fn configuration(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    state.permit(&asked.caller, Entitlement::CanEdit, Entity::Server)?;
    let roots = state.mesh_ca.roots();
    let config = CaProvider {
        leaf_cert_ttl: format!("{}h", LEAF_LIFE.as_hours()),
        root_cert_ttl: "87600h".to_owned(),
        private_key_type: KEY.0.to_owned(),
        private_key_bits: KEY.1,
    };
    let shown = CaConfiguration {
        provider: "consul".to_owned(),
        config,
        state: None,
        create_index: roots.created.0,
        modify_index: roots.modified.0,
    };
    Ok(Answer::new(&asked, &shown)?.index(roots.modified.0))
}

/// A certificate with its key. Who waits is answered when it is to be replaced.
async fn leaf(
    State(state): State<ApiState>,
    asked: Asked,
    Path(service): Path<String>,
) -> Result<Answer, ConsulError> {
    let service = named(&service)?;
    let permit = permitted(&state, &asked.caller, &service)?;
    let now = Timestamp::now();
    let current = state.mesh_ca.leaf(&permit, &service, now)?;
    let left = current.renewed_at().duration_since(now);
    // A moment later, so that it is over by then.
    let due = Due::after(Duration::try_from(left).unwrap_or_default() + MOMENT);
    let changes = (state.mesh_ca.subscribe(), due);
    drop(current);
    let look = |caller: &Caller| {
        let permit = permitted(&state, caller, &service)?;
        let leaf = state.mesh_ca.leaf(&permit, &service, Timestamp::now())?;
        Ok(Found::new(leaf.index, shown_leaf(&leaf)))
    };
    blocking::answer(&state, &asked, changes, look).await
}

/// A certificate for a key that stays where it is: ours, Consul has none such. The body is a signing request in PEM.
async fn sign(
    State(state): State<ApiState>,
    asked: Asked,
    Path(service): Path<String>,
    sent: Sent,
) -> Result<Answer, ConsulError> {
    let service = named(&service)?;
    let permit = permitted(&state, &asked.caller, &service)?;
    let request = String::from_utf8_lossy(&sent.0);
    let leaf = state.mesh_ca.sign(&permit, &service, &request, Timestamp::now())?;
    Ok(Answer::new(&asked, &shown_leaf(&leaf))?.index(leaf.index))
}

fn shown_leaf(leaf: &Leaf) -> connect::Leaf {
    connect::Leaf {
        serial_number: leaf.serial.clone(),
        cert_pem: leaf.certificate_pem.clone(),
        private_key_pem: leaf.key.as_ref().map(|key| key.expose().to_owned()).unwrap_or_default(),
        service: leaf.service.to_string(),
        service_uri: leaf.uri.clone(),
        valid_after: leaf.valid_after,
        valid_before: leaf.valid_before,
        create_index: leaf.index,
        modify_index: leaf.index,
    }
}

fn named(service: &str) -> Result<ServiceName, ConsulError> {
    service.parse().map_err(|error| ConsulError::bad_request(format!("Invalid service name: {error}")))
}

/// What it takes to be a service, or to decide for it who may connect.
fn permitted(state: &ApiState, caller: &Caller, service: &ServiceName) -> Result<Permit, ConsulError> {
    Ok(state.permit(caller, Entitlement::CanIssueLeaf, Entity::Service(service.clone()))?)
}

/// Comes once.
struct Due(Option<Instant>);

impl Due {
    fn after(left: Duration) -> Self {
        Self(Instant::now().checked_add(left))
    }
}

impl Changes for Due {
    async fn next(&mut self) {
        match self.0 {
            Some(due) => {
                tokio::time::sleep_until(due).await;
                self.0 = None;
            }
            None => std::future::pending().await,
        }
    }
}
