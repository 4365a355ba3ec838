//! What a migration is asked for with, and what it tells of what goes over.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::wire::token::Secret;

/// Devices by name.
pub type Devices = BTreeMap<String, BTreeMap<String, String>>;

/// What a source tells of what it sends: LXD's index header, in the spelling of its `backup.yaml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexHeader {
    #[serde(default)]
    pub config: IndexConfig,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceIndex>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<InstanceSnapshotIndex>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeIndex>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_snapshots: Vec<VolumeSnapshotIndex>,
}

/// An instance as it is told of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceIndex {
    pub name: String,
    pub description: String,
    pub architecture: String,
    pub config: BTreeMap<String, String>,
    pub devices: Devices,
    pub profiles: Vec<String>,
    pub ephemeral: bool,
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub status_code: u16,
    pub created_at: Timestamp,
    pub last_used_at: Timestamp,
}

/// A snapshot of an instance as it is told of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceSnapshotIndex {
    /// Of the snapshot alone.
    pub name: String,
    pub architecture: String,
    pub config: BTreeMap<String, String>,
    pub devices: Devices,
    pub profiles: Vec<String>,
    pub ephemeral: bool,
    pub stateful: bool,
    pub created_at: Timestamp,
    /// Zero (LXD's year 1, or 1970): it stays.
    pub expires_at: Timestamp,
}

/// A volume as it is told of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeIndex {
    pub name: String,
    pub description: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub content_type: String,
    pub config: BTreeMap<String, String>,
    pub created_at: Timestamp,
}

/// A snapshot of a volume as it is told of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeSnapshotIndex {
    /// Of the snapshot alone.
    pub name: String,
    pub description: String,
    pub content_type: String,
    pub config: BTreeMap<String, String>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

impl IndexConfig {
    /// When each snapshot was taken, by its name, whatever it is one of; without those of which the source does not say.
    pub fn times(&self) -> BTreeMap<&str, Timestamp> {
        let of_instance = self.snapshots.iter().map(|s| (s.name.as_str(), s.created_at));
        let of_volume = self.volume_snapshots.iter().map(|s| (s.name.as_str(), s.created_at));
        let mut times = BTreeMap::new();
        for (name, at) in of_instance.chain(of_volume) {
            times.entry(name).or_insert(at);
        }
        times.retain(|_, at| said(*at).is_some());
        times
    }
}

/// The time, unless it is one of those that stand for none.
pub fn said(at: Timestamp) -> Option<Timestamp> {
    (at > Timestamp::UNIX_EPOCH).then_some(at)
}

/// `source` of what is to be made by a copy or a migration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// `copy` or `migration`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `pull` (as nothing) or `push`.
    pub mode: String,
    /// The source's operation, as a URL.
    pub operation: String,
    pub secrets: BTreeMap<String, Secret>,
    /// PEM.
    pub certificate: String,
    /// What is copied within this server: an instance, perhaps with a snapshot of it.
    #[serde(rename = "source")]
    pub within: String,
    /// The same, of a volume.
    pub name: String,
    pub pool: String,
    pub project: String,
    pub live: bool,
    pub instance_only: bool,
    pub container_only: bool,
    pub volume_only: bool,
    pub refresh: bool,
    pub allow_inconsistent: bool,
    #[serde(rename = "base-image")]
    pub base_image: String,
    /// Ours: a refresh lets go of the target's own snapshots, which LXD always does.
    pub prune: bool,
    /// Ours: what is copied, as whoever asks calls it, and the declared transfer that it is a run of.
    pub from: String,
    pub transfer: String,
}

/// `POST /1.0/instances`, as far as copies and migrations are concerned.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceCopyPost {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub description: String,
    pub architecture: String,
    pub config: BTreeMap<String, String>,
    pub devices: Devices,
    pub profiles: Option<Vec<String>>,
    pub ephemeral: bool,
    pub source: Source,
}

/// `POST /1.0/storage-pools/{pool}/volumes/custom`, as far as copies and migrations are concerned.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeCopyPost {
    pub name: String,
    pub description: String,
    pub config: BTreeMap<String, String>,
    pub source: Source,
}

/// `POST` with `migration: true` to what is to be sent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MigrationPost {
    pub live: bool,
    pub instance_only: bool,
    pub container_only: bool,
    pub volume_only: bool,
    pub allow_inconsistent: bool,
    /// Where it is pushed to; without it, it waits for whoever comes.
    pub target: Option<MigrationTarget>,
    /// Ours: SHA-256 of the certificate that the target will show; nobody else is given anything then.
    pub target_fingerprint: String,
    /// Ours: it is deleted here once it has arrived there; who may not do that is refused before it is sent.
    #[serde(rename = "move")]
    pub moves: bool,
}

/// The target's operation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MigrationTarget {
    pub operation: String,
    pub certificate: String,
    pub secrets: BTreeMap<String, Secret>,
}
