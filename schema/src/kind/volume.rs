//! `volume "POOL/NAME" {}`: a custom storage volume (LXD: storage volume of type custom).

use serde::{Deserialize, Serialize};

/// A volume as declared; pool and name are in the record's key. Its data is never part of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Volume {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}
