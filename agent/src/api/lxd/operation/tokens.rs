//! Operations that stand for tokens which clients can still redeem (LXD: class `token`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::ApiState;
use crate::api::lxd::answer::LxdError;
use crate::operation::Status;
use crate::trust::Access;
use crate::trust::client_token::{Purpose, TokenReport};
use crate::wire::lxd::operation::OperationBody;

/// In place of a token's secret: what is kept is its digest.
const NOT_KEPT: &str = "(shown only when the token is issued)";

/// The operations of all tokens that are out.
pub async fn pending(state: &ApiState) -> Result<Vec<OperationBody>, LxdError> {
    let mut pending = state.clients.pending(Timestamp::now()).await?;
    // The others are pending identities.
    pending.retain(|token| token.purpose == Purpose::Certificate);
    Ok(pending.iter().map(|token| body(state, token)).collect())
}

/// The operation of one token that is out.
pub async fn find(state: &ApiState, id: Uuid) -> Result<Option<OperationBody>, LxdError> {
    Ok(pending(state).await?.into_iter().find(|operation| operation.id == id))
}

fn body(state: &ApiState, token: &TokenReport) -> OperationBody {
    let mut operation = outline(token.id, token.created_at, Status::Running);
    let (restricted, projects) = match &token.access {
        Access::Unrestricted => (false, Vec::new()),
        Access::Projects(projects) => (true, projects.iter().map(ToString::to_string).collect()),
        Access::Groups(_) => (true, Vec::new()),
    };
    operation.metadata = json!({
        "secret": NOT_KEPT,
        "fingerprint": state.server.fingerprint().to_string(),
        "addresses": *state.addresses.current(),
        "request": { "name": token.name, "type": "client", "restricted": restricted, "projects": projects },
        "expiresAt": token.expires_at,
    });
    operation
}

/// What every such operation has in common.
pub fn outline(id: Uuid, time: Timestamp, status: Status) -> OperationBody {
    OperationBody {
        id,
        class: "token".to_owned(),
        description: "Certificate add token".to_owned(),
        created_at: time,
        updated_at: time,
        status: status.as_str().to_owned(),
        status_code: status.code(),
        resources: BTreeMap::new(),
        metadata: Value::Null,
        may_cancel: !status.ended(),
        err: String::new(),
        err_code: 0,
        child_count: 0,
        location: "none".to_owned(),
        requestor: None,
    }
}
