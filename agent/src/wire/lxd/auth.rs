//! `/1.0/auth`: groups, permissions and the mapping of an identity provider's groups.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An auth group, as GET shows it and as POST, PUT and PATCH take it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthGroup {
    pub name: String,
    pub description: String,
    pub permissions: Vec<Permission>,
    /// Members by how they prove who they are (`tls`, `oidc`, `bearer`), as far as the caller may see them.
    pub identities: BTreeMap<String, Vec<String>>,
    /// The identity provider's groups that are mapped to this one, as far as the caller may see them.
    pub identity_provider_groups: Vec<String>,
    /// What the caller may do with it, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_entitlements: Option<Vec<String>>,
}

impl AuthGroup {
    /// Every key that a body may have.
    pub const KEYS: &[&str] = &[
        "name",
        "description",
        "permissions",
        "identities",
        "identity_provider_groups",
        "access_entitlements",
    ];
}

/// Body of PUT and PATCH: what is not there is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthGroupPut {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<Permission>>,
}

/// An entitlement on an entity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    pub entity_type: String,
    /// The entity, by its place in the API.
    pub url: String,
    pub entitlement: String,
}

/// A permission that could be granted, and the groups that grant it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionInfo {
    pub entity_type: String,
    pub url: String,
    pub entitlement: String,
    pub groups: Vec<String>,
}

/// What a group of an identity provider is worth here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdentityProviderGroup {
    pub name: String,
    pub groups: Vec<String>,
    /// What the caller may do with it, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_entitlements: Option<Vec<String>>,
}

impl IdentityProviderGroup {
    /// Every key that a body may have.
    pub const KEYS: &[&str] = &["name", "groups", "access_entitlements"];
}

/// A login of somebody whom the identity provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OidcSession {
    pub email: String,
    /// As the provider calls them.
    #[serde(default)]
    pub username: String,
    pub uuid: Uuid,
    /// Where the login came from.
    #[serde(default)]
    pub ip_address: String,
    #[serde(default)]
    pub user_agent: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// Body of a renaming.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rename {
    pub name: String,
}
