//! What can be set of an instance: LXD's keys, its kinds of devices, its profiles.
//!
//! Nothing runs here, so most keys are kept and shown, and that is all: they go along with the instance when it is copied
//! to where it runs. Those that say something about snapshots mean something here, and must make sense.

use std::collections::{BTreeMap, BTreeSet};

use schema::diagnostic::nearest::suggestion;
use schema::kind::volume::config::size as bytes;
use schema::name::PoolName;
use schema::snapshot::{Lifetime, Pattern, Schedule};

use crate::storage::{Devices, Shape};

/// The one profile there is. It cannot be changed.
pub const DEFAULT_PROFILE: &str = "default";
/// Namespaces whose keys may all be set, besides those in [`check_key`] that have a form.
const NAMESPACES: [&str; 16] = [
    "agent.",
    "boot.",
    "cloud-init.",
    "cluster.",
    "environment.",
    "image.",
    "limits.",
    "linux.",
    "migration.",
    "nvidia.",
    "raw.",
    "security.",
    "snapshots.",
    "ubuntu_pro.",
    "user.",
    "volatile.",
];
const TRUTHS: [&str; 15] = [
    "agent.nic_config",
    "boot.autostart",
    "migration.incremental.memory",
    "migration.stateful",
    "nvidia.runtime",
    "security.devlxd",
    "security.devlxd.images",
    "security.idmap.isolated",
    "security.nesting",
    "security.privileged",
    "security.protection.delete",
    "security.protection.shift",
    "security.protection.start",
    "security.secureboot",
    "snapshots.schedule.stopped",
];
const NUMBERS: [&str; 9] = [
    "boot.autostart.delay",
    "boot.autostart.priority",
    "boot.host_shutdown_timeout",
    "boot.stop.priority",
    "limits.processes",
    "migration.incremental.memory.goal",
    "migration.incremental.memory.iterations",
    "security.idmap.base",
    "security.idmap.size",
];
const SNAPSHOTS: [&str; 5] = [
    "snapshots.expiry",
    "snapshots.expiry.manual",
    "snapshots.pattern",
    "snapshots.schedule",
    "snapshots.schedule.stopped",
];
const DEVICE_TYPES: [&str; 13] = [
    "none",
    "nic",
    "disk",
    "unix-char",
    "unix-block",
    "unix-hotplug",
    "usb",
    "gpu",
    "infiniband",
    "proxy",
    "tpm",
    "pci",
    "generic",
];
/// LXD's keys of a disk, up to its version 6.
const DISK_KEYS: [&str; 27] = [
    "boot.priority",
    "ceph.cluster_name",
    "ceph.user_name",
    "io.bus",
    "io.cache",
    "io.threads",
    "limits.max",
    "limits.read",
    "limits.write",
    "path",
    "pool",
    "propagation",
    "raw.mount.options",
    "readonly",
    "recursive",
    "required",
    "shift",
    "size",
    "size.state",
    "source",
    "source.snapshot",
    "source.type",
    "attached",
    "dependent",
    "wwn",
    "security.shared",
    "type",
];
/// Namespaces whose keys a disk may all have.
const DISK_NAMESPACES: [&str; 2] = ["initial.", "user."];
const ARCHITECTURES: [&str; 16] = [
    "x86_64",
    "i686",
    "aarch64",
    "armv6l",
    "armv7l",
    "armv8l",
    "ppc",
    "ppc64",
    "ppc64le",
    "s390x",
    "mips",
    "mips64",
    "riscv32",
    "riscv64",
    "loongarch64",
    "armv7",
];
const MAX_KEYS: usize = 1000;
const MAX_KEY: usize = 200;
const MAX_VALUE: usize = 64 * 1024;
const MAX_DEVICES: usize = 100;
const MAX_DESCRIPTION: usize = 64 * 1024;

