//! Links over HTTP: our own reports and token calls on `/control/v1/links`.

use jiff::Timestamp;
use schema::kind::cluster_link::LinkType;
use schema::name::LinkName;
use schema::plan::LinkState;
use serde::{Deserialize, Serialize};

use crate::wire::sync::PeerView;

/// The truth about one link: this half, and what the peer last said of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    pub name: LinkName,
    #[serde(rename = "type")]
    pub kind: LinkType,
    pub state: LinkState,
    /// Why the state is not ACTIVE, one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// SHA-256 of the peer's pinned certificate, as hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Who opens the connection; `None` while the trust is not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dials: Option<Dials>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_active: Option<Timestamp>,
    /// When an unredeemed token, minted here, ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires_at: Option<Timestamp>,
    /// The peer's word about its half, if it has spoken since this agent started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerView>,
}

/// Which side of a link opens its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dials {
    /// This cluster, which redeemed the token.
    Here,
    /// The peer, to which the token was given.
    Peer,
}

/// Body of `POST /control/v1/links/{name}/token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct MintRequest {
    /// SHA-256 of the only certificate that may redeem the token, as hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<String>,
}

/// Answer of `POST /control/v1/links/{name}/token`: the one place where the token is ever seen.
#[derive(Clone, Serialize, Deserialize)]
pub struct MintResponse {
    pub token: String,
    pub expires_at: Timestamp,
}

/// Body of `POST /control/v1/links/{name}/redeem`.
#[derive(Clone, Serialize, Deserialize)]
pub struct RedeemRequest {
    pub token: String,
}

impl std::fmt::Debug for MintResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintResponse").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RedeemRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedeemRequest").finish_non_exhaustive()
    }
}
