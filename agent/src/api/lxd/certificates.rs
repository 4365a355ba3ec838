//! `/1.0/certificates`: LXD's trust store, whose entries may do everything, or what is in some projects, or read
//! metrics; and the tokens by which others come into it. Identities with groups are elsewhere.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use schema::name::ProjectName;

use super::answer::{LxdError, created, empty, operation, sync};
use super::body::decode;
use super::etag;
use super::recursion::Depth;
use crate::api::ApiState;
use crate::api::request::Connection;
use crate::authorize::{Entitlement, Entity, Permit, require_trust};
use crate::trust::certificate::{fingerprint, from_pem};
use crate::trust::client_token::{ClientError, Counter, Held, Minted, Newcomer, Order, Purpose};
use crate::trust::identity::{IdentityKind, IdentityRecord};
use crate::trust::{Access, Caller, Fingerprint};
use crate::wire::lxd::certificate::{
    Certificate, CertificatePatch, CertificatesPost, TokenMetadata, TokenOperation, TokenRequest,
};

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/certificates", post(add).get(list))
        .route("/certificates/{fingerprint}", get(show).put(put).patch(patch).delete(remove))
}

impl From<ClientError> for LxdError {
    fn from(error: ClientError) -> Self {
        let status = match &error {
            // What LXD has no words for, it says with the status alone.
            ClientError::Malformed(_) => return LxdError::plain(StatusCode::FORBIDDEN),
            ClientError::ForIdentities
            | ClientError::Certificate(_)
            | ClientError::Name
            | ClientError::NotListening
            | ClientError::Ambiguous => StatusCode::BAD_REQUEST,
            ClientError::Unknown
            | ClientError::Used
            | ClientError::Expired
            | ClientError::ForLinks
            | ClientError::NotSigned
            | ClientError::Node(_) => StatusCode::FORBIDDEN,
            ClientError::AlreadyTrusted | ClientError::NameTaken(_) => StatusCode::CONFLICT,
            ClientError::Moved => StatusCode::PRECONDITION_FAILED,
            ClientError::NotFound => return LxdError::plain(StatusCode::NOT_FOUND),
            ClientError::TooMany | ClientError::TooManyArrived(_) | ClientError::Contended => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ClientError::Store(_)
            | ClientError::Value(_)
            | ClientError::Commit(_)
            | ClientError::Forget(_) => {
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
    body: Bytes,
) -> Result<Response, LxdError> {
    let body: CertificatesPost = decode(&body, CertificatesPost::KEYS)?;
    // lxc 5.0 sends the token as a password; a real password is no token and is refused as one.
    let token = if body.trust_token.is_empty() { &body.password } else { &body.trust_token };
    if !token.is_empty() || !caller.is_trusted() {
        return redeem(&state, &caller, &connection, token).await;
    }
    let kind = match body.kind.as_str() {
        "" | "client" => IdentityKind::Client,
        "metrics" => IdentityKind::Metrics,
        _ => return Err(LxdError::bad_request("Only client and metrics certificates can be added")),
    };
    let access = access(body.restricted, &body.projects)?;
    let permit = permit_access(&state, &caller, &kind, &access).await?;
    if body.token {
        return mint(&state, &permit, kind, access, body).await;
    }
    if body.certificate.is_empty() {
        return Err(LxdError::bad_request("Must provide a certificate"));
    }
    let der = STANDARD.decode(unwrapped(&body.certificate)).ok().map(CertificateDer::from);
    let der = der.ok_or_else(|| LxdError::bad_request("The certificate is not base64 of DER"))?;
    let called = if body.name.is_empty() {
        fingerprint(&der).to_string().chars().take(12).collect()
    } else {
        body.name
    };
    let newcomer = Newcomer { name: &called, kind, access, certificate: &der };
    let added = state.clients.add(&permit, newcomer, Timestamp::now()).await?;
    Ok(created(&location(added), serde_json::Map::new()))
}

async fn mint(
    state: &ApiState,
    permit: &Permit,
    kind: IdentityKind,
    access: Access,
    body: CertificatesPost,
) -> Result<Response, LxdError> {
    if !body.certificate.is_empty() {
        return Err(LxdError::bad_request("Cannot use certificate if token is requested"));
    }
    if kind != IdentityKind::Client {
        return Err(LxdError::bad_request("Tokens can only be issued for client certificates"));
    }
    if body.name.is_empty() {
        return Err(LxdError::bad_request("Client name must not be empty"));
    }
    let asked = body.expires_in.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
    let lifetime = asked.map_or_else(|| state.settings.current().token_expiry(), SignedDuration::from_secs);
    let order = Order {
        name: &body.name,
        purpose: Purpose::Certificate,
        access,
        addresses: &state.addresses.current(),
        lifetime,
    };
    let minted = state.clients.mint(permit, order, Timestamp::now()).await?;
    let location = format!("/1.0/operations/{}", minted.id);
    Ok(operation(&location, token_operation(minted, body)))
}

/// Base64 without its line breaks: pylxd 2.4 sends the inside of a PEM as it is, and LXD's decoder skips them.
fn unwrapped(base64: &str) -> String {
    base64.chars().filter(|c| !matches!(c, '\r' | '\n')).collect()
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
    let already = || LxdError::new(StatusCode::CONFLICT, "Client is already trusted");
    let Some(shown) = connection.shown() else {
        let none = LxdError::bad_request("No client certificate provided");
        return Err(if caller.is_trusted() { already() } else { none });
    };
    match state.clients.redeem(caller, Counter::Certificates, token, shown, Timestamp::now()).await {
        // A client that did not hear the first answer hears it now; any other that is trusted has no use for a token.
        Ok(_) => Ok(created(&location(shown.fingerprint), serde_json::Map::new())),
        Err(_) if caller.is_trusted() => Err(already()),
        Err(error @ (ClientError::Unknown | ClientError::Used | ClientError::ForLinks)) => {
            tracing::info!(%error, "no token for a certificate");
            let unknown = LxdError::new(StatusCode::FORBIDDEN, "No matching certificate add operation found");
            Err(state.failures.answer(caller, "certificates", unknown).await)
        }
        Err(error @ (ClientError::Malformed(_) | ClientError::NotSigned | ClientError::Node(_))) => {
            Err(state.failures.answer(caller, "certificates", error.into()).await)
        }
        Err(error @ (ClientError::Expired | ClientError::ForIdentities)) => {
            let searched = format!("Failed during search for certificate add token operation: {error}");
            Err(LxdError::new(LxdError::from(error).status, searched))
        }
        Err(error) => Err(error.into()),
    }
}

fn access(restricted: bool, projects: &[String]) -> Result<Access, LxdError> {
    if !restricted {
        return if projects.is_empty() {
            Ok(Access::Unrestricted)
        } else {
            Err(LxdError::bad_request(
                "Cannot name projects for an unrestricted certificate: set \"restricted\"",
            ))
        };
    }
    let project = |name: &String| {
        name.parse::<ProjectName>()
            .map_err(|error| LxdError::bad_request(format!("Invalid project name: {error}")))
    };
    let mut projects = projects.iter().map(project).collect::<Result<Vec<_>, _>>()?;
    projects.sort_unstable();
    projects.dedup();
    Ok(Access::Projects(projects))
}

/// Whether `caller` may give somebody this access. Whoever makes a client that may do everything could do everything
/// through it, and so with a client that may do what is done in a project.
async fn permit_access(
    state: &ApiState,
    caller: &Caller,
    kind: &IdentityKind,
    access: &Access,
) -> Result<Permit, LxdError> {
    match access {
        Access::Unrestricted if *kind == IdentityKind::Client => {
            Ok(state.permit(caller, Entitlement::Admin, Entity::Server)?)
        }
        Access::Projects(projects) => {
            let permit = state.permit(caller, Entitlement::CanCreateIdentities, Entity::Server)?;
            for project in projects {
                if !state.has_project(project).await? {
                    return Err(LxdError::new(StatusCode::NOT_FOUND, "Project not found"));
                }
                state.permit(caller, Entitlement::CanEdit, Entity::Project(project.clone()))?;
            }
            Ok(permit)
        }
        _ => Ok(state.permit(caller, Entitlement::CanCreateIdentities, Entity::Server)?),
    }
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(Depth { recursion }): Query<Depth>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let mut seen = Vec::new();
    state.identities.each(|id, identity| {
        seen.extend(id.fingerprint().filter(|_| identity.is_legacy()).map(|id| (id, Arc::clone(identity))));
    });
    seen.retain(|(fingerprint, _)| {
        state.permit(&caller, Entitlement::CanView, Entity::Certificate(*fingerprint)).is_ok()
    });
    if recursion.whole() {
        return Ok(sync(seen.iter().map(|(fp, identity)| shown(*fp, identity)).collect::<Vec<_>>()));
    }
    Ok(sync(seen.iter().map(|(fingerprint, _)| location(*fingerprint)).collect::<Vec<_>>()))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(wanted): Path<String>,
) -> Result<Response, LxdError> {
    let (fingerprint, identity) = find(&state, &caller, &wanted)?;
    state.permit(&caller, Entitlement::CanView, Entity::Certificate(fingerprint))?;
    let certificate = shown(fingerprint, &identity);
    Ok(etag::put(sync(&certificate), &certificate))
}

async fn put(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(wanted): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, LxdError> {
    let body: CertificatePatch = decode(&body, CertificatePatch::KEYS)?;
    // What a PUT leaves out is empty, but an entry without a name, a type or a certificate is none.
    let whole = CertificatePatch {
        restricted: Some(body.restricted.unwrap_or_default()),
        projects: Some(body.projects.unwrap_or_default()),
        ..body
    };
    edit(&state, &caller, &wanted, &headers, whole).await
}

async fn patch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(wanted): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, LxdError> {
    let body: CertificatePatch = decode(&body, CertificatePatch::KEYS)?;
    edit(&state, &caller, &wanted, &headers, body).await
}

async fn edit(
    state: &ApiState,
    caller: &Caller,
    wanted: &str,
    headers: &HeaderMap,
    body: CertificatePatch,
) -> Result<Response, LxdError> {
    let (known_as, _) = find(state, caller, wanted)?;
    let entity = || Entity::Certificate(known_as);
    let sees = state.permit(caller, Entitlement::CanView, entity())?;
    let held = state.clients.read(&known_as.into()).await?;
    let before = shown(known_as, &held.record);
    etag::check(headers, &before)?;
    let kind = body.kind.unwrap_or_else(|| before.kind.clone());
    if kind != before.kind {
        return Err(LxdError::new(StatusCode::FORBIDDEN, "The certificate type cannot be changed"));
    }
    let pem = body.certificate.filter(|pem| !pem.is_empty() && *pem != before.certificate);
    let after = Certificate {
        name: body.name.filter(|name| !name.is_empty()).unwrap_or_else(|| before.name.clone()),
        restricted: body.restricted.unwrap_or(before.restricted),
        projects: body.projects.unwrap_or_else(|| before.projects.clone()),
        ..before.clone()
    };
    let certificate = pem.as_deref().map(decoded).transpose()?;
    match state.permit(caller, Entitlement::CanEdit, entity()) {
        Ok(permit) => {
            let access = if held.record.kind == IdentityKind::Metrics {
                held.record.access.clone()
            } else {
                access(after.restricted, &after.projects)?
            };
            if access != held.record.access {
                permit_access(state, caller, &held.record.kind, &access).await?;
            }
            // Whoever puts a key of its own in another's place becomes that other: only who could make one like it may.
            if certificate.is_some() && caller.fingerprint() != Some(known_as) {
                permit_access(state, caller, &held.record.kind, &held.record.access).await?;
            }
            let record = IdentityRecord { name: after.name, access, ..held.record.clone() };
            change(state, &permit, held, record, certificate.as_ref()).await
        }
        // Anybody may renew its own certificate, and nothing else of itself.
        Err(_) if caller.fingerprint() == Some(known_as) && after == before => {
            let record = held.record.clone();
            change(state, &sees, held, record, certificate.as_ref()).await
        }
        Err(denied) => Err(denied.into()),
    }
}

async fn change(
    state: &ApiState,
    permit: &Permit,
    held: Held,
    record: IdentityRecord,
    certificate: Option<&CertificateDer<'_>>,
) -> Result<Response, LxdError> {
    state.clients.change(permit, held, record, certificate, Timestamp::now()).await?;
    Ok(empty())
}

/// A certificate from its PEM.
pub(super) fn decoded(pem: &str) -> Result<CertificateDer<'static>, LxdError> {
    from_pem(pem).ok_or_else(|| LxdError::bad_request("The certificate is not one in PEM"))
}

async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(wanted): Path<String>,
) -> Result<Response, LxdError> {
    let (fingerprint, _) = find(&state, &caller, &wanted)?;
    let permit = state.permit(&caller, Entitlement::CanDelete, Entity::Certificate(fingerprint))?;
    state.clients.remove(&permit, &fingerprint.into(), Timestamp::now()).await?;
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
    let projects = match &identity.access {
        Access::Projects(projects) => projects.iter().map(ToString::to_string).collect(),
        Access::Unrestricted | Access::Groups(_) => Vec::new(),
    };
    Certificate {
        name: identity.name.clone(),
        kind: if identity.kind == IdentityKind::Metrics { "metrics" } else { "client" }.to_owned(),
        restricted: identity.access != Access::Unrestricted,
        projects,
        certificate: identity.certificate_pem.clone(),
        fingerprint: fingerprint.to_string(),
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
