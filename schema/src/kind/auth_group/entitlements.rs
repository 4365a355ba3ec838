//! What permissions can name: entity types, their entitlements, and which is also granted to holders of which other.
//!
//! The table is LXD's for the types that exist here (`reference` section 2.2 is restated in
//! `testdata/entitlements/lxd.txt`, against which the agent tests it row by row), then our own types in the same way.

mod table;

pub use table::ENTITY_TYPES;

/// A type of entity that permissions can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityType {
    pub name: &'static str,
    /// In LXD's order; the roles stand among them.
    pub entitlements: &'static [Entitled],
}

/// One entitlement on entities of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entitled {
    pub word: &'static str,
    /// Holders of any of these hold it too. The server's `admin` holds everything, which is written down only where
    /// LXD writes it down.
    pub also: &'static [(Place, &'static str)],
}

/// Where the other entitlement must be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the same entity.
    Same,
    /// On the project that the entity is in.
    Project,
    Server,
}

impl EntityType {
    /// The entitlement of this name.
    pub fn entitlement(&self, word: &str) -> Option<&'static Entitled> {
        self.entitlements.iter().find(|entitled| entitled.word == word)
    }

    /// Every entitlement's name.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        self.entitlements.iter().map(|entitled| entitled.word)
    }
}

/// The entity type of this name, if permissions can be on such.
pub fn entity_type(name: &str) -> Option<&'static EntityType> {
    ENTITY_TYPES.iter().find(|entity_type| entity_type.name == name)
}

/// Whether there is such an entitlement on such entities.
pub fn is_known(entity_type_name: &str, word: &str) -> bool {
    entity_type(entity_type_name).is_some_and(|entity_type| entity_type.entitlement(word).is_some())
}

/// The group that is always there and that nobody can change: its members are administrators of the server (LXD).
pub const ADMINS: &str = "admins";

/// Entity types of LXD that no cluster has here, so that a message can say so.
pub const NOT_HERE: &[&str] = &[
    "image",
    "image_alias",
    "network",
    "network_acl",
    "network_zone",
    "profile",
    "storage_bucket",
    "placement_group",
    "replicator",
];

/// Entity types of LXD on which nothing can be granted: rights on them come from what they belong to.
pub const DERIVED: &[&str] = &[
    "container",
    "instance_backup",
    "instance_snapshot",
    "storage_volume_backup",
    "storage_volume_snapshot",
    "cluster_member",
    "cluster_group",
    "operation",
    "warning",
];

/// What a permission on an entity type says besides type and entitlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    pub entity: bool,
    pub project: bool,
    pub pool: bool,
}

/// What a permission on `entity_type` needs: a server is the one there is, the rest are named.
pub fn needs(entity_type: &str) -> Needs {
    Needs {
        entity: entity_type != "server",
        project: matches!(entity_type, "instance" | "storage_volume"),
        pool: entity_type == "storage_volume",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entitlement_stands_once_and_leans_on_such_as_exist() {
        for EntityType { name, entitlements } in ENTITY_TYPES {
            let mut sorted: Vec<&str> = entitlements.iter().map(|entitled| entitled.word).collect();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), entitlements.len(), "{name}");
            // Readers keep a set of a type's entitlements in one integer.
            assert!(entitlements.len() <= 128, "{name}");
            for (word, also) in entitlements.iter().flat_map(|e| e.also.iter().map(|also| (e.word, also))) {
                let held_on = match also.0 {
                    Place::Same => name,
                    Place::Project => "project",
                    Place::Server => "server",
                };
                assert!(is_known(held_on, also.1), "{name} {word} <- {} on {held_on}", also.1);
            }
        }
    }

    #[test]
    fn a_type_is_here_or_is_not() {
        for absent in NOT_HERE.iter().chain(DERIVED) {
            assert!(entity_type(absent).is_none(), "{absent}");
        }
    }
}
