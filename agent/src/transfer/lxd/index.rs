//! The index header: what LXD's source tells of what it sends, as its Go writes it, and what it is here.
//!
//! LXD writes the fields of `backup.yaml`'s structure by their names in Go; ours are in the spelling of that file. Of the
//! snapshots it tells twice, in the offer (what is compared) and in the index header.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schema::name::SnapshotName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::LxdError;
use super::message::{Config, Device, Header, Snapshot};
use crate::wire::lxd::migration::{Devices, IndexHeader, InstanceSnapshotIndex, VolumeSnapshotIndex, said};

/// LXD's numbers of architectures.
const ARCHITECTURES: [&str; 15] = [
    "unknown", "i686", "x86_64", "armv7l", "aarch64", "ppc", "ppc64", "ppc64le", "s390x", "mips", "mips64",
    "riscv32", "riscv64", "armv6l", "armv8l",
];

/// What the target answers to an index header.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Answer {
    pub status_code: u16,
    pub error: String,
    pub refresh: Option<bool>,
}

impl Default for Answer {
    fn default() -> Self {
        Self { status_code: 200, error: String::new(), refresh: None }
    }
}

impl Answer {
    pub fn check(self) -> Result<(), LxdError> {
        if self.status_code == 200 { Ok(()) } else { Err(LxdError::Negotiation(self.error)) }
    }
}

/// The index header as LXD reads it, with these snapshots alone.
pub fn encode(header: &IndexHeader, snapshots: &[SnapshotName]) -> Vec<u8> {
    let config = &header.config;
    let goes = |name: &str| snapshots.iter().any(|snapshot| snapshot.as_str() == name);
    let of_instance: Vec<_> = config.snapshots.iter().filter(|s| goes(&s.name)).collect();
    let of_volume: Vec<Value> = match &config.instance {
        // A snapshot of an instance is one of its volume, of which LXD keeps a record as well.
        Some(_) => of_instance
            .iter()
            .map(|s| {
                json!({
                    "name": s.name, "description": "", "content_type": "filesystem", "config": {},
                    "created_at": s.created_at, "expires_at": said(s.expires_at),
                })
            })
            .collect(),
        None => config.volume_snapshots.iter().filter(|s| goes(&s.name)).map(|s| json!(s)).collect(),
    };
    let volume = match (&config.instance, &config.volume) {
        (_, Some(volume)) => json!(volume),
        (Some(instance), None) => json!({
            "name": instance.name, "type": "container", "content_type": "filesystem", "config": {}, "description": "",
        }),
        (None, None) => Value::Null,
    };
    let whole = json!({"config": {
        "Container": config.instance, "Snapshots": of_instance, "Pool": null, "Volume": volume,
        "VolumeSnapshots": of_volume,
    }});
    whole.to_string().into_bytes()
}

/// The snapshots as an offer tells of them.
pub fn offered(header: &IndexHeader, names: &[SnapshotName]) -> Vec<Snapshot> {
    let config = &header.config;
    let mut offered = Vec::new();
    for name in names {
        let name = name.as_str();
        let snapshot = if let Some(s) = config.snapshots.iter().find(|s| s.name == name) {
            Snapshot {
                name: name.to_owned(),
                config: pairs(&s.config),
                profiles: s.profiles.clone(),
                ephemeral: s.ephemeral,
                devices: s
                    .devices
                    .iter()
                    .map(|(name, config)| Device { name: name.clone(), config: pairs(config) })
                    .collect(),
                architecture: number(&s.architecture),
                stateful: false,
                creation_date: Some(seconds(Some(s.created_at))),
                last_used_date: Some(0),
                expiry_date: Some(seconds(said(s.expires_at))),
            }
        } else {
            let s = config.volume_snapshots.iter().find(|s| s.name == name);
            Snapshot {
                name: name.to_owned(),
                config: s.map(|s| pairs(&s.config)).unwrap_or_default(),
                creation_date: Some(seconds(s.map(|s| s.created_at))),
                last_used_date: Some(0),
                expiry_date: Some(seconds(s.and_then(|s| s.expires_at))),
                ..Snapshot::default()
            }
        };
        offered.push(snapshot);
    }
    offered
}

