//! LXD's shapes: the envelope, and the bodies under `/1.0`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub mod auth;
pub mod certificate;
pub mod entity_url;
pub mod event;
pub mod identity;
pub mod instance;
pub mod migration;
pub mod operation;
pub mod server;

/// What every answer under `/1.0` is wrapped in, its keys in LXD's order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    #[serde(rename = "type")]
    pub kind: EnvelopeKind,
    pub status: String,
    pub status_code: u16,
    #[serde(default)]
    pub operation: String,
    #[serde(default)]
    pub error_code: u16,
    #[serde(default)]
    pub error: String,
    #[serde(default)]
    pub metadata: Value,
}

/// The three kinds of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnvelopeKind {
    Sync,
    Async,
    Error,
}

/// Go writes an empty list as `null`.
fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::<Vec<String>>::deserialize(deserializer).map(Option::unwrap_or_default)
}
