//! Renaming a volume, or recording that it is in another pool: its declaration, what is said of its snapshots, and the
//! permissions on it that no manifest owns, in one commit. Its data follows by a step.

use std::sync::Arc;

use schema::kind::Kind;
use schema::kind::auth_group::Fate;
use schema::kind::transfer::{Address, VolumeAddress};
use schema::name::{PoolName, VolumeName};
use schema::plan::Data;
use schema::record::{Record, RecordKey};

use super::draft::{self, Draft, Write};
use super::steps::Step;
use super::{Apply, ApplyError, Edited, STEPS_WITHIN};
use crate::authorize::Permit;
use crate::dataset::pool::Use;
use crate::dataset::{Dataset, PoolError};
use crate::storage::volume_snapshots::step::arriving;
use crate::store::value::{self, Declared};
use crate::store::{Guard, Op, Revision, keys};

/// A volume's place.
pub type Place = (PoolName, VolumeName);

impl Apply {
    /// Gives the volume at `from`, which no manifest may own, the place `to`. Within a pool that renames its data; in
    /// another pool its data is by now, and what is in the old one is destroyed. `permit` is to edit it.
    pub async fn relocate_volume(
        self: &Arc<Self>,
        permit: &Permit,
        from: Place,
        to: Place,
    ) -> Result<Edited, ApplyError> {
        let (this, permit) = (Arc::clone(self), permit.clone());
        self.whole("relocate", async move {
            let revision = {
                let _turn = this.turn.lock().await;
                this.relocate_now(&permit, from, to).await?
            };
            Ok(Edited { revision, unfinished: this.steps.settle(STEPS_WITHIN).await })
        })
        .await?
    }

    /// Whether the volume could be given the place `to`: asked before its data is copied there.
    pub async fn check_relocation(&self, from: &Place, to: &Place) -> Result<(), ApplyError> {
        let (old, new) = (key(from), key(to));
        let mut current = self.current([&old, &new].into_iter()).await?;
        if current.contains_key(&new) {
            return Err(ApplyError::VolumeExists);
        }
        let volume =
            current.remove(&old).ok_or_else(|| ApplyError::NoSuchVolume(from.0.clone(), from.1.clone()))?;
        if let Some(holder) = volume.owner {
            return Err(ApplyError::Owned(old, holder));
        }
        if let Some(by) = self.naming_volume(from).await? {
            return Err(ApplyError::VolumeInUse { pool: from.0.clone(), volume: from.1.clone(), by });
        }
        let going = self.steps.going().await?;
        if let Some((pool, volume)) = [from, to].into_iter().find(|place| going.contains(place)) {
            return Err(ApplyError::StillGoing { pool: pool.clone(), volume: volume.clone() });
        }
        Ok(())
    }

    /// Refuses to make what a copy is just bringing: its data is there before its record is.
    pub(super) fn check_arrivals(&self, writes: &[Write]) -> Result<(), ApplyError> {
        for (pool, volume) in draft::made_volumes(writes) {
            let held = self.pools.hold(&Dataset::volume(&pool, &volume), Use::Replacing);
            if matches!(held, Err(PoolError::Busy(_))) {
                return Err(ApplyError::Arriving { pool, volume });
            }
        }
        Ok(())
    }

