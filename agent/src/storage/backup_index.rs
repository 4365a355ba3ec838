//! `backup/index.yaml`: what an export says of what is in it, as LXD 5 writes and reads it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schema::kind::volume::Volume;
use schema::name::{ContainerName, PoolName, ProjectName, SnapshotName, VolumeName};
use serde::{Deserialize, Serialize};

use super::volume_snapshots::All;
use super::{Devices, Instance, InstanceSnapshot, Shape, SnapshotTimes, VolumeSnapshot};
use crate::wire::storage::{GoTime, go_time};

/// An index that is none, or that no export here could have.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("the backup's index cannot be read: {0}")]
    Malformed(String),
    #[error("the backup is of {0}: it cannot be imported as that")]
    Kind(&'static str),
    #[error(
        "the backup is in a form of its storage driver ({0}); export it with its files (without --optimized-storage)"
    )]
    Optimized(String),
    #[error("the backup's index says nothing of what it is of")]
    Empty,
    #[error("the backup's index names a snapshot that it says nothing of, or the other way round")]
    Snapshots,
    #[error("the backup's index could not be written: {0}")]
    Unwritable(String),
}

/// The whole file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Index {
    pub name: String,
    pub backend: String,
    pub pool: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<String>,
    pub optimized: Option<bool>,
    pub optimized_header: Option<bool>,
    /// `container`, `virtual-machine` or `custom`; nothing is `container`.
    #[serde(rename = "type")]
    pub kind: String,
    pub config: Option<Config>,
}

