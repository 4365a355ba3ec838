//! Which instances use which volumes: those with a disk device that names one.

use std::collections::BTreeMap;

use schema::name::{PoolName, VolumeName};

use crate::api::ApiState;
use crate::api::lxd::answer::LxdError;
use crate::authorize::{Entitlement, Entity};
use crate::storage::instances;
use crate::trust::Caller;
use crate::trust::entity::DEFAULT_PROJECT;

/// The users of volumes, by pool and volume.
#[derive(Debug, Default)]
pub struct Users(BTreeMap<(String, String), Vec<User>>);

/// An instance that uses a volume.
#[derive(Debug)]
struct User {
    path: String,
    /// As messages name it.
    called: String,
    /// Whether the caller may know of it.
    seen: bool,
}

impl Users {
    pub async fn of(state: &ApiState, caller: &Caller) -> Result<Self, LxdError> {
        let mut users = Self::default();
        let all = state.instances.all().await.map_err(|error| LxdError::internal(&error))?;
        for (project, name, held) in all {
            let entity = Entity::Instance { project: project.clone(), name: name.to_string() };
            let seen = state.permit(caller, Entitlement::CanView, entity).is_ok();
            let within = if project.as_str() == DEFAULT_PROJECT {
                String::new()
            } else {
                format!(" of project {project}")
            };
            for (called, device) in &held.instance.shape.devices {
                let part = |key: &str| device.get(key).cloned().unwrap_or_default();
                if part("type") == "disk" && !part("source").is_empty() {
                    let path = instances::url((&project, &name));
                    let called = format!("instance {name}{within} (device {called})");
                    let using = users.0.entry((part("pool"), part("source"))).or_default();
                    using.push(User { path, called, seen });
                }
            }
        }
        Ok(users)
    }

    /// Refuses what nobody may use meanwhile, in LXD's words and with the users that the caller may know of.
    pub fn none(&self, pool: &PoolName, name: &VolumeName) -> Result<(), LxdError> {
        let Some(users) = self.0.get(&(pool.to_string(), name.to_string())) else { return Ok(()) };
        let seen: Vec<&str> =
            users.iter().filter(|user| user.seen).map(|user| user.called.as_str()).collect();
        let by = if seen.is_empty() { String::new() } else { format!(": used by {}", seen.join(", ")) };
        Err(LxdError::bad_request(format!("The storage volume is still in use{by}")))
    }

    /// What uses the volume, as far as the caller may know of it.
    pub fn of_volume(&self, pool: &PoolName, name: &VolumeName) -> Vec<String> {
        let users = self.0.get(&(pool.to_string(), name.to_string())).into_iter().flatten();
        users.filter(|user| user.seen).map(|user| user.path.clone()).collect()
    }
}
