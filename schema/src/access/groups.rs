//! The sameness groups, by name and by member.

use std::collections::BTreeMap;

use crate::kind::sameness_group::SamenessGroup;
use crate::name::{LinkName, SamenessGroupName};

/// Every sameness group of a cluster, laid out so that a member's groups are one lookup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    by_name: BTreeMap<SamenessGroupName, SamenessGroup>,
    /// Sorted by name; `None` for this cluster.
    of: BTreeMap<Option<LinkName>, Vec<SamenessGroupName>>,
}

impl Groups {
    /// Adds, replaces or, for `None`, removes a group.
    pub fn set(&mut self, name: &SamenessGroupName, group: Option<&SamenessGroup>) {
        let _ = match group {
            Some(group) => self.by_name.insert(name.clone(), group.clone()),
            None => self.by_name.remove(name),
        };
        let mut of: BTreeMap<Option<LinkName>, Vec<SamenessGroupName>> = BTreeMap::new();
        for (name, group) in &self.by_name {
            let local = group.include_local.then_some(None);
            for member in group.members.iter().cloned().map(Some).chain(local) {
                of.entry(member).or_default().push(name.clone());
            }
        }
        self.of = of;
    }

    pub fn get(&self, name: &SamenessGroupName) -> Option<&SamenessGroup> {
        self.by_name.get(name)
    }

    /// The groups that a peer, or with `None` this cluster, is a member of.
    pub fn of(&self, member: Option<&LinkName>) -> &[SamenessGroupName] {
        if self.by_name.is_empty() {
            return &[];
        }
        self.of.get(&member.cloned()).map_or(&[], Vec::as_slice)
    }

    /// Whether the peer behind `link` is a member of the group.
    pub fn has(&self, name: &SamenessGroupName, link: &LinkName) -> bool {
        self.by_name.get(name).is_some_and(|group| group.members.contains(link))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&SamenessGroupName, &SamenessGroup)> {
        self.by_name.iter()
    }
}
