//! The store: ordered keys, a create and a modify revision for each, one global revision, guarded transactions over
//! several keys, and watches of a prefix from a revision. etcd's model, so that etcd can be the second implementation.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub mod conformance;
pub mod keys;
pub mod sqlite;
pub mod value;

/// A point in the store's history. 0 means "never"; the first commit is 1. Only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key and its value as of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Arc<[u8]>,
    /// Revision of the commit that created the key (again, after a deletion).
    pub create_revision: Revision,
    /// Revision of the commit that last wrote the key.
    pub modify_revision: Revision,
}

/// A consistent read.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub revision: Revision,
    /// Ordered by key.
    pub entries: Vec<Entry>,
}

/// What must hold for a transaction to be made: the key's modify revision, 0 for "does not exist".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    pub key: String,
    pub modify_revision: Revision,
}

/// One write. No key appears twice in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Put { key: String, value: Vec<u8> },
    Delete { key: String },
}

/// Guards and writes that happen together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    pub guards: Vec<Guard>,
    pub ops: Vec<Op>,
}

/// Changes of one commit that fall under a watched prefix.
#[derive(Debug, Clone)]
pub struct Batch {
    pub revision: Revision,
    pub events: Vec<Event>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Put(Entry),
    Delete { key: String },
}

impl Op {
    pub fn key(&self) -> &str {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }
}

impl Event {
    pub fn key(&self) -> &str {
        match self {
            Event::Put(entry) => &entry.key,
            Event::Delete { key } => key,
        }
    }
}

/// Why a read, watch or open failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store at {path} could not be {doing}: {source}")]
    Io { path: String, doing: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error(
        "the store at {path} is in use by another agent; end that one first, or give this one another data directory"
    )]
    InUse { path: String },
    #[error("the store at {path} was written by a newer version of comity; run that version")]
    Newer { path: String },
    #[error("revision {0} is no longer kept; read again and watch from there")]
    Compacted(Revision),
    #[error("revision {asked} has not happened yet; this store is at {current}")]
    Future { asked: Revision, current: Revision },
    #[error("the store is closed")]
    Closed,
}

/// Why a transaction was not made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// These guards did not hold; nothing was written.
    #[error("{} key(s) have changed since they were read", .0.len())]
    Conflict(Vec<String>),
    #[error("key {0:?} appears twice in one transaction")]
    DuplicateKey(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A running watch: batches in order of revision, each complete. `Compacted` is its last item when the receiver fell
/// too far behind: read again, and watch from what was read.
pub type Watch = tokio::sync::mpsc::Receiver<Result<Batch, StoreError>>;

/// An ordered, watched, transactional key-value store.
pub trait Store: Send + Sync + 'static {
    /// Names this store: another one, or one restored from a copy, has another.
    fn epoch(&self) -> &str;
    /// The entry of `key`, if it exists.
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>>;
    /// Every entry whose key begins with `prefix`, read at one revision.
    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>>;
    /// Makes `txn` if all its guards hold. An empty `ops` checks the guards and gives the current revision.
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Revision, CommitError>>;
    /// Batches of every commit after `from` that touches `prefix`.
    fn watch(&self, prefix: &str, from: Revision) -> BoxFuture<'_, Result<Watch, StoreError>>;
}
