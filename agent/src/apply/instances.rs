//! That an instance's id is its own in the cluster: calls about an instance name it by nothing else.
//!
//! An instance whose id is its service's name is found by its record. The others have a key each, `/instance/ID`, which
//! is written in the commit that writes their record, so that no commit has to look at all of them.

use std::collections::{BTreeMap, HashMap};

use schema::kind::Kind;
use schema::name::{InstanceId, ServiceName};
use schema::record::RecordKey;

use super::draft::{Draft, Write};
use super::{Apply, ApplyError, LOOKED_UP};
use crate::store::{Guard, Op, Revision, keys, value};

impl Apply {
    /// Adds to the draft what gives and takes the ids of the instances that `writes` make and delete.
    pub(super) async fn settle_ids(&self, draft: &mut Draft, writes: &[Write]) -> Result<(), ApplyError> {
        let mut made = BTreeMap::<InstanceId, &RecordKey>::new();
        let mut gone = BTreeMap::<InstanceId, &RecordKey>::new();
        for write in writes {
            let Some((service, id)) = write.key.as_instance() else { continue };
            match (&write.key, &write.after) {
                (RecordKey::Instance { .. }, _) if id.as_str() == service.as_str() => {
                    let why = "its id is its service's name, which is left out";
                    return Err(ApplyError::Malformed(write.key.clone(), why));
                }
                (key, Some(_)) if write.base == Revision(0) => {
                    if let Some(other) = made.insert(id.clone(), key) {
                        return Err(ApplyError::IdTaken { id, by: other.clone() });
                    }
                }
                (_, Some(_)) => {}
                (key, None) => _ = gone.insert(id, key),
            }
        }
        let holders = if made.len() > LOOKED_UP { Some(self.holders().await?) } else { None };
        for (id, key) in &made {
            let holder = match &holders {
                Some(holders) => holders.get(id).cloned(),
                None => self.holder(id).await?,
            };
            if let Some(holder) = &holder
                && gone.get(id).is_none_or(|gone| *gone != holder)
            {
                return Err(ApplyError::IdTaken { id: id.clone(), by: holder.clone() });
            }
            // The other way to have the id must not come to be meanwhile.
            let other = match key {
                RecordKey::Service(_) => Some(keys::instance(id)),
                _ => id
                    .as_str()
                    .parse()
                    .ok()
                    .map(|name: ServiceName| keys::declared(&RecordKey::Service(name))),
            };
            if holder.is_none() {
                draft.txn.guards.extend(other.map(|key| Guard { key, modify_revision: Revision(0) }));
            }
            if let RecordKey::Instance { service, .. } = key {
                draft.txn.ops.push(Op::Put { key: keys::instance(id), value: value::encode(service) });
            }
        }
        let out_of_service =
            if gone.is_empty() { Vec::new() } else { self.store.range(keys::MAINTENANCE).await?.entries };
        for (id, key) in gone {
            let passes_on = matches!(made.get(&id), Some(RecordKey::Instance { .. }));
            if matches!(key, RecordKey::Instance { .. }) && !passes_on {
                draft.txn.ops.push(Op::Delete { key: keys::instance(&id) });
            }
            // Whoever has the id next is in service.
            let maintenance = keys::maintenance(&id);
            if !made.contains_key(&id) && out_of_service.iter().any(|entry| entry.key == maintenance) {
                draft.txn.ops.push(Op::Delete { key: maintenance });
            }
        }
        Ok(())
    }

    /// The instance that has `id`.
    async fn holder(&self, id: &InstanceId) -> Result<Option<RecordKey>, ApplyError> {
        if let Some(entry) = self.store.get(&keys::instance(id)).await? {
            return Ok(Some(RecordKey::instance(value::decode(&entry)?, id.clone())));
        }
        let Ok(name) = id.as_str().parse::<ServiceName>() else { return Ok(None) };
        let key = RecordKey::Service(name);
        Ok(self.store.get(&keys::declared(&key)).await?.map(|_| key))
    }

    /// Every instance by its id.
    async fn holders(&self) -> Result<HashMap<InstanceId, RecordKey>, ApplyError> {
        let entries = self.store.range(&keys::declared_kind(Kind::Service)).await?.entries;
        let keys = entries.iter().filter_map(|entry| keys::declared_record(&entry.key));
        Ok(keys.filter_map(|key| Some((key.as_instance()?.1, key))).collect())
    }
}
