//! Instances and snapshots as LXD shows them.

use std::collections::BTreeMap;

use schema::name::SnapshotName;
use serde_json::json;

use crate::storage::instances::Place;
use crate::storage::instances::config::{expanded_devices, is_true};
use crate::storage::{Instance, InstanceSnapshot};
use crate::wire::lxd::instance::{DiskUsage, InstanceBody, InstanceFull, NEVER, SnapshotBody, StateBody};

/// Nothing runs here.
pub const STOPPED: (&str, u16) = ("Stopped", 102);

pub fn body(place: Place<'_>, instance: &Instance) -> InstanceBody {
    let shape = &instance.shape;
    InstanceBody {
        architecture: shape.architecture.clone(),
        config: shape.config.clone(),
        created_at: instance.created_at,
        description: shape.description.clone(),
        devices: shape.devices.clone(),
        ephemeral: shape.ephemeral,
        // The one profile there is sets no keys.
        expanded_config: shape.config.clone(),
        expanded_devices: expanded_devices(shape),
        last_used_at: instance.last_used_at.unwrap_or(jiff::Timestamp::UNIX_EPOCH),
        location: "none".to_owned(),
        name: place.1.to_string(),
        profiles: shape.profiles.clone(),
        project: place.0.to_string(),
        stateful: false,
        status: STOPPED.0.to_owned(),
        status_code: STOPPED.1,
        kind: "container".to_owned(),
    }
}

pub fn full(place: Place<'_>, instance: &Instance) -> InstanceFull {
    let snapshots: Vec<_> = by_age(instance).into_iter().map(|(name, taken)| snapshot(name, taken)).collect();
    InstanceFull {
        instance: body(place, instance),
        backups: None,
        snapshots: (!snapshots.is_empty()).then_some(snapshots),
        state: Some(state(BTreeMap::new())),
    }
}

/// The snapshots, oldest first.
pub fn by_age(instance: &Instance) -> Vec<(&SnapshotName, &InstanceSnapshot)> {
    let mut all: Vec<_> = instance.snapshots.iter().collect();
    all.sort_by_key(|(name, taken)| (taken.times.created_at, (*name).clone()));
    all
}

pub fn snapshot(name: &SnapshotName, taken: &InstanceSnapshot) -> SnapshotBody {
    let shape = &taken.shape;
    SnapshotBody {
        architecture: shape.architecture.clone(),
        config: shape.config.clone(),
        created_at: taken.times.created_at,
        devices: shape.devices.clone(),
        ephemeral: shape.ephemeral,
        expanded_config: shape.config.clone(),
        expanded_devices: expanded_devices(shape),
        expires_at: taken.times.expires_at.unwrap_or(NEVER),
        last_used_at: NEVER,
        name: name.clone(),
        profiles: shape.profiles.clone(),
        size: -1,
        stateful: false,
    }
}

pub fn state(disk: BTreeMap<String, DiskUsage>) -> StateBody {
    StateBody {
        cpu: json!({ "usage": 0 }),
        disk,
        memory: json!({ "usage": 0, "usage_peak": 0, "swap_usage": 0, "swap_usage_peak": 0 }),
        network: None,
        pid: 0,
        processes: 0,
        status: STOPPED.0.to_owned(),
        status_code: STOPPED.1,
    }
}

/// Whether it is not to be deleted (LXD: security.protection.delete).
pub fn is_protected(instance: &Instance) -> bool {
    let set = instance.shape.config.get("security.protection.delete");
    set.and_then(|value| is_true(value)).unwrap_or_default()
}
