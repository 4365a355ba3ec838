//! What groups add up to, arranged for the question that each request asks: who grants this on that?
//!
//! Looking through every permission of every group of the caller took 1.3 ms with 1,000 groups of 100 permissions.
//! With the grants indexed by entity it is one lookup for each entitlement that would do, however many groups there
//! are; `integration/benches` has the figure.

use std::collections::{BTreeMap, HashMap};

use schema::kind::auth_group::entitlements::{ADMINS, entity_type};
use schema::kind::auth_group::{ADMINS_PERMISSIONS, Permission};
use schema::name::GroupName;

use super::Groups;
use super::entity::Entity;
use super::groups::number;

/// The groups, and what each grants: read by `authorize::decide`. The group of administrators is always there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    groups: BTreeMap<GroupName, Vec<Permission>>,
    grants: HashMap<Entity, Vec<Grant>>,
    /// By the name that the identity provider has for it.
    provider_groups: BTreeMap<String, Groups>,
}

/// Who grants one entitlement on one entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The bit of the entitlement, in the order in which its entity type's table has them.
    pub word: u128,
    /// The numbers of the groups that grant it, sorted.
    pub by: Vec<u32>,
}

impl Default for Policy {
    fn default() -> Self {
        let mut policy =
            Self { groups: BTreeMap::new(), grants: HashMap::new(), provider_groups: BTreeMap::new() };
        policy.write(admins(), ADMINS_PERMISSIONS.clone());
        policy
    }
}

/// The group that is always there.
pub fn admins() -> GroupName {
    ADMINS.parse().unwrap_or_else(|_| unreachable!("a constant name is a name"))
}

impl Policy {
    /// Puts a group in place of what it was. The one of administrators stays what it is.
    pub fn put(&mut self, group: GroupName, permissions: Vec<Permission>) {
        if group.as_str() != ADMINS {
            self.erase(&group);
            self.write(group, permissions);
        }
    }

    pub fn remove(&mut self, group: &GroupName) {
        if group.as_str() != ADMINS {
            self.erase(group);
        }
    }

    /// Forgets every group but the one of administrators; the mappings of an identity provider's groups stay.
    pub fn clear_groups(&mut self) {
        let provider_groups = std::mem::take(&mut self.provider_groups);
        *self = Self { provider_groups, ..Self::default() };
    }

    fn write(&mut self, group: GroupName, permissions: Vec<Permission>) {
        let number = number(&group);
        for (entity, word) in permissions.iter().filter_map(granted) {
            let grants = self.grants.entry(entity).or_default();
            let at = grants.iter().position(|grant| grant.word == word).unwrap_or_else(|| {
                grants.push(Grant { word, by: Vec::new() });
                grants.len() - 1
            });
            let by = &mut grants[at].by;
            if let Err(at) = by.binary_search(&number) {
                by.insert(at, number);
            }
        }
        self.groups.insert(group, permissions);
    }

    fn erase(&mut self, group: &GroupName) {
        let number = number(group);
        for (entity, word) in self.groups.remove(group).iter().flatten().filter_map(granted) {
            let Some(grants) = self.grants.get_mut(&entity) else { continue };
            for grant in grants.iter_mut().filter(|grant| grant.word == word) {
                if let Ok(at) = grant.by.binary_search(&number) {
                    grant.by.remove(at);
                }
            }
            grants.retain(|grant| !grant.by.is_empty());
            if grants.is_empty() {
                self.grants.remove(&entity);
            }
        }
    }

    pub fn contains(&self, group: &GroupName) -> bool {
        self.groups.contains_key(group)
    }

    /// Every group with its permissions, by name.
    pub fn groups(&self) -> impl Iterator<Item = (&GroupName, &[Permission])> {
        self.groups.iter().map(|(name, permissions)| (name, permissions.as_slice()))
    }

    /// What one group grants.
    pub fn permissions(&self, group: &GroupName) -> &[Permission] {
        self.groups.get(group).map_or(&[], Vec::as_slice)
    }

