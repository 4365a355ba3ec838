//! The intentions, cut so that a change copies few of them.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use schema::access::{self, Decision, Explanation, Groups, Intentions, Listed, Source};
use schema::name::ServiceName;
use schema::record::{Record, RecordKey, ServiceMatch};

/// Parts that destinations fall into.
const PARTS: usize = 64;

/// Every intention. A part has all that decides about its destinations: theirs, and those for `*`, which are in
/// each part. Cloning is cheap; a write copies the parts that it touches.
#[derive(Debug, Clone)]
pub struct IntentionParts {
    parts: Arc<[Arc<Intentions>]>,
}

impl Default for IntentionParts {
    fn default() -> Self {
        let empty = Arc::new(Intentions::default());
        Self { parts: std::iter::repeat_n(empty, PARTS).collect() }
    }
}

impl IntentionParts {
    /// Whether `source` may connect to `destination`.
    pub fn decide(&self, source: &Source, destination: &ServiceName) -> Decision {
        access::decide(source, destination, &self.parts[part_of(destination)])
    }

    /// Every rule that can decide about `destination`, in the order in which they are asked.
    pub fn rules_for(&self, destination: &ServiceName) -> Vec<Listed> {
        access::rules_for(destination, self.part(destination))
    }

    pub fn explain(&self, source: &Source, destination: &ServiceName) -> Explanation {
        access::explain(source, destination, &self.parts[part_of(destination)])
    }

    /// Takes in what `key` says now; `None` for a record that is gone.
    pub(super) fn put(&mut self, key: &RecordKey, record: Option<&Record>) {
        self.each_part(key, |part| part.put(key, record));
    }

    /// The sameness groups that sources may name.
    pub fn groups(&self) -> &Arc<Groups> {
        self.parts[0].groups()
    }

    /// What decides about `destination`: its own rules and those for every destination.
    pub fn part(&self, destination: &ServiceName) -> &Arc<Intentions> {
        &self.parts[part_of(destination)]
    }

    fn each_part(&mut self, key: &RecordKey, mut write: impl FnMut(&mut Intentions)) {
        let parts = Arc::make_mut(&mut self.parts);
        match key {
            RecordKey::IntentionEntry(ServiceMatch::Named(name))
            | RecordKey::Intention { destination: ServiceMatch::Named(name), .. } => {
                write(Arc::make_mut(&mut parts[part_of(name)]));
            }
            RecordKey::IntentionEntry(ServiceMatch::Any)
            | RecordKey::Intention { destination: ServiceMatch::Any, .. }
            | RecordKey::SamenessGroup(_) => {
                for part in parts {
                    write(Arc::make_mut(part));
                }
            }
            _ => {}
        }
    }
}

fn part_of(destination: &ServiceName) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(destination);
    // The remainder is below PARTS, so the cast loses nothing.
    #[allow(clippy::cast_possible_truncation)]
    let part = (hash % PARTS as u64) as usize;
    part
}
