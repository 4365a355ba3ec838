//! What a caller may do: one pure decision, whose answer is a value that the acting function demands.

use schema::name::{GroupName, LinkName, PoolName, ServiceName, VolumeName};

use crate::trust::identity::Policy;
use crate::trust::{Access, Caller, Fingerprint, Permission};

/// What a right is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entity {
    Server,
    AuthGroup(GroupName),
    ClusterLink(LinkName),
    Identity(Fingerprint),
    Certificate(Fingerprint),
    Service(ServiceName),
    Pool(PoolName),
    Volume {
        pool: PoolName,
        volume: VolumeName,
    },
    /// Projects are LXD's; there is one here, `default`.
    Project,
}

/// A right on an entity (LXD: entitlement).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entitlement {
    Admin,
    CanView,
    CanEdit,
    CanDelete,
    CanCreateIdentities,
    CanViewIdentities,
    CanEditIdentities,
    CanDeleteIdentities,
    CanCreateGroups,
    CanViewGroups,
    CanEditGroups,
    CanDeleteGroups,
    CanCreateClusterLinks,
    CanViewClusterLinks,
    CanEditClusterLinks,
    CanDeleteClusterLinks,
    CanViewPermissions,
    CanCreateStoragePools,
    CanEditStoragePools,
    CanDeleteStoragePools,
    CanViewProjects,
    CanEditProjects,
    CanViewEvents,
    CanViewOperations,
    CanViewResources,
    CanViewMetrics,
    CanCreateStorageVolumes,
    CanViewStorageVolumes,
    CanEditStorageVolumes,
    CanDeleteStorageVolumes,
    CanManageSnapshots,
    CanManageBackups,
}

/// Proof that `decide` said yes. Cannot be made elsewhere.
#[derive(Debug, Clone)]
pub struct Permit {
    caller: Caller,
    entitlement: Entitlement,
    entity: Entity,
}

impl Permit {
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
    pub fn entitlement(&self) -> Entitlement {
        self.entitlement
    }
    pub fn entity(&self) -> &Entity {
        &self.entity
    }
}

impl Permission for Permit {
    fn caller(&self) -> &Caller {
        &self.caller
    }
}

/// A refusal. The answer tells only which of the two; the reason is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caller may not even know whether the entity exists.
    #[error("not found: {0}")]
    NotFound(String),
    #[error("forbidden: {0}")]
    Forbidden(String),
}

/// Whether `caller` holds `entitlement` on `entity`.
pub fn decide(
    caller: &Caller,
    entitlement: Entitlement,
    entity: Entity,
    policy: &Policy,
) -> Result<Permit, Denied> {
    let _ = policy;
    match caller {
        Caller::Local { .. } | Caller::Client { access: Access::Unrestricted, .. } => {
            Ok(Permit { caller: caller.clone(), entitlement, entity })
        }
        _ => Err(Denied::Forbidden(format!("{caller} has no such right"))),
    }
}
