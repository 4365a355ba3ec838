//! What a caller may do: one pure decision, whose answer is a value that the acting function demands.
//!
//! The model is LXD's and only adds: a right is an entitlement on an entity, held through a group's permission, or
//! because the table in `rule` grants it to holders of another. There is nothing to take a right away again. The unix
//! socket and unrestricted clients hold every right; who shows no known certificate holds none.

use std::fmt;

use crate::trust::policy::Policy;
use crate::trust::{Access, Caller, Groups, Permission, Who};

mod restricted;
mod rule;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;

pub use crate::trust::entity::Entity;
pub use rule::Entitlement;

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

/// A refusal. The answer tells only which of the three; the reason is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caller may not even know whether the entity exists.
    #[error("not found: {0}")]
    NotFound(Reason),
    #[error("forbidden: {0}")]
    Forbidden(Reason),
    /// Nobody knows the caller, so nothing was asked about its rights.
    #[error("untrusted: {0}")]
    Untrusted(String),
}

impl Denied {
    /// Who lacks what on what, for surfaces whose clients expect to be told; `None` if nobody knows the caller.
    pub fn lacking(&self) -> Option<(&Caller, Entitlement, &Entity)> {
        match self {
            Denied::NotFound(Reason(reason)) | Denied::Forbidden(Reason(reason)) => {
                let (caller, entitlement, entity) = &**reason;
                Some((caller, *entitlement, entity))
            }
            Denied::Untrusted(_) => None,
        }
    }
}

/// Why, put into words only when somebody reads it: lists ask once for each of their items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(Box<(Caller, Entitlement, Entity)>);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (caller, entitlement, entity) = &*self.0;
        write!(f, "{caller} has no {} on {} {entity:?}", entitlement.as_str(), entity.entity_type())
    }
}

/// Whether `caller` holds `entitlement` on `entity`.
pub fn decide(
    caller: &Caller,
    entitlement: Entitlement,
    entity: Entity,
    policy: &Policy,
) -> Result<Permit, Denied> {
    match &caller.who {
        Who::Local { .. } | Who::Signed { .. } | Who::Client { access: Access::Unrestricted, .. } => {}
        Who::Node { id, .. } => {
            return Err(Denied::Untrusted(format!("node {id} is a member to be, and no client")));
        }
        Who::Anonymous { certificate: None } => {
            return Err(Denied::Untrusted("no certificate was shown".to_owned()));
        }
        Who::Anonymous { certificate: Some(fingerprint) } => {
            return Err(Denied::Untrusted(format!("certificate {fingerprint} is not trusted")));
        }
        Who::Metrics { .. } if (entitlement, &entity) == (Entitlement::CanViewMetrics, &Entity::Server) => {}
        Who::Metrics { name, .. } => {
            return Err(Denied::Untrusted(format!("certificate {name:?} is for metrics only")));
        }
        Who::Client { access: Access::Projects(projects), .. } => {
            // LXD answers 403 here, for what it hides from others too.
            if !restricted::allows(caller, projects, entitlement, &entity) {
                return Err(Denied::Forbidden(reason(caller, entitlement, entity)));
            }
        }
        Who::Client { access: Access::Groups(groups), .. } | Who::Peer { groups, .. } => {
            let holder = Holder { caller, groups, policy };
            if !holder.holds(entitlement, &entity) {
                let hidden = rule::is_viewable(entity.entity_type())
                    && (entitlement == Entitlement::CanView || !holder.holds(Entitlement::CanView, &entity));
                let reason = reason(caller, entitlement, entity);
                return Err(if hidden { Denied::NotFound(reason) } else { Denied::Forbidden(reason) });
            }
        }
    }
    Ok(Permit { caller: caller.clone(), entitlement, entity })
}

fn reason(caller: &Caller, entitlement: Entitlement, entity: Entity) -> Reason {
    Reason(Box::new((caller.clone(), entitlement, entity)))
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
    groups: &'a Groups,
    policy: &'a Policy,
}

impl Holder<'_> {
    fn holds(&self, entitlement: Entitlement, entity: &Entity) -> bool {
        if self.is_own(entitlement, entity) {
            return true;
        }
        let would_do = rule::sufficient(entity.entity_type(), entitlement);
        self.granted(would_do.server, &Entity::Server)
            || self.granted(would_do.same, entity)
            || would_do.project != 0
                && entity.project().is_some_and(|name| self.granted(would_do.project, &Entity::Project(name)))
    }

    /// Anybody may see and give up its own identity, and see the groups that it is in.
    fn is_own(&self, entitlement: Entitlement, entity: &Entity) -> bool {
        match entity {
            Entity::Identity(_) | Entity::Certificate(_) => {
                matches!(entitlement, Entitlement::CanView | Entitlement::CanDelete)
                    && is_callers(self.caller, entity)
            }
            Entity::AuthGroup(name) => entitlement == Entitlement::CanView && self.groups.contains(name),
            _ => false,
        }
    }

    /// Whether a group of the caller's grants any of these entitlements on `entity`.
    fn granted(&self, any_of: rule::Words, entity: &Entity) -> bool {
        let grants = self.policy.grants_on(entity);
        grants.iter().any(|grant| any_of & grant.word != 0 && self.groups.meets(&grant.by))
    }
}

/// Whether an entity is the caller's own identity.
fn is_callers(caller: &Caller, entity: &Entity) -> bool {
    match entity {
        Entity::Identity(id) => caller.id().as_ref() == Some(id),
        Entity::Certificate(fingerprint) => caller.fingerprint() == Some(*fingerprint),
        _ => false,
    }
}
