//! Operations that stand for tokens are in no list of running work: what becomes of them is told by the audit log.

use serde_json::json;
use uuid::Uuid;

use crate::api::lxd::operation::tokens;
use crate::audit::{Action, Record};
use crate::operation::Status;
use crate::wire::lxd::operation::OperationBody;

/// The operation of the token that a record is about, as it stands after it.
pub fn operation(record: &Record) -> Option<OperationBody> {
    let status = match record.action {
        Action::TokenIssued => Status::Running,
        Action::TokenRevoked | Action::TokenExpired | Action::TokenRedeemed => Status::Cancelled,
        _ => return None,
    };
    let said = |key: &str| record.context.get(key).and_then(|value| value.as_str()).unwrap_or_default();
    // Tokens of pending identities and links have a type, and are no operations.
    let id: Uuid = said("token").parse().ok().filter(|_| said("type").is_empty())?;
    let name = said("name");
    let mut operation = tokens::outline(id, record.time, status);
    operation.metadata = json!({ "request": { "name": name } });
    Some(operation)
}
