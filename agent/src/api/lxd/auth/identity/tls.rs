//! `POST /1.0/auth/identities/tls`: a pending identity and its token, one by its certificate, or a token's redemption.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use crate::api::ApiState;
use crate::api::lxd::answer::{LxdError, created};
use crate::api::lxd::auth::existing_groups;
use crate::api::lxd::body::decode;
use crate::api::lxd::certificates::decoded;
use crate::api::request::Connection;
use crate::authorize::{Entitlement, Entity};
use crate::peering::PeeringError;
use crate::trust::client_token::{ClientError, Counter, Newcomer, Order, Purpose};
use crate::trust::identity::IdentityKind;
use crate::trust::{Access, Caller};
use crate::wire::lxd::identity::TlsIdentityPost;

pub async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Extension(connection): Extension<Arc<Connection>>,
    body: Bytes,
) -> Result<Response, LxdError> {
    let body: TlsIdentityPost = decode(&body, TlsIdentityPost::KEYS)?;
    if !caller.is_trusted() || !body.trust_token.is_empty() {
        return redeem(&state, &caller, &connection, body).await;
    }
    let permit = state.permit(&caller, Entitlement::CanCreateIdentities, Entity::Server)?;
    if body.name.is_empty() {
        return Err(LxdError::bad_request("Identity name must be provided"));
    }
    if body.token && !body.certificate.is_empty() {
        return Err(LxdError::bad_request("Cannot use certificate if token is requested"));
    }
    let groups = existing_groups(&state, &body.groups)?;
    state.permit_groups(&caller, &groups)?;
    let (now, access) = (Timestamp::now(), Access::Groups(groups.into()));
    if body.token {
        let asked = body.expires_in.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        let lifetime =
            asked.map_or_else(|| state.settings.current().token_expiry(), SignedDuration::from_secs);
        let addresses = state.addresses.current();
        let order =
            Order { name: &body.name, purpose: Purpose::Identity, access, addresses: &addresses, lifetime };
        let minted = state.clients.mint(&permit, order, now).await?;
        return Ok(created(&format!("/1.0/auth/identities/tls/{}", minted.id), minted.token));
    }
    if body.certificate.is_empty() {
        return Err(LxdError::bad_request("Must provide a certificate"));
    }
    let certificate = decoded(&body.certificate)?;
    let newcomer =
        Newcomer { name: &body.name, kind: IdentityKind::Client, access, certificate: &certificate };
    let added = state.clients.add(&permit, newcomer, now).await?;
    Ok(created(&format!("/1.0/auth/identities/tls/{added}"), serde_json::Map::new()))
}

async fn redeem(
    state: &ApiState,
    caller: &Caller,
    connection: &Connection,
    body: TlsIdentityPost,
) -> Result<Response, LxdError> {
    let forbidden = |message: &str| LxdError::new(StatusCode::FORBIDDEN, message);
    if body.trust_token.is_empty() {
        return Err(forbidden("Trust token required"));
    }
    let already = || LxdError::new(StatusCode::CONFLICT, "Client already trusted");
    let more = !body.name.is_empty() || body.token || !body.certificate.is_empty() || !body.groups.is_empty();
    if more && !caller.is_trusted() {
        return Err(forbidden("Only trust token must be provided"));
    }
    let Some(shown) = connection.shown() else {
        let none = LxdError::bad_request("No client certificate provided");
        return Err(if caller.is_trusted() { already() } else { none });
    };
    let (token, certificate) = (&body.trust_token, &shown.der);
    match state.clients.redeem(caller, Counter::Identities, token, shown, Timestamp::now()).await {
        Ok(_) => {
            let location = format!("/1.0/auth/identities/tls/{}", shown.fingerprint);
            Ok(created(&location, serde_json::Map::new()))
        }
        // A declared one-way link's own token. A cluster that did not hear the first answer hears it now.
        Err(ClientError::ForLinks) => match state.peering.admit(caller, token, certificate).await {
            Ok(_) => {
                let location = format!("/1.0/auth/identities/tls/{}", shown.fingerprint);
                Ok(created(&location, serde_json::Map::new()))
            }
            Err(PeeringError::PeerKnown) => Err(already()),
            Err(_) if caller.is_trusted() => Err(already()),
            Err(error) => {
                tracing::info!(%error, "no token for an identity");
                let why = "No pending identities found with given secret";
                let error = forbidden(&format!("Failed during search for pending TLS identity: {why}"));
                Err(state.failures.answer(caller, "identities", error).await)
            }
        },
        Err(_) if caller.is_trusted() => Err(already()),
        Err(ClientError::Malformed(error)) => {
            let error = forbidden(&format!("Invalid trust token: {error}"));
            Err(state.failures.answer(caller, "identities", error).await)
        }
        // LXD answers 500 to these, for what is no fault of the server's.
        Err(error @ (ClientError::Unknown | ClientError::Used)) => {
            tracing::info!(%error, "no token for an identity");
            let why = "No pending identities found with given secret";
            let error = forbidden(&format!("Failed during search for pending TLS identity: {why}"));
            Err(state.failures.answer(caller, "identities", error).await)
        }
        Err(error @ (ClientError::NotSigned | ClientError::Node(_))) => {
            Err(state.failures.answer(caller, "identities", error.into()).await)
        }
        Err(ClientError::Expired) => {
            Err(forbidden("Failed during search for pending TLS identity: Token has expired"))
        }
        Err(error) => Err(error.into()),
    }
}
