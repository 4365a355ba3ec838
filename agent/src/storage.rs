//! What this cluster keeps in its pools, as records: pools, instances, and the snapshots of volumes and instances.
//!
//! The trees are `dataset`'s; what they are called, how they are configured and when they expire is in the store. A
//! custom volume itself is a declared record (`schema::kind::volume`) and is written by `apply`. Whatever is made on disk
//! is made before its record, and whatever is deleted loses its record first: what a crash leaves between the two is a
//! tree that nothing lists, which goes when the agent starts again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schema::name::{PoolName, SnapshotName};
use serde::{Deserialize, Serialize};

pub mod backup_index;
pub mod backups;
pub mod config;
pub mod expiry;
pub mod instances;
pub mod pools;
pub mod refresh;
pub mod schedule;
pub mod volume_snapshots;

pub use backups::{BackupError, Backups};
pub use instances::{Held, InstanceError, Instances};
pub use pools::{StoragePoolError, StoragePools};
pub use volume_snapshots::{SnapshotError, VolumeSnapshots};

/// Devices by name, each a map of keys and values (LXD: devices).
pub type Devices = BTreeMap<String, BTreeMap<String, String>>;

/// What `/container/PROJECT/NAME` holds: an instance and its snapshots. There is no runtime: it is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Where its root volume is.
    pub pool: PoolName,
    #[serde(flatten)]
    pub shape: Shape,
    pub created_at: Timestamp,
    #[serde(default)]
    pub last_used_at: Option<Timestamp>,
    #[serde(default)]
    pub snapshots: BTreeMap<SnapshotName, InstanceSnapshot>,
}

/// What can be set of an instance (LXD: instance put), and what a snapshot keeps of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    #[serde(default)]
    pub description: String,
    /// LXD's name of it, such as `x86_64`.
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    #[serde(default)]
    pub devices: Devices,
    #[serde(default)]
    pub profiles: Vec<String>,
    #[serde(default)]
    pub ephemeral: bool,
}

/// A snapshot of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSnapshot {
    #[serde(flatten)]
    pub shape: Shape,
    #[serde(flatten)]
    pub times: SnapshotTimes,
}

/// A snapshot of a custom volume. `/volume-snapshot/POOL/VOLUME` holds them all by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSnapshot {
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    #[serde(flatten)]
    pub times: SnapshotTimes,
}

/// When a snapshot was taken and when it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotTimes {
    /// Survives copies: it tells two snapshots of one name apart (LXD compares whole seconds).
    pub created_at: Timestamp,
    /// `None`: it stays until it is deleted.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}
