//! What a right is about (LXD: entity), and which one a permission means.

use schema::kind::auth_group::Permission;
use schema::name::{
    GroupName, LinkName, ManifestName, PoolName, ProjectName, ServiceName, TransferName, VolumeName,
};
use schema::record::{RecordKey, ServiceMatch};

use super::{Fingerprint, IdentityId};

/// The project that is always there, and that everything is in which names no other.
pub const DEFAULT_PROJECT: &str = "default";

/// What a right is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entity {
    Server,
    Project(ProjectName),
    AuthGroup(GroupName),
    /// By the name that the identity provider has for it.
    IdentityProviderGroup(String),
    ClusterLink(LinkName),
    Identity(IdentityId),
    Certificate(Fingerprint),
    Service(ServiceName),
    /// The one export list.
    ExportedServices,
    /// All intentions towards one destination.
    ServiceIntentions(ServiceMatch),
    Manifest(ManifestName),
    Pool(PoolName),
    /// In the default project.
    Volume {
        pool: PoolName,
        volume: VolumeName,
    },
    Instance {
        project: ProjectName,
        name: String,
    },
    Transfer(TransferName),
}

impl Entity {
    /// The project `default`.
    pub fn default_project() -> Self {
        Entity::Project(default_project())
    }

    /// What a right on a declared record is about. Parts of one entry share the entry's.
    pub fn of(record: &RecordKey) -> Self {
        match record {
            RecordKey::AuthGroup(name) => Entity::AuthGroup(name.clone()),
            RecordKey::ClusterLink(name) => Entity::ClusterLink(name.clone()),
            // It changes what exports and intentions mean, whoever wrote them.
            RecordKey::SamenessGroup(_) => Entity::Server,
            RecordKey::ServiceDefaults(name)
            | RecordKey::Service(name)
            | RecordKey::Instance { service: name, .. } => Entity::Service(name.clone()),
            RecordKey::ExportEntry | RecordKey::Export(_) => Entity::ExportedServices,
            RecordKey::IntentionEntry(destination) | RecordKey::Intention { destination, .. } => {
                Entity::ServiceIntentions(destination.clone())
            }
            RecordKey::Volume { pool, volume } => {
                Entity::Volume { pool: pool.clone(), volume: volume.clone() }
            }
            RecordKey::Transfer(name) => Entity::Transfer(name.clone()),
        }
    }

    /// The entity that a permission means; `None` if there can be none such.
    pub fn meant_by(permission: &Permission) -> Option<Self> {
        let entity = permission.entity.as_deref();
        let project = permission.project.as_deref();
        Some(match permission.entity_type.as_str() {
            "server" => Entity::Server,
            "project" => Entity::Project(entity.or(project).unwrap_or(DEFAULT_PROJECT).parse().ok()?),
            "group" => Entity::AuthGroup(entity?.parse().ok()?),
            "identity_provider_group" => Entity::IdentityProviderGroup(entity?.to_owned()),
            "cluster_link" => Entity::ClusterLink(entity?.parse().ok()?),
            // LXD writes an identity as METHOD/ID.
            "identity" => {
                let id = entity?;
                Entity::Identity(id.split_once('/').map_or(id, |(_, id)| id).parse().ok()?)
            }
            "certificate" => Entity::Certificate(entity?.parse().ok()?),
            "service" => Entity::Service(entity?.parse().ok()?),
            "exported_services" if entity.is_none_or(|name| name == "default") => Entity::ExportedServices,
            "service_intentions" => Entity::ServiceIntentions(entity?.parse().ok()?),
            "manifest" => Entity::Manifest(entity?.parse().ok()?),
            "storage_pool" => Entity::Pool(entity?.parse().ok()?),
            "storage_volume" if project.is_none_or(|name| name == DEFAULT_PROJECT) => Entity::Volume {
                pool: permission.pool.as_deref()?.parse().ok()?,
                volume: entity?.parse().ok()?,
            },
            "instance" => Entity::Instance {
                project: project.unwrap_or(DEFAULT_PROJECT).parse().ok()?,
                name: entity?.to_owned(),
            },
            "transfer" => Entity::Transfer(entity?.parse().ok()?),
            _ => return None,
        })
    }

    /// The word by which permissions name the type.
    pub fn entity_type(&self) -> &'static str {
        match self {
            Entity::Server => "server",
            Entity::Project(_) => "project",
            Entity::AuthGroup(_) => "group",
            Entity::IdentityProviderGroup(_) => "identity_provider_group",
            Entity::ClusterLink(_) => "cluster_link",
            Entity::Identity(_) => "identity",
            Entity::Certificate(_) => "certificate",
            Entity::Service(_) => "service",
            Entity::ExportedServices => "exported_services",
            Entity::ServiceIntentions(_) => "service_intentions",
            Entity::Manifest(_) => "manifest",
            Entity::Pool(_) => "storage_pool",
            Entity::Volume { .. } => "storage_volume",
            Entity::Instance { .. } => "instance",
            Entity::Transfer(_) => "transfer",
        }
    }

    /// Its name within its type; `None` for what there is one of.
    pub fn name(&self) -> Option<String> {
        Some(match self {
            Entity::Server | Entity::ExportedServices => return None,
            Entity::Project(name) => name.to_string(),
            Entity::AuthGroup(name) => name.to_string(),
            Entity::IdentityProviderGroup(name) | Entity::Instance { name, .. } => name.clone(),
            Entity::ClusterLink(name) => name.to_string(),
            Entity::Identity(id) => id.to_string(),
            Entity::Certificate(fingerprint) => fingerprint.to_string(),
            Entity::Service(name) => name.to_string(),
            Entity::ServiceIntentions(destination) => destination.to_string(),
            Entity::Manifest(name) => name.to_string(),
            Entity::Pool(name) => name.to_string(),
            Entity::Volume { pool, volume } => format!("{pool}/{volume}"),
            Entity::Transfer(name) => name.to_string(),
        })
    }

    /// The project that it is in, or is; `None` for what belongs to the whole server.
    pub fn project(&self) -> Option<ProjectName> {
        match self {
            Entity::Project(name) | Entity::Instance { project: name, .. } => Some(name.clone()),
            Entity::Volume { .. } => Some(default_project()),
            _ => None,
        }
    }
}

fn default_project() -> ProjectName {
    DEFAULT_PROJECT.parse().unwrap_or_else(|_| unreachable!("a constant name is a name"))
}
