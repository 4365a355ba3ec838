//! Changing and ending identities.
//!
//! The groups of a link's identity are those that the link's declaration names, so that is what is changed for it. To
//! end it is to end the link, which does more (the peer is told, what was imported is withdrawn): it is refused here,
//! with the right place named, unless there is no such link on this side.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use schema::name::{GroupName, LinkName};
use schema::record::{Record, RecordKey};

use super::find;
use super::known::Known;
use crate::api::ApiState;
use crate::api::lxd::answer::{LxdError, empty};
use crate::api::lxd::auth::existing_groups;
use crate::api::lxd::body::decode;
use crate::api::lxd::certificates::decoded;
use crate::api::lxd::etag;
use crate::apply::Edit;
use crate::authorize::{Entitlement, Entity, Permit};
use crate::store::keys;
use crate::store::value::{self, Declared};
use crate::trust::identity::{IdentityKind, IdentityRecord};
use crate::trust::{Access, Caller, Groups};
use crate::wire::lxd::identity::{IdentityPatch, types};

pub async fn put(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((method, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, LxdError> {
    let body: IdentityPatch = decode(&body, IdentityPatch::KEYS)?;
    // What a PUT leaves out is empty; a certificate cannot be.
    let body = IdentityPatch { groups: Some(body.groups.unwrap_or_default()), ..body };
    edit(&state, &caller, &find(&state, &caller, &method, &name).await?, &headers, body).await
}

pub async fn patch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((method, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, LxdError> {
    let body: IdentityPatch = decode(&body, IdentityPatch::KEYS)?;
    edit(&state, &caller, &find(&state, &caller, &method, &name).await?, &headers, body).await
}

async fn edit(
    state: &ApiState,
    caller: &Caller,
    known: &Known,
    headers: &HeaderMap,
    body: IdentityPatch,
) -> Result<Response, LxdError> {
    require_fine_grained(known)?;
    if known.kind() == types::SERVER {
        return Err(unchangeable(known));
    }
    let before = known.shown(state);
    etag::check(headers, &before)?;
    let pem = body.tls_certificate.filter(|pem| !pem.is_empty() && *pem != before.tls_certificate);
    let permit = match state.permit(caller, Entitlement::CanEdit, known.entity()) {
        Ok(permit) => permit,
        // Anybody may renew its own certificate, and nothing else of itself.
        Err(denied) if caller.id() != Some(known.id()) => return Err(denied.into()),
        Err(_) => {
            let mut wanted = body.groups.clone().unwrap_or_else(|| before.groups.clone());
            wanted.sort_unstable();
            wanted.dedup();
            if wanted != before.groups || known.kind() != types::CLIENT {
                return Err(LxdError::new(StatusCode::FORBIDDEN, "Only the certificate may be changed"));
            }
            state.permit(caller, Entitlement::CanView, known.entity())?
        }
    };
    if pem.is_some() && known.kind() != types::CLIENT {
        let message = format!("Cannot update certificate for identities of type {:?}", known.kind());
        return Err(LxdError::bad_request(message));
    }
    let certificate = pem.as_deref().map(decoded).transpose()?;
    let current = known.groups(state);
    let wanted: Groups = match &body.groups {
        Some(names) if *names != before.groups => regrouped(state, caller, &current, names)?.into(),
        _ => current.clone(),
    };
    // Whoever puts a key of its own in another's place becomes that other: it must have all of its groups to give.
    if certificate.is_some() && caller.id() != Some(known.id()) {
        state.permit_groups(caller, &current)?;
    }
    let now = Timestamp::now();
    match known {
        Known::Pending(token) if wanted != current => {
            state.clients.regroup_pending(&permit, token.id, wanted, now).await?;
        }
        Known::Waiting(waiting) if wanted != current => {
            declare(state, caller, &waiting.link, &wanted).await?;
        }
        Known::Pending(_) | Known::Waiting(_) => {}
        Known::Active { id, record } => {
            let link = record.kind.declared_link();
            if let Some(link) = link.filter(|link| state.identities.link_groups(link).is_some()) {
                if wanted != current {
                    declare(state, caller, link, &wanted).await?;
                }
            } else {
                let held = state.clients.read(id).await?;
                let record = IdentityRecord { access: Access::Groups(wanted), ..held.record.clone() };
                state.clients.change(&permit, held, record, certificate.as_ref(), now).await?;
            }
        }
    }
    Ok(empty())
}

/// The groups that `names` says, if the caller may put the identity into them: it must be able to see those that the
/// identity is in now, and have those to give that it is not in yet.
fn regrouped(
    state: &ApiState,
    caller: &Caller,
    current: &Groups,
    names: &[String],
) -> Result<Vec<GroupName>, LxdError> {
    for group in current.iter() {
        state
            .permit(caller, Entitlement::CanView, Entity::AuthGroup(group.clone()))
            .map_err(|_| LxdError::plain(StatusCode::FORBIDDEN))?;
    }
    let wanted = existing_groups(state, names)?;
    let new: Vec<GroupName> = wanted.iter().filter(|group| !current.contains(group)).cloned().collect();
    state.permit_groups(caller, &new)?;
    Ok(wanted)
}

/// Changes the groups that a link's declaration names.
async fn declare(
    state: &ApiState,
    caller: &Caller,
    link: &LinkName,
    groups: &Groups,
) -> Result<(), LxdError> {
    let permit = state.permit(caller, Entitlement::CanEdit, Entity::ClusterLink(link.clone()))?;
    let key = RecordKey::ClusterLink(link.clone());
    let gone = || LxdError::plain(StatusCode::NOT_FOUND);
    let entry = state.store.get(&keys::declared(&key)).await?.ok_or_else(gone)?;
    let declared: Declared = value::decode(&entry).map_err(|error| LxdError::internal(&error))?;
    let Record::ClusterLink(mut record) = declared.record else { return Err(gone()) };
    record.auth_groups = groups.to_vec();
    let edit = Edit::put(key, Record::ClusterLink(record)).only_at(entry.modify_revision.0);
    state.apply.edit(&permit, vec![edit]).await?;
    Ok(())
}

pub async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((method, name)): Path<(String, String)>,
) -> Result<Response, LxdError> {
    let known = find(&state, &caller, &method, &name).await?;
    require_fine_grained(&known)?;
    let permit: Permit = state.permit(&caller, Entitlement::CanDelete, known.entity())?;
    let now = Timestamp::now();
    match &known {
        Known::Waiting(waiting) => return Err(links(&waiting.link)),
        Known::Pending(token) => {
            state.clients.revoke(&permit, &token.id.to_string(), now).await?;
        }
        Known::Active { id, record } => {
            if let Some(link) = record.kind.declared_link()
                && state.peering.report(link).await.is_ok()
            {
                return Err(links(link));
            }
            match (&record.kind, id.fingerprint()) {
                // The caller of a one-way link is told, and its link ends.
                (IdentityKind::ClusterLink { .. }, Some(peer)) => {
                    state.peering.dismiss(&permit, &peer).await?;
                }
                _ => state.clients.remove(&permit, id, now).await?,
            }
        }
    }
    Ok(empty())
}

fn links(link: &LinkName) -> LxdError {
    LxdError::bad_request(format!(
        "This identity is cluster link {link}'s: delete the link (`comity link delete {link}`), which ends the trust and tells the peer"
    ))
}

fn require_fine_grained(known: &Known) -> Result<(), LxdError> {
    if known.is_fine_grained() {
        return Ok(());
    }
    Err(unchangeable(known))
}

fn unchangeable(known: &Known) -> LxdError {
    let message = format!("Identities of type \"{}\" cannot be modified via this API", known.kind());
    LxdError::new(StatusCode::NOT_IMPLEMENTED, message)
}
