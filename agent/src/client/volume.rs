//! Calls about volumes, their transfers, and the operations that those become.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use schema::name::{PoolName, SnapshotName, VolumeName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::operation::Begun;
use super::tagged::Tagged;
use super::trust::segment;
use super::upgrade::Upgraded;
use super::{Client, ClientError, NO_BODY};
use crate::wire::volume::{PoolResources, StoragePool, StorageVolume, StorageVolumeState, TRANSFER_PROTOCOL};

impl Client {
    pub async fn pools(&self) -> Result<Vec<StoragePool>, ClientError> {
        self.lxd(Method::GET, "/1.0/storage-pools?recursion=1", NO_BODY).await
    }

    pub async fn volumes(&self, pool: &PoolName) -> Result<Vec<StorageVolume>, ClientError> {
        let path = format!("/1.0/storage-pools/{pool}/volumes/custom?recursion=1");
        let listed: Vec<Value> = self.lxd(Method::GET, &self.of_volumes(&path), NO_BODY).await?;
        // LXD lists snapshots among volumes.
        let is_volume = |listed: &Value| !listed["name"].as_str().is_some_and(|name| name.contains('/'));
        let volumes = listed.into_iter().filter(is_volume).map(|shown| in_pool(shown, pool));
        volumes.collect::<Result<_, _>>().map_err(|error| self.unexpected(&format_args!("{path}: {error}")))
    }

    pub async fn volume(&self, pool: &PoolName, volume: &VolumeName) -> Result<StorageVolume, ClientError> {
        let path = lxd_path(pool, volume);
        let shown = self.lxd(Method::GET, &self.of_volumes(&path), NO_BODY).await?;
        in_pool(shown, pool).map_err(|error| self.unexpected(&format_args!("{path}: {error}")))
    }

    pub async fn volume_state(
        &self,
        pool: &PoolName,
        volume: &VolumeName,
    ) -> Result<StorageVolumeState, ClientError> {
        // The whole tree is walked for it.
        let client = self.clone().with_timeout(Duration::from_secs(300));
        let path = self.of_volumes(&format!("{}/state", lxd_path(pool, volume)));
        client.lxd(Method::GET, &path, NO_BODY).await
    }

    pub async fn create_volume(
        &self,
        pool: &PoolName,
        volume: &VolumeName,
        description: &str,
        config: &[(String, String)],
    ) -> Result<(), ClientError> {
        let config: BTreeMap<&str, &str> =
            config.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let body = json!({
            "name": volume, "type": "custom", "content_type": "filesystem", "description": description,
            "config": config,
        });
        let path = format!("/1.0/storage-pools/{pool}/volumes/custom");
        self.lxd::<Value>(Method::POST, &self.of_volumes(&path), Some(&body)).await.map(drop)
    }

    /// A connection over which the agent receives a tree for the volume.
    pub async fn import_volume(&self, pool: &PoolName, volume: &VolumeName) -> Result<Upgraded, ClientError> {
        self.upgrade(&format!("/control/v1/volumes/{pool}/{volume}/import"), TRANSFER_PROTOCOL, None).await
    }

    /// A connection over which the agent sends the volume's tree.
    pub async fn export_volume(&self, pool: &PoolName, volume: &VolumeName) -> Result<Upgraded, ClientError> {
        self.upgrade(&format!("/control/v1/volumes/{pool}/{volume}/export"), TRANSFER_PROTOCOL, None).await
    }
}

/// LXD 5.0 leaves out which pool a volume is in.
fn in_pool(mut shown: Value, pool: &PoolName) -> serde_json::Result<StorageVolume> {
    if let Some(fields) = shown.as_object_mut() {
        fields.entry("pool").or_insert_with(|| json!(pool));
    }
    serde_json::from_value(shown)
}

fn lxd_path(pool: &PoolName, volume: &VolumeName) -> String {
    format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}")
}

/// Where a custom volume is in the API.
pub fn volume_path(pool: &PoolName, volume: &VolumeName) -> String {
    lxd_path(pool, volume)
}

/// Where a snapshot of one is.
pub fn snapshot_path(pool: &PoolName, volume: &VolumeName, snapshot: &SnapshotName) -> String {
    format!("{}/snapshots/{snapshot}", lxd_path(pool, volume))
}

/// A snapshot of a volume as it is listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeSnapshot {
    /// LXD puts the volume's name before it.
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

impl VolumeSnapshot {
    pub fn called(&self) -> &str {
        self.name.rsplit_once('/').map_or(&self.name, |(_, name)| name)
    }
}

impl Client {
    pub async fn volume_snapshots(
        &self,
        pool: &PoolName,
        volume: &VolumeName,
    ) -> Result<Vec<VolumeSnapshot>, ClientError> {
        let path = format!("{}/snapshots?recursion=1", lxd_path(pool, volume));
        self.lxd(Method::GET, &self.of_volumes(&path), NO_BODY).await
    }

    /// Begins what `method` does at `path`, of volumes and pools.
    pub async fn begin_at(&self, method: Method, path: &str, body: &Value) -> Result<Begun, ClientError> {
        self.begin(method, &self.of_volumes(path), Some(body)).await
    }

    /// What is at `path`, with the tag that a change is bound to.
    pub async fn document(&self, path: &str) -> Result<Tagged<Map<String, Value>>, ClientError> {
        self.tagged(&self.of_volumes(path)).await
    }

    pub async fn pool(&self, pool: &str) -> Result<StoragePool, ClientError> {
        self.lxd(Method::GET, &pool_path(pool), NO_BODY).await
    }

    pub async fn pool_resources(&self, pool: &str) -> Result<PoolResources, ClientError> {
        self.lxd(Method::GET, &format!("{}/resources", pool_path(pool)), NO_BODY).await
    }
}

/// Where a pool is in the API.
pub fn pool_path(pool: &str) -> String {
    format!("/1.0/storage-pools/{}", segment(pool))
}
