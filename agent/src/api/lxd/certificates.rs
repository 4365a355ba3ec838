//! `/1.0/certificates`: the trusted clients and the tokens by which others become so.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use schema::name::GroupName;

use super::answer::{LxdError, created, empty, operation, sync};
use crate::api::ApiState;
use crate::api::request::Connection;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::trust::client_token::{ClientError, Minted};
use crate::trust::identity::{IdentityKind, IdentityRecord};
use crate::trust::{Access, Caller, Fingerprint, Groups};
use crate::wire::lxd::certificate::{
    Certificate, CertificatesPost, TokenMetadata, TokenOperation, TokenRequest,
};

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/certificates", post(add).get(list))
        .route("/certificates/{fingerprint}", get(show).delete(remove))
}

impl From<ClientError> for LxdError {
    fn from(error: ClientError) -> Self {
        let status = match &error {
            ClientError::Malformed(_)
            | ClientError::OtherKind(_)
            | ClientError::OtherCluster { .. }
            | ClientError::Unknown
            | ClientError::Used
            | ClientError::Expired => StatusCode::FORBIDDEN,
            ClientError::AlreadyTrusted => StatusCode::CONFLICT,
            ClientError::NotFound => return LxdError::plain(StatusCode::NOT_FOUND),
            ClientError::Certificate(_)
            | ClientError::LinkCertificate
            | ClientError::Name
            | ClientError::NotListening
            | ClientError::Ambiguous => StatusCode::BAD_REQUEST,
            ClientError::TooMany | ClientError::Contended => StatusCode::SERVICE_UNAVAILABLE,
            ClientError::Store(_) | ClientError::Value(_) | ClientError::Commit(_) => {
                return LxdError::internal(&error);
            }
        };
        LxdError::new(status, error.to_string())
    }
}

async fn add(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Extension(connection): Extension<Arc<Connection>>,
    Json(body): Json<CertificatesPost>,
) -> Result<Response, LxdError> {
    // lxc 5.0 sends the token as a password; a real password is no token and is refused as one.
    let token = if body.trust_token.is_empty() { &body.password } else { &body.trust_token };
    if !token.is_empty() || !caller.is_trusted() {
        return redeem(&state, &caller, &connection, token).await;
    }
    let entitlement = if body.groups.is_empty() && !body.restricted {
        // Whoever makes a client that may do everything could do everything through it.
        Entitlement::Admin
    } else {
        Entitlement::CanCreateIdentities
    };
    let permit = state.permit(&caller, entitlement, Entity::Server)?;
    let access = access(&state, &body)?;
    if let Access::Groups(groups) = &access {
        state.permit_groups(&caller, groups)?;
    }
    if !matches!(body.kind.as_str(), "" | "client") {
        return Err(LxdError::bad_request("Only client certificates can be added"));
    }
    let now = Timestamp::now();
    if body.token {
        if !body.certificate.is_empty() {
            return Err(LxdError::bad_request("Cannot use certificate if token is requested"));
        }
        if body.name.is_empty() {
            return Err(LxdError::bad_request("Client name must not be empty"));
        }
        let asked = body.expires_in.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        let lifetime =
            asked.map_or_else(|| state.settings.current().token_expiry(), SignedDuration::from_secs);
        let minted = state
            .clients
            .mint(&permit, &body.name, access, &state.addresses.current(), now, lifetime)
            .await?;
        let location = format!("/1.0/operations/{}", minted.id);
        return Ok(operation(&location, token_operation(minted, body)));
    }
    if body.certificate.is_empty() {
        return Err(LxdError::bad_request("Must provide a certificate"));
    }
    let der = STANDARD.decode(&body.certificate).ok().map(CertificateDer::from);
    let der = der.ok_or_else(|| LxdError::bad_request("The certificate is not base64 of DER"))?;
    let fingerprint = state.clients.add(&permit, &body.name, access, &der, now).await?;
    Ok(created(&location(fingerprint), serde_json::Map::new()))
}

async fn redeem(
    state: &ApiState,
    caller: &Caller,
    connection: &Connection,
    token: &str,
) -> Result<Response, LxdError> {
    if token.is_empty() {
        return Err(LxdError::plain(StatusCode::FORBIDDEN));
    }
    let certificate = connection.certificate();
    let already = || LxdError::new(StatusCode::CONFLICT, "Client is already trusted");
    let Some(certificate) = certificate else {
        let none = LxdError::bad_request("No client certificate provided");
        return Err(if caller.is_trusted() { already() } else { none });
    };
    match state.clients.redeem(token, certificate, Timestamp::now()).await {
        // A client that did not hear the first answer hears it now; any other that is trusted has no use for a token.
        Ok(_) => {
            let fingerprint = crate::trust::certificate::fingerprint(certificate);
            Ok(created(&location(fingerprint), serde_json::Map::new()))
        }
        Err(_) if caller.is_trusted() => Err(already()),
        Err(error) => {
            tracing::info!(%error, "a token was refused");
            Err(error.into())
        }
    }
}