/// What an offer says, as a header of ours, before the index header has come. `of_instance` says what it is one of.
pub fn header_of(offer: &Header, of_instance: bool) -> IndexHeader {
    let mut header = IndexHeader::default();
    for snapshot in &offer.snapshots {
        let created_at = time(snapshot.creation_date).unwrap_or(Timestamp::UNIX_EPOCH);
        let expires_at = time(snapshot.expiry_date);
        if of_instance {
            header.config.snapshots.push(InstanceSnapshotIndex {
                name: snapshot.name.clone(),
                architecture: architecture(snapshot.architecture).to_owned(),
                config: map(&snapshot.config),
                devices: devices(&snapshot.devices),
                profiles: snapshot.profiles.clone(),
                ephemeral: snapshot.ephemeral,
                stateful: snapshot.stateful,
                created_at,
                expires_at: expires_at.unwrap_or(Timestamp::UNIX_EPOCH),
            });
        } else {
            header.config.volume_snapshots.push(VolumeSnapshotIndex {
                name: snapshot.name.clone(),
                description: String::new(),
                content_type: "filesystem".to_owned(),
                config: map(&snapshot.config),
                created_at,
                expires_at,
            });
        }
    }
    header
}

/// The names that an offer has, oldest first. One that is no name of a snapshot here is refused, and so is one twice.
pub fn names(offer: &Header) -> Result<Vec<SnapshotName>, LxdError> {
    let parse = |name: &String| {
        name.parse().map_err(|_| LxdError::Malformed("it offers a snapshot whose name is not possible here"))
    };
    let names: Vec<SnapshotName> = offer.snapshot_names.iter().map(parse).collect::<Result<_, _>>()?;
    if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
        return Err(LxdError::Malformed("it offers a snapshot twice"));
    }
    Ok(names)
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<Config> {
    map.iter().map(|(key, value)| Config { key: key.clone(), value: value.clone() }).collect()
}

fn map(pairs: &[Config]) -> BTreeMap<String, String> {
    pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect()
}

fn devices(all: &[Device]) -> Devices {
    all.iter().map(|device| (device.name.clone(), map(&device.config))).collect()
}

fn seconds(at: Option<Timestamp>) -> i64 {
    at.map_or(0, Timestamp::as_second)
}

fn time(seconds: Option<i64>) -> Option<Timestamp> {
    seconds.filter(|at| *at > 0).and_then(|at| Timestamp::from_second(at).ok())
}

fn architecture(number: i32) -> &'static str {
    usize::try_from(number).ok().and_then(|at| ARCHITECTURES.get(at)).copied().unwrap_or("unknown")
}

fn number(architecture: &str) -> i32 {
    let at = ARCHITECTURES.iter().position(|known| *known == architecture);
    at.and_then(|at| i32::try_from(at).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::lxd::migration::InstanceIndex;

    #[test]
    fn what_is_offered_of_a_snapshot_comes_back() {
        let mut header = IndexHeader::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        header.config.instance = Some(InstanceIndex { name: "c1".to_owned(), ..InstanceIndex::default() });
        header.config.snapshots = vec![InstanceSnapshotIndex {
            name: "s0".to_owned(),
            architecture: "x86_64".to_owned(),
            config: [("user.a".to_owned(), "1".to_owned())].into(),
            devices: [("root".to_owned(), [("path".to_owned(), "/".to_owned())].into())].into(),
            profiles: vec!["default".to_owned()],
            created_at: at(1_700_000_000),
            expires_at: at(1_800_000_000),
            ..InstanceSnapshotIndex::default()
        }];
        let names: Vec<SnapshotName> = vec!["s0".parse().unwrap()];
        let offer = Header {
            snapshot_names: vec!["s0".to_owned()],
            snapshots: offered(&header, &names),
            ..Header::default()
        };
        assert_eq!(super::names(&offer).unwrap(), names);
        assert_eq!(header_of(&offer, true).config.snapshots, header.config.snapshots);
        let sent: Value = serde_json::from_slice(&encode(&header, &names)).unwrap();
        assert_eq!(sent["config"]["Container"]["name"], "c1");
        assert_eq!(sent["config"]["Snapshots"][0]["name"], "s0");
        assert_eq!(sent["config"]["VolumeSnapshots"][0]["name"], "s0");
        let none: Value = serde_json::from_slice(&encode(&header, &[])).unwrap();
        assert_eq!(none["config"]["Snapshots"], json!([]));
    }

    #[test]
    fn names_of_a_hostile_offer_are_refused() {
        for name in ["../x", "a/b", "", ".."] {
            let offer = Header { snapshot_names: vec![name.to_owned()], ..Header::default() };
            assert!(names(&offer).is_err(), "{name:?}");
        }
        let twice = Header { snapshot_names: vec!["a".to_owned(), "a".to_owned()], ..Header::default() };
        assert!(names(&twice).is_err());
    }
}
