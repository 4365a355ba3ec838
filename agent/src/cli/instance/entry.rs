//! What is set of an instance on the way: `-c`, `-d`, `-p`, `--storage`.

use super::super::CliError;
use super::init::ShapeArgs;
use crate::cli::operand::pairs;
use crate::client::instance::{Devices, Instance, Shape};

/// The config key that goes along when an instance is copied, of those that are an instance's own.
const BASE_IMAGE: &str = "volatile.base_image";

/// `DEVICE,KEY=VALUE`, by device.
pub fn overrides(given: &[String]) -> Result<Devices, CliError> {
    let mut devices = Devices::new();
    for text in given {
        let (device, pair) = text
            .split_once(',')
            .ok_or_else(|| CliError::usage("Bad syntax, expecting <device>,<key>=<value> for --device"))?;
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| CliError::usage("Bad syntax, expecting <device>,<key>=<value> for --device"))?;
        devices.entry(device.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
    }
    Ok(devices)
}

/// Whether what is an instance's own (LXD: volatile keys) goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volatile {
    /// It moves, or is the same one again.
    Kept,
    /// It is another one.
    Dropped,
}

/// What the copy of an instance is made with.
pub fn copied(
    source: &Instance,
    given: &ShapeArgs,
    no_profiles: bool,
    volatile: Volatile,
) -> Result<Shape, CliError> {
    let mut shape = source.shape.clone();
    if volatile == Volatile::Dropped {
        shape.config.retain(|key, _| !key.starts_with("volatile.") || key == BASE_IMAGE);
    }
    shape.config.extend(pairs(&given.config)?);
    if no_profiles {
        shape.profiles = Vec::new();
    } else if !given.profiles.is_empty() {
        shape.profiles.clone_from(&given.profiles);
    }
    for (device, keys) in overrides(&given.devices)? {
        // One that comes from a profile becomes its own, so that the rest of it stays.
        let inherited = source.expanded_devices.get(&device).cloned().unwrap_or_default();
        shape.devices.entry(device).or_insert(inherited).extend(keys);
    }
    if let Some(pool) = &given.storage {
        in_pool(&mut shape, source, pool)?;
    }
    Ok(shape)
}

/// Says in which pool the root is, as LXD's command does: by the root disk device.
fn in_pool(shape: &mut Shape, source: &Instance, pool: &str) -> Result<(), CliError> {
    let is_root = |device: &std::collections::BTreeMap<String, String>| {
        device.get("type").is_some_and(|kind| kind == "disk")
            && device.get("path").is_some_and(|path| path == "/")
    };
    if let Some(root) = shape.devices.values_mut().find(|device| is_root(device)) {
        root.insert("pool".to_owned(), pool.to_owned());
        return Ok(());
    }
    let inherited = source.expanded_devices.iter().find(|(_, device)| is_root(device));
    let (name, mut root) = match inherited {
        Some((name, root)) => (name.clone(), root.clone()),
        None => (
            "root".to_owned(),
            [("type", "disk"), ("path", "/")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ),
    };
    if shape.devices.contains_key(&name) {
        return Err(CliError::failed(format!("the device {name} is no root disk, and its name is taken"))
            .code("root-device"));
    }
    root.insert("pool".to_owned(), pool.to_owned());
    shape.devices.insert(name, root);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source() -> Instance {
        serde_json::from_value(json!({
            "name": "c1", "architecture": "x86_64", "profiles": ["default"], "devices": {},
            "config": {"user.a": "1", "volatile.base_image": "f", "volatile.uuid": "u"},
            "expanded_devices": {"root": {"type": "disk", "path": "/", "pool": "default", "size": "1GiB"}},
        }))
        .unwrap()
    }

    #[test]
    fn a_copy_is_another_one_and_a_move_the_same() {
        let kept = copied(&source(), &ShapeArgs::default(), false, Volatile::Kept).unwrap();
        assert_eq!(kept, source().shape);
        let copy = copied(&source(), &ShapeArgs::default(), true, Volatile::Dropped).unwrap();
        assert_eq!(copy.config.keys().collect::<Vec<_>>(), ["user.a", "volatile.base_image"]);
        assert!(copy.profiles.is_empty());
    }

    #[test]
    fn a_pool_is_the_root_devices_and_the_rest_of_it_stays() {
        let given = ShapeArgs {
            config: vec!["user.b=2".to_owned()],
            devices: vec!["root,size=2GiB".to_owned()],
            profiles: Vec::new(),
            storage: Some("fast".to_owned()),
        };
        let shape = copied(&source(), &given, false, Volatile::Dropped).unwrap();
        let root = &shape.devices["root"];
        assert_eq!(
            (root["pool"].as_str(), root["size"].as_str(), root["path"].as_str()),
            ("fast", "2GiB", "/")
        );
        assert_eq!(shape.config["user.b"], "2");
        assert!(overrides(&["root".to_owned()]).is_err());
    }
}
