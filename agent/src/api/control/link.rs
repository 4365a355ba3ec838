//! `/control/v1/links`: the truth about links, and the two halves of a token exchange.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use schema::name::LinkName;
use schema::plan::LinkState;
use schema::record::{Record, RecordKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::authorize::{Denied, Entitlement, Entity, Permit, require_trust};
use crate::peering::PeeringError;
use crate::store::keys;
use crate::store::value::{self, Declared};
use crate::trust::{Caller, Fingerprint};
use crate::wire::cluster_link::{LinkReport, MintRequest, MintResponse, RedeemRequest};

/// Longest wait for a state.
const MAX_WAIT: Duration = Duration::from_secs(60);

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/links", get(list))
        .route("/links/{name}", get(show))
        .route("/links/{name}/token", post(mint))
        .route("/links/{name}/redeem", post(redeem))
        .route("/links/{name}/pin", post(pin))
}

/// What it takes to let another cluster in (LXD asks for both on creation).
pub fn permit_exchange(state: &ApiState, caller: &Caller) -> Result<Permit, Denied> {
    state.permit(caller, Entitlement::CanCreateIdentities, Entity::Server)?;
    state.permit(caller, Entitlement::CanCreateClusterLinks, Entity::Server)
}

/// Whoever has a token for a link, or says which cluster is behind it, gives what its groups may.
async fn permit_link_groups(state: &ApiState, caller: &Caller, link: &LinkName) -> Result<(), Problem> {
    let key = keys::declared(&RecordKey::ClusterLink(link.clone()));
    let Some(entry) = state.store.get(&key).await.map_err(|error| Problem::internal(&error))? else {
        // There is nothing to give; what is asked for says so itself.
        return Ok(());
    };
    match value::decode::<Declared>(&entry).map_err(|error| Problem::internal(&error))?.record {
        Record::ClusterLink(declared) => Ok(state.permit_groups(caller, &declared.auth_groups)?),
        _ => Ok(()),
    }
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<LinkReport>>, Problem> {
    require_trust(&caller)?;
    let mut reports = state.peering.reports().await?;
    // Lists show what the caller may see and say nothing of the rest.
    reports.retain(|report| {
        state.permit(&caller, Entitlement::CanView, Entity::ClusterLink(report.name.clone())).is_ok()
    });
    Ok(Json(reports))
}

#[derive(Debug, Deserialize)]
struct Wait {
    wait: Option<WaitFor>,
    timeout_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WaitFor {
    Active,
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Result<Json<LinkReport>, Problem> {
    let link = link(&name)?;
    state.permit(&caller, Entitlement::CanView, Entity::ClusterLink(link.clone()))?;
    let Ok(Query(wait)) = wait else {
        let message = "`wait` is `active` and `timeout_ms` a number";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", message));
    };
    let report = state.peering.report(&link).await?;
    let Some(WaitFor::Active) = wait.wait else { return Ok(Json(report)) };
    let limit = wait.timeout_ms.map_or(MAX_WAIT, Duration::from_millis).min(MAX_WAIT);
    match tokio::time::timeout(limit, active(&state, &link)).await {
        Ok(report) => Ok(Json(report?)),
        Err(_) => Ok(Json(state.peering.report(&link).await?)),
    }
}

async fn active(state: &ApiState, link: &LinkName) -> Result<LinkReport, PeeringError> {
    let mut changed = state.peering.changed();
    loop {
        changed.borrow_and_update();
        let report = state.peering.report(link).await?;
        // The sender lives as long as the state does; should it end, there is nothing to wait for.
        if report.state == LinkState::Active || changed.changed().await.is_err() {
            return Ok(report);
        }
    }
}

async fn mint(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<MintResponse>, Problem> {
    let permit = permit_exchange(&state, &caller)?;
    let link = link(&name)?;
    permit_link_groups(&state, &caller, &link).await?;
    let request: MintRequest = if body.is_empty() { MintRequest::default() } else { parse(&body)? };
    let bound_to = match request.bound_to.as_deref().map(str::parse::<Fingerprint>) {
        None => None,
        Some(Ok(fingerprint)) => Some(fingerprint),
        Some(Err(error)) => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", format!("`bound_to`: {error}")));
        }
    };
    let minted = state.peering.mint(&permit, &link, bound_to).await?;
    let token = minted.token.encode().expose().to_owned();
    Ok(Json(MintResponse { token, expires_at: minted.expires_at }))
}

async fn redeem(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<LinkReport>, Problem> {
    let permit = permit_exchange(&state, &caller)?;
    let link = link(&name)?;
    permit_link_groups(&state, &caller, &link).await?;
    let request: RedeemRequest = parse(&body)?;
    Ok(Json(state.peering.redeem(&permit, &link, &request.token).await?))
}

async fn pin(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<LinkReport>, Problem> {
    let permit = state.permit(&caller, Entitlement::CanCreateClusterLinks, Entity::Server)?;
    let link = link(&name)?;
    state.peering.pin(&permit, &link).await?;
    Ok(Json(state.peering.report(&link).await?))
}

fn link(name: &str) -> Result<LinkName, Problem> {
    // Something else than a name may have been pasted there: it is not repeated.
    name.parse().map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "bad_name", format!("{error}")))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        // The error's own words may repeat what was sent, and that may be a token.
        let message = format!("the body is not what is expected here: column {}", error.column());
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
    })
}

/// Who is at fault, as a status.
pub fn status(error: &PeeringError) -> StatusCode {
    match error {
        PeeringError::NotFound(_) | PeeringError::UnknownPeer => StatusCode::NOT_FOUND,
        PeeringError::Public(_)
        | PeeringError::NotPublic(_)
        | PeeringError::Calls(_)
        | PeeringError::Called(_)
        | PeeringError::NotListening
        | PeeringError::BadFingerprint
        | PeeringError::Itself
        | PeeringError::CertificateRequired
        | PeeringError::BadCertificate
        | PeeringError::WrongCertificate
        | PeeringError::NoCertificate
        | PeeringError::OtherCertificate
        | PeeringError::NotAPeering(_)
        | PeeringError::NoIssuer { .. }
        | PeeringError::Unverified(_) => StatusCode::BAD_REQUEST,
        PeeringError::Token(_)
        | PeeringError::OtherKind(_)
        | PeeringError::UnknownToken
        | PeeringError::Activate(_) => StatusCode::FORBIDDEN,
        PeeringError::AlreadyLinked { .. }
        | PeeringError::AlreadyConfirmed(_)
        | PeeringError::LinkedElsewhere(_)
        | PeeringError::PeerKnown
        | PeeringError::IsLinked(_)
        | PeeringError::Dials(_)
        | PeeringError::IsDialled(_)
        | PeeringError::Superseded(_) => StatusCode::CONFLICT,
        // LXD passes on what the other side answered.
        PeeringError::RefusedByPeer { status, .. }
            if status.is_client_error() || status.is_server_error() =>
        {
            *status
        }
        PeeringError::RefusedByPeer { .. } | PeeringError::Unreachable { .. } => StatusCode::BAD_GATEWAY,
        PeeringError::Ending => StatusCode::SERVICE_UNAVAILABLE,
        PeeringError::Store(_) | PeeringError::Commit(_) | PeeringError::Value(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl From<PeeringError> for Problem {
    fn from(error: PeeringError) -> Self {
        let code = match &error {
            PeeringError::NotFound(_) | PeeringError::UnknownPeer => "not_found",
            PeeringError::Public(_)
            | PeeringError::NotPublic(_)
            | PeeringError::Calls(_)
            | PeeringError::NotAPeering(_)
            | PeeringError::Called(_) => "wrong_type",
            PeeringError::NotListening => "not_listening",
            PeeringError::AlreadyLinked { .. }
            | PeeringError::AlreadyConfirmed(_)
            | PeeringError::LinkedElsewhere(_)
            | PeeringError::IsLinked(_)
            | PeeringError::Dials(_)
            | PeeringError::IsDialled(_)
            | PeeringError::PeerKnown => "already_linked",
            PeeringError::RefusedByPeer { .. } => "peer_refused",
            PeeringError::Unreachable { .. } => "peer_unreachable",
            PeeringError::Unverified(_) | PeeringError::NoIssuer { .. } | PeeringError::OtherCertificate => {
                "wrong_certificate"
            }
            PeeringError::Superseded(_) => "conflict",
            PeeringError::Ending => "ending",
            PeeringError::Store(_) | PeeringError::Commit(_) | PeeringError::Value(_) => {
                return Self::internal(&error);
            }
            _ => "bad_token",
        };
        let problem = Self::new(status(&error), code, error.to_string());
        match error.hint() {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}