/// Why something cannot be set, in LXD's words where it has some. A value is never repeated: it may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("Unknown configuration key: {0}")]
    Unknown(String),
    #[error("Invalid value for configuration key {key:?}: {why}")]
    Value { key: String, why: String },
    #[error("Device validation failed for {0:?}: Unsupported device type")]
    DeviceType(String),
    #[error("Device validation failed for {0:?}: its name has 1 to 64 characters without a slash or a space")]
    DeviceName(String),
    #[error("Failed getting root disk: No root device could be found")]
    NoRoot,
    #[error("Failed getting root disk: More than one root device defined")]
    TwoRoots,
    #[error("Device validation failed for {0:?}: {1}")]
    Device(String, String),
    #[error("Requested profile {0:?} doesn't exist")]
    NoSuchProfile(String),
    #[error("Duplicate profile found in request")]
    TwiceProfile,
    #[error("Architecture isn't supported: {0:?}")]
    Architecture(String),
    #[error("An instance has at most {MAX_KEYS} keys and {MAX_DEVICES} devices")]
    TooMany,
    #[error("A key has at most {MAX_KEY} bytes, a value and a description at most {MAX_VALUE}")]
    TooLong,
}

/// What the profile `default` gives an instance: its root disk, in the pool that every agent has.
pub fn default_devices() -> Devices {
    let root = [("path", "/"), ("pool", crate::dataset::pool::DEFAULT_POOL), ("type", "disk")];
    let root = root.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Devices::from([("root".to_owned(), root)])
}

/// The devices with those of its profiles (LXD: expanded devices).
pub fn expanded_devices(shape: &Shape) -> Devices {
    let mut devices = Devices::new();
    if shape.profiles.iter().any(|profile| profile == DEFAULT_PROFILE) {
        devices = default_devices();
    }
    devices.extend(shape.devices.clone());
    devices
}

/// The name of the root disk among `devices`, and the pool that it is in.
pub fn root_disk(devices: &Devices) -> Result<(&str, PoolName), ConfigError> {
    let of = |device: &BTreeMap<String, String>, key: &str| device.get(key).cloned().unwrap_or_default();
    let mut roots = devices.iter().filter(|(_, device)| {
        of(device, "type") == "disk" && of(device, "path") == "/" && of(device, "source").is_empty()
    });
    let (name, device) = roots.next().ok_or(ConfigError::NoRoot)?;
    if roots.next().is_some() {
        return Err(ConfigError::TwoRoots);
    }
    let pool = of(device, "pool");
    let wrong = |_| ConfigError::Device(name.clone(), "Storage pool not found".to_owned());
    Ok((name, pool.parse().map_err(wrong)?))
}

/// Most bytes of data that its root volume is to have, where its root disk says so (LXD: size).
pub fn size(shape: &Shape) -> Option<u64> {
    let devices = expanded_devices(shape);
    let (root, _) = root_disk(&devices).ok()?;
    crate::storage::config::size(devices.get(root)?)
}

/// Whether an instance can be like that. Gives the pool that its root disk is in; whether that is there is another
/// question.
pub fn check(shape: &Shape) -> Result<PoolName, ConfigError> {
    if shape.config.len() > MAX_KEYS || shape.devices.len() > MAX_DEVICES {
        return Err(ConfigError::TooMany);
    }
    if shape.description.len() > MAX_DESCRIPTION {
        return Err(ConfigError::TooLong);
    }
    for (key, value) in &shape.config {
        check_key(key, value)?;
    }
    for (name, device) in &shape.devices {
        check_device(name, device)?;
    }
    let mut seen = BTreeSet::new();
    for profile in &shape.profiles {
        if profile != DEFAULT_PROFILE {
            return Err(ConfigError::NoSuchProfile(shown(profile)));
        }
        if !seen.insert(profile) {
            return Err(ConfigError::TwiceProfile);
        }
    }
    if !ARCHITECTURES.contains(&shape.architecture.as_str()) {
        return Err(ConfigError::Architecture(shown(&shape.architecture)));
    }
    root_disk(&expanded_devices(shape)).map(|(_, pool)| pool)
}

