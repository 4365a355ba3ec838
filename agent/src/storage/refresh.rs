//! What a refresh is about to do to a dataset's snapshots, written down before it is done: after a crash their records
//! are made to say what is on disk by then.

use std::collections::BTreeMap;

use schema::name::SnapshotName;
use serde::{Deserialize, Serialize};

use crate::dataset::chunk::Hash;

/// The snapshots that come and go in one step on disk. `R` is a snapshot's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh<R> {
    /// What was in those of them that were there.
    before: BTreeMap<SnapshotName, Hash>,
    take: BTreeMap<SnapshotName, R>,
    drop: Vec<SnapshotName>,
}

impl<R: Clone> Refresh<R> {
    /// `on_disk` is what the dataset's snapshots hold at the moment.
    pub fn new(
        mut on_disk: BTreeMap<SnapshotName, Hash>,
        take: BTreeMap<SnapshotName, R>,
        drop: Vec<SnapshotName>,
    ) -> Self {
        on_disk.retain(|name, _| take.contains_key(name) || drop.contains(name));
        Self { before: on_disk, take, drop }
    }

    pub fn is_empty(&self) -> bool {
        self.take.is_empty() && self.drop.is_empty()
    }

    /// Whether it has been done on disk. It is one step there: all of it or nothing.
    pub fn is_done(&self, on_disk: &BTreeMap<SnapshotName, Hash>) -> bool {
        let gone = |name: &SnapshotName| self.take.contains_key(name) || !on_disk.contains_key(name);
        let whole = self.take.keys().all(|name| on_disk.contains_key(name)) && self.drop.iter().all(gone);
        let differs = |name: &SnapshotName| on_disk.get(name) != self.before.get(name);
        whole && self.take.keys().chain(&self.drop).any(differs)
    }

    /// Makes the records those of what is on disk then.
    pub fn put(&self, records: &mut BTreeMap<SnapshotName, R>) {
        records.retain(|name, _| !self.drop.contains(name));
        records.extend(self.take.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SnapshotName {
        text.parse().unwrap()
    }

    fn held<T: Copy>(all: &[(&str, T)]) -> BTreeMap<SnapshotName, T> {
        all.iter().map(|(text, what)| (name(text), *what)).collect()
    }

    #[test]
    fn what_is_on_disk_tells_whether_it_was_done() {
        let (one, two) = (Hash::of(b"one"), Hash::of(b"two"));
        let before = held(&[("old", one), ("kept", two)]);
        let pruned = Refresh::new(before.clone(), held(&[("new", 2)]), vec![name("old")]);
        assert!(!pruned.is_done(&before));
        assert!(pruned.is_done(&held(&[("kept", two), ("new", two)])));
        // Somebody deleted one by hand: that is not the step.
        assert!(!pruned.is_done(&held(&[("kept", two)])));
        let mut records = held(&[("old", 1), ("kept", 1)]);
        pruned.put(&mut records);
        assert_eq!(records, held(&[("kept", 1), ("new", 2)]));

        // One of the same name, taken anew.
        let again = Refresh::new(before.clone(), held(&[("old", 2)]), vec![name("old")]);
        assert!(!again.is_done(&before));
        assert!(again.is_done(&held(&[("old", two), ("kept", two)])));
        // What is not in it tells nothing.
        assert!(!again.is_done(&held(&[("old", one), ("another", two)])));
    }
}
