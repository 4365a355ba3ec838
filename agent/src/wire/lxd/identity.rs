//! `/1.0/auth/identities`: who is known, and what groups they are in.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// LXD's names of the kinds of identity.
pub mod types {
    pub const CLIENT: &str = "Client certificate";
    pub const CLIENT_PENDING: &str = "Client certificate (pending)";
    pub const CLIENT_RESTRICTED: &str = "Client certificate (restricted)";
    pub const CLIENT_UNRESTRICTED: &str = "Client certificate (unrestricted)";
    pub const SERVER: &str = "Server certificate";
    pub const METRICS_RESTRICTED: &str = "Metrics certificate (restricted)";
    pub const METRICS_UNRESTRICTED: &str = "Metrics certificate (unrestricted)";
    pub const CLUSTER_LINK: &str = "Cluster link certificate";
    pub const CLUSTER_LINK_PENDING: &str = "Cluster link certificate (pending)";
    pub const OIDC: &str = "OIDC client";
    pub const BEARER: &str = "Client token bearer";
    pub const BEARER_DEVLXD: &str = "DevLXD token bearer";
}

/// An identity, in LXD's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `tls`, `oidc` or `bearer`.
    pub authentication_method: String,
    /// One of [`types`].
    #[serde(rename = "type")]
    pub kind: String,
    /// A fingerprint, a UUID or a mail address.
    pub id: String,
    pub name: String,
    #[serde(default, deserialize_with = "super::null_is_empty")]
    pub groups: Vec<String>,
    /// PEM; empty where it is known by something else.
    #[serde(default)]
    pub tls_certificate: String,
    /// When its token ends, where it is known by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// `GET /1.0/auth/identities/current`: who asks, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentIdentity {
    #[serde(flatten)]
    pub identity: Identity,
    pub effective_groups: Vec<String>,
    pub effective_permissions: Vec<EffectivePermission>,
    /// Whether what it may do comes from groups.
    pub fine_grained: bool,
}

/// A permission that some group of the caller's grants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EffectivePermission {
    pub entity_type: String,
    pub url: String,
    pub entitlement: String,
}

/// Body of `POST /1.0/auth/identities/tls`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsIdentityPost {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "super::null_is_empty")]
    pub groups: Vec<String>,
    /// Asks for a token.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub token: bool,
    /// All that a stranger may give.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust_token: String,
    /// PEM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate: String,
    /// Ours: how long the token is good for, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// Body of `POST /1.0/auth/identities/bearer`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BearerIdentityPost {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    #[serde(deserialize_with = "super::null_is_empty")]
    pub groups: Vec<String>,
}

/// Body of `POST /1.0/auth/identities/bearer/NAME/token`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BearerTokenPost {
    /// LXD's `1d 2H`; empty for as long as tokens are good for.
    pub expiry: String,
}

/// The one time that a bearer's token is told.
#[derive(Clone, Serialize, Deserialize)]
pub struct BearerTokenIssued {
    pub token: crate::wire::token::Secret,
}

/// Body of `PUT` and `PATCH` of an identity: what is given of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IdentityPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<String>,
    // Shown by a `GET`, so they may come back; they cannot be changed.
    #[serde(skip_serializing)]
    pub authentication_method: Option<String>,
    #[serde(rename = "type", skip_serializing)]
    pub kind: Option<String>,
    #[serde(skip_serializing)]
    pub id: Option<String>,
    #[serde(skip_serializing)]
    pub name: Option<String>,
    #[serde(skip_serializing)]
    pub expires_at: Option<Timestamp>,
}

impl TlsIdentityPost {
    /// Every key that a body may have.
    pub const KEYS: &[&str] =
        &["name", "groups", "token", "trust_token", "certificate", "expires_in", "type"];
}

impl BearerIdentityPost {
    pub const KEYS: &[&str] = &["type", "name", "groups"];
}

impl BearerTokenPost {
    pub const KEYS: &[&str] = &["expiry"];
}

impl IdentityPatch {
    pub const KEYS: &[&str] =
        &["groups", "tls_certificate", "authentication_method", "type", "id", "name", "expires_at"];
}
