//! Storage pools and snapshots of volumes as they are asked for and shown, in LXD's shapes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// `POST /1.0/storage-pools`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StoragePoolsPost {
    pub name: String,
    pub driver: String,
    pub description: String,
    pub config: BTreeMap<String, String>,
}

/// `PUT` and `PATCH /1.0/storage-pools/{pool}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StoragePoolPut {
    pub description: Option<String>,
    pub config: Option<BTreeMap<String, String>>,
}

/// `GET /1.0/storage-pools/{pool}/volumes/custom/{volume}/snapshots/{snapshot}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageVolumeSnapshot {
    /// In a list `VOLUME/SNAPSHOT`, by itself without the volume: so LXD has it.
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub content_type: String,
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    #[serde(with = "go_time")]
    pub created_at: Option<Timestamp>,
    /// `None`: it stays.
    #[serde(with = "go_time")]
    pub expires_at: Option<Timestamp>,
}

/// `POST /1.0/storage-pools/{pool}/volumes/custom/{volume}/snapshots`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageVolumeSnapshotsPost {
    pub name: String,
    pub description: Option<String>,
    /// Go's zero time: it stays, whatever the volume says.
    pub expires_at: Option<GoTime>,
}

/// `PUT` and `PATCH` of a snapshot.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageVolumeSnapshotPut {
    pub description: Option<String>,
    pub expires_at: Option<GoTime>,
}

/// `POST` to a volume or a snapshot of one: another name, another pool, or a migration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageVolumePost {
    pub name: String,
    pub pool: String,
    pub project: String,
    pub migration: bool,
    pub volume_only: bool,
    pub target: Value,
}

/// `POST /1.0/storage-pools/{pool}/volumes/custom/{volume}/backups`, and of an instance.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupsPost {
    pub name: String,
    pub expires_at: Option<GoTime>,
    pub volume_only: bool,
    pub instance_only: bool,
    pub container_only: bool,
    pub optimized_storage: bool,
    /// `none`, `gzip` or `zstd`, perhaps with options; nothing is `gzip`.
    pub compression_algorithm: String,
}

/// A moment that may be Go's zero time, which means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GoTime(#[serde(with = "go_time")] pub Option<Timestamp>);

/// Moments as Go writes them: none is the first of January of the year 1.
pub mod go_time {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Timestamp};

    const ZERO: &str = "0001-01-01T00:00:00Z";

    #[expect(clippy::ref_option, reason = "serde hands over the field as it is")]
    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => at.serialize(serializer),
            None => ZERO.serialize(serializer),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == ZERO || text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|_| serde::de::Error::custom("expected a moment such as 2026-03-09T17:00:00Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_zero_time_is_none() {
        let post: StorageVolumeSnapshotsPost =
            serde_json::from_str(r#"{"name":"s","expires_at":"0001-01-01T00:00:00Z"}"#).unwrap();
        assert_eq!(post.expires_at, Some(GoTime(None)));
        let post: StorageVolumeSnapshotsPost = serde_json::from_str(r#"{"expires_at":null}"#).unwrap();
        assert_eq!(post.expires_at, None);
        assert_eq!(serde_json::to_string(&GoTime(None)).unwrap(), "\"0001-01-01T00:00:00Z\"");
        let at = "2026-03-09T17:00:00.5+01:00";
        let time: GoTime = serde_json::from_str(&format!("{at:?}")).unwrap();
        assert_eq!(time, GoTime(Some(at.parse().unwrap())));
        assert!(serde_json::from_str::<GoTime>("\"soon\"").is_err());
    }
}