fn access(state: &ApiState, body: &CertificatesPost) -> Result<Access, LxdError> {
    if !body.projects.is_empty() || (body.restricted && body.groups.is_empty()) {
        return Err(LxdError::bad_request(
            "Clients are restricted by auth groups here, not by projects: name some in \"groups\"",
        ));
    }
    if body.groups.is_empty() {
        return Ok(Access::Unrestricted);
    }
    let policy = state.identities.policy();
    let (known, missing): (Vec<_>, Vec<_>) = body
        .groups
        .iter()
        .partition(|name| name.parse::<GroupName>().is_ok_and(|name| policy.contains(&name)));
    if !missing.is_empty() {
        let missing: Vec<String> = missing.iter().map(|name| format!("{name:?}")).collect();
        let message = format!("One or more groups were not found: {}", missing.join(", "));
        return Err(LxdError::new(StatusCode::NOT_FOUND, message));
    }
    Ok(Access::Groups(known.into_iter().filter_map(|name| name.parse().ok()).collect::<Groups>()))
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let sees = |fingerprint: &Fingerprint| {
        state.permit(&caller, Entitlement::CanView, Entity::Certificate(*fingerprint)).is_ok()
    };
    let all = state.identities.all();
    let clients = all.iter().filter(|(_, identity)| identity.kind == IdentityKind::Client).filter_map(
        |(id, identity)| {
            let fingerprint = id.fingerprint().filter(&sees)?;
            Some((fingerprint, identity))
        },
    );
    if query.get("recursion").is_some_and(|recursion| recursion != "0") {
        let clients: Vec<_> = clients.map(|(fingerprint, identity)| shown(fingerprint, identity)).collect();
        return Ok(sync(clients));
    }
    Ok(sync(clients.map(|(fingerprint, _)| location(fingerprint)).collect::<Vec<_>>()))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(wanted): Path<String>,
) -> Result<Response, LxdError> {
    let (fingerprint, identity) = find(&state, &caller, &wanted)?;
    state.permit(&caller, Entitlement::CanView, Entity::Certificate(fingerprint))?;
    Ok(sync(shown(fingerprint, &identity)))
}

async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(wanted): Path<String>,
) -> Result<Response, LxdError> {
    let (fingerprint, _) = find(&state, &caller, &wanted)?;
    let permit = state.permit(&caller, Entitlement::CanDelete, Entity::Certificate(fingerprint))?;
    state.clients.remove(&permit, fingerprint).await?;
    Ok(empty())
}

fn find(
    state: &ApiState,
    caller: &Caller,
    wanted: &str,
) -> Result<(Fingerprint, Arc<IdentityRecord>), LxdError> {
    require_trust(caller)?;
    let found = state.clients.find(wanted);
    if matches!(found, Err(ClientError::Ambiguous)) {
        // That there are several is for those who may see them.
        state
            .permit(caller, Entitlement::CanViewIdentities, Entity::Server)
            .map_err(|_| LxdError::plain(StatusCode::NOT_FOUND))?;
    }
    Ok(found?)
}

fn location(fingerprint: Fingerprint) -> String {
    format!("/1.0/certificates/{fingerprint}")
}

fn shown(fingerprint: Fingerprint, identity: &IdentityRecord) -> Certificate {
    let groups = match &identity.access {
        Access::Unrestricted | Access::Projects(_) => Vec::new(),
        Access::Groups(groups) => groups.iter().map(ToString::to_string).collect(),
    };
    Certificate {
        name: identity.name.clone(),
        kind: "client".to_owned(),
        restricted: identity.access != Access::Unrestricted,
        projects: Vec::new(),
        certificate: identity.certificate_pem.clone(),
        fingerprint: fingerprint.to_string(),
        groups,
    }
}

fn token_operation(minted: Minted, body: CertificatesPost) -> TokenOperation {
    let token = minted.token;
    TokenOperation {
        id: minted.id.to_string(),
        class: "token".to_owned(),
        description: "Certificate add token".to_owned(),
        created_at: minted.created_at,
        updated_at: minted.created_at,
        status: "Running".to_owned(),
        status_code: 103,
        resources: None,
        metadata: TokenMetadata {
            secret: token.secret.clone(),
            fingerprint: token.fingerprint,
            addresses: token.addresses,
            request: TokenRequest {
                name: body.name,
                kind: "client".to_owned(),
                restricted: body.restricted,
                projects: body.projects,
            },
            expires_at: Some(token.expires_at),
        },
        may_cancel: true,
        err: String::new(),
        location: "none".to_owned(),
    }
}