/// Makes what a snapshot from elsewhere keeps fit an instance in `pool`: as with LXD its root disk is where the instance's
/// is, and what is not said of it is as with the instance.
pub fn fit(shape: &mut Shape, of: &Shape, pool: &PoolName) {
    if shape.architecture.is_empty() {
        shape.architecture.clone_from(&of.architecture);
    }
    if root_disk(&expanded_devices(shape)).is_ok_and(|(_, there)| there == *pool) {
        return;
    }
    let is_root = |device: &BTreeMap<String, String>| {
        device.get("type").is_some_and(|kind| kind == "disk")
            && device.get("path").is_some_and(|path| path == "/")
            && device.get("source").is_none_or(String::is_empty)
    };
    if let Some(root) = shape.devices.values_mut().find(|device| is_root(device)) {
        root.insert("pool".to_owned(), pool.to_string());
    } else if !shape.devices.contains_key("root") {
        let root = [("type", "disk"), ("path", "/"), ("pool", pool.as_str())];
        let root = root.map(|(key, value)| (key.to_owned(), value.to_owned()));
        shape.devices.insert("root".to_owned(), BTreeMap::from(root));
    }
}

fn check_key(key: &str, value: &str) -> Result<(), ConfigError> {
    if key.len() > MAX_KEY || value.len() > MAX_VALUE {
        return Err(ConfigError::TooLong);
    }
    let known = NAMESPACES.iter().any(|prefix| key.len() > prefix.len() && key.starts_with(prefix));
    if !known || (key.starts_with("snapshots.") && !SNAPSHOTS.contains(&key)) {
        return Err(ConfigError::Unknown(shown(key)));
    }
    if value.is_empty() {
        return Ok(());
    }
    let said = |why: &dyn std::fmt::Display| ConfigError::Value { key: shown(key), why: why.to_string() };
    match key {
        "snapshots.expiry" | "snapshots.expiry.manual" => {
            value.parse::<Lifetime>().map(drop).map_err(|e| said(&e))
        }
        "snapshots.pattern" => value.parse::<Pattern>().map(drop).map_err(|e| said(&e)),
        "snapshots.schedule" => value.parse::<Schedule>().map(drop).map_err(|e| said(&e)),
        "volatile.uuid" => value.parse::<uuid::Uuid>().map(drop).map_err(|_| said(&"Invalid UUID")),
        _ if TRUTHS.contains(&key) => is_true(value).map(drop).ok_or_else(|| said(&"it is true or false")),
        _ if NUMBERS.contains(&key) => {
            value.parse::<i64>().map(drop).map_err(|_| said(&"it is a whole number"))
        }
        _ => Ok(()),
    }
}

fn check_device(name: &str, device: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    if name.is_empty() || name.len() > 64 || name.contains(['/', ' ']) || name.chars().any(char::is_control) {
        return Err(ConfigError::DeviceName(shown(name)));
    }
    if device.len() > MAX_KEYS {
        return Err(ConfigError::TooMany);
    }
    if device.iter().any(|(key, value)| key.len() > MAX_KEY || value.len() > MAX_VALUE) {
        return Err(ConfigError::TooLong);
    }
    let kind = device.get("type").map_or("", String::as_str);
    if !DEVICE_TYPES.contains(&kind) {
        return Err(ConfigError::DeviceType(shown(name)));
    }
    if kind == "disk" { check_disk(name, device) } else { Ok(()) }
}

/// A limit that is misspelt would be none.
fn check_disk(name: &str, device: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    let wrong = |why: String| Err(ConfigError::Device(shown(name), why));
    if device.get("path").is_none_or(String::is_empty) {
        return wrong("Disk entry is missing the required \"path\" property".to_owned());
    }
    for (key, value) in device {
        let known = DISK_KEYS.contains(&key.as_str())
            || DISK_NAMESPACES.iter().any(|prefix| key.len() > prefix.len() && key.starts_with(prefix));
        if !known {
            let near = suggestion(key, DISK_KEYS);
            return wrong(format!("Invalid device option {:?}{near}", shown(key)));
        }
        let is_size = matches!(key.as_str(), "size" | "size.state");
        if is_size && !value.is_empty() && bytes(value).is_none() {
            return wrong(format!(
                "Invalid value for device option {key:?}: it is a number of bytes, such as 10GiB"
            ));
        }
    }
    Ok(())
}

