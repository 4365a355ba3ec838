//! Which snapshots of a source a target takes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schema::kind::transfer::Mode;
use schema::name::SnapshotName;

use crate::transfer::shipment::Chosen;

/// What becomes of snapshots that the target alone has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    Keep,
    /// They go, as with LXD.
    Prune,
}

/// A snapshot that both have is the same if it was taken in the same second (LXD's rule); where the source does not say
/// when it was taken, its name decides. What is not the same is taken anew.
pub fn choose(
    mode: Mode,
    offered: &[SnapshotName],
    taken_at: &BTreeMap<&str, Timestamp>,
    here: &BTreeMap<SnapshotName, Timestamp>,
    own: Own,
) -> Chosen {
    if mode == Mode::Copy {
        return Chosen { take: offered.to_vec(), drop: Vec::new() };
    }
    let same = |name: &SnapshotName| {
        here.get(name).is_some_and(|here| {
            taken_at.get(name.as_str()).is_none_or(|there| there.as_second() == here.as_second())
        })
    };
    let take: Vec<SnapshotName> = offered.iter().filter(|name| !same(name)).cloned().collect();
    let (taken, theirs): (BTreeSet<_>, BTreeSet<_>) = (take.iter().collect(), offered.iter().collect());
    let goes = |name: &&SnapshotName| taken.contains(name) || (own == Own::Prune && !theirs.contains(name));
    let drop = here.keys().filter(goes).cloned().collect();
    Chosen { take, drop }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<SnapshotName> {
        all.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn what_differs_is_taken_and_what_is_ours_alone_is_kept() {
        let here: BTreeMap<SnapshotName, Timestamp> =
            names(&["same", "differs", "ours"]).into_iter().zip([at(1999), at(5000), at(7000)]).collect();
        let there = &["same", "differs", "new"].map(|name| (name, at(1001))).into();
        let offered = names(&["same", "differs", "new"]);
        let kept = choose(Mode::Refresh, &offered, there, &here, Own::Keep);
        assert_eq!(kept.take, names(&["differs", "new"]));
        assert_eq!(kept.drop, names(&["differs"]));
        let pruned = choose(Mode::Refresh, &offered, there, &here, Own::Prune);
        assert_eq!(pruned.drop, names(&["differs", "ours"]));
        let copied = choose(Mode::Copy, &offered, there, &BTreeMap::new(), Own::Prune);
        assert_eq!((copied.take, copied.drop), (offered, vec![]));
        let silent: BTreeMap<_, _> = names(&["silent"]).into_iter().map(|name| (name, at(9))).collect();
        assert_eq!(choose(Mode::Refresh, &names(&["silent"]), there, &silent, Own::Keep), Chosen::default());
    }
}
