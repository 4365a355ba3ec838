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
    /// Whether what it may do is limited to its projects.
    pub restricted: bool,
    pub projects: Vec<String>,
    /// PEM.
    pub certificate: String,
    pub fingerprint: String,
}

/// Body of `PUT` and `PATCH /1.0/certificates/FINGERPRINT`: what is given of an entry.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificatePatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restricted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projects: Option<Vec<String>>,
    /// PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Shown by a `GET`, so it may come back; the certificate decides.
    #[serde(skip_serializing)]
    pub fingerprint: Option<String>,
}

/// Body of `POST /1.0/certificates`, all of its uses in one as LXD has it.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificatesPost {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub restricted: bool,
    #[serde(deserialize_with = "super::null_is_empty")]
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
    /// Shown by a `GET`, so it may come back; the certificate decides.
    #[serde(skip_serializing)]
    pub fingerprint: String,
    /// Ours: how long the token is good for, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

impl CertificatesPost {
    /// Every key that a body may have.
    pub const KEYS: &[&str] = &[
        "name",
        "type",
        "restricted",
        "projects",
        "certificate",
        "trust_token",
        "password",
        "token",
        "fingerprint",
        "expires_in",
    ];
}

impl CertificatePatch {
    pub const KEYS: &[&str] = &["name", "type", "restricted", "projects", "certificate", "fingerprint"];
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
    #[serde(default, deserialize_with = "super::null_is_empty")]
    pub projects: Vec<String>,
}