/// What is said of each thing in it. An instance's `backup.yaml` is this as well.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Vec<ContainerSnapshot>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<OfVolume>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshots: Option<Vec<OfSnapshot>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    pub architecture: String,
    pub config: BTreeMap<String, String>,
    pub devices: Devices,
    pub ephemeral: bool,
    pub profiles: Vec<String>,
    pub stateful: bool,
    pub description: String,
    #[serde(with = "go_time")]
    pub created_at: Option<Timestamp>,
    pub expanded_config: BTreeMap<String, String>,
    pub expanded_devices: Devices,
    pub name: String,
    pub status: String,
    pub status_code: u16,
    #[serde(with = "go_time")]
    pub last_used_at: Option<Timestamp>,
    pub location: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub project: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSnapshot {
    pub architecture: String,
    pub config: BTreeMap<String, String>,
    #[serde(with = "go_time")]
    pub created_at: Option<Timestamp>,
    #[serde(with = "go_time")]
    pub expires_at: Option<Timestamp>,
    pub devices: Devices,
    pub ephemeral: bool,
    pub expanded_config: BTreeMap<String, String>,
    pub expanded_devices: Devices,
    #[serde(with = "go_time")]
    pub last_used_at: Option<Timestamp>,
    pub name: String,
    pub profiles: Vec<String>,
    pub stateful: bool,
    pub size: i64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pool {
    pub config: BTreeMap<String, String>,
    pub description: String,
    pub name: String,
    pub driver: String,
    pub used_by: Vec<String>,
    pub status: String,
    pub locations: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OfVolume {
    pub config: BTreeMap<String, String>,
    pub description: String,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub used_by: Vec<String>,
    pub location: String,
    pub content_type: String,
    pub project: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OfSnapshot {
    pub description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<GoTime>,
    pub name: String,
    pub config: BTreeMap<String, String>,
    pub content_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<GoTime>,
}

const DRIVER: &str = "dir";

/// What is imported as something else than it is.
fn of_another(kind: &str) -> IndexError {
    IndexError::Kind(match kind {
        "" | "container" => "an instance and no volume",
        "custom" => "a storage volume and no instance",
        _ => "something that is not kept here",
    })
}

impl Index {
    pub fn of_volume(pool: &PoolName, name: &VolumeName, volume: &Volume, snapshots: &All) -> Self {
        let config = Config {
            volume: Some(OfVolume {
                config: volume.config.clone(),
                description: volume.description.clone(),
                name: name.to_string(),
                kind: "custom".to_owned(),
                location: "none".to_owned(),
                content_type: "filesystem".to_owned(),
                project: "default".to_owned(),
                used_by: Vec::new(),
            }),
            volume_snapshots: Some(
                ordered(snapshots).map(|(name, snapshot)| of_snapshot(name, snapshot)).collect(),
            ),
            ..Config::default()
        };
        Self::new(name.as_str(), pool, "custom", ordered(snapshots).map(|(name, _)| name), config)
    }

    pub fn of_instance(
        project: &ProjectName,
        name: &ContainerName,
        instance: &Instance,
        with_snapshots: bool,
    ) -> Self {
        let mut taken: Vec<(&SnapshotName, &InstanceSnapshot)> = instance.snapshots.iter().collect();
        taken.sort_by_key(|(_, snapshot)| snapshot.times.created_at);
        if !with_snapshots {
            taken.clear();
        }
        let shape = &instance.shape;
        let root = OfVolume {
            name: name.to_string(),
            kind: "container".to_owned(),
            location: "none".to_owned(),
            content_type: "filesystem".to_owned(),
            project: project.to_string(),
            ..OfVolume::default()
        };
        let config = Config {
            container: Some(Container {
                architecture: shape.architecture.clone(),
                config: shape.config.clone(),
                devices: shape.devices.clone(),
                ephemeral: shape.ephemeral,
                profiles: shape.profiles.clone(),
                stateful: false,
                description: shape.description.clone(),
                created_at: Some(instance.created_at),
                expanded_config: shape.config.clone(),
                expanded_devices: expanded(&shape.devices, &instance.pool),
                name: name.to_string(),
                status: "Stopped".to_owned(),
                status_code: 102,
                last_used_at: instance.last_used_at,
                location: "none".to_owned(),
                kind: "container".to_owned(),
                project: project.to_string(),
            }),
            snapshots: Some(
                taken.iter().map(|(name, of)| of_instance_snapshot(name, of, &instance.pool)).collect(),
            ),
            pool: Some(Pool {
                name: instance.pool.to_string(),
                driver: DRIVER.to_owned(),
                status: "Created".to_owned(),
                locations: vec!["none".to_owned()],
                ..Pool::default()
            }),
            volume: Some(root),
            volume_snapshots: Some(
                taken
                    .iter()
                    .map(|(name, snapshot)| OfSnapshot {
                        expires_at: Some(GoTime(snapshot.times.expires_at)),
                        created_at: Some(GoTime(Some(snapshot.times.created_at))),
                        name: name.to_string(),
                        content_type: "filesystem".to_owned(),
                        ..OfSnapshot::default()
                    })
                    .collect(),
            ),
        };
        Self::new(name.as_str(), &instance.pool, "container", taken.iter().map(|(name, _)| *name), config)
    }

    fn new<'a>(
        name: &str,
        pool: &PoolName,
        kind: &str,
        snapshots: impl Iterator<Item = &'a SnapshotName>,
        config: Config,
    ) -> Self {
        Self {
            name: name.to_owned(),
            backend: DRIVER.to_owned(),
            pool: pool.to_string(),
            snapshots: snapshots.map(ToString::to_string).collect(),
            optimized: Some(false),
            optimized_header: Some(false),
            kind: kind.to_owned(),
            config: Some(config),
        }
    }

    /// The file's text.
    pub fn text(&self) -> Result<String, IndexError> {
        serde_saphyr::to_string(self).map_err(|error| IndexError::Unwritable(error.to_string()))
    }

    /// What an instance's own index says.
    pub fn config_text(&self) -> Result<String, IndexError> {
        serde_saphyr::to_string(&self.config).map_err(|error| IndexError::Unwritable(error.to_string()))
    }

    /// Reads the file. It comes from anybody.
    pub fn read(text: &[u8]) -> Result<Self, IndexError> {
        let text = std::str::from_utf8(text).map_err(|error| IndexError::Malformed(error.to_string()))?;
        let index: Self = serde_saphyr::from_str(text).map_err(|error| {
            // Where it is and not what: that would show the file.
            IndexError::Malformed(match error.location() {
                Some(at) => {
                    format!("it is not what an export has at line {}, column {}", at.line(), at.column())
                }
                None => "it is not what an export has".to_owned(),
            })
        })?;
        if index.optimized == Some(true) {
            return Err(IndexError::Optimized(index.backend.chars().take(32).collect()));
        }
        Ok(index)
    }

    /// What it says of a custom volume.
    pub fn volume(self) -> Result<(Volume, All), IndexError> {
        if self.kind != "custom" {
            return Err(of_another(&self.kind));
        }
        let config = self.config.ok_or(IndexError::Empty)?;
        let volume = config.volume.ok_or(IndexError::Empty)?;
        if !matches!(volume.content_type.as_str(), "" | "filesystem") {
            return Err(IndexError::Kind("a block device"));
        }
        let mut snapshots = All::new();
        for (at, snapshot) in config.volume_snapshots.unwrap_or_default().into_iter().enumerate() {
            let created_at = snapshot.created_at.and_then(|at| at.0).unwrap_or(in_order(at));
            let expires_at = snapshot.expires_at.and_then(|at| at.0);
            let name = last(&snapshot.name)?;
            let taken = VolumeSnapshot {
                description: snapshot.description,
                config: snapshot.config,
                times: SnapshotTimes { created_at, expires_at },
            };
            snapshots.insert(name, taken);
        }
        same(&self.snapshots, &snapshots.keys())?;
        Ok((Volume { description: volume.description, config: volume.config }, snapshots))
    }

    /// What it says of an instance, to be in `pool`.
    pub fn instance(self, pool: PoolName, now: Timestamp) -> Result<Instance, IndexError> {
        if !matches!(self.kind.as_str(), "" | "container") {
            return Err(of_another(&self.kind));
        }
        let config = self.config.ok_or(IndexError::Empty)?;
        let of = config.container.ok_or(IndexError::Empty)?;
        let mut snapshots = BTreeMap::new();
        for (at, snapshot) in config.snapshots.unwrap_or_default().into_iter().enumerate() {
            let shape = Shape {
                description: String::new(),
                architecture: snapshot.architecture,
                config: snapshot.config,
                devices: snapshot.devices,
                profiles: snapshot.profiles,
                ephemeral: snapshot.ephemeral,
            };
            let created_at = snapshot.created_at.unwrap_or(in_order(at));
            let times = SnapshotTimes { created_at, expires_at: snapshot.expires_at };
            snapshots.insert(last(&snapshot.name)?, InstanceSnapshot { shape, times });
        }
        same(&self.snapshots, &snapshots.keys())?;
        Ok(Instance {
            pool,
            shape: Shape {
                description: of.description,
                architecture: of.architecture,
                config: of.config,
                devices: of.devices,
                profiles: of.profiles,
                ephemeral: of.ephemeral,
            },
            created_at: of.created_at.unwrap_or(now),
            last_used_at: of.last_used_at,
            snapshots,
        })
    }
}

/// Snapshots in the order in which they were taken.
pub fn ordered(snapshots: &All) -> impl Iterator<Item = (&SnapshotName, &VolumeSnapshot)> + Clone {
    let mut all: Vec<_> = snapshots.iter().collect();
    all.sort_by_key(|(_, snapshot)| snapshot.times.created_at);
    all.into_iter()
}

/// LXD 5.0 does not say when snapshots of volumes were taken, only in which order.
fn in_order(at: usize) -> Timestamp {
    i64::try_from(at).ok().and_then(|at| Timestamp::from_second(at).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn last(name: &str) -> Result<SnapshotName, IndexError> {
    let name = name.rsplit('/').next().unwrap_or_default();
    name.parse().map_err(|error| IndexError::Malformed(format!("a snapshot's name is none: {error}")))
}

/// Whether the list of snapshots is of those that more is said of.
fn same<'a>(
    listed: &[String],
    said: &(impl ExactSizeIterator<Item = &'a SnapshotName> + Clone),
) -> Result<(), IndexError> {
    let all = said.len() == listed.len()
        && listed.iter().all(|name| said.clone().any(|said| said.as_str() == name));
    if all { Ok(()) } else { Err(IndexError::Snapshots) }
}

fn of_snapshot(name: &SnapshotName, snapshot: &VolumeSnapshot) -> OfSnapshot {
    OfSnapshot {
        description: snapshot.description.clone(),
        expires_at: Some(GoTime(snapshot.times.expires_at)),
        name: name.to_string(),
        config: snapshot.config.clone(),
        content_type: "filesystem".to_owned(),
        created_at: Some(GoTime(Some(snapshot.times.created_at))),
    }
}

/// Devices with the root disk that the profile gives.
fn expanded(devices: &Devices, pool: &PoolName) -> Devices {
    let mut expanded = devices.clone();
    if !devices.values().any(|device| device.get("path").is_some_and(|path| path == "/")) {
        let root = [("type", "disk"), ("path", "/"), ("pool", pool.as_str())];
        let root = root.map(|(key, value)| (key.to_owned(), value.to_owned()));
        expanded.insert("root".to_owned(), BTreeMap::from(root));
    }
    expanded
}

fn of_instance_snapshot(
    name: &SnapshotName,
    snapshot: &InstanceSnapshot,
    pool: &PoolName,
) -> ContainerSnapshot {
    let shape = &snapshot.shape;
    ContainerSnapshot {
        architecture: shape.architecture.clone(),
        config: shape.config.clone(),
        created_at: Some(snapshot.times.created_at),
        expires_at: snapshot.times.expires_at,
        devices: shape.devices.clone(),
        ephemeral: shape.ephemeral,
        expanded_config: shape.config.clone(),
        expanded_devices: expanded(&shape.devices, pool),
        last_used_at: None,
        name: name.to_string(),
        profiles: shape.profiles.clone(),
        stateful: false,
        size: -1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let at: Timestamp = "2026-03-09T17:00:00Z".parse().unwrap();
        let config = BTreeMap::from([("user.x".to_owned(), "yes: \"no\"\n# x".to_owned())]);
        let volume = Volume { description: "orders".to_owned(), config: config.clone() };
        let times = SnapshotTimes { created_at: at, expires_at: None };
        let snapshot = VolumeSnapshot { description: String::new(), config, times };
        let snapshots = All::from([("s0".parse().unwrap(), snapshot)]);
        let (pool, name) = ("default".parse().unwrap(), "orders".parse().unwrap());
        let text = Index::of_volume(&pool, &name, &volume, &snapshots).text().unwrap();
        assert!(text.contains("expires_at: "), "LXD looks for it:\n{text}");
        let index = Index::read(text.as_bytes()).unwrap();
        assert_eq!(index.name, "orders");
        assert_eq!(index.volume().unwrap(), (volume, snapshots));
    }

    #[test]
    fn a_fault_is_told_by_its_place_and_not_by_what_is_there() {
        for text in ["name: [hush", "name: orders\nsnapshots: hush\n", "hush"] {
            let error = Index::read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("line ") && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn an_instance_is_read_again() {
        let at: Timestamp = "2026-03-09T17:00:00Z".parse().unwrap();
        let shape = Shape { profiles: vec!["default".to_owned()], ..Shape::default() };
        let times = SnapshotTimes { created_at: at, expires_at: Some(at) };
        let instance = Instance {
            pool: "default".parse().unwrap(),
            shape: shape.clone(),
            created_at: at,
            last_used_at: None,
            snapshots: BTreeMap::from([("s0".parse().unwrap(), InstanceSnapshot { shape, times })]),
        };
        let (project, name) = ("default".parse().unwrap(), "c1".parse().unwrap());
        let text = Index::of_instance(&project, &name, &instance, true).text().unwrap();
        let index = Index::read(text.as_bytes()).unwrap();
        assert_eq!(index.instance("default".parse().unwrap(), at).unwrap(), instance);
        assert!(Index::read(text.as_bytes()).unwrap().volume().is_err());
    }

    #[test]
    fn what_lxd_wrote_is_read_and_what_is_none_is_refused() {
        let lxd = "name: v1\nbackend: dir\npool: default\nsnapshots:\n- s0\noptimized: false\noptimized_header: false\n\
                   type: custom\nconfig:\n  volume:\n    config: {}\n    description: \"\"\n    name: v1\n    type: custom\n    \
                   used_by: []\n    location: none\n    content_type: filesystem\n    project: default\n    created_at: \
                   2026-01-01T00:00:00Z\n  volume_snapshots:\n  - description: \"\"\n    expires_at: \
                   0001-01-01T00:00:00Z\n    name: s0\n    config: {}\n    content_type: filesystem\n";
        let (volume, snapshots) = Index::read(lxd.as_bytes()).unwrap().volume().unwrap();
        assert!(volume.config.is_empty() && snapshots.len() == 1);
        assert!(matches!(Index::read(b"optimized: true\nbackend: zfs\n"), Err(IndexError::Optimized(_))));
        assert!(matches!(Index::read(b"\xff"), Err(IndexError::Malformed(_))));
        assert!(matches!(Index::read(b"name: [x"), Err(IndexError::Malformed(_))));
        assert!(matches!(Index::read(b"name: x\ntype: custom\n").unwrap().volume(), Err(IndexError::Empty)));
        let torn = lxd.replace("- s0", "- s1");
        assert!(matches!(Index::read(torn.as_bytes()).unwrap().volume(), Err(IndexError::Snapshots)));
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\n\
                    d: &d [*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d]\nname: [*e,*e,*e,*e,*e,*e]\n";
        assert!(Index::read(bomb.as_bytes()).is_err());
    }
}
