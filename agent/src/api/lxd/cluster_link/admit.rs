//! A cluster that is to call here over a one-way link brings its token (LXD: `POST /1.0/auth/identities/tls`).

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;

use crate::api::ApiState;
use crate::api::lxd::answer::{LxdError, created};
use crate::api::lxd::body;
use crate::api::request::Connection;
use crate::peering::PeeringError;
use crate::trust::Caller;
use crate::trust::certificate::fingerprint;
use crate::trust::client_token::{ClientError, Counter};

/// Takes in who brings `token`: one for an identity in waiting, or one that a declared link minted. A bidirectional
/// link's is not redeemed here.
pub async fn redeem(
    state: &ApiState,
    caller: &Caller,
    connection: &Connection,
    token: &str,
) -> Result<Response, LxdError> {
    let Some(shown) = connection.certificate() else {
        return Err(LxdError::bad_request("No client certificate provided"));
    };
    let known = || LxdError::new(StatusCode::CONFLICT, "Client already trusted");
    let redeemed = state.clients.redeem(caller, Counter::Identities, token, shown, Timestamp::now()).await;
    let refused = match redeemed {
        Ok(_) => None,
        Err(ClientError::ForLinks) => match state.peering.admit(caller, token, shown).await {
            Ok(_) => None,
            Err(PeeringError::PeerKnown) => return Err(known()),
            Err(error) => Some(LxdError::from(error.for_strangers())),
        },
        Err(ClientError::AlreadyTrusted) => return Err(known()),
        Err(ClientError::Malformed(why)) => {
            Some(LxdError::new(StatusCode::FORBIDDEN, format!("Invalid trust token: {why}")))
        }
        Err(error @ (ClientError::Unknown | ClientError::Used | ClientError::Expired)) => {
            tracing::info!(%error, "no pending identity for a token");
            let text = format!("Failed during search for pending TLS identity: {}", ClientError::Unknown);
            Some(LxdError::new(StatusCode::FORBIDDEN, text))
        }
        Err(error) => return Err(error.into()),
    };
    match refused {
        None => {
            let location = format!("/1.0/auth/identities/tls/{}", fingerprint(shown));
            Ok(created(&location, serde_json::Map::new()))
        }
        Some(error) => Err(state.failures.answer(caller, "identities", error).await),
    }
}

/// What a redeemer sends.
#[derive(Deserialize)]
struct Redemption {
    #[serde(default)]
    trust_token: String,
}

pub async fn post(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Extension(connection): Extension<Arc<Connection>>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    if caller.is_trusted() {
        return Err(LxdError::new(StatusCode::CONFLICT, "Client already trusted"));
    }
    let Redemption { trust_token } = body::decode(&bytes, &["trust_token"])?;
    if trust_token.is_empty() {
        return Err(LxdError::new(StatusCode::FORBIDDEN, "Trust token required"));
    }
    redeem(&state, &caller, &connection, &trust_token).await
}
