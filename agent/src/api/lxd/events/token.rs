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
    let id: Uuid =
        record.entities.iter().find_map(|path| path.strip_prefix("/1.0/operations/")?.parse().ok())?;
    let name = record.context.get("name").and_then(|name| name.as_str()).unwrap_or_default();
    let mut operation = tokens::outline(id, record.time, status);
    operation.metadata = json!({ "request": { "name": name } });
    Some(operation)
}
