//! `service_intentions "DESTINATION" {}`: who may connect to a service (Consul: service-intentions config entry).
//!
//! Each source is a record of its own, so that teams can own different sources of one destination.

use serde::{Deserialize, Serialize};

/// One source's row; destination, peer and source name are in the record's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentionSource {
    pub action: Action,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// HTTP permissions are present: denied until they can be enforced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_permissions: bool,
}

/// What an intention says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Allow,
    Deny,
}
