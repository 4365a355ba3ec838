//! A set of auth groups, as an identity has them: sorted, without duplicates, and cheap to hand on with each request.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use schema::name::GroupName;
use serde::{Deserialize, Serialize, Serializer};

/// The groups of an identity.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Vec<GroupName>")]
pub struct Groups(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Sorted.
    names: Box<[GroupName]>,
    /// A bit for each of their numbers.
    bits: Box<[u64]>,
}

/// The number of a group's name, the same for as long as this process runs: decisions compare numbers, as comparing the
/// names of a thousand groups would take them fifty microseconds.
pub fn number(group: &GroupName) -> u32 {
    static NUMBERS: LazyLock<Mutex<HashMap<GroupName, u32>>> = LazyLock::new(Mutex::default);
    // One insertion is all that is ever done to it, so a panic elsewhere cannot have torn it.
    let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(number) = numbers.get(group) {
        return *number;
    }
    let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
    numbers.insert(group.clone(), next);
    next
}

impl Groups {
    pub fn contains(&self, group: &GroupName) -> bool {
        self.0.names.binary_search(group).is_ok()
    }

    /// Whether any group of these numbers is among them.
    pub fn meets(&self, numbers: &[u32]) -> bool {
        let bits = &self.0.bits;
        numbers.iter().any(|number| {
            let (word, bit) = (*number as usize / 64, number % 64);
            bits.get(word).is_some_and(|word| word >> bit & 1 == 1)
        })
    }

    /// These and `others`.
    #[must_use]
    pub fn and(&self, others: &Groups) -> Groups {
        if others.is_empty() { self.clone() } else { self.iter().chain(others.iter()).cloned().collect() }
    }
}

impl Default for Groups {
    fn default() -> Self {
        Self(Arc::new(Inner { names: Box::default(), bits: Box::default() }))
    }
}

impl PartialEq for Groups {
    fn eq(&self, other: &Self) -> bool {
        self.0.names == other.0.names
    }
}

impl Eq for Groups {}

impl Serialize for Groups {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.names.serialize(serializer)
    }
}

impl From<Vec<GroupName>> for Groups {
    fn from(mut groups: Vec<GroupName>) -> Self {
        groups.sort_unstable();
        groups.dedup();
        let mut bits = Vec::new();
        for number in groups.iter().map(number) {
            let word = number as usize / 64;
            if bits.len() <= word {
                bits.resize(word + 1, 0_u64);
            }
            bits[word] |= 1 << (number % 64);
        }
        Self(Arc::new(Inner { names: groups.into(), bits: bits.into() }))
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
        &self.0.names
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
        let (ops, web) = (number(&"ops".parse().unwrap()), number(&"web".parse().unwrap()));
        assert!(groups.meets(&[web, ops]) && !groups.meets(&[web]) && !groups.meets(&[]));
        assert_eq!(groups.and(&of(&["web", "dev"])), of(&["dev", "ops", "web"]));
    }
}
