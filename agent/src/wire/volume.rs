//! Storage pools and volumes in LXD's shapes, operations, and what a transfer is asked for with.

use std::collections::BTreeMap;

use schema::name::PoolName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET /1.0/storage-pools/{pool}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoragePool {
    pub name: PoolName,
    pub description: String,
    pub driver: String,
    pub status: String,
    pub locations: Vec<String>,
    pub config: BTreeMap<String, String>,
    pub used_by: Vec<String>,
}

/// `GET /1.0/storage-pools/{pool}/resources`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolResources {
    pub space: Usage,
    pub inodes: Usage,
}

/// How much of something is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    #[serde(default)]
    pub used: u64,
    #[serde(default)]
    pub total: u64,
}

/// `GET /1.0/storage-pools/{pool}/volumes/custom/{volume}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageVolume {
    /// In a list snapshots are among them, as `VOLUME/SNAPSHOT`.
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub pool: PoolName,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub content_type: String,
    #[serde(default)]
    pub project: String,
    #[serde(default)]
    pub location: String,
    /// `user.comity.owner` names the manifest that declares it.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    #[serde(default)]
    pub used_by: Vec<String>,
}

/// The config key that tells which manifest owns an object.
pub const OWNER_KEY: &str = "user.comity.owner";

/// `POST /1.0/storage-pools/{pool}/volumes/custom`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StorageVolumesPost {
    pub name: String,
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub content_type: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// A copy or a migration in LXD's own way.
    #[serde(default)]
    pub source: Value,
}

/// `PUT` and `PATCH /1.0/storage-pools/{pool}/volumes/custom/{volume}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StorageVolumePut {
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub config: Option<BTreeMap<String, String>>,
    /// The snapshot whose data is to be the volume's; nothing else is changed then.
    #[serde(default)]
    pub restore: String,
}

/// `GET /1.0/storage-pools/{pool}/volumes/custom/{volume}/state`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StorageVolumeState {
    pub usage: Usage,
}

/// What an upgraded connection that carries a transfer speaks.
pub const TRANSFER_PROTOCOL: &str = "comity-transfer/1";
