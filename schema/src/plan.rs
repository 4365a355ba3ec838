//! The plan: `(desired, live) -> Plan`, pure and total. Nothing here asks the clock, the network or chance, and the
//! executor is left nothing to decide.
//!
//! `make` compares, `entry` groups what changes by what a user wrote as one block, `effect` says who gains or loses
//! access by it, and `pairing` decides which clusters exchange a trust token.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub mod effect;
pub mod entry;
mod make;
pub mod pairing;

pub use effect::{Effect, effects};
pub use make::plan;

use crate::diagnostic::{Diagnostic, Location};
use crate::kind::cluster_link::{LinkType, TokenSource};
use crate::kind::manifest::Manifest;
use crate::name::{ClusterName, GroupName, LinkName, ManifestName};
use crate::record::{LiveRecords, Record, RecordKey};

/// What one manifest declares, decoded, checked and normalised.
#[derive(Debug, Clone)]
pub struct Desired {
    pub name: ManifestName,
    pub manifest: Manifest,
    pub records: BTreeMap<RecordKey, Declared>,
    /// Where links that are not paired within the same run take their token from.
    pub token_sources: BTreeMap<LinkName, TokenSource>,
}

/// A record and the place that declared it.
#[derive(Debug, Clone)]
pub struct Declared {
    pub record: Record,
    pub location: Location,
}

/// A cluster's state as `/control/v1/state` reports it, normalised by the same code as desired state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Live {
    pub cluster: ClusterName,
    /// SHA-256 of the cluster certificate's DER, lower-case hex.
    pub fingerprint: String,
    /// Names the store; a restored or replaced store has another.
    pub epoch: String,
    /// The store's revision that `records` were read at.
    pub revision: u64,
    pub records: LiveRecords,
    /// Every manifest known here.
    pub manifests: BTreeMap<ManifestName, LiveManifest>,
    /// The truth about each link's trust, beside its declaration.
    pub links: BTreeMap<LinkName, LiveLink>,
}

/// A manifest as a cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveManifest {
    pub modify_revision: u64,
    /// The identity that first applied it, as messages may name it.
    pub bound_to: String,
    #[serde(default)]
    pub owners: Vec<GroupName>,
}

/// A link's trust, as far as a plan needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveLink {
    #[serde(rename = "type")]
    pub kind: LinkType,
    pub state: LinkState,
    /// The peer's pinned certificate; `None` while the trust is not made.
    #[serde(default)]
    pub peer_fingerprint: Option<String>,
    /// Where the peer is reached, as this side knows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// A one-line reason for a state that is not ACTIVE.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The states of a link (Consul's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LinkState {
    /// No trust yet: a token is out, or must be minted.
    Pending,
    /// Trust made; no data has arrived yet.
    Establishing,
    /// Data arrived within the heartbeat window.
    Active,
    /// Trust made, but nothing has arrived within the heartbeat window.
    Failing,
    /// Being deleted here.
    Deleting,
    /// Deleted by the peer.
    Terminated,
}

impl LinkState {
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::Pending => "PENDING",
            LinkState::Establishing => "ESTABLISHING",
            LinkState::Active => "ACTIVE",
            LinkState::Failing => "FAILING",
            LinkState::Deleting => "DELETING",
            LinkState::Terminated => "TERMINATED",
        }
    }
}

/// What would be done to one cluster for one manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub manifest: ManifestName,
    /// The manifest's own record: what is to be stored of it.
    pub declared: Manifest,
    pub base: Base,
    /// The manifest's owners as they are, where they are to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owners_before: Option<Vec<GroupName>>,
    /// Creations and updates by kind and key, so that what is referred to comes first; then removals, in reverse.
    pub changes: Vec<Change>,
    /// Links whose trust is still to be made, new or left half made.
    pub exchanges: Vec<LinkName>,
}

/// The live state that a plan was made against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    pub epoch: String,
    pub revision: u64,
    /// The manifest record's modify revision; 0 if it is not there yet.
    pub manifest_revision: u64,
}

/// What is done to one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub key: RecordKey,
    pub action: Action,
    /// Whether the record changes hands; an update may do nothing else.
    #[serde(default, skip_serializing_if = "Ownership::is_kept")]
    pub ownership: Ownership,
    /// Modify revision of the record that this replaces; 0 means that it must not exist.
    pub base_revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Record>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Record>,
    /// The file that declares it, for people to find it again. A file that moves is no change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// The action on one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Create,
    Update,
    Delete,
    /// The declaration goes, the data stays (volumes).
    Forget,
}

/// Whose a record is after a change, compared with before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ownership {
    /// The manifest's, as it was; or nobody's any more.
    #[default]
    Kept,
    /// Nobody's before (made by hand), now the manifest's.
    Adopted,
}

impl Ownership {
    /// For serde, which passes a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_kept(&self) -> bool {
        *self == Ownership::Kept
    }
}

/// What pruning a volume's declaration does to its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// The volume is forgotten, its data stays.
    Keep,
    /// The volume is deleted with its data.
    Destroy,
}

/// A record that is declared here and owned by another manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub key: RecordKey,
    pub claimant: ManifestName,
    pub holder: ManifestName,
    /// Where the claimant declares it.
    pub location: Location,
    /// The file in which the holder did, as its apply named it.
    pub held_in: Option<String>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, claimant, holder, .. } = self;
        write!(
            f,
            "{key} is declared by manifest {claimant:?} but owned by manifest {holder:?}",
            claimant = claimant.as_str(),
            holder = holder.as_str()
        )
    }
}

impl Conflict {
    pub fn diagnostic(&self) -> Diagnostic {
        let held_in = self.held_in.as_ref().map(|file| format!(" (in {file})")).unwrap_or_default();
        Diagnostic::error("owned-by-another-manifest", self.to_string(), Some(self.location.clone())).detail(format!(
            "One record has one owner. Remove the declaration here, or remove it from manifest {:?}{held_in} and apply that first.",
            self.holder.as_str()
        ))
    }
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.exchanges.is_empty() && self.owners_before.is_none()
    }
}

#[cfg(test)]
pub(crate) mod tests;
