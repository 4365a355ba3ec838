//! What a target is told of where its data comes from, for its history.

use schema::name::TransferName;
use serde_json::{Map, Value, json};

use super::Side;

/// `name` is the source's within its server. A server that knows nothing of this passes over it.
pub fn tell(common: &mut Map<String, Value>, from: &Side<'_>, name: &str, transfer: Option<&TransferName>) {
    common.insert("from".to_owned(), json!(called(from, name)));
    if let Some(transfer) = transfer {
        common.insert("transfer".to_owned(), json!(transfer));
    }
}

/// What is called `name` on a server, with the server.
pub fn called(at: &Side<'_>, name: &str) -> String {
    server(at).map_or_else(|| name.to_owned(), |server| format!("{server}:{name}"))
}

/// A server as it was called on the command line, else as it calls itself.
pub fn server(at: &Side<'_>) -> Option<String> {
    let itself = || at.server.environment.as_ref().map(|environment| environment.server_name.clone());
    at.remote.map(ToString::to_string).or_else(itself).filter(|server| !server.is_empty())
}
