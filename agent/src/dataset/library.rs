//! Trees of this machine in which chunks may be found that another tree needs: the other datasets of all pools, and
//! their snapshots.
//!
//! What is known of a live tree tells of it as it was when it was last looked at. So nothing counts before it has been
//! read and hashed.

use std::fs;
use std::path::PathBuf;

use schema::name::PoolName;

use super::Dataset;
use super::chunk::Hash;
use super::packed::Packed;
use super::pool::{Frozen, Pools};
use super::survey::index;

/// Bytes of manifests that are worth their memory: a million small files, or half a terabyte of large ones.
const MOST_MANIFESTS: u64 = 64 << 20;

/// A tree with what is known of it.
#[derive(Debug, Clone)]
pub struct Known {
    pub tree: PathBuf,
    pub packed: Packed,
    /// Keeps it, if it is a frozen one.
    pub frozen: Option<Frozen>,
}

impl Pools {
    /// Every tree but those of `dataset` of which something is known, as far as memory allows: live ones before snapshots.
    pub fn other_trees(&self, dataset: &Dataset) -> Vec<Known> {
        let own: Vec<Hash> = self
            .snapshots(dataset)
            .unwrap_or_default()
            .iter()
            .filter_map(|name| Some(self.snapshot(dataset, name).ok()?.hash()))
            .collect();
        let mut others = Vec::new();
        for pool in self.list().unwrap_or_default() {
            others.extend(self.others(&pool, dataset, &own));
        }
        others.sort_by_key(|(_, other)| matches!(other, Other::Frozen(..)));
        let (mut manifests, mut known) = (0, Vec::new());
        for (pool, other) in others {
            let (Other::Live { index: file, .. } | Other::Frozen(_, file)) = &other;
            let Ok(about) = fs::metadata(file) else { continue };
            manifests += about.len();
            if manifests > MOST_MANIFESTS {
                break;
            }
            known.extend(other.read(self, &pool));
        }
        known
    }

    fn others(&self, pool: &PoolName, but: &Dataset, own: &[Hash]) -> Vec<(PoolName, Other)> {
        let mut others = Vec::new();
        let Ok(base) = self.base(pool) else { return others };
        for area in ["custom", "containers"] {
            for index in fs::read_dir(base.join(".index").join(area)).into_iter().flatten().flatten() {
                let name = index.file_name();
                let same = pool == &but.pool && area == but.owner.area() && *name == *but.owner.folder();
                let tree = base.join(area).join(name);
                if !same && tree.is_dir() {
                    others.push((pool.clone(), Other::Live { tree, index: index.path() }));
                }
            }
        }
        for frozen in fs::read_dir(base.join(".frozen")).into_iter().flatten().flatten() {
            if let Some(hash) = frozen.file_name().to_str().and_then(|name| name.parse().ok())
                && !(pool == &but.pool && own.contains(&hash))
            {
                others.push((pool.clone(), Other::Frozen(hash, frozen.path().join("manifest"))));
            }
        }
        others
    }
}

enum Other {
    Live { tree: PathBuf, index: PathBuf },
    Frozen(Hash, PathBuf),
}

impl Other {
    fn read(self, pools: &Pools, pool: &PoolName) -> Option<Known> {
        match self {
            Other::Live { tree, index } => {
                Some(Known { tree, packed: index::manifest(&index)?, frozen: None })
            }
            Other::Frozen(hash, _) => {
                let frozen = pools.frozen_by_hash(pool, hash).ok()??;
                Some(Known { tree: frozen.tree(), packed: frozen.packed().ok()?, frozen: Some(frozen) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Consistency;
    use crate::dataset::survey::Unwatched;

    #[tokio::test]
    async fn other_trees_are_known_as_they_were_last_seen() {
        let dir = tempfile::tempdir().unwrap();
        let pools = Pools::open(dir.path()).unwrap();
        let pool: PoolName = "default".parse().unwrap();
        let [orders, sibling] =
            ["orders", "sibling"].map(|name| Dataset::volume(&pool, &name.parse().unwrap()));
        for dataset in [&orders, &sibling] {
            pools.ensure(dataset).await.unwrap();
            fs::write(pools.tree(dataset).unwrap().join("file"), dataset.to_string()).unwrap();
            pools.take_snapshot(dataset, &"kept".parse().unwrap()).await.unwrap();
        }
        fs::write(pools.tree(&sibling).unwrap().join("second"), b"more").unwrap();
        let seen = pools.survey(&sibling, Consistency::Strict, &Unwatched).unwrap().packed().hash();
        let known = pools.other_trees(&orders);
        let kept = pools.snapshot(&sibling, &"kept".parse().unwrap()).unwrap();
        assert_eq!(known.iter().map(|known| known.packed.hash()).collect::<Vec<_>>(), [seen, kept.hash()]);
        assert_eq!(known[0].tree, pools.tree(&sibling).unwrap());
        assert!(known[1].frozen.is_some() && known[1].tree == kept.tree());
    }
}
