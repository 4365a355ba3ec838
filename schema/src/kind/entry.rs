//! What a config entry has besides its parts: the one record of an entry that no part can hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::service_intentions::permission::Jwt;

/// Consul's `Meta` and `JWT` of an entry. An entry that has neither needs no such record, unless it has no parts either:
/// then this is what is left of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Entry {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// What every source of a destination must show. Not enforced yet, so that none of them is allowed.
    #[serde(default, skip_serializing_if = "Jwt::is_empty")]
    pub jwt: Jwt,
}

impl Entry {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
