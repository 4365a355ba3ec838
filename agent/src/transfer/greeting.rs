//! The first words of a transfer: what the source offers, and what of it the target takes.

use std::collections::BTreeSet;

use schema::name::SnapshotName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the conversation. A side that knows another says so, in words that both show.
pub const VERSION: u32 = 3;

/// What a source offers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
    /// What the target makes its records of.
    #[serde(default)]
    pub header: Value,
    /// Oldest first.
    #[serde(default)]
    pub snapshots: Vec<SnapshotName>,
    /// The tree itself, its snapshots apart, may change while it is read: it can be read once only.
    #[serde(default)]
    pub once: bool,
}

/// What a target takes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Choice {
    /// Snapshots, oldest first; the tree itself is always taken.
    #[serde(default)]
    pub take: Vec<SnapshotName>,
    /// There is nothing here that could be of use: the first tree is to be sent as it is read. One that is read once is
    /// in any case.
    #[serde(default)]
    pub eager: bool,
}

impl Hello {
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Whether a snapshot is named twice. Two trees would be built in one place, and the second be taken for the first.
    pub fn repeats_itself(&self) -> bool {
        let mut names = BTreeSet::new();
        !self.snapshots.iter().all(|name| names.insert(name))
    }
}

impl Choice {
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_once() {
        for (named, repeats) in [("[]", false), (r#"["s", "t"]"#, false), (r#"["s", "t", "s"]"#, true)] {
            let offered = format!(r#"{{ "version": 1, "snapshots": {named} }}"#);
            assert_eq!(Hello::decode(offered.as_bytes()).unwrap().repeats_itself(), repeats, "{named}");
        }
    }
}
