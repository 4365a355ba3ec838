//! Calls about volumes, their transfers, and the operations that those become.

use std::time::Duration;

use http::Method;
use schema::name::{PoolName, VolumeName};
use serde_json::{Value, json};
use uuid::Uuid;

use super::upgrade::Upgraded;
use super::{Client, ClientError, NO_BODY};
use crate::wire::lxd::operation::OperationBody;
use crate::wire::volume::{
    OfferRequest, PullRequest, RemoteSource, StoragePool, StorageVolume, StorageVolumeState,
    TRANSFER_PROTOCOL,
};

impl Client {
    pub async fn pools(&self) -> Result<Vec<StoragePool>, ClientError> {
        self.lxd(Method::GET, "/1.0/storage-pools?recursion=1", NO_BODY).await
    }

    pub async fn volumes(&self, pool: &PoolName) -> Result<Vec<StorageVolume>, ClientError> {
        let path = format!("/1.0/storage-pools/{pool}/volumes/custom?recursion=1");
        self.lxd(Method::GET, &path, NO_BODY).await
    }

    pub async fn volume(&self, pool: &PoolName, volume: &VolumeName) -> Result<StorageVolume, ClientError> {
        self.lxd(Method::GET, &lxd_path(pool, volume), NO_BODY).await
    }

    pub async fn volume_state(
        &self,
        pool: &PoolName,
        volume: &VolumeName,
    ) -> Result<StorageVolumeState, ClientError> {
        // The whole tree is walked for it.
        let client = self.clone().with_timeout(Duration::from_secs(300));
        client.lxd(Method::GET, &format!("{}/state", lxd_path(pool, volume)), NO_BODY).await
    }

    pub async fn create_volume(
        &self,
        pool: &PoolName,
        volume: &VolumeName,
        description: &str,
    ) -> Result<(), ClientError> {
        let body = json!({
            "name": volume, "type": "custom", "content_type": "filesystem", "description": description, "config": {},
        });
        let path = format!("/1.0/storage-pools/{pool}/volumes/custom");
        self.lxd::<Value>(Method::POST, &path, Some(&body)).await.map(drop)
    }

    pub async fn delete_volume(&self, pool: &PoolName, volume: &VolumeName) -> Result<(), ClientError> {
        self.lxd::<Value>(Method::DELETE, &lxd_path(pool, volume), NO_BODY).await.map(drop)
    }

    /// Asks the source of a transfer for an offer.
    pub async fn offer_volume(
        &self,
        pool: &PoolName,
        volume: &VolumeName,
        request: &OfferRequest,
    ) -> Result<RemoteSource, ClientError> {
        self.request(Method::POST, &format!("/control/v1/volumes/{pool}/{volume}/offer"), Some(request)).await
    }

    /// Has the target of a transfer pull.
    pub async fn pull_volume(
        &self,
        pool: &PoolName,
        volume: &VolumeName,
        request: &PullRequest,
    ) -> Result<OperationBody, ClientError> {
        self.request(Method::POST, &format!("/control/v1/volumes/{pool}/{volume}/pull"), Some(request)).await
    }

    /// A connection over which the agent receives a tree for the volume.
    pub async fn import_volume(&self, pool: &PoolName, volume: &VolumeName) -> Result<Upgraded, ClientError> {
        self.upgrade(&format!("/control/v1/volumes/{pool}/{volume}/import"), TRANSFER_PROTOCOL, None).await
    }

    /// A connection over which the agent sends the volume's tree.
    pub async fn export_volume(&self, pool: &PoolName, volume: &VolumeName) -> Result<Upgraded, ClientError> {
        self.upgrade(&format!("/control/v1/volumes/{pool}/{volume}/export"), TRANSFER_PROTOCOL, None).await
    }

    /// The operation as it stands, or as soon as it has ended, but no later than after `limit`.
    pub async fn wait_operation(&self, id: Uuid, limit: Duration) -> Result<OperationBody, ClientError> {
        let path = format!("/1.0/operations/{id}/wait?timeout={}", limit.as_secs());
        let client = self.clone().with_timeout(limit + Duration::from_secs(30));
        client.lxd(Method::GET, &path, NO_BODY).await
    }

    pub async fn cancel_operation(&self, id: Uuid) -> Result<(), ClientError> {
        self.lxd::<Value>(Method::DELETE, &format!("/1.0/operations/{id}"), NO_BODY).await.map(drop)
    }
}

fn lxd_path(pool: &PoolName, volume: &VolumeName) -> String {
    format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}")
}
