//! `/1.0/auth/identities/bearer`: identities that are known by a token, and their tokens.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use jiff::Timestamp;

use super::find;
use super::known::Known;
use crate::api::ApiState;
use crate::api::lxd::answer::{LxdError, created, empty, sync};
use crate::api::lxd::auth::existing_groups;
use crate::api::lxd::body::decode;
use crate::authorize::{Entitlement, Entity, Permit};
use crate::settings::expiry;
use crate::trust::Caller;
use crate::trust::client_token::Held;
use crate::wire::lxd::identity::{BearerIdentityPost, BearerTokenIssued, BearerTokenPost, types};

pub async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, LxdError> {
    let body: BearerIdentityPost = decode(&body, BearerIdentityPost::KEYS)?;
    let permit = state.permit(&caller, Entitlement::CanCreateIdentities, Entity::Server)?;
    match body.kind.as_str() {
        types::BEARER => {}
        types::BEARER_DEVLXD => {
            return Err(LxdError::bad_request(format!(
                "There is no DevLXD here: only identities of type {:?} can be created",
                types::BEARER
            )));
        }
        _ => return Err(LxdError::bad_request(format!("The type must be {:?}", types::BEARER))),
    }
    if body.name.is_empty() {
        return Err(LxdError::bad_request("Identity name must be provided"));
    }
    let groups = existing_groups(&state, &body.groups)?;
    state.permit_groups(&caller, &groups)?;
    let id = state.clients.add_bearer(&permit, &body.name, groups, Timestamp::now()).await?;
    Ok(created(&format!("/1.0/auth/identities/bearer/{id}"), serde_json::Map::new()))
}

pub async fn issue(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, LxdError> {
    let body: BearerTokenPost =
        if body.is_empty() { BearerTokenPost::default() } else { decode(&body, BearerTokenPost::KEYS)? };
    let lifetime = match body.expiry.as_str() {
        "" => state.settings.current().token_expiry(),
        text => expiry(text).map_err(|error| LxdError::bad_request(error.to_string()))?,
    };
    let (permit, held) = editable(&state, &caller, &name).await?;
    let token = state.clients.issue_bearer_token(&permit, held, lifetime, Timestamp::now()).await?;
    Ok(sync(BearerTokenIssued { token }))
}

pub async fn revoke(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, LxdError> {
    let (permit, held) = editable(&state, &caller, &name).await?;
    state.clients.revoke_bearer_token(&permit, held, Timestamp::now()).await?;
    Ok(empty())
}

/// A bearer whose token the caller may make: whoever holds its token is it, so its groups must be the caller's to give.
async fn editable(state: &ApiState, caller: &Caller, name: &str) -> Result<(Permit, Held), LxdError> {
    let known: Known = find(state, caller, "bearer", name).await?;
    let permit = state.permit(caller, Entitlement::CanEdit, known.entity())?;
    state.permit_groups(caller, &known.groups(state))?;
    Ok((permit, state.clients.read(&known.id()).await?))
}
