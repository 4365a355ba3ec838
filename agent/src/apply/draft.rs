//! A commit in the making.

use std::collections::BTreeSet;

use schema::name::{PoolName, VolumeName};
use schema::plan::Data;
use schema::record::RecordKey;
use uuid::Uuid;

use super::steps::Step;
use super::{ApplyError, content};
use crate::storage::volume_snapshots::step::arriving;
use crate::store::value::{self, Declared};
use crate::store::{Guard, Op, Revision, Txn, keys};

/// One record's change, checked.
#[derive(Debug, Clone)]
pub struct Write {
    pub key: RecordKey,
    /// The record's revision before; 0 if it is not there.
    pub base: Revision,
    /// `None` removes it.
    pub after: Option<Declared>,
    /// What removing a volume does to its data.
    pub data: Data,
}

/// Guards and writes so far.
#[derive(Debug, Default)]
pub struct Draft {
    pub txn: Txn,
    heads: BTreeSet<String>,
}

impl Draft {
    /// Adds a record's change, what it does to its entry's head, and the steps that follow from it.
    pub fn write(&mut self, write: Write) -> Result<(), ApplyError> {
        let Write { key, base, after, data } = write;
        // Nothing else is read and guarded as more than its record.
        if keys::has_head(key.kind()) {
            self.heads.insert(keys::head(&key));
        }
        if let RecordKey::Volume { pool, volume } = &key {
            let (pool, volume) = (pool.clone(), volume.clone());
            match (&after, data) {
                (Some(_), _) if base == Revision(0) => {
                    // Whatever was being made under that name, its tree is this record's from now on.
                    self.txn.ops.push(Op::Delete { key: arriving(&pool, &volume) });
                    self.step(&Step::EnsureVolume { pool, volume });
                }
                // Data without a record is not this change's to destroy.
                (None, Data::Destroy) if base != Revision(0) => {
                    // What is said of its snapshots goes with them.
                    self.txn.ops.push(Op::Delete { key: keys::volume_snapshots(&pool, &volume) });
                    self.step(&Step::DestroyVolume { pool, volume });
                }
                _ => {}
            }
        }
        let stored = keys::declared(&key);
        self.txn.guards.push(Guard { key: stored.clone(), modify_revision: base });
        self.txn.ops.push(match after {
            Some(declared) => {
                let value = value::encode(&declared);
                if value.len() > content::MAX_RECORD {
                    return Err(ApplyError::Malformed(key, "it is too large"));
                }
                Op::Put { key: stored, value }
            }
            None => Op::Delete { key: stored },
        });
        Ok(())
    }

    /// Adds what somebody else prepared, except for keys that are written already: those are going, or say it better.
    pub fn extend(&mut self, txn: Txn) {
        let key = |op: &Op| match op {
            Op::Put { key, .. } | Op::Delete { key } => key.clone(),
        };
        let written: BTreeSet<String> = self.txn.ops.iter().map(key).collect();
        self.txn.ops.extend(txn.ops.into_iter().filter(|op| !written.contains(&key(op))));
        self.txn.guards.extend(txn.guards.into_iter().filter(|guard| !written.contains(&guard.key)));
    }

    pub fn step(&mut self, step: &Step) {
        let key = keys::step(&Uuid::new_v4());
        self.txn.ops.push(Op::Put { key, value: value::encode(step) });
    }

    /// The transaction. A head stays when its last part goes: its revision must not fall.
    pub fn finish(mut self) -> Txn {
        let head = value::encode(&());
        self.txn.ops.extend(self.heads.into_iter().map(|key| Op::Put { key, value: head.clone() }));
        self.txn
    }
}

/// The volumes that `writes` declare anew.
pub fn made_volumes(writes: &[Write]) -> Vec<(PoolName, VolumeName)> {
    let made = writes.iter().filter(|write| write.after.is_some() && write.base == Revision(0));
    made.filter_map(|write| match &write.key {
        RecordKey::Volume { pool, volume } => Some((pool.clone(), volume.clone())),
        _ => None,
    })
    .collect()
}

/// The addresses that stored keys are about, each once.
pub fn addresses(stored: &[String]) -> Vec<String> {
    let addresses: BTreeSet<String> = stored
        .iter()
        .map(|key| match keys::declared_record(key) {
            Some(record) => record.address(),
            None if key.starts_with(keys::MANIFEST) => format!("manifest.{}", keys::last_part(key)),
            None if key.starts_with(keys::LINK) => format!("cluster_link.{}", keys::last_part(key)),
            None => key.clone(),
        })
        .collect();
    addresses.into_iter().collect()
}
