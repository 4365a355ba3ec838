//! `/1.0/cluster/links`: links by hand, in LXD's shapes, and the call by which a peer redeems a token.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, StatusCode};
use schema::name::LinkName;
use schema::plan::Data;
use schema::record::RecordKey;

use super::answer::{LxdError, created, empty, sync};
use super::recursion::Depth;
use super::{body, etag};
use crate::api::ApiState;
use crate::api::control::link::status;
use crate::apply::{ApplyError, Edit};
use crate::authorize::{Entitlement, Entity, Permit, require_trust};
use crate::peering::{Member, MemberStatus, PeeringError};
use crate::trust::Caller;
use crate::wire::cluster_link::{LinkRename, LinkReport, LxdLinkMember, LxdLinkState};

mod create;
mod request;
mod shown;
mod update;

use shown::{editable, location, shown};

/// How often a deletion is tried while the link's trust moves.
const TRIES: usize = 8;

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/cluster/links", get(list).post(create::create))
        .route(
            "/cluster/links/{name}",
            get(show).put(update::put).patch(update::patch).post(rename).delete(remove),
        )
        .route("/cluster/links/{name}/state", get(state_of))
}

impl From<PeeringError> for LxdError {
    fn from(error: PeeringError) -> Self {
        match status(&error) {
            StatusCode::INTERNAL_SERVER_ERROR if !matches!(error, PeeringError::RefusedByPeer { .. }) => {
                LxdError::internal(&error)
            }
            status => match &error {
                PeeringError::Token(why) => LxdError::new(status, format!("Invalid trust token: {why}")),
                error => LxdError::new(status, error.to_string()),
            },
        }
    }
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(Depth { recursion }): Query<Depth>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let mut reports = state.peering.reports().await?;
    reports.retain(|report| {
        state.permit(&caller, Entitlement::CanView, Entity::ClusterLink(report.name.clone())).is_ok()
    });
    if recursion.whole() {
        let mut links = Vec::with_capacity(reports.len());
        for report in &reports {
            links.push(shown(&state, &caller, report).await?);
        }
        return Ok(sync(links));
    }
    Ok(sync(reports.iter().map(|report| location(&report.name)).collect::<Vec<_>>()))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, LxdError> {
    let (report, _) = seen(&state, &caller, &name, Entitlement::CanView).await?;
    let answer = sync(shown(&state, &caller, &report).await?);
    Ok(etag::put(answer, &editable(&report)))
}

async fn state_of(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, LxdError> {
    let (report, _) = seen(&state, &caller, &name, Entitlement::CanView).await?;
    // A peer that gave no address is reached over its own connection; a link that is not made has no members.
    if report.peer_fingerprint.is_none() {
        return Err(LxdError::bad_request("No cluster link member addresses found"));
    }
    let members = state.peering.members(&report.name).await?.into_iter();
    let member = |Member { address, name, status }: Member| LxdLinkMember {
        server_name: name.unwrap_or_else(|| report.name.to_string()),
        address,
        status: match status {
            MemberStatus::Active => "Active",
            MemberStatus::Unauthenticated => "Unauthenticated",
            MemberStatus::Unreachable => "Unreachable",
        }
        .to_owned(),
    };
    Ok(sync(LxdLinkState {
        cluster_link_members: members.map(member).collect(),
        state: Some(report.state),
        reason: report.reason.clone(),
        note: report.note.clone(),
        dials: report.dials,
        dial_back: report.dial_back.clone(),
    }))
}

async fn rename(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let (report, permit) = seen(&state, &caller, &name, Entitlement::CanEdit).await?;
    let LinkRename { name: to } = body::decode(&bytes, &["name"])?;
    let to = request::name(&to)?;
    state.apply.rename_link(&permit, &report.name, &to).await?;
    Ok(created(&location(&to), serde_json::Map::new()))
}

async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, LxdError> {
    let (report, permit) = seen(&state, &caller, &name, Entitlement::CanDelete).await?;
    etag::check(&headers, &editable(&report))?;
    delete(&state, &permit, &report.name).await?;
    Ok(empty())
}

/// Deletes a link, its trust and all that follows from it.
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

/// The link of that name, for a caller who holds `entitlement` on it.
async fn seen(
    state: &ApiState,
    caller: &Caller,
    name: &str,
    entitlement: Entitlement,
) -> Result<(LinkReport, Permit), LxdError> {
    require_trust(caller)?;
    let link: LinkName = name.parse().map_err(|_| LxdError::plain(StatusCode::NOT_FOUND))?;
    let permit = state.permit(caller, entitlement, Entity::ClusterLink(link.clone()))?;
    match state.peering.report(&link).await {
        Ok(report) => Ok((report, permit)),
        Err(PeeringError::NotFound(_)) => Err(LxdError::new(StatusCode::NOT_FOUND, "Cluster link not found")),
        Err(error) => Err(error.into()),
    }
}
