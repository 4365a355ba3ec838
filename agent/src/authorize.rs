//! What a caller may do: one pure decision, whose answer is a value that the acting function demands.
//!
//! The model is LXD's and only adds: a right is an entitlement on an entity, held through a group's permission, or
//! because the table in `rule` grants it to holders of another. There is nothing to take a right away again. The unix
//! socket and unrestricted clients hold every right; who shows no known certificate holds none.

use schema::name::{GroupName, LinkName, ManifestName, PoolName, ServiceName, TransferName, VolumeName};
use schema::record::{RecordKey, ServiceMatch};

use crate::trust::identity::Policy;
use crate::trust::{Access, Caller, Fingerprint, Permission};

mod rule;
#[cfg(test)]
mod tests;

pub use rule::Entitlement;

/// What a right is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entity {
    Server,
    /// Projects are LXD's; there is one here, `default`.
    Project,
    AuthGroup(GroupName),
    ClusterLink(LinkName),
    Identity(Fingerprint),
    Certificate(Fingerprint),
    Service(ServiceName),
    /// The one export list.
    ExportedServices,
    /// All intentions towards one destination.
    ServiceIntentions(ServiceMatch),
    Manifest(ManifestName),
    Pool(PoolName),
    Volume {
        pool: PoolName,
        volume: VolumeName,
    },
    Transfer(TransferName),
}

impl Entity {
    /// What a right on a declared record is about. Parts of one entry share the entry's.
    pub fn of(record: &RecordKey) -> Self {
        match record {
            RecordKey::AuthGroup(name) => Entity::AuthGroup(name.clone()),
            RecordKey::ClusterLink(name) => Entity::ClusterLink(name.clone()),
            RecordKey::Service(name) => Entity::Service(name.clone()),
            RecordKey::Export(_) => Entity::ExportedServices,
            RecordKey::Intention { destination, .. } => Entity::ServiceIntentions(destination.clone()),
            RecordKey::Volume { pool, volume } => {
                Entity::Volume { pool: pool.clone(), volume: volume.clone() }
            }
            RecordKey::Transfer(name) => Entity::Transfer(name.clone()),
        }
    }

    /// The word by which permissions name the type.
    fn entity_type(&self) -> &'static str {
        match self {
            Entity::Server => "server",
            Entity::Project => "project",
            Entity::AuthGroup(_) => "group",
            Entity::ClusterLink(_) => "cluster_link",
            Entity::Identity(_) => "identity",
            Entity::Certificate(_) => "certificate",
            Entity::Service(_) => "service",
            Entity::ExportedServices => "exported_services",
            Entity::ServiceIntentions(_) => "service_intentions",
            Entity::Manifest(_) => "manifest",
            Entity::Pool(_) => "storage_pool",
            Entity::Volume { .. } => "storage_volume",
            Entity::Transfer(_) => "transfer",
        }
    }

    /// Whether a permission's reference means this entity; its type has been compared already.
    fn is_meant_by(&self, permission: &schema::kind::auth_group::Permission) -> bool {
        let entity = permission.entity.as_deref();
        let named = |name: &str| entity == Some(name);
        match self {
            Entity::Server => true,
            Entity::Project => entity.or(permission.project.as_deref()).is_none_or(|name| name == PROJECT),
            Entity::AuthGroup(name) => named(name.as_str()),
            Entity::ClusterLink(name) => named(name.as_str()),
            // LXD writes an identity as METHOD/ID.
            Entity::Identity(fingerprint) => {
                entity.map(|entity| entity.strip_prefix("tls/").unwrap_or(entity))
                    == Some(fingerprint.to_string().as_str())
            }
            Entity::Certificate(fingerprint) => named(&fingerprint.to_string()),
            Entity::Service(name) => named(name.as_str()),
            Entity::ExportedServices => entity.is_none_or(|name| name == "default"),
            Entity::ServiceIntentions(destination) => named(&destination.to_string()),
            Entity::Manifest(name) => named(name.as_str()),
            Entity::Pool(name) => named(name.as_str()),
            Entity::Volume { pool, volume } => {
                permission.pool.as_deref() == Some(pool.as_str())
                    && named(volume.as_str())
                    && permission.project.as_deref().is_none_or(|name| name == PROJECT)
            }
            Entity::Transfer(name) => named(name.as_str()),
        }
    }
}

