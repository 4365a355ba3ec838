//! A set of auth groups, as an identity has them: sorted, without duplicates, and cheap to hand on with each request.

use std::ops::Deref;
use std::sync::Arc;

use schema::name::GroupName;
use serde::{Deserialize, Serialize};

/// The groups of an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<GroupName>")]
pub struct Groups(Arc<[GroupName]>);

impl Groups {
    pub fn contains(&self, group: &GroupName) -> bool {
        self.0.binary_search(group).is_ok()
    }

    /// Whether any of `sorted` is among them.
    pub fn meets(&self, sorted: &[GroupName]) -> bool {
        // Looks for the fewer in the more.
        if sorted.len() <= self.len() {
            sorted.iter().any(|group| self.contains(group))
        } else {
            self.iter().any(|group| sorted.binary_search(group).is_ok())
        }
    }

    /// These and `others`.
    #[must_use]
    pub fn and(&self, others: &Groups) -> Groups {
        if others.is_empty() { self.clone() } else { self.iter().chain(others.iter()).cloned().collect() }
    }
}

impl Default for Groups {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl From<Vec<GroupName>> for Groups {
    fn from(mut groups: Vec<GroupName>) -> Self {
        groups.sort_unstable();
        groups.dedup();
        Self(groups.into())
    }
}

impl FromIterator<GroupName> for Groups {
    fn from_iter<I: IntoIterator<Item = GroupName>>(groups: I) -> Self {
        groups.into_iter().collect::<Vec<_>>().into()
    }
}

impl Deref for Groups {
    type Target = [GroupName];
    fn deref(&self) -> &[GroupName] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_set() {
        let of = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Groups>();
        let groups = of(&["ops", "dev", "ops"]);
        assert_eq!(serde_json::to_string(&groups).unwrap(), r#"["dev","ops"]"#);
        assert!(groups.contains(&"ops".parse().unwrap()) && !groups.contains(&"web".parse().unwrap()));
        assert_eq!(groups.and(&of(&["web", "dev"])), of(&["dev", "ops", "web"]));
    }
}
