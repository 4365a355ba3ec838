//! `/control/v1/mesh-roots`: what vouches for the certificates of this cluster's services.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Body of `POST /control/v1/mesh-roots`, which has another root follow. An empty one asks for what is usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct RotateRoot {
    /// The key of a root may be in other hands: what it signed is trusted no more.
    #[serde(default)]
    pub compromised: bool,
}

/// Answer of `GET` and `POST /control/v1/mesh-roots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshRoots {
    pub trust_domain: String,
    /// Oldest first.
    pub roots: Vec<MeshRoot>,
}

/// One root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshRoot {
    /// SHA-256 of its certificate, as hexadecimal digits.
    pub fingerprint: String,
    /// Whether it signs now.
    pub active: bool,
    /// From when on it signs, unless one after it does.
    pub active_from: Timestamp,
    /// Until when what it signed is trusted.
    pub trusted_until: Timestamp,
}
