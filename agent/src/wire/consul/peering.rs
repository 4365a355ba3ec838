//! Peerings as Consul's API and command show them.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use schema::plan::LinkState;
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/peering/token`. (`Peer` is what Consul's own tutorial sends.)
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GenerateToken {
    #[serde(alias = "Peer")]
    pub peer_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub partition: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub server_external_addresses: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

/// Its answer: the one place where the token is ever seen.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GeneratedToken {
    pub peering_token: String,
}

/// Body of `POST /v1/peering/establish`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Establish {
    #[serde(alias = "Peer")]
    pub peer_name: String,
    pub peering_token: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub partition: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

/// A peering. Keys that Consul leaves out where they are empty are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Peering {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    pub state: LinkState,
    /// What the peering is called at the peer.
    #[serde(default, rename = "PeerID", skip_serializing_if = "String::is_empty")]
    pub peer_id: String,
    #[serde(default, rename = "PeerCAPems", skip_serializing_if = "Vec::is_empty")]
    pub peer_ca_pems: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peer_server_name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peer_server_addresses: Vec<String>,
    pub stream_status: StreamStatus,
    pub create_index: u64,
    pub modify_index: u64,
    pub remote: Remote,
}

/// What goes over the link. `null` where there is nothing, as Go has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StreamStatus {
    pub imported_services: Option<Vec<String>>,
    pub exported_services: Option<Vec<String>>,
    pub last_heartbeat: Option<Timestamp>,
    pub last_receive: Option<Timestamp>,
    pub last_send: Option<Timestamp>,
}

/// The peer's own place.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Remote {
    pub partition: String,
    pub datacenter: String,
}

/// Without the token, which a debug line must not show.
impl fmt::Debug for GeneratedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeneratedToken").finish_non_exhaustive()
    }
}

impl fmt::Debug for Establish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Establish").field("peer_name", &self.peer_name).finish_non_exhaustive()
    }
}
