//! Groups that are renamed or deleted, and entities that groups speak of: one commit moves or ends every reference.

use std::collections::HashSet;
use std::sync::Arc;

use schema::kind::Kind;
use schema::kind::auth_group::Permission;
use schema::name::GroupName;
use schema::plan::Data;
use schema::record::{LiveRecord, Record, RecordKey};

use super::draft::{Draft, Write};
use super::{Apply, ApplyError};
use crate::authorize::{Entity, Permit};
use crate::observe::{self, ManifestRecord};
use crate::store::value::{self, Declared};
use crate::store::{Op, Revision, keys};
use crate::trust::forget;

impl Apply {
    /// Gives a group another name, wherever it is named: in identities, tokens, links, mappings of an identity
    /// provider's groups, and permissions on the group. Refused where a manifest says its name: only its files can say
    /// otherwise.
    pub async fn rename_group(
        self: &Arc<Self>,
        permit: &Permit,
        from: &GroupName,
        to: &GroupName,
    ) -> Result<Revision, ApplyError> {
        let (this, permit, from, to) = (Arc::clone(self), permit.clone(), from.clone(), to.clone());
        self.whole("rename", async move { this.rename_group_now(&permit, &from, &to).await }).await?
    }

    async fn rename_group_now(
        &self,
        permit: &Permit,
        from: &GroupName,
        to: &GroupName,
    ) -> Result<Revision, ApplyError> {
        let _turn = self.turn.lock().await;
        let (old, new) = (RecordKey::AuthGroup(from.clone()), RecordKey::AuthGroup(to.clone()));
        let current = self.current([&old, &new].into_iter()).await?;
        let Some(group) = current.get(&old) else {
            return Err(ApplyError::Moved(vec![old.address()]));
        };
        if current.contains_key(&new) {
            return Err(ApplyError::Exists(new));
        }
        self.no_manifest_names(from).await?;
        let mut writes = Vec::new();
        for kind in [Kind::AuthGroup, Kind::ClusterLink] {
            for entry in self.store.range(&keys::declared_kind(kind)).await?.entries {
                let (key, live) = observe::record(&entry)?;
                let Some(record) = renamed(&live.record, from, to).filter(|_| key != old) else { continue };
                writes.push(unowned(key, &live, Some(record))?);
            }
        }
        let record = renamed(&group.record, from, to).unwrap_or_else(|| group.record.clone());
        writes.push(unowned(old, group, None)?);
        let after = Some(Declared::by_hand(record));
        writes.push(Write { key: new, base: Revision(0), after, data: Data::Keep });
        let mut draft = Draft::default();
        let change = [(from.clone(), Some(to.clone()))].into();
        draft.extend(forget::members_of(&*self.store, &change).await?);
        self.write(permit, draft, writes, None).await
    }

    /// A manifest's owners are groups by name.
    async fn no_manifest_names(&self, group: &GroupName) -> Result<(), ApplyError> {
        for entry in self.store.range(keys::MANIFEST).await?.entries {
            let record: ManifestRecord = value::decode(&entry)?;
            if record.declared.owners.contains(group) {
                let manifest = keys::last_part(&entry.key).to_owned();
                return Err(ApplyError::GroupOwns { group: group.clone(), manifest });
            }
        }
        Ok(())
    }

    /// Ends what groups say of the records that `writes` delete, and the membership in groups that they delete. What
    /// `draft` deletes besides (a link's identity) counts too.
    pub(super) async fn forget(&self, draft: &mut Draft, writes: &mut [Write]) -> Result<(), ApplyError> {
        let deleted = writes.iter().filter(|write| write.after.is_none());
        let mut gone: HashSet<Entity> =
            deleted.filter_map(|write| forget::entity_of(&keys::declared(&write.key))).collect();
        for op in &draft.txn.ops {
            let Op::Delete { key } = op else { continue };
            let Some(entity) = forget::entity_of(key) else { continue };
            if let Entity::Identity(id) = &entity {
                gone.extend(id.fingerprint().map(Entity::Certificate));
            }
            gone.insert(entity);
        }
        if gone.is_empty() {
            return Ok(());
        }
        for write in writes.iter_mut() {
            if let Some(Declared { owner: None, record: Record::AuthGroup(group), .. }) = &mut write.after {
                forget::without(group, &gone);
            }
        }
        let written: HashSet<String> = writes.iter().map(|write| keys::declared(&write.key)).collect();
        draft.extend(forget::permissions_on(&*self.store, &gone, |key| written.contains(key)).await?);
        let groups = gone.iter().filter_map(|entity| match entity {
            Entity::AuthGroup(group) => Some((group.clone(), None)),
            _ => None,
        });
        draft.extend(forget::members_of(&*self.store, &groups.collect()).await?);
        Ok(())
    }
}

fn unowned(key: RecordKey, live: &LiveRecord, record: Option<Record>) -> Result<Write, ApplyError> {
    if let Some(holder) = &live.owner {
        return Err(ApplyError::Owned(key, holder.clone()));
    }
    let after = record.map(Declared::by_hand);
    Ok(Write { key, base: Revision(live.modify_revision), after, data: Data::Keep })
}

/// A group or link in which `from` is called `to`; `None` if it does not name it.
fn renamed(record: &Record, from: &GroupName, to: &GroupName) -> Option<Record> {
    match record {
        Record::ClusterLink(link) if link.auth_groups.contains(from) => {
            let mut link = link.clone();
            link.auth_groups.retain(|group| group != from);
            link.auth_groups.push(to.clone());
            link.auth_groups.sort_unstable();
            Some(Record::ClusterLink(link))
        }
        Record::AuthGroup(group) => {
            let on = |permission: &Permission| {
                permission.entity_type == "group" && permission.entity.as_deref() == Some(from.as_str())
            };
            if !group.permissions.iter().any(on) {
                return None;
            }
            let mut group = group.clone();
            for permission in group.permissions.iter_mut().filter(|permission| on(permission)) {
                permission.entity = Some(to.to_string());
            }
            group.permissions.sort();
            group.permissions.dedup();
            Some(Record::AuthGroup(group))
        }
        _ => None,
    }
}
