//! What a linked cluster must know to tell whether a service's certificate is of this one.

use serde::{Deserialize, Serialize};

/// Most roots in one bundle: one that signs, one that is to, and a few whose certificates have not ended.
pub const MAX_ROOTS: usize = 8;
/// Longest root, PEM.
pub const MAX_ROOT: usize = 16 * 1024;
/// Longest trust domain: a DNS name's limit.
pub const MAX_DOMAIN: usize = 253;

/// A cluster's trust domain and the roots of its mesh CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustBundle {
    /// As service certificates have it: the host of `spiffe://DOMAIN/ns/default/dc/CLUSTER/svc/NAME`.
    pub trust_domain: String,
    /// PEM, oldest first.
    pub roots: Vec<String>,
}
