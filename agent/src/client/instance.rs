//! Calls about instances and their snapshots.

use std::collections::BTreeMap;

use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::operation::Begun;
use super::tagged::Tagged;
use super::trust::segment;
use super::{Client, ClientError, NO_BODY};
use crate::wire::lxd::operation::OperationBody;

/// Devices by name, each a map of keys and values.
pub type Devices = BTreeMap<String, BTreeMap<String, String>>;

/// An instance, or a snapshot of one, as far as the command line knows it by name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    pub name: String,
    #[serde(flatten)]
    pub shape: Shape,
    pub status: String,
    pub status_code: u16,
    #[serde(rename = "type")]
    pub kind: String,
    pub created_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub location: String,
    pub project: String,
    #[serde(deserialize_with = "null_is_default")]
    pub expanded_config: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    pub expanded_devices: Devices,
    /// Only where they were asked for.
    #[serde(deserialize_with = "null_is_default")]
    pub snapshots: Vec<Instance>,
    /// Only where it was asked for.
    pub state: Value,
}

/// What of an instance can be set, and goes along when it is copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    pub architecture: String,
    #[serde(deserialize_with = "null_is_default")]
    pub config: BTreeMap<String, String>,
    pub description: String,
    #[serde(deserialize_with = "null_is_default")]
    pub devices: Devices,
    pub ephemeral: bool,
    #[serde(deserialize_with = "null_is_default")]
    pub profiles: Vec<String>,
}

/// A profile, as far as the command line looks at it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Profile {
    #[serde(deserialize_with = "null_is_default")]
    pub devices: Devices,
}

/// Go writes what is empty as `null`.
fn null_is_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Where an instance is in the API.
pub fn path(name: &str) -> String {
    format!("/1.0/instances/{}", segment(name))
}

/// Where a snapshot of an instance is.
pub fn snapshot_path(name: &str, snapshot: &str) -> String {
    format!("{}/snapshots/{}", path(name), segment(snapshot))
}

impl Client {
    /// Every instance, with its snapshots and its state.
    pub async fn instances(&self) -> Result<Vec<Instance>, ClientError> {
        self.lxd(Method::GET, &self.in_its_project("/1.0/instances?recursion=2"), NO_BODY).await
    }

    pub async fn instance(&self, name: &str) -> Result<Instance, ClientError> {
        self.lxd(Method::GET, &self.in_its_project(&path(name)), NO_BODY).await
    }

    /// The same with the tag that a change is bound to, and as it came.
    pub async fn tagged_instance(&self, name: &str) -> Result<Tagged<Map<String, Value>>, ClientError> {
        self.tagged(&self.in_its_project(&path(name))).await
    }

    pub async fn instance_snapshots(&self, name: &str) -> Result<Vec<Instance>, ClientError> {
        let path = format!("{}/snapshots?recursion=1", path(name));
        self.lxd(Method::GET, &self.in_its_project(&path), NO_BODY).await
    }

    pub async fn instance_snapshot(&self, name: &str, snapshot: &str) -> Result<Instance, ClientError> {
        self.lxd(Method::GET, &self.in_its_project(&snapshot_path(name, snapshot)), NO_BODY).await
    }

    /// What a profile says of the instances that have it.
    pub async fn profile(&self, name: &str) -> Result<Profile, ClientError> {
        let path = format!("/1.0/profiles/{}", segment(name));
        self.lxd(Method::GET, &self.in_its_project(&path), NO_BODY).await
    }

    pub async fn create_instance(&self, body: &Value) -> Result<OperationBody, ClientError> {
        self.begin_operation(Method::POST, &self.in_its_project("/1.0/instances"), Some(body)).await
    }

    /// Renames an instance (`NAME`) or a snapshot (its path).
    pub async fn post_instance(&self, path: &str, body: &Value) -> Result<OperationBody, ClientError> {
        self.begin_operation(Method::POST, &self.in_its_project(path), Some(body)).await
    }

    /// Puts `body` in place of what can be set; bound to a tag, if one is given.
    pub async fn put_instance(
        &self,
        name: &str,
        body: &impl Serialize,
        only_at: Option<&str>,
    ) -> Result<OperationBody, ClientError> {
        let path = self.in_its_project(&path(name));
        let (metadata, _) = self.lxd_tagged::<OperationBody>(Method::PUT, &path, Some(body), only_at).await?;
        Ok(metadata)
    }

    pub async fn snapshot_instance(&self, name: &str, body: &Value) -> Result<OperationBody, ClientError> {
        let path = self.in_its_project(&format!("{}/snapshots", path(name)));
        self.begin_operation(Method::POST, &path, Some(body)).await
    }

    /// Starts, stops, restarts, freezes or thaws.
    pub async fn change_instance_state(
        &self,
        name: &str,
        action: &str,
        force: bool,
    ) -> Result<OperationBody, ClientError> {
        let body = json!({ "action": action, "timeout": -1, "force": force, "stateful": false });
        let path = self.in_its_project(&format!("{}/state", path(name)));
        self.begin_operation(Method::PUT, &path, Some(&body)).await
    }

    /// Deletes what is at `path`: an instance, a snapshot, a backup.
    pub async fn delete_at(&self, path: &str) -> Result<Begun, ClientError> {
        self.begin(Method::DELETE, &self.in_its_project(path), NO_BODY).await
    }
}
