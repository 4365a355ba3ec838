//! `auth_group "NAME" {}`: a set of permissions that identities and links are put into (LXD: auth group).

use serde::{Deserialize, Serialize};

/// A group of permissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct AuthGroup {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Sorted, without duplicates.
    #[serde(default)]
    pub permissions: Vec<Permission>,
}

/// One right: an entitlement on an entity (LXD: permission). Types and entitlements are LXD's table, checked on decode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Permission {
    pub entity_type: String,
    pub entitlement: String,
    /// The entity's name, for types that have several (`instance`, `cluster_link`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}