/// The one project.
const PROJECT: &str = "default";

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
    /// Nobody knows the caller, so nothing was asked about its rights.
    #[error("untrusted: {0}")]
    Untrusted(String),
}

/// Whether `caller` holds `entitlement` on `entity`.
pub fn decide(
    caller: &Caller,
    entitlement: Entitlement,
    entity: Entity,
    policy: &Policy,
) -> Result<Permit, Denied> {
    let groups = match caller {
        Caller::Local { .. } | Caller::Client { access: Access::Unrestricted, .. } => {
            return Ok(Permit { caller: caller.clone(), entitlement, entity });
        }
        Caller::Anonymous { certificate: None } => {
            return Err(Denied::Untrusted("no certificate was shown".to_owned()));
        }
        Caller::Anonymous { certificate: Some(fingerprint) } => {
            return Err(Denied::Untrusted(format!("certificate {fingerprint} is not trusted")));
        }
        Caller::Client { access: Access::Groups(groups), .. } | Caller::Peer { groups, .. } => groups,
    };
    let holder = Holder { caller, groups, policy };
    if holder.holds(entitlement, &entity) {
        return Ok(Permit { caller: caller.clone(), entitlement, entity });
    }
    let reason = format!("{caller} has no {} on {} {entity:?}", entitlement.as_str(), entity.entity_type());
    let hidden = rule::is_viewable(entity.entity_type())
        && (entitlement == Entitlement::CanView || !holder.holds(Entitlement::CanView, &entity));
    Err(if hidden { Denied::NotFound(reason) } else { Denied::Forbidden(reason) })
}

/// Some things are for everybody who is known here, such as lists that show what each may see.
pub fn require_trust(caller: &Caller) -> Result<(), Denied> {
    if caller.is_trusted() {
        Ok(())
    } else {
        Err(Denied::Untrusted("this is for trusted callers".to_owned()))
    }
}

struct Holder<'a> {
    caller: &'a Caller,
    groups: &'a [GroupName],
    policy: &'a Policy,
}

impl Holder<'_> {
    fn holds(&self, entitlement: Entitlement, entity: &Entity) -> bool {
        self.is_own(entitlement, entity)
            || self.granted("admin", &Entity::Server)
            || self.holds_word(entitlement.as_str(), entity)
    }

    /// Anybody may see and give up its own identity, and see the groups that it is in.
    fn is_own(&self, entitlement: Entitlement, entity: &Entity) -> bool {
        match entity {
            Entity::Identity(fingerprint) | Entity::Certificate(fingerprint) => {
                matches!(entitlement, Entitlement::CanView | Entitlement::CanDelete)
                    && self.caller.fingerprint() == Some(*fingerprint)
            }
            Entity::AuthGroup(name) => entitlement == Entitlement::CanView && self.groups.contains(name),
            _ => false,
        }
    }

    fn holds_word(&self, word: &str, entity: &Entity) -> bool {
        self.granted(word, entity)
            || rule::also_granted_to(entity.entity_type(), word).iter().any(|(place, word)| match place {
                rule::Place::Same => self.holds_word(word, entity),
                rule::Place::Project => self.holds_word(word, &Entity::Project),
                rule::Place::Server => self.holds_word(word, &Entity::Server),
            })
    }

    /// Whether a group says so itself.
    fn granted(&self, word: &str, entity: &Entity) -> bool {
        self.groups.iter().filter_map(|group| self.policy.groups.get(group)).flatten().any(|permission| {
            permission.entitlement == word
                && permission.entity_type == entity.entity_type()
                && entity.is_meant_by(permission)
        })
    }
}
