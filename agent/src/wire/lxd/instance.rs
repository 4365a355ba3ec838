//! Instances, their snapshots and profiles, as LXD shows and takes them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schema::name::SnapshotName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Keys and values.
pub type Config = BTreeMap<String, String>;
/// Devices by name.
pub type Devices = BTreeMap<String, Config>;

/// `GET /1.0/instances/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceBody {
    pub architecture: String,
    pub config: Config,
    pub created_at: Timestamp,
    #[serde(default)]
    pub description: String,
    pub devices: Devices,
    #[serde(default)]
    pub ephemeral: bool,
    #[serde(default)]
    pub expanded_config: Config,
    #[serde(default)]
    pub expanded_devices: Devices,
    pub last_used_at: Timestamp,
    #[serde(default)]
    pub location: String,
    pub name: String,
    pub profiles: Vec<String>,
    #[serde(default)]
    pub project: String,
    #[serde(default)]
    pub stateful: bool,
    pub status: String,
    pub status_code: u16,
    #[serde(rename = "type")]
    pub kind: String,
}

/// With everything that is asked for separately otherwise (`recursion=2`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceFull {
    #[serde(flatten)]
    pub instance: InstanceBody,
    pub backups: Option<Vec<Value>>,
    pub snapshots: Option<Vec<SnapshotBody>>,
    pub state: Option<StateBody>,
}

/// `GET /1.0/instances/{name}/snapshots/{snapshot}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotBody {
    pub architecture: String,
    pub config: Config,
    pub created_at: Timestamp,
    pub devices: Devices,
    #[serde(default)]
    pub ephemeral: bool,
    #[serde(default)]
    pub expanded_config: Config,
    #[serde(default)]
    pub expanded_devices: Devices,
    /// LXD's beginning of time where it does not expire.
    pub expires_at: Timestamp,
    pub last_used_at: Timestamp,
    pub name: SnapshotName,
    pub profiles: Vec<String>,
    /// Bytes; -1 where nobody counted.
    #[serde(default)]
    pub size: i64,
    #[serde(default)]
    pub stateful: bool,
}

/// `GET /1.0/instances/{name}/state`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateBody {
    pub cpu: Value,
    pub disk: BTreeMap<String, DiskUsage>,
    pub memory: Value,
    pub network: Option<Value>,
    pub pid: i64,
    pub processes: i64,
    pub status: String,
    pub status_code: u16,
}

/// How much of a disk is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUsage {
    pub usage: u64,
    #[serde(default)]
    pub total: u64,
}

/// What can be set: `PUT` and `PATCH /1.0/instances/{name}`, and part of what an instance is made of.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InstancePut {
    pub architecture: Option<String>,
    pub config: Option<BTreeMap<String, Option<String>>>,
    pub description: Option<String>,
    pub devices: Option<BTreeMap<String, Option<Config>>>,
    pub ephemeral: Option<bool>,
    pub profiles: Option<Vec<String>>,
    /// The snapshot to go back to; nothing else counts then.
    pub restore: Option<String>,
    pub stateful: Option<bool>,
}

/// `POST /1.0/instances`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InstancesPost {
    pub name: Option<String>,
    #[serde(flatten)]
    pub put: InstancePut,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub instance_type: Option<String>,
    pub source: Value,
    pub start: Option<bool>,
}

/// `POST /1.0/instances/{name}`: renames or moves.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InstancePost {
    pub name: Option<String>,
    pub migration: Option<bool>,
    pub live: Option<bool>,
    pub instance_only: Option<bool>,
    pub container_only: Option<bool>,
    pub target: Option<Value>,
    pub pool: Option<String>,
    pub project: Option<String>,
    pub allow_inconsistent: Option<bool>,
    /// Of later clients: what it is to be where it goes.
    pub config: Option<BTreeMap<String, Option<String>>>,
    pub devices: Option<BTreeMap<String, Option<Config>>>,
    pub profiles: Option<Vec<String>>,
}

/// `POST /1.0/instances/{name}/snapshots`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotsPost {
    pub name: Option<String>,
    pub stateful: Option<bool>,
    /// None: as the instance says. LXD's beginning of time: never.
    pub expires_at: Option<Timestamp>,
}

/// `POST /1.0/instances/{name}/snapshots/{snapshot}`: renames, or says where it is copied to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotPost {
    pub name: Option<String>,
    pub migration: Option<bool>,
    pub live: Option<bool>,
    pub target: Option<Value>,
}

/// `PUT /1.0/instances/{name}/state`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StatePut {
    pub action: String,
    pub timeout: i64,
    pub force: bool,
    pub stateful: bool,
}

/// `GET /1.0/profiles/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileBody {
    pub name: String,
    pub description: String,
    pub config: Config,
    pub devices: Devices,
    pub used_by: Vec<String>,
}

/// LXD's time of what never happens: the first moment of the year 1.
pub const NEVER: Timestamp = Timestamp::constant(-62_135_596_800, 0);

/// A moment, unless it is LXD's word for none.
pub fn moment(at: Timestamp) -> Option<Timestamp> {
    (at > NEVER).then_some(at)
}
