//! `/1.0/auth/identities`: who is known here, who is about to be, and what groups they are in.

use std::collections::BTreeSet;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::StatusCode;

use super::Asked;
use crate::api::ApiState;
use crate::api::lxd::answer::{LxdError, sync};
use crate::api::lxd::etag;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::trust::{Access, Caller, IdentityId, Who};
use crate::wire::lxd::entity_url::Named;
use crate::wire::lxd::identity::{CurrentIdentity, EffectivePermission};

mod bearer;
mod edit;
pub mod known;
mod tls;

use known::Known;

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/auth/identities", get(list))
        .route("/auth/identities/current", get(current))
        .route("/auth/identities/tls", get(list_tls).post(tls::create))
        .route("/auth/identities/oidc", get(list_oidc))
        .route("/auth/identities/bearer", get(list_bearer).post(bearer::create))
        .route("/auth/identities/bearer/{name}/token", post(bearer::issue).delete(bearer::revoke))
        .route(
            "/auth/identities/{method}/{name}",
            get(show).put(edit::put).patch(edit::patch).delete(edit::remove),
        )
}

type Caught = (State<ApiState>, Extension<Caller>, Query<Asked>);

async fn list((state, caller, query): Caught) -> Result<Response, LxdError> {
    listed(&state, &caller, &query, None).await
}

async fn list_tls((state, caller, query): Caught) -> Result<Response, LxdError> {
    listed(&state, &caller, &query, Some("tls")).await
}

async fn list_oidc((state, caller, query): Caught) -> Result<Response, LxdError> {
    listed(&state, &caller, &query, Some("oidc")).await
}

async fn list_bearer((state, caller, query): Caught) -> Result<Response, LxdError> {
    listed(&state, &caller, &query, Some("bearer")).await
}

async fn listed(
    state: &ApiState,
    caller: &Caller,
    asked: &Asked,
    method: Option<&str>,
) -> Result<Response, LxdError> {
    require_trust(caller)?;
    let mut seen = known::every(state).await?;
    seen.retain(|known| {
        method.is_none_or(|method| known.method() == method)
            && state.permit(caller, Entitlement::CanView, known.entity()).is_ok()
    });
    if asked.whole() {
        return Ok(sync(seen.iter().map(|known| known.shown(state)).collect::<Vec<_>>()));
    }
    Ok(sync(seen.iter().map(Known::url).collect::<Vec<_>>()))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((method, name)): Path<(String, String)>,
) -> Result<Response, LxdError> {
    let known = find(&state, &caller, &method, &name).await?;
    let shown = known.shown(&state);
    Ok(etag::put(sync(&shown), &shown))
}

async fn current(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, LxdError> {
    if matches!(caller.who, Who::Local { .. }) {
        return Err(LxdError::bad_request(
            "Current identity information must be requested via the HTTPS API",
        ));
    }
    require_trust(&caller)?;
    let nobody = || LxdError::plain(StatusCode::FORBIDDEN);
    let id = caller.id().ok_or_else(nobody)?;
    let record = state.identities.get(&id).ok_or_else(nobody)?;
    let identity = Known::Active { id, record }.shown(&state);
    let policy = state.identities.policy();
    let permissions = caller.groups().iter().flat_map(|group| policy.permissions(group));
    let effective: BTreeSet<EffectivePermission> = permissions
        .filter_map(|permission| {
            let named = Named::of(permission)?;
            Some(EffectivePermission {
                entity_type: named.entity_type.to_owned(),
                url: named.url(),
                entitlement: permission.entitlement.clone(),
            })
        })
        .collect();
    Ok(sync(CurrentIdentity {
        identity,
        effective_groups: caller.groups().iter().map(ToString::to_string).collect(),
        effective_permissions: effective.into_iter().collect(),
        fine_grained: matches!(caller.who, Who::Client { access: Access::Groups(_), .. } | Who::Peer { .. }),
    }))
}

/// The identity that a path names, by identifier or by a name that was given to it here, if the caller may know of it.
async fn find(state: &ApiState, caller: &Caller, method: &str, name: &str) -> Result<Known, LxdError> {
    require_trust(caller)?;
    let mut found = known::every(state).await?;
    found.retain(|known| {
        known.method() == method
            && known.is_called(name)
            && state.permit(caller, Entitlement::CanView, known.entity()).is_ok()
    });
    // An identifier is one's own; a name may be several's.
    if let Some(at) = found.iter().position(|known| known.identifier() == name) {
        return Ok(found.swap_remove(at));
    }
    match found.len() {
        0 => Err(LxdError::plain(StatusCode::NOT_FOUND)),
        1 => found.pop().ok_or_else(|| LxdError::plain(StatusCode::NOT_FOUND)),
        _ => Err(LxdError::bad_request("More than one identity has this name; give its identifier")),
    }
}

/// Whether there is an identity in waiting with this identifier.
pub async fn is_waiting(state: &ApiState, id: uuid::Uuid) -> Result<bool, LxdError> {
    let every = known::every(state).await?;
    Ok(every.iter().any(|known| known.entity() == Entity::Identity(IdentityId::Token(id))))
}