    async fn relocate_now(&self, permit: &Permit, from: Place, to: Place) -> Result<Revision, ApplyError> {
        self.check_relocation(&from, &to).await?;
        let (old, new) = (key(&from), key(&to));
        let volume = self.current([&old].into_iter()).await?.remove(&old);
        let volume = volume.ok_or_else(|| ApplyError::NoSuchVolume(from.0.clone(), from.1.clone()))?;
        let mut draft = Draft::default();
        if from.0 == to.0 {
            let (source, target) = (Dataset::volume(&from.0, &from.1), Dataset::volume(&to.0, &to.1));
            if self.pools.has(&target) {
                return Err(ApplyError::DataExists(to.0, to.1));
            }
            // Whoever transfers it holds it; asked here so that the caller hears of it, not only the step.
            drop(self.pools.hold(&source, Use::Replacing).map_err(|error| held(error, &from))?);
            draft.step(&Step::RenameVolume {
                pool: from.0.clone(),
                volume: from.1.clone(),
                to: to.1.clone(),
            });
        } else {
            draft.step(&Step::DestroyVolume { pool: from.0.clone(), volume: from.1.clone() });
        }
        draft.txn.ops.push(Op::Delete { key: arriving(&to.0, &to.1) });
        self.move_snapshots(&mut draft, &from, &to).await?;
        let (old, new) = (keys::declared(&old), keys::declared(&new));
        draft.txn.guards.extend([
            Guard { key: old.clone(), modify_revision: Revision(volume.modify_revision) },
            Guard { key: new.clone(), modify_revision: Revision(0) },
        ]);
        let value = value::encode(&Declared::by_hand(volume.record));
        draft.txn.ops.extend([Op::Delete { key: old }, Op::Put { key: new, value }]);
        let permissions = self.moved_permissions_of(&from, &to).await?;
        self.write(permit, draft, permissions, None).await
    }

    async fn move_snapshots(&self, draft: &mut Draft, from: &Place, to: &Place) -> Result<(), ApplyError> {
        let (old, new) = (keys::volume_snapshots(&from.0, &from.1), keys::volume_snapshots(&to.0, &to.1));
        match self.store.get(&old).await? {
            Some(entry) => {
                draft.txn.guards.push(Guard { key: old.clone(), modify_revision: entry.modify_revision });
                let value = entry.value.to_vec();
                draft.txn.ops.extend([Op::Delete { key: old }, Op::Put { key: new, value }]);
            }
            // Of a volume that was there once; none of those is left.
            None => draft.txn.ops.push(Op::Delete { key: new }),
        }
        Ok(())
    }

    /// A declared transfer that names the volume of this cluster.
    async fn naming_volume(&self, place: &Place) -> Result<Option<String>, ApplyError> {
        let names = |address: &Address| match address {
            Address::Volume(VolumeAddress { remote: None, pool, volume }) => {
                (pool, volume) == (&place.0, &place.1)
            }
            Address::Volume(_) | Address::Instance(_) => false,
        };
        let naming = self.records(Kind::Transfer).await?.into_iter().find(|(_, live)| match &live.record {
            Record::Transfer(transfer) => names(&transfer.source) || names(&transfer.target),
            _ => false,
        });
        Ok(naming.map(|(key, _)| key.address()))
    }

    /// The groups whose permissions on the volume move with it.
    async fn moved_permissions_of(&self, from: &Place, to: &Place) -> Result<Vec<Write>, ApplyError> {
        let mut writes = Vec::new();
        for (key, live) in self.records(Kind::AuthGroup).await? {
            let Record::AuthGroup(mut group) = live.record else { continue };
            let moved = group.rewrite(|permission| {
                let meant = permission.entity_type == "storage_volume"
                    && permission.pool.as_deref() == Some(from.0.as_str())
                    && permission.entity.as_deref() == Some(from.1.as_str());
                if !meant {
                    return Fate::Stays;
                }
                permission.pool = Some(to.0.to_string());
                permission.entity = Some(to.1.to_string());
                Fate::Moves
            });
            if !moved {
                continue;
            }
            if live.owner.is_some() {
                let by = key.address();
                return Err(ApplyError::VolumeInUse { pool: from.0.clone(), volume: from.1.clone(), by });
            }
            writes.push(Write {
                key,
                base: Revision(live.modify_revision),
                after: Some(Declared::by_hand(Record::AuthGroup(group))),
                data: Data::Keep,
            });
        }
        Ok(writes)
    }
}

fn key((pool, volume): &Place) -> RecordKey {
    RecordKey::Volume { pool: pool.clone(), volume: volume.clone() }
}

fn held(error: PoolError, (pool, volume): &Place) -> ApplyError {
    match error {
        PoolError::Busy(_) => ApplyError::VolumeInUse {
            pool: pool.clone(),
            volume: volume.clone(),
            by: "a transfer".to_owned(),
        },
        other => ApplyError::Pool(other),
    }
}
