//! `POST /1.0/cluster/links`: links by hand, and a peer that brings a token of ours.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use schema::kind::cluster_link::{ClusterLink, LinkType};
use schema::name::{GroupName, LinkName};
use schema::record::{Record, RecordKey};

use super::request::{self, Wish, created_config, wish};
use super::shown::location;
use crate::api::ApiState;
use crate::api::control::link::permit_exchange;
use crate::api::lxd::answer::{LxdError, created, sync};
use crate::api::lxd::auth;
use crate::api::lxd::body;
use crate::api::request::Connection;
use crate::apply::{ApplyError, Edit};
use crate::authorize::{Entitlement, Entity, Permit};
use crate::peering::{ActivateRequest, PeeringError};
use crate::store::keys;
use crate::store::value::{self, Declared};
use crate::trust::client_token::{Order, Purpose};
use crate::trust::{Access, Caller};
use crate::wire::cluster_link::{Activated, LinkPost, OfferedCertificate};
use crate::wire::token::TrustToken;

pub async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Extension(connection): Extension<Arc<Connection>>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let post: LinkPost = body::decode(&bytes, &LinkPost::KEYS)?;
    if !caller.is_trusted() && (post.trust_token.is_empty() || !post.name.is_empty()) {
        return Err(LxdError::new(StatusCode::FORBIDDEN, "Trust token required"));
    }
    let wished = wish(&post, caller.is_trusted())?;
    if wished == Wish::Activation {
        return activate(&state, &caller, &connection, post).await;
    }
    let auth_groups = request::groups(&post.auth_groups)?;
    let declared = |kind, address| -> Result<ClusterLink, LxdError> {
        Ok(ClusterLink {
            kind,
            cluster: None,
            // The calling side of a one-way link grants nothing.
            auth_groups: if kind == LinkType::Bidirectional { auth_groups.clone() } else { Vec::new() },
            description: post.description.clone(),
            config: created_config(&post.config)?,
            address,
            fingerprint: None,
        })
    };
    // What lets nobody in takes no right over identities (LXD).
    let permit_link = || state.permit(&caller, Entitlement::CanCreateClusterLinks, Entity::Server);
    match wished {
        Wish::Pending(link) => {
            let permit = permit_exchange(&state, &caller)?;
            state.permit_groups(&caller, &auth_groups)?;
            pending(&state, &permit, &link, declared(LinkType::Bidirectional, None)?).await
        }
        Wish::PendingCaller(link) => {
            let permit = permit_exchange(&state, &caller)?;
            let auth_groups = auth::existing_groups(&state, &post.auth_groups)?;
            state.permit_groups(&caller, &auth_groups)?;
            created_config(&post.config)?;
            pending_caller(&state, &permit, &link, auth_groups).await
        }
        Wish::WithToken(link, LinkType::Unidirectional) => {
            if !auth_groups.is_empty() {
                return Err(LxdError::bad_request("Unidirectional cluster links do not support auth groups"));
            }
            let permit = permit_link()?;
            with_token(&state, &permit, &link, declared(LinkType::Unidirectional, None)?, &post).await
        }
        Wish::WithToken(link, kind) => {
            let permit = permit_exchange(&state, &caller)?;
            state.permit_groups(&caller, &auth_groups)?;
            with_token(&state, &permit, &link, declared(kind, None)?, &post).await
        }
        Wish::Offer(link, address) => {
            let permit = permit_link()?;
            let declared = declared(LinkType::Public, Some(address.clone()))?;
            offer(&state, &caller, &permit, &link, declared, &address).await
        }
        Wish::Confirm(link) => {
            permit_link()?;
            confirm(&state, &caller, &link, &post.cluster_certificate).await
        }
        Wish::Activation => Err(LxdError::plain(StatusCode::INTERNAL_SERVER_ERROR)),
    }
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

/// Makes a token for a cluster that will call here: an identity in waiting, and no link.
async fn pending_caller(
    state: &ApiState,
    permit: &Permit,
    link: &LinkName,
    auth_groups: Vec<GroupName>,
) -> Result<Response, LxdError> {
    if state.peering.report(link).await.is_ok() {
        return Err(exists(link));
    }
    let order = Order {
        name: link.as_str(),
        purpose: Purpose::ClusterLink { name: link.clone() },
        access: Access::Groups(auth_groups.into_iter().collect()),
        addresses: &state.addresses.current(),
        lifetime: state.settings.current().token_expiry(),
    };
    let minted = state.clients.mint(permit, order, Timestamp::now()).await?;
    Ok(created(&format!("/1.0/auth/identities/tls/{}", minted.id), minted.token))
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
    Ok(created(&location(link), serde_json::Map::new()))
}

