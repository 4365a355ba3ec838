//! `/1.0/operations`: work that runs, or has just ended.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// An operation, as LXD shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationBody {
    pub id: Uuid,
    /// `task`, `websocket` or `token`.
    pub class: String,
    pub description: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub status: String,
    pub status_code: u16,
    /// Paths of the API by kind: `{"storage_volumes": ["/1.0/storage-pools/…"]}`.
    #[serde(default, deserialize_with = "null_is_none")]
    pub resources: BTreeMap<String, Vec<String>>,
    pub metadata: Value,
    pub may_cancel: bool,
    #[serde(default)]
    pub err: String,
    /// The status that the failure would have had as an answer; 0 where there is none.
    #[serde(default)]
    pub err_code: u16,
    #[serde(default)]
    pub child_count: u64,
    /// Always `none`: one agent is no cluster of its own.
    #[serde(default)]
    pub location: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requestor: Option<Requestor>,
}

/// Who caused something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requestor {
    /// A fingerprint, UUID, mail address or user id.
    pub username: String,
    /// `tls`, `unix`, `oidc` or `bearer`.
    pub protocol: String,
    pub address: String,
}

/// LXD writes no resources as `null`.
fn null_is_none<'de, D>(deserializer: D) -> Result<BTreeMap<String, Vec<String>>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    Option::<BTreeMap<String, Vec<String>>>::deserialize(deserializer).map(Option::unwrap_or_default)
}
