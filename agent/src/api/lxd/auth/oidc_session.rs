//! `/1.0/auth/oidc-sessions`: the logins of those whom the identity provider vouches for. Whoever may see an identity
//! sees its sessions; whoever may delete it ends them, so everybody may end their own.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::api::ApiState;
use crate::api::lxd::answer::{LxdError, empty, sync};
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::trust::client_token::ClientError;
use crate::trust::oidc::session::SessionRecord;
use crate::trust::{Caller, IdentityId};
use crate::wire::lxd::auth::OidcSession;

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/auth/oidc-sessions", get(list))
        .route("/auth/oidc-sessions/{id}", get(show).delete(remove))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    recursion: u8,
    /// Those of this identity alone.
    email: Option<String>,
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let now = Timestamp::now();
    let mut every: Vec<(Uuid, Arc<SessionRecord>)> = state.identities.sessions(|sessions| {
        let wanted = sessions.all().filter(|(_, session)| {
            session.expires_at > now && wanted.email.as_ref().is_none_or(|email| *email == session.email)
        });
        wanted.map(|(id, session)| (*id, session.clone())).collect()
    });
    every.retain(|(_, session)| state.permit(&caller, Entitlement::CanView, entity(session)).is_ok());
    every.sort_by(|(_, a), (_, b)| (&a.email, a.created_at).cmp(&(&b.email, b.created_at)));
    if wanted.recursion > 0 {
        return Ok(sync(every.iter().map(|(id, session)| shown(*id, session)).collect::<Vec<_>>()));
    }
    Ok(sync(every.iter().map(|(id, _)| format!("/1.0/auth/oidc-sessions/{id}")).collect::<Vec<_>>()))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, LxdError> {
    let (id, session) = find(&state, &caller, &id)?;
    Ok(sync(shown(id, &session)))
}

async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, LxdError> {
    let (id, session) = find(&state, &caller, &id)?;
    let permit = state.permit(&caller, Entitlement::CanDelete, entity(&session))?;
    match state.clients.end_session(&permit, &id, Timestamp::now()).await {
        Ok(()) => Ok(empty()),
        Err(ClientError::NotFound) => Err(LxdError::plain(StatusCode::NOT_FOUND)),
        Err(error) => Err(LxdError::internal(&error)),
    }
}

/// The session that a path names, if the caller may know of it.
fn find(state: &ApiState, caller: &Caller, id: &str) -> Result<(Uuid, Arc<SessionRecord>), LxdError> {
    require_trust(caller)?;
    let nowhere = || LxdError::plain(StatusCode::NOT_FOUND);
    let id: Uuid = id.parse().map_err(|_| nowhere())?;
    let session = state.identities.sessions(|sessions| sessions.get(&id).cloned());
    let session = session.filter(|session| session.expires_at > Timestamp::now()).ok_or_else(nowhere)?;
    state.permit(caller, Entitlement::CanView, entity(&session))?;
    Ok((id, session))
}

fn entity(session: &SessionRecord) -> Entity {
    Entity::Identity(IdentityId::Email(session.email.clone()))
}

fn shown(uuid: Uuid, session: &SessionRecord) -> OidcSession {
    OidcSession {
        email: session.email.clone(),
        username: session.username.clone(),
        uuid,
        ip_address: session.address.map(|address| address.to_string()).unwrap_or_default(),
        user_agent: session.user_agent.clone(),
        created_at: session.created_at,
        expires_at: session.expires_at,
    }
}
