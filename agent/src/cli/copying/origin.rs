//! What a target is told of where its data comes from, for its history.

use schema::name::TransferName;
use serde_json::{Map, Value, json};

use super::Side;

/// `name` is the source's within its server. A server that knows nothing of this passes over it.
pub fn tell(common: &mut Map<String, Value>, from: &Side<'_>, name: &str, transfer: Option<&TransferName>) {
    let server = match (from.remote, &from.server.environment) {
        (Some(remote), _) => remote.to_string(),
        (None, Some(environment)) => environment.server_name.clone(),
        (None, None) => String::new(),
    };
    let called = if server.is_empty() { name.to_owned() } else { format!("{server}:{name}") };
    common.insert("from".to_owned(), json!(called));
    if let Some(transfer) = transfer {
        common.insert("transfer".to_owned(), json!(transfer));
    }
}
