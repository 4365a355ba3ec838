//! `DELETE /v1/peering/NAME`: the answer comes when the deletion is committed; that the peer is told, and that what was
//! imported is withdrawn, goes on behind it, and is shown as the state DELETING.

use axum::extract::{Path, State};
use jiff::Timestamp;
use schema::name::LinkName;
use schema::plan::Data;
use schema::record::RecordKey;

use super::super::answer::{Answer, ConsulError};
use super::super::asked::Asked;
use super::looked_up;
use crate::api::ApiState;
use crate::apply::{ApplyError, Edit};
use crate::authorize::{Entitlement, Entity, Permit, require_trust};
use crate::peering::PeeringError;

/// How often a deletion is tried while the link's trust moves.
const TRIES: usize = 8;

pub async fn nameless() -> ConsulError {
    ConsulError::bad_request("Must specify a name to delete.")
}

pub async fn delete(
    State(state): State<ApiState>,
    asked: Asked,
    Path(name): Path<String>,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let Some(link) = looked_up(&state, &name).await? else { return Ok(Answer::empty()) };
    let permit = state.permit(&asked.caller, Entitlement::CanDelete, Entity::ClusterLink(link.clone()))?;
    let Some(deletion) = state.peering.begin_deletion(&link, Timestamp::now()).await? else {
        return Ok(Answer::empty());
    };
    whole(&state, &permit, &link).await?;
    state.tasks.spawn("peering-deletion", deletion.withdrawn());
    Ok(Answer::empty())
}

/// Deletes a link, its trust and all that follows from it.
pub async fn whole(state: &ApiState, permit: &Permit, link: &LinkName) -> Result<(), ConsulError> {
    let edit = Edit::delete(RecordKey::ClusterLink(link.clone()), Data::Keep);
    for _ in 0..TRIES {
        match state.apply.edit(permit, vec![edit.clone()]).await {
            Ok(_) => return Ok(()),
            // Its trust moved between being read and being deleted: it became active, or its token was redeemed.
            Err(ApplyError::Moved(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(PeeringError::Superseded(link.clone()).into())
}
