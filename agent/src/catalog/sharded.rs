//! An ordered-on-demand map whose clones share almost everything, for views that are published often.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;

/// Shards of one map. At 100,000 entries a write copies about 400 of them, and cloning the map copies 256 pointers.
const SHARDS: usize = 256;

/// A persistent map: cloning is cheap, and a write to a clone copies only the shard that it touches.
#[derive(Debug, Clone)]
pub struct Sharded<K, V> {
    /// `SHARDS` long. Shards that were never written to are one and the same empty map.
    shards: Arc<[Arc<BTreeMap<K, V>>]>,
    len: usize,
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        let empty = Arc::new(BTreeMap::new());
        Self { shards: std::iter::repeat_n(empty, SHARDS).collect(), len: 0 }
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Sharded<K, V> {
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Ord + Hash + ?Sized,
    {
        self.shards[shard_of(key)].get(key)
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = self.shard_mut(shard_of(&key)).insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Ord + Hash + ?Sized,
    {
        let index = shard_of(key);
        if !self.shards[index].contains_key(key) {
            return None;
        }
        let before = self.shard_mut(index).remove(key);
        self.len -= usize::from(before.is_some());
        before
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every entry, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// Every entry, by key.
    pub fn sorted(&self) -> Vec<(&K, &V)> {
        let mut entries: Vec<_> = self.iter().collect();
        entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
        entries
    }

    /// The keys whose values differ between `before` and this map, in either direction. Shards that the two maps
    /// share are passed over without a look inside, so this costs what the changes cost.
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> Vec<&'a K>
    where
        V: PartialEq,
    {
        let mut changed = Vec::new();
        for (now, then) in self.shards.iter().zip(before.shards.iter()) {
            if Arc::ptr_eq(now, then) {
                continue;
            }
            changed
                .extend(now.iter().filter(|(key, value)| then.get(*key) != Some(*value)).map(|(key, _)| key));
            changed.extend(then.keys().filter(|key| !now.contains_key(*key)));
        }
        changed
    }

    fn shard_mut(&mut self, index: usize) -> &mut BTreeMap<K, V> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[index])
    }
}

impl<K: Ord + Hash + Clone, V: Clone> FromIterator<(K, V)> for Sharded<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl<K: Ord + Hash + Clone, V: Clone + PartialEq> PartialEq for Sharded<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.changed_since(other).is_empty()
    }
}

/// The hash is unkeyed so that two maps of equal content have equal shards; names come from whoever may declare
/// services, and the worst that chosen names can do is make one shard a plain `BTreeMap`.
fn shard_of<Q: Hash + ?Sized>(key: &Q) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
    // The remainder is below SHARDS, so the cast loses nothing.
    #[allow(clippy::cast_possible_truncation)]
    let index = (hash % SHARDS as u64) as usize;
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_to_a_clone_leaves_the_original_and_is_found_as_the_only_change() {
        let first: Sharded<String, u32> = (0..5_000).map(|n| (n.to_string(), n)).collect();
        let mut second = first.clone();
        assert_eq!(second.insert("17".to_owned(), 1), Some(17));
        assert_eq!(second.remove("18"), Some(18));
        assert_eq!(second.insert("new".to_owned(), 2), None);
        assert_eq!(second.remove("absent"), None);

        assert_eq!((first.get("17"), first.get("18"), first.len()), (Some(&17), Some(&18), 5_000));
        assert_eq!((second.get("17"), second.get("18"), second.len()), (Some(&1), None, 5_000));
        let mut changed = second.changed_since(&first);
        changed.sort();
        assert_eq!(changed, ["17", "18", "new"]);
        assert_ne!(first, second);
        let shared = first.shards.iter().zip(second.shards.iter()).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 3);
    }
}
