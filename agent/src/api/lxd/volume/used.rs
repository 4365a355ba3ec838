//! Which instances use which volumes: those with a disk device that names one.

use std::collections::BTreeMap;

use schema::name::{PoolName, VolumeName};

use crate::api::ApiState;
use crate::api::lxd::answer::LxdError;
use crate::authorize::{Entitlement, Entity};
use crate::storage::instances;
use crate::trust::Caller;

/// The users of volumes, by pool and volume: their paths, and whether the caller may know of each.
#[derive(Debug, Default)]
pub struct Users(BTreeMap<(String, String), Vec<(String, bool)>>);

impl Users {
    pub async fn of(state: &ApiState, caller: &Caller) -> Result<Self, LxdError> {
        let mut users = Self::default();
        let all = state.instances.all().await.map_err(|error| LxdError::internal(&error))?;
        for (project, name, held) in all {
            let entity = Entity::Instance { project: project.clone(), name: name.to_string() };
            let seen = state.permit(caller, Entitlement::CanView, entity).is_ok();
            for device in held.instance.shape.devices.values() {
                let part = |key: &str| device.get(key).cloned().unwrap_or_default();
                if part("type") == "disk" && !part("source").is_empty() {
                    let path = instances::url((&project, &name));
                    users.0.entry((part("pool"), part("source"))).or_default().push((path, seen));
                }
            }
        }
        Ok(users)
    }

    /// Whether anything uses the volume.
    pub fn any(&self, pool: &PoolName, name: &VolumeName) -> bool {
        self.0.contains_key(&(pool.to_string(), name.to_string()))
    }

    /// What uses the volume, as far as the caller may know of it.
    pub fn of_volume(&self, pool: &PoolName, name: &VolumeName) -> Vec<String> {
        let users = self.0.get(&(pool.to_string(), name.to_string())).into_iter().flatten();
        users.filter(|(_, seen)| *seen).map(|(path, _)| path.clone()).collect()
    }
}
