//! `GET /control/v1/status`: who this agent is, where it is reached, and how it is doing.

use jiff::Timestamp;
use schema::name::{ClusterName, LinkName};
use schema::plan::LinkState;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::acme::{AcmeStatus, ServerCertificate};
use super::control::WatchStatus;
use super::service::MeshStatus;

/// The whole answer. It is given only once everything is in place, so that an answer means *ready*.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub name: ClusterName,
    pub version: String,
    /// SHA-256 of the cluster certificate.
    pub fingerprint: String,
    /// SHA-256 of the certificate that clients are shown, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_certificate: Option<ServerCertificate>,
    /// Where it is reached, `host:port`.
    pub addresses: Vec<String>,
    /// Names the store; revisions of two epochs cannot be compared.
    pub epoch: String,
    pub revision: u64,
    #[serde(default)]
    pub links: Vec<LinkSummary>,
    /// Upstreams' ports and what passed between services.
    #[serde(default)]
    pub mesh: MeshStatus,
    /// How that certificate is had from an ACME server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme: Option<AcmeStatus>,
    /// The folder that `--watch` keeps applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<WatchStatus>,
    /// Who signs certificates that are recognised here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pki: Option<PkiStatus>,
    /// Who vouches for logins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<LoginStatus>,
}

/// The identity provider that is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Whether somebody can log in by it at this moment.
    pub usable: bool,
    /// The settings without which it is not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// The authorities, and what they have revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PkiStatus {
    pub authorities: Vec<AuthorityStatus>,
    /// Whether whoever they signed and nobody here knows may do everything (`core.trust_ca_certificates`).
    #[serde(default)]
    pub trusts_unknowns: bool,
    /// Why nothing that they signed is trusted, if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
    /// The last look at the revocation lists, if some of them was not taken then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedList>,
    /// There is a `ca.crl` and no authority, so that nobody is revoked by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idle_list: bool,
}

/// One authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityStatus {
    pub name: String,
    /// SHA-256 of its certificate.
    pub fingerprint: String,
    /// It is in `server.ca`.
    #[serde(default)]
    pub signs_clients: bool,
    /// The cluster whose own it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Uuid>,
    pub expires_at: Timestamp,
    /// How many certificates it has revoked; none where there is no list of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_update: Option<Timestamp>,
    #[serde(default)]
    pub stale: bool,
}

/// A revocation list that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedList {
    pub at: Timestamp,
    pub reason: String,
}

/// A link and its state, as `comity link list` tells it at length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSummary {
    pub name: LinkName,
    pub state: LinkState,
    /// Why it is not active, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
