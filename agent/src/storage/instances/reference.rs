//! Permissions on an instance, rewritten in the commit that moves or deletes it.

use schema::kind::auth_group::Fate;
use schema::record::Record;

use super::{InstanceError, Place};
use crate::store::value::{Declared, decode, encode};
use crate::store::{Guard, Op, Store, Txn, keys};

/// Adds to `txn` what makes permissions on `from` be on `to`, or go. What a manifest says is its files' to change.
pub async fn rewrite(
    store: &dyn Store,
    txn: &mut Txn,
    from: Place<'_>,
    to: Option<Place<'_>>,
) -> Result<(), InstanceError> {
    for entry in store.range(&keys::declared_kind(schema::kind::Kind::AuthGroup)).await?.entries {
        let Ok(mut declared) = decode::<Declared>(&entry) else { continue };
        let (None, Record::AuthGroup(group)) = (&declared.owner, &mut declared.record) else { continue };
        let found = group.rewrite(|permission| {
            let is_it = permission.entity_type == "instance"
                && permission.entity.as_deref() == Some(from.1.as_str())
                && permission.project.as_deref() == Some(from.0.as_str());
            match to {
                _ if !is_it => Fate::Stays,
                None => Fate::Goes,
                Some((project, name)) => {
                    permission.entity = Some(name.to_string());
                    permission.project = Some(project.to_string());
                    Fate::Moves
                }
            }
        });
        if found {
            txn.guards.push(Guard { key: entry.key.clone(), modify_revision: entry.modify_revision });
            txn.ops.push(Op::Put { key: entry.key, value: encode(&declared) });
        }
    }
    Ok(())
}