/// As LXD reads a truth.
pub fn is_true(text: &str) -> Option<bool> {
    match &*text.to_ascii_lowercase() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Enough of a name to know it again.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(config: &[(&str, &str)]) -> Shape {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Shape {
            architecture: "x86_64".to_owned(),
            config: config.iter().map(owned).collect(),
            profiles: vec![DEFAULT_PROFILE.to_owned()],
            ..Shape::default()
        }
    }

    fn disk(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn keys_of_lxd_are_taken_and_others_named() {
        let good = shape(&[
            ("limits.cpu", "2"),
            ("user.x", "anything"),
            ("security.nesting", "true"),
            ("snapshots.schedule", "@daily"),
            ("snapshots.expiry", "1w"),
            ("volatile.idmap.next", "[]"),
        ]);
        assert_eq!(check(&good).unwrap().as_str(), "default");
        let wrong = |key, value| check(&shape(&[(key, value)])).unwrap_err().to_string();
        assert_eq!(wrong("foo.bar", "1"), "Unknown configuration key: foo.bar");
        assert_eq!(wrong("snapshots.foo", "1"), "Unknown configuration key: snapshots.foo");
        assert_eq!(wrong("user.", "1"), "Unknown configuration key: user.");
        let truth = wrong("boot.autostart", "hunter2");
        assert!(truth.contains("true or false") && !truth.contains("hunter2"), "{truth}");
        assert!(wrong("snapshots.expiry", "x").contains("snapshots.expiry"));
        assert!(wrong("volatile.uuid", "x").contains("Invalid UUID"));
    }

    #[test]
    fn what_comes_from_elsewhere_has_its_root_where_the_instance_has() {
        let (of, pool) = (shape(&[]), "fast".parse().unwrap());
        for mut other in [
            Shape::default(),
            shape(&[]),
            Shape {
                devices: Devices::from([(
                    "disk".to_owned(),
                    disk(&[("type", "disk"), ("path", "/"), ("pool", "theirs")]),
                )]),
                ..Shape::default()
            },
        ] {
            fit(&mut other, &of, &pool);
            assert_eq!(check(&other).unwrap(), pool, "{other:?}");
        }
        let mut wrong = shape(&[("no.such.key", "1")]);
        fit(&mut wrong, &of, &pool);
        assert_eq!(check(&wrong).unwrap_err().to_string(), "Unknown configuration key: no.such.key");
    }

    #[test]
    fn the_root_disk_says_the_pool() {
        let mut other = shape(&[]);
        other.devices.insert("root".to_owned(), disk(&[("type", "disk"), ("path", "/"), ("pool", "other")]));
        assert_eq!(check(&other).unwrap().as_str(), "other");
        other.devices.insert("r2".to_owned(), disk(&[("type", "disk"), ("path", "/"), ("pool", "other")]));
        assert_eq!(check(&other).unwrap_err(), ConfigError::TwoRoots);
        let none = Shape { profiles: Vec::new(), ..shape(&[]) };
        assert_eq!(check(&none).unwrap_err(), ConfigError::NoRoot);
        let absent = Shape { profiles: vec!["nope".to_owned()], ..shape(&[]) };
        assert_eq!(check(&absent).unwrap_err().to_string(), "Requested profile \"nope\" doesn't exist");
        let mut odd = shape(&[]);
        odd.devices.insert("eth0".to_owned(), disk(&[("type", "nope")]));
        assert!(matches!(check(&odd), Err(ConfigError::DeviceType(_))));
    }

    #[test]
    fn a_limit_of_a_disk_is_understood_or_refused() {
        let with = |key: &str, value: &str| {
            let mut of = shape(&[]);
            let root = [("type", "disk"), ("path", "/"), ("pool", "default"), (key, value)];
            of.devices.insert("root".to_owned(), disk(&root));
            check(&of).map(|_| size(&of)).map_err(|error| error.to_string())
        };
        assert_eq!(with("size", "1GiB"), Ok(Some(1 << 30)));
        assert_eq!(with("size", "10GB"), Ok(Some(10_000_000_000)));
        for (key, value) in [("size", ""), ("limits.read", "30MB"), ("initial.uid", "1"), ("user.x", "1")] {
            assert_eq!(with(key, value), Ok(None), "{key}");
        }
        for value in ["zz", "abc", "-1", "1 GiB or so"] {
            let refused = with("size", value).unwrap_err();
            assert!(refused.contains("Invalid value for device option \"size\""), "{refused}");
        }
        let refused = with("sise", "1GiB").unwrap_err();
        assert!(refused.ends_with("Invalid device option \"sise\"; did you mean \"size\"?"), "{refused}");
    }
}
