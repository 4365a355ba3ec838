//! Renaming a cluster link: its declaration, its trust and the identities of its peer, in one commit.
//!
//! What speaks of the link by its name (exports to it, intentions, upstreams) would silently stop to mean it, so a link
//! that is spoken of is not renamed. Permissions on it that no manifest owns move with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use schema::kind::Kind;
use schema::kind::auth_group::Fate;
use schema::kind::exported_services::Consumer;
use schema::kind::service::Upstream;
use schema::name::LinkName;
use schema::record::{LiveRecord, Record, RecordKey};

use super::draft::{Draft, Write};
use super::{Apply, ApplyError, Edited, STEPS_WITHIN};
use crate::authorize::Permit;
use crate::observe;
use crate::store::value::Declared;
use crate::store::{Revision, keys};

/// The kinds whose records may speak of a link.
const SPEAKING: [Kind; 4] =
    [Kind::SamenessGroup, Kind::Service, Kind::ExportedServices, Kind::ServiceIntentions];

/// Whether `record` speaks of `link`.
pub fn speaks_of(key: &RecordKey, record: &Record, link: &LinkName) -> bool {
    match (key, record) {
        (RecordKey::Intention { origin, .. }, _) => origin.peer() == Some(link),
        (_, Record::ExportedServices(export)) => export.consumers.contains(&Consumer::Peer(link.clone())),
        (_, Record::SamenessGroup(group)) => group.members.contains(link),
        (_, Record::Service(service)) => {
            service.upstreams.iter().flat_map(Upstream::links).any(|named| named == link)
        }
        _ => false,
    }
}

impl Apply {
    /// What is declared that speaks of `link`.
    pub async fn speaking_of(&self, link: &LinkName) -> Result<Vec<RecordKey>, ApplyError> {
        let mut users = Vec::new();
        for kind in SPEAKING {
            let records = self.records(kind).await?;
            users.extend(
                records
                    .into_iter()
                    .filter(|(key, live)| speaks_of(key, &live.record, link))
                    .map(|(key, _)| key),
            );
        }
        Ok(users)
    }

    /// Renames `from`, which no manifest may own. `permit` is to edit it.
    pub async fn rename_link(
        self: &Arc<Self>,
        permit: &Permit,
        from: &LinkName,
        to: &LinkName,
    ) -> Result<Edited, ApplyError> {
        let (this, permit) = (Arc::clone(self), permit.clone());
        let (from, to) = (from.clone(), to.clone());
        self.whole("rename", async move {
            let revision = {
                let _turn = this.turn.lock().await;
                this.rename_now(&permit, &from, &to).await?
            };
            Ok(Edited { revision, unfinished: this.steps.settle(STEPS_WITHIN).await })
        })
        .await?
    }

    async fn rename_now(
        &self,
        permit: &Permit,
        from: &LinkName,
        to: &LinkName,
    ) -> Result<Revision, ApplyError> {
        let (old, new) = (RecordKey::ClusterLink(from.clone()), RecordKey::ClusterLink(to.clone()));
        let mut current = self.current([&old, &new].into_iter()).await?;
        if current.contains_key(&new) {
            return Err(ApplyError::LinkExists(to.clone()));
        }
        let link = current.remove(&old).ok_or_else(|| ApplyError::NoSuchLink(from.clone()))?;
        if let Some(holder) = link.owner {
            return Err(ApplyError::Owned(old, holder));
        }
        if let Some(user) = self.speaking_of(from).await?.into_iter().next() {
            return Err(ApplyError::LinkInUse { link: from.clone(), by: user.address() });
        }
        let mut writes = vec![
            Write {
                key: old,
                base: Revision(link.modify_revision),
                after: None,
                data: schema::plan::Data::Keep,
            },
            Write {
                key: new,
                base: Revision(0),
                after: Some(Declared::by_hand(link.record)),
                data: schema::plan::Data::Keep,
            },
        ];
        writes.extend(moved_permissions(self.records(Kind::AuthGroup).await?, from, to)?);
        let mut draft = Draft::default();
        let moved = self.links.renaming(from, to).await.map_err(ApplyError::Links)?;
        draft.txn.guards.extend(moved.guards);
        draft.txn.ops.extend(moved.ops);
        self.write(permit, draft, writes, None).await
    }

    pub(super) async fn records(&self, kind: Kind) -> Result<BTreeMap<RecordKey, LiveRecord>, ApplyError> {
        let entries = self.store.range(&keys::declared_kind(kind)).await?.entries;
        Ok(entries.iter().map(observe::record).collect::<Result<_, _>>()?)
    }
}

/// The groups whose permissions on the link move with it.
fn moved_permissions(
    groups: BTreeMap<RecordKey, LiveRecord>,
    from: &LinkName,
    to: &LinkName,
) -> Result<Vec<Write>, ApplyError> {
    let mut writes = Vec::new();
    for (key, live) in groups {
        let Record::AuthGroup(mut group) = live.record else { continue };
        let moved = group.rewrite(|permission| match &mut permission.entity {
            Some(entity) if permission.entity_type == "cluster_link" && *entity == from.as_str() => {
                *entity = to.to_string();
                Fate::Moves
            }
            _ => Fate::Stays,
        });
        if !moved {
            continue;
        }
        if live.owner.is_some() {
            return Err(ApplyError::LinkInUse { link: from.clone(), by: key.address() });
        }
        let record = Record::AuthGroup(group);
        writes.push(Write {
            key,
            base: Revision(live.modify_revision),
            after: Some(Declared::by_hand(record)),
            data: schema::plan::Data::Keep,
        });
    }
    Ok(writes)
}
