//! `/control/v1/services` and `explain`: what is offered, what is imported, what passes, and why.

use schema::access::{Explanation, Listed};
use schema::name::{InstanceId, LinkName, ManifestName, ServiceName};
use schema::record::RecordKey;
use serde::{Deserialize, Serialize};

use super::traffic::TrafficRow;

/// A row of `GET services`: an instance of a service of this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    pub service: ServiceName,
    pub id: InstanceId,
    /// `address:port` or socket of the instance; `None` for a service that only calls others.
    pub instance: Option<String>,
    pub status: Health,
    pub upstreams: Vec<UpstreamRow>,
}

/// Health as this surface tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Passing,
    Warning,
    Critical,
    /// Somebody has taken the instance out of service.
    Maintenance,
    /// The link is down: nothing current is known.
    Stale,
}

impl Health {
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Passing => "passing",
            Health::Warning => "warning",
            Health::Critical => "critical",
            Health::Maintenance => "maintenance",
            Health::Stale => "stale",
        }
    }
}

/// A row of `GET services/exported`: a declared service and the links that are offered it. Wildcards are resolved,
/// so that both ends of a link speak of the same services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedRow {
    pub service: ServiceName,
    pub peers: Vec<LinkName>,
}

/// A row of `GET services/imported`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedRow {
    pub service: ServiceName,
    pub peer: LinkName,
    pub status: Health,
    pub instances: u32,
    pub healthy: u32,
}

/// An upstream and the state of its local port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamRow {
    /// The service that calls.
    pub service: ServiceName,
    pub destination: ServiceName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<LinkName>,
    /// The local `address:port`, or the path of the unix socket, as declared.
    pub local: String,
    pub port: PortState,
    /// Where it leads, in the order in which it is declared; empty where that is one place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetRow>,
}

/// One of the places that an upstream leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRow {
    pub destination: ServiceName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<LinkName>,
    pub state: TargetState,
}

/// How one of an upstream's targets looks to the next connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// The next connection goes there.
    InUse,
    /// There if those before it are not.
    Ready,
    /// It failed a moment ago.
    Failed,
    /// The peer says that none of its instances is well.
    Unwell,
    /// There is no connection to the peer.
    Down,
    /// The peer does not offer the service.
    NotOffered,
}

impl TargetState {
    pub fn as_str(self) -> &'static str {
        match self {
            TargetState::InUse => "in use",
            TargetState::Ready => "ready",
            TargetState::Failed => "failed",
            TargetState::Unwell => "no instance is well",
            TargetState::Down => "no connection to the peer",
            TargetState::NotOffered => "not offered by the peer",
        }
    }
}

/// Whether connections to an upstream's local port are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PortState {
    Listening,
    /// Not now, for this reason; tried again.
    Waiting {
        reason: String,
    },
    /// Not before the declaration changes.
    Refused {
        reason: String,
    },
}

/// The mesh's part of `GET status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshStatus {
    pub upstreams: Vec<UpstreamRow>,
    pub traffic: Vec<TrafficRow>,
    /// For how long the agent has counted, in milliseconds: what makes rates of two answers.
    #[serde(default)]
    pub age_ms: u64,
}

/// Answer of `GET explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainAnswer {
    /// Whether a connection would be made: the intention allows it, and a peer is offered the service.
    pub allowed: bool,
    pub explanation: Explanation,
    /// Who declared the rules that match: the one that decides, and those that it overrules.
    #[serde(default)]
    pub declared: Vec<DeclaredRule>,
    pub offer: Offer,
}

/// Answer of `GET explain` where no source is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesAnswer {
    pub destination: ServiceName,
    /// In the order in which they are asked: the first that matches a source decides.
    pub rules: Vec<Listed>,
    pub declared: Vec<DeclaredRule>,
    /// The links that the destination is exported to.
    pub exported_to: Vec<LinkName>,
}

/// A rule and who declared it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredRule {
    pub rule: RecordKey,
    #[serde(flatten)]
    pub by: DeclaredBy,
}

/// Who declared a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredBy {
    /// `None` for what was made by hand.
    pub manifest: Option<ManifestName>,
    /// The file, as the manifest's apply named it when the record last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl std::fmt::Display for DeclaredBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.manifest, &self.file) {
            (Some(manifest), Some(file)) => write!(f, "declared by manifest {manifest} in {file}"),
            (Some(manifest), None) => write!(f, "declared by manifest {manifest}"),
            (None, _) => f.write_str("made by hand"),
        }
    }
}

/// Whether the source can see the destination at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offer {
    /// Both are of this cluster.
    Local,
    Exported,
    NotExported,
    /// The destination is not declared here.
    Undeclared,
}
