//! `/1.0/certificates`: the trusted clients, and the tokens by which others become so.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::wire::token::Secret;

/// A trusted client.
#[allow(clippy::struct_field_names, reason = "the names are LXD's")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether groups limit what it may do.
    pub restricted: bool,
    pub projects: Vec<String>,
    /// PEM.
    pub certificate: String,
    pub fingerprint: String,
    /// Ours: the groups of a client that is restricted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// Body of `POST /1.0/certificates`, all of its uses in one as LXD has it.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificatesPost {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub restricted: bool,
    #[serde(deserialize_with = "null_is_empty")]
    pub projects: Vec<String>,
    /// Base64 of the DER, without armour (unlike everywhere else).
    pub certificate: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust_token: String,
    /// Where lxc 5.0 puts the token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// Asks for a token.
    pub token: bool,
    /// Ours: the groups that the client is put into, which then limit what it may do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Ours: how long the token is good for, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// The operation that stands for a token, as the reply to asking for one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenOperation {
    pub id: String,
    pub class: String,
    pub description: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub status: String,
    pub status_code: u16,
    pub resources: Option<serde_json::Map<String, serde_json::Value>>,
    pub metadata: TokenMetadata,
    pub may_cancel: bool,
    pub err: String,
    pub location: String,
}

/// What a client makes the token's text of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenMetadata {
    pub secret: Secret,
    pub fingerprint: String,
    pub addresses: Vec<String>,
    pub request: TokenRequest,
    #[serde(default, rename = "expiresAt", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    pub name: String,
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub restricted: bool,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub projects: Vec<String>,
}

/// Go writes an empty list as `null`.
fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::<Vec<String>>::deserialize(deserializer).map(Option::unwrap_or_default)
}