    /// Who grants what on `entity` itself.
    pub fn grants_on(&self, entity: &Entity) -> &[Grant] {
        self.grants.get(entity).map_or(&[], Vec::as_slice)
    }

    /// Maps a group of the identity provider's to these of ours (LXD: identity provider group).
    pub fn put_provider_group(&mut self, name: String, groups: Groups) {
        self.provider_groups.insert(name, groups);
    }

    pub fn remove_provider_group(&mut self, name: &str) {
        self.provider_groups.remove(name);
    }

    pub fn clear_provider_groups(&mut self) {
        self.provider_groups.clear();
    }

    /// The identity provider's groups that are mapped, by name.
    pub fn provider_groups(&self) -> &BTreeMap<String, Groups> {
        &self.provider_groups
    }

    /// What the groups that an identity provider vouches for are worth here: those of ours that they are mapped to and
    /// that exist. A name that nobody mapped is worth nothing.
    pub fn groups_for_provider_groups(&self, claimed: &[String]) -> Groups {
        let mapped = claimed.iter().filter_map(|name| self.provider_groups.get(name));
        mapped.flat_map(|groups| groups.iter()).filter(|group| self.contains(group)).cloned().collect()
    }
}

/// What a permission grants. One that names what cannot be grants nothing.
fn granted(permission: &Permission) -> Option<(Entity, u128)> {
    let known = entity_type(&permission.entity_type)?;
    let at = known.words().position(|word| word == permission.entitlement)?;
    Some((Entity::meant_by(permission)?, 1 << at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(entity_type: &str, entitlement: &str, entity: Option<&str>) -> Permission {
        Permission {
            entity_type: entity_type.to_owned(),
            entitlement: entitlement.to_owned(),
            entity: entity.map(str::to_owned),
            project: None,
            pool: None,
        }
    }

    #[test]
    fn a_group_that_is_replaced_or_removed_grants_no_more() {
        let (ops, dev): (GroupName, GroupName) = ("ops".parse().unwrap(), "dev".parse().unwrap());
        let west = Entity::ClusterLink("west".parse().unwrap());
        let mut policy = Policy::default();
        policy.put(ops.clone(), vec![permission("cluster_link", "can_view", Some("west"))]);
        policy.put(dev.clone(), vec![permission("cluster_link", "can_view", Some("west"))]);
        let by = |policy: &Policy, entity| policy.grants_on(entity)[0].by.clone();
        let mut both = [number(&dev), number(&ops)];
        both.sort_unstable();
        assert_eq!(by(&policy, &west), both);
        policy.put(ops.clone(), vec![permission("server", "viewer", None)]);
        assert_eq!(by(&policy, &west), [number(&dev)]);
        assert_eq!(policy.grants_on(&Entity::Server).len(), 2, "admins' and ops'");
        policy.remove(&dev);
        assert!(policy.grants_on(&west).is_empty() && policy.grants.len() == 1);
        policy.remove(&ops);
        assert_eq!(policy, Policy::default());
    }

    #[test]
    fn administrators_cannot_be_changed() {
        let mut policy = Policy::default();
        policy.put(admins(), Vec::new());
        policy.remove(&admins());
        policy.clear_groups();
        assert_eq!(policy.permissions(&admins()), ADMINS_PERMISSIONS.as_slice());
    }

    #[test]
    fn a_claim_is_worth_the_groups_that_it_is_mapped_to() {
        let groups = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Groups>();
        let mut policy = Policy::default();
        for group in ["dev", "ops"] {
            policy.put(group.parse().unwrap(), Vec::new());
        }
        policy.put_provider_group("engineering".to_owned(), groups(&["dev", "gone"]));
        policy.put_provider_group("on-call".to_owned(), groups(&["ops", "dev"]));
        let worth = |claimed: &[&str]| {
            policy
                .groups_for_provider_groups(&claimed.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(worth(&["engineering"]), groups(&["dev"]), "a group that is gone is worth nothing");
        assert_eq!(worth(&["engineering", "on-call", "nobody"]), groups(&["dev", "ops"]));
        assert_eq!(worth(&["dev", "ops", "Engineering"]), Groups::default(), "our own names are not theirs");
    }
}
