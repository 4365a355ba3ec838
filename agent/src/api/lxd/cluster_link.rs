//! `/1.0/cluster/links`: links by hand, in LXD's shapes, and the call by which a peer redeems a token.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::StatusCode;
use schema::kind::cluster_link::{ClusterLink, LinkType};
use schema::name::{GroupName, LinkName};
use schema::plan::{Data, LinkState};
use schema::record::{Record, RecordKey};

use super::answer::{LxdError, created, empty, sync};
use crate::api::ApiState;
use crate::api::control::link::{permit_exchange, status};
use crate::api::request::Connection;
use crate::apply::{ApplyError, Edit};
use crate::authorize::{Entitlement, Entity, Permit, require_trust};
use crate::peering::{ActivateRequest, PeeringError};
use crate::trust::Caller;
use crate::wire::cluster_link::{
    Activated, LinkPost, LinkReport, LxdLink, LxdLinkMember, LxdLinkState, VOLATILE_ADDRESSES,
};
use crate::wire::token::TrustToken;

/// How often a deletion is tried while the link's trust moves.
const TRIES: usize = 8;

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/cluster/links", get(list).post(create))
        .route("/cluster/links/{name}", get(show).delete(remove))
        .route("/cluster/links/{name}/state", get(state_of))
}

impl From<PeeringError> for LxdError {
    fn from(error: PeeringError) -> Self {
        match status(&error) {
            StatusCode::INTERNAL_SERVER_ERROR => LxdError::internal(&error),
            status => LxdError::new(status, error.to_string()),
        }
    }
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let mut reports = state.peering.reports().await?;
    reports.retain(|report| {
        state.permit(&caller, Entitlement::CanView, Entity::ClusterLink(report.name.clone())).is_ok()
    });
    if query.get("recursion").is_some_and(|recursion| recursion != "0") {
        return Ok(sync(reports.iter().map(shown).collect::<Vec<_>>()));
    }
    Ok(sync(reports.iter().map(|report| location(&report.name)).collect::<Vec<_>>()))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, LxdError> {
    Ok(sync(shown(&seen(&state, &caller, &name).await?)))
}

async fn state_of(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, LxdError> {
    let report = seen(&state, &caller, &name).await?;
    if report.addresses.is_empty() {
        return Err(LxdError::bad_request("No cluster link member addresses found"));
    }
    // LXD asks every address anew. The link's own connection tells more: it is Active only if data arrives over it.
    let status = if report.state == LinkState::Active { "Active" } else { "Unreachable" };
    let member = |address: &String| LxdLinkMember {
        server_name: report.name.to_string(),
        address: address.clone(),
        status: status.to_owned(),
    };
    Ok(sync(LxdLinkState { cluster_link_members: report.addresses.iter().map(member).collect() }))
}

async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, LxdError> {
    let link: LinkName = name.parse().map_err(|_| LxdError::plain(StatusCode::NOT_FOUND))?;
    let permit = state.permit(&caller, Entitlement::CanDelete, Entity::ClusterLink(link.clone()))?;
    state.peering.report(&link).await?;
    delete(&state, &permit, &link).await?;
    Ok(empty())
}

/// Which of LXD's four requests it is, is told by which keys are there.
async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Extension(connection): Extension<Arc<Connection>>,
    body: Bytes,
) -> Result<Response, LxdError> {
    let post: LinkPost = serde_json::from_slice(&body).map_err(|error| {
        // The error's own words may repeat what was sent, and that may be a token.
        LxdError::bad_request(format!("Invalid cluster link request at column {}", error.column()))
    })?;
    let has_token = !post.trust_token.is_empty();
    if post.name.is_empty() && has_token {
        return activate(&state, &connection, post).await;
    }
    if post.name.is_empty() && !caller.is_trusted() {
        return Err(LxdError::new(StatusCode::FORBIDDEN, "Trust token required"));
    }
    let permit = permit_exchange(&state, &caller)?;
    if post.name.is_empty() {
        return Err(LxdError::bad_request("Cluster link name must be provided"));
    }
    let link: LinkName = post
        .name
        .parse()
        .map_err(|error| LxdError::bad_request(format!("Invalid cluster link name: {error}")))?;
    let declared = declaration(&post)?;
    state.permit_groups(&caller, &declared.auth_groups)?;
    if has_token {
        with_token(&state, &permit, &link, declared, &post).await
    } else {
        pending(&state, &permit, &link, declared).await
    }
}

fn declaration(post: &LinkPost) -> Result<ClusterLink, LxdError> {
    match post.kind.as_str() {
        "bidirectional" => {}
        "unidirectional" | "public" => {
            return Err(LxdError::new(
                StatusCode::NOT_IMPLEMENTED,
                format!("Cluster links of type {:?} are not built yet", post.kind),
            ));
        }
        "" => return Err(LxdError::bad_request("Cluster link type must be provided")),
        _ => return Err(LxdError::bad_request("Unknown cluster link type")),
    }
    if !post.remote_address.is_empty() {
        return Err(LxdError::bad_request("A remote address is only for public cluster links"));
    }
    if let Some(key) = post.config.keys().next() {
        return Err(LxdError::bad_request(format!("Invalid cluster link configuration key {key:?}")));
    }
    let group = |text: &String| {
        text.parse::<GroupName>()
            .map_err(|error| LxdError::bad_request(format!("Invalid auth group name: {error}")))
    };
    let mut auth_groups = post.auth_groups.iter().map(group).collect::<Result<Vec<_>, _>>()?;
    auth_groups.sort_unstable();
    auth_groups.dedup();
    Ok(ClusterLink {
        kind: LinkType::Bidirectional,
        auth_groups,
        description: post.description.clone(),
        ..ClusterLink::default()
    })
}

/// Makes the link and a token for the peer.
async fn pending(
    state: &ApiState,
    permit: &Permit,
    link: &LinkName,
    declared: ClusterLink,
) -> Result<Response, LxdError> {
    declare(state, permit, link, declared).await?;
    match state.peering.mint(permit, link, None).await {
        Ok(minted) => {
            let location = format!("/1.0/auth/identities/tls/{}", minted.id);
            Ok(created(&location, minted.token))
        }
        Err(error) => Err(undo(state, permit, link, error).await),
    }
}

/// Makes the link with a peer's token, or nothing.
async fn with_token(
    state: &ApiState,
    permit: &Permit,
    link: &LinkName,
    declared: ClusterLink,
    post: &LinkPost,
) -> Result<Response, LxdError> {
    // What is wrong with the text itself needs no link to be found out.
    TrustToken::decode(&post.trust_token).map_err(PeeringError::from)?;
    declare(state, permit, link, declared).await?;
    let (task, name, token) = (state.clone(), link.clone(), post.trust_token.clone());
    let owned = permit.clone();
    // To its end, even if the caller goes away: a link that failed is taken back then as well.
    let (reply, answer) = tokio::sync::oneshot::channel();
    state.tasks.spawn("link-create", async move {
        let ended = match task.peering.redeem(&owned, &name, &token).await {
            Ok(_) => Ok(()),
            Err(error) => Err(undo(&task, &owned, &name, error).await),
        };
        let _ = reply.send(ended);
    });
    answer.await.map_err(|_| LxdError::plain(StatusCode::SERVICE_UNAVAILABLE))??;
    Ok(created(&location(link), serde_json::Value::Null))
}

/// The issuer's side: open to anybody who shows a certificate and a token that was issued here.
async fn activate(state: &ApiState, connection: &Connection, post: LinkPost) -> Result<Response, LxdError> {
    let addresses = post.config.get(VOLATILE_ADDRESSES).is_some_and(|addresses| !addresses.is_empty());
    // Ours may have no address to give; LXD's always do, and that is how LXD knows the request.
    if !addresses && post.attempt_id.is_empty() {
        return Err(LxdError::bad_request(
            "Invalid cluster link request: expected one of pending creation (name without trust_token), active \
             creation (name with trust_token), or activation (trust_token with non-empty \"volatile.addresses\")",
        ));
    }
    if post.kind != "bidirectional" {
        return Err(LxdError::bad_request("Only bidirectional cluster links are activated this way"));
    }
    let presented = connection.certificate().cloned();
    let activated = state.peering.activate(ActivateRequest::from_post(post, presented, None)).await;
    match activated {
        Ok(link) => {
            let answer = Activated { cluster_certificate: state.identity.current().pem.clone() };
            tracing::info!(%link, "a link was activated by its peer");
            // The name that the link has here is not the peer's to know.
            Ok(created("/1.0/cluster/links", answer))
        }
        Err(error) => {
            tracing::info!(%error, "a redemption was refused");
            Err(error.into())
        }
    }
}

async fn declare(
    state: &ApiState,
    permit: &Permit,
    link: &LinkName,
    declared: ClusterLink,
) -> Result<(), LxdError> {
    let exists = || {
        let message = format!("A cluster link with name {:?} already exists", link.as_str());
        LxdError::new(StatusCode::CONFLICT, message)
    };
    if state.peering.report(link).await.is_ok() {
        return Err(exists());
    }
    let key = RecordKey::ClusterLink(link.clone());
    let edit = Edit::put(key, Record::ClusterLink(declared)).only_at(0);
    match state.apply.edit(permit, vec![edit]).await {
        Ok(_) => Ok(()),
        Err(ApplyError::Moved(_)) => Err(exists()),
        Err(error) => Err(error.into()),
    }
}

async fn delete(state: &ApiState, permit: &Permit, link: &LinkName) -> Result<(), LxdError> {
    let edit = Edit::delete(RecordKey::ClusterLink(link.clone()), Data::Keep);
    for _ in 0..TRIES {
        match state.apply.edit(permit, vec![edit.clone()]).await {
            Ok(_) => return Ok(()),
            // Its trust moved between being read and being deleted: it became active, or its token was redeemed.
            Err(ApplyError::Moved(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(LxdError::new(StatusCode::CONFLICT, "The cluster link is changing; try again"))
}

/// Takes back a link whose trust could not be made. Gives what went wrong first.
async fn undo(state: &ApiState, permit: &Permit, link: &LinkName, error: PeeringError) -> LxdError {
    if let Err(left) = delete(state, permit, link).await {
        tracing::error!(%link, error = left.message, "a link that could not be made is still declared");
    }
    error.into()
}

async fn seen(state: &ApiState, caller: &Caller, name: &str) -> Result<LinkReport, LxdError> {
    require_trust(caller)?;
    let link: LinkName = name.parse().map_err(|_| LxdError::plain(StatusCode::NOT_FOUND))?;
    state.permit(caller, Entitlement::CanView, Entity::ClusterLink(link.clone()))?;
    Ok(state.peering.report(&link).await?)
}

fn shown(report: &LinkReport) -> LxdLink {
    // LXD's own clients take a link without addresses for a pending one.
    let addresses =
        if report.peer_fingerprint.is_some() { report.addresses.join(",") } else { String::new() };
    let config = if addresses.is_empty() {
        BTreeMap::new()
    } else {
        [(VOLATILE_ADDRESSES.to_owned(), addresses)].into()
    };
    LxdLink {
        name: report.name.to_string(),
        description: report.description.clone(),
        kind: report.kind,
        config,
        used_by: Vec::new(),
    }
}

fn location(link: &LinkName) -> String {
    format!("/1.0/cluster/links/{link}")
}
