//! Links over HTTP: our own reports and token calls on `/control/v1/links`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schema::kind::cluster_link::LinkType;
use schema::name::{GroupName, LinkName};
use schema::plan::LinkState;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::wire::sync::PeerView;

/// The truth about one link: this half, and what the peer last said of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    pub name: LinkName,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(rename = "type")]
    pub kind: LinkType,
    /// What the peer may do here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub auth_groups: Vec<GroupName>,
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
    /// Names an unredeemed token that was minted here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<Uuid>,
    /// When an unredeemed token, minted here, ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires_at: Option<Timestamp>,
    /// The peer's word about its half, if it has spoken since this agent started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerView>,
    /// Free keys (LXD's `user.*`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<UnconfirmedPeer>,
    /// Whether this side reached the redeemer of its token, where it tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial_back: Option<DialBack>,
    /// What is worth knowing of a link that works, one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(default)]
    pub stream: StreamTimes,
}

/// When a link's streams last carried something, since this agent started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct StreamTimes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<Timestamp>,
    /// Of any frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_receive: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_send: Option<Timestamp>,
    /// What was sent and the peer has not acknowledged yet, bytes.
    #[serde(default)]
    pub unacknowledged: u64,
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

/// What came of dialling a redeemer back. Nothing depends on it: the link lives on the redeemer's own connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum DialBack {
    Reached {
        address: String,
        at: Timestamp,
    },
    Unreached {
        at: Timestamp,
    },
    /// It gave no address that may be dialled.
    Nowhere {
        at: Timestamp,
    },
}

/// What a public link's peer showed, and nobody has confirmed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnconfirmedPeer {
    pub address: String,
    /// SHA-256, as hexadecimal digits.
    pub fingerprint: String,
    /// PEM.
    pub certificate: String,
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

/// The key under which LXD keeps a link's addresses in its `config`, joined by commas.
pub const VOLATILE_ADDRESSES: &str = "volatile.addresses";

/// Where LXD keeps what a public link's peer showed, until it is confirmed.
pub const VOLATILE_PENDING_ADDRESS: &str = "volatile.pending_address";
pub const VOLATILE_PENDING_CERTIFICATE: &str = "volatile.pending_certificate";

/// Body of `POST /1.0/cluster/links` (LXD's keys): which of them are there decides what is asked for.
#[derive(Clone, Serialize, Deserialize, Default)]
pub struct LinkPost {
    #[serde(default, deserialize_with = "or_none", skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, deserialize_with = "or_none", skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(default, deserialize_with = "or_none", skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    #[serde(
        default,
        deserialize_with = "or_none",
        rename = "type",
        skip_serializing_if = "String::is_empty"
    )]
    pub kind: String,
    #[serde(default, deserialize_with = "or_none", skip_serializing_if = "String::is_empty")]
    pub trust_token: String,
    #[serde(default, deserialize_with = "or_none", skip_serializing_if = "Vec::is_empty")]
    pub auth_groups: Vec<String>,
    /// PEM.
    #[serde(default, deserialize_with = "or_none", skip_serializing_if = "String::is_empty")]
    pub cluster_certificate: String,
    #[serde(default, deserialize_with = "or_none", skip_serializing_if = "String::is_empty")]
    pub remote_address: String,
    /// Ours: names the redemption, so that the same one can be asked for again after a crash.
    #[serde(default, deserialize_with = "or_none", skip_serializing_if = "String::is_empty")]
    pub attempt_id: String,
}

impl LinkPost {
    /// Every key that is read; `used_by` is shown by a GET, so that it may be sent back.
    pub const KEYS: [&str; 10] = [
        "name",
        "description",
        "config",
        "type",
        "trust_token",
        "auth_groups",
        "cluster_certificate",
        "remote_address",
        "attempt_id",
        "used_by",
    ];
}

/// Body of `PUT` and `PATCH /1.0/cluster/links/{name}`; of what a GET shows, only this can be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct LinkPut {
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub config: Option<BTreeMap<String, String>>,
}

impl LinkPut {
    pub const KEYS: [&str; 6] = ["description", "config", "name", "type", "used_by", "access_entitlements"];
}

/// Body of `POST /1.0/cluster/links/{name}`: another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct LinkRename {
    #[serde(default, deserialize_with = "or_none")]
    pub name: String,
}

/// What a public link's peer showed, for somebody to confirm (LXD).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedCertificate {
    /// SHA-256, as hexadecimal digits.
    pub fingerprint: String,
    /// PEM.
    pub certificate: String,
}

/// Go clients send `null` for what is empty.
fn or_none<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What the answer to an activation tells: ours, LXD's is empty.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
pub struct Activated {
    /// The issuer's certificate, PEM.
    #[serde(default)]
    pub cluster_certificate: String,
}

/// A link as LXD shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LxdLink {
    pub name: String,
    pub description: String,
    #[serde(rename = "type")]
    pub kind: LinkType,
    pub config: BTreeMap<String, String>,
    pub used_by: Vec<String>,
}

/// `GET /1.0/cluster/links/{name}/state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LxdLinkState {
    pub cluster_link_members: Vec<LxdLinkMember>,
    /// The rest is ours: the link's state as it is known without asking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LinkState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dials: Option<Dials>,
    /// Whether this side reached the redeemer of its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial_back: Option<DialBack>,
}

/// One address of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LxdLinkMember {
    pub server_name: String,
    pub address: String,
    /// `Active`, `Unauthenticated` or `Unreachable`.
    pub status: String,
}

impl std::fmt::Debug for LinkPost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkPost").field("name", &self.name).field("type", &self.kind).finish_non_exhaustive()
    }
}