/// The first phase of a public link: what the address shows, and a link that waits for it to be confirmed.
async fn offer(
    state: &ApiState,
    caller: &Caller,
    permit: &Permit,
    link: &LinkName,
    declared: ClusterLink,
    address: &str,
) -> Result<Response, LxdError> {
    let known = find(state, link).await?;
    let is_new = known.is_none();
    // To ask again is to change a link that is there.
    let permit = &if is_new { permit.clone() } else { permit_again(state, caller, link)? };
    match known {
        None => declare(state, permit, link, declared).await?,
        Some(Known { link: known, .. }) if known.kind != LinkType::Public => return Err(exists(link)),
        Some(Known { fingerprinted: true, .. }) => {
            return Err(PeeringError::AlreadyConfirmed(link.clone()).into());
        }
        // Asked again: what is new counts.
        Some(Known { .. }) => edit(state, permit, link, declared, None).await?,
    }
    match state.peering.offer(permit, link, address).await {
        Ok(peer) => Ok(sync(OfferedCertificate {
            fingerprint: peer.fingerprint.to_string(),
            certificate: peer.certificate_pem,
        })),
        Err(error) if is_new => Err(undo(state, permit, link, error).await),
        Err(error) => Err(error.into()),
    }
}

/// The right to change a link that is there already. Who may not see it learns only that the name is taken.
fn permit_again(state: &ApiState, caller: &Caller, link: &LinkName) -> Result<Permit, LxdError> {
    let entity = || Entity::ClusterLink(link.clone());
    state.permit(caller, Entitlement::CanView, entity()).map_err(|_| exists(link))?;
    Ok(state.permit(caller, Entitlement::CanEdit, entity())?)
}

/// The second phase: the certificate of the first is pinned.
async fn confirm(
    state: &ApiState,
    caller: &Caller,
    link: &LinkName,
    certificate: &str,
) -> Result<Response, LxdError> {
    let Some(Known { link: declared, revision, .. }) = find(state, link).await? else {
        return Err(LxdError::bad_request("Public cluster links require remote_address"));
    };
    let permit = &permit_again(state, caller, link)?;
    if declared.kind != LinkType::Public {
        return Err(exists(link));
    }
    let peer = state.peering.offered(link, certificate).await?;
    // The declaration first: cut short here, the same request ends it.
    let confirmed = ClusterLink { fingerprint: Some(peer.fingerprint.to_string()), ..declared };
    edit(state, permit, link, confirmed, Some(revision)).await?;
    state.peering.confirm(permit, link, certificate).await?;
    Ok(created(&location(link), serde_json::Map::new()))
}

/// The issuer's side: open to anybody who brings a token that was issued here.
async fn activate(
    state: &ApiState,
    caller: &Caller,
    connection: &Connection,
    post: LinkPost,
) -> Result<Response, LxdError> {
    let presented = connection.certificate().cloned();
    let request = ActivateRequest::from_post(post, presented, caller.origin.address);
    match state.peering.activate(caller, request).await {
        Ok(link) => {
            let answer = Activated { cluster_certificate: state.identity.current().pem.clone() };
            tracing::info!(%link, "a link was activated by its peer");
            // The name that the link has here is not the peer's to know.
            Ok(created("/1.0/cluster/links", answer))
        }
        Err(error) => {
            tracing::info!(%error, "a redemption was refused");
            // Whoever has the right token and fails by something else is not to be slowed.
            let is_guess = matches!(error, PeeringError::UnknownToken | PeeringError::Token(_));
            let answer = error.for_strangers().into();
            Err(if is_guess { state.failures.answer(caller, "cluster-links", answer).await } else { answer })
        }
    }
}

/// A declared link.
struct Known {
    link: ClusterLink,
    revision: u64,
    /// Whether it is a public one whose certificate is pinned.
    fingerprinted: bool,
}

async fn find(state: &ApiState, link: &LinkName) -> Result<Option<Known>, LxdError> {
    let key = keys::declared(&RecordKey::ClusterLink(link.clone()));
    let Some(entry) = state.store.get(&key).await.map_err(|error| LxdError::internal(&error))? else {
        return Ok(None);
    };
    let declared: Declared = value::decode(&entry).map_err(|error| LxdError::internal(&error))?;
    let Record::ClusterLink(declared) = declared.record else { return Ok(None) };
    let fingerprinted = state.peering.report(link).await?.peer_fingerprint.is_some();
    Ok(Some(Known { link: declared, revision: entry.modify_revision.0, fingerprinted }))
}

fn exists(link: &LinkName) -> LxdError {
    let message = format!("A cluster link with name {:?} already exists", link.as_str());
    LxdError::new(StatusCode::CONFLICT, message)
}

async fn declare(
    state: &ApiState,
    permit: &Permit,
    link: &LinkName,
    declared: ClusterLink,
) -> Result<(), LxdError> {
    if state.peering.report(link).await.is_ok() {
        return Err(exists(link));
    }
    edit(state, permit, link, declared, Some(0)).await
}

async fn edit(
    state: &ApiState,
    permit: &Permit,
    link: &LinkName,
    declared: ClusterLink,
    base: Option<u64>,
) -> Result<(), LxdError> {
    let mut edit = Edit::put(RecordKey::ClusterLink(link.clone()), Record::ClusterLink(declared));
    edit.base = base;
    match state.apply.edit(permit, vec![edit]).await {
        Ok(_) => Ok(()),
        Err(ApplyError::Moved(_)) => Err(exists(link)),
        Err(error) => Err(error.into()),
    }
}

/// Takes back a link whose trust could not be made. Gives what went wrong first.
async fn undo(state: &ApiState, permit: &Permit, link: &LinkName, error: PeeringError) -> LxdError {
    if let Err(left) = super::delete(state, permit, link).await {
        tracing::error!(%link, error = left.message, "a link that could not be made is still declared");
    }
    error.into()
}
