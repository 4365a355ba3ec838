//! `/control/v1/trust/…`: what LXD has no shape for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A token that can still be redeemed. Its secret is not known any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingToken {
    pub id: String,
    /// What the client will be called.
    pub name: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// The certificate that identifies the cluster, on links and to whoever pins it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterCertificate {
    /// PEM.
    pub certificate: String,
}
