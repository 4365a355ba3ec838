//! `cluster_link "NAME" {}`: the trust between this cluster and another (LXD: cluster link, Consul: peering).

use serde::{Deserialize, Serialize};

use crate::name::{GroupName, RemoteName};

/// One side's half of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ClusterLink {
    #[serde(default, rename = "type")]
    pub kind: LinkType,
    /// The remote that the peer's manifest names as its cluster, where that is not the link's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<RemoteName>,
    /// What the peer may do here. Sorted, without duplicates.
    #[serde(default)]
    pub auth_groups: Vec<GroupName>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Who may call whom (LXD's three types).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LinkType {
    #[default]
    Bidirectional,
    Unidirectional,
    Public,
}

/// Where a declared link takes its trust token from, when the other side is applied elsewhere. Never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A path, beneath the declaring file's folder.
    File(String),
    /// An environment variable of the command.
    Environment(String),
}
