//! What groups say of an entity goes when the entity goes (LXD), so that another one which is given its name later
//! does not come into its rights. Made as guards and writes for the commit that deletes it.
//!
//! Groups that a manifest owns are left alone: its files say so, and the next apply would put it back.

use std::collections::{BTreeMap, HashSet};

use schema::kind::auth_group::{AuthGroup, Fate};
use schema::name::GroupName;
use schema::record::{Record, RecordKey};
use serde_json::Value;

use super::IdentityId;
use super::entity::Entity;
use crate::store::value::{Declared, ValueError, decode, encode};
use crate::store::{Entry, Guard, Op, Store, StoreError, Txn, keys};

const GROUPS: &str = "/declared/auth_group/";

/// Why it cannot be said what would have to go.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// Takes the permissions on entities that are going out of every group that no manifest owns. `besides` names the keys
/// that the same commit writes anyway.
#[allow(clippy::implicit_hasher, reason = "callers have no hasher of their own")]
pub async fn permissions_on(
    store: &dyn Store,
    gone: &HashSet<Entity>,
    besides: impl Fn(&str) -> bool,
) -> Result<Txn, ForgetError> {
    let mut txn = Txn::default();
    if gone.is_empty() {
        return Ok(txn);
    }
    for entry in store.range(GROUPS).await?.entries {
        if besides(&entry.key) {
            continue;
        }
        let declared: Declared = decode(&entry)?;
        let Declared { owner: None, record: Record::AuthGroup(mut group), .. } = declared else { continue };
        if without(&mut group, gone) {
            let changed = Declared::by_hand(Record::AuthGroup(group));
            replace(&mut txn, &entry, encode(&changed));
        }
    }
    Ok(txn)
}

/// Moves the permissions on an identity that is known by another certificate now, in every group that no manifest owns.
pub async fn permissions_moved(
    store: &dyn Store,
    from: &IdentityId,
    to: &IdentityId,
) -> Result<Txn, ForgetError> {
    let mut txn = Txn::default();
    for entry in store.range(GROUPS).await?.entries {
        let declared: Declared = decode(&entry)?;
        let Declared { owner: None, record: Record::AuthGroup(mut group), .. } = declared else { continue };
        let moved = group.rewrite(|permission| {
            let is_meant = match Entity::meant_by(permission) {
                Some(Entity::Identity(id)) => id == *from,
                Some(Entity::Certificate(fingerprint)) => from.fingerprint() == Some(fingerprint),
                _ => false,
            };
            match &mut permission.entity {
                Some(entity) if is_meant => {
                    *entity = match entity.split_once('/') {
                        Some((method, _)) => format!("{method}/{to}"),
                        None => to.to_string(),
                    };
                    Fate::Moves
                }
                _ => Fate::Stays,
            }
        });
        if moved {
            let changed = Declared::by_hand(Record::AuthGroup(group));
            replace(&mut txn, &entry, encode(&changed));
        }
    }
    Ok(txn)
}

/// Takes the permissions on `gone` out of a group. False if it has none.
#[allow(clippy::implicit_hasher, reason = "callers have no hasher of their own")]
pub fn without(group: &mut AuthGroup, gone: &HashSet<Entity>) -> bool {
    group.rewrite(|permission| match Entity::meant_by(permission) {
        Some(on) if gone.contains(&on) => Fate::Goes,
        _ => Fate::Stays,
    })
}

/// What becomes of groups: the name that each is given, or nothing.
pub type Regrouping = BTreeMap<GroupName, Option<GroupName>>;

/// Carries out `changes` wherever identities, tokens and mappings of an identity provider's groups name a group. Links
/// name groups too, but in their declarations, whose writer sees to that.
pub async fn members_of(store: &dyn Store, changes: &Regrouping) -> Result<Txn, ForgetError> {
    let mut txn = Txn::default();
    if changes.is_empty() {
        return Ok(txn);
    }
    for prefix in [keys::IDENTITY, keys::TOKEN, keys::IDENTITY_PROVIDER_GROUP] {
        for entry in store.range(prefix).await?.entries {
            if let Some(value) = regrouped(&entry.value, changes) {
                replace(&mut txn, &entry, value);
            }
        }
    }
    Ok(txn)
}

/// The record that a deleted or changed key is about, as an entity.
pub fn entity_of(key: &str) -> Option<Entity> {
    if let Some(part) = key.strip_prefix(keys::IDENTITY) {
        return IdentityId::from_key_part(part).ok().map(Entity::Identity);
    }
    match keys::declared_record(key)? {
        // A service is known by its name and outlives its instances: rights on it are given before the first is
        // registered, as Consul's rules are, and one that fails for long must not end them.
        RecordKey::Service(_)
        | RecordKey::Instance { .. }
        // Parts of an entry that stays, if only to be filled again.
        | RecordKey::ExportEntry
        | RecordKey::Export(_)
        | RecordKey::IntentionEntry(_)
        | RecordKey::Intention { .. }
        | RecordKey::SamenessGroup(_)
        | RecordKey::ServiceDefaults(_) => None,
        record => Some(Entity::of(&record)),
    }
}

fn replace(txn: &mut Txn, entry: &Entry, value: Vec<u8>) {
    txn.guards.push(Guard { key: entry.key.clone(), modify_revision: entry.modify_revision });
    txn.ops.push(Op::Put { key: entry.key.clone(), value });
}

/// A stored value after `changes`; `None` if it names none of the groups. What else the value holds is carried over as
/// it is, so that this needs to know nothing of it.
fn regrouped(value: &[u8], changes: &Regrouping) -> Option<Vec<u8>> {
    let names = |group: &GroupName| {
        let quoted = format!("\"{group}\"");
        value.windows(quoted.len()).any(|window| window == quoted.as_bytes())
    };
    // Most name none, and reading ten thousand of them takes its time.
    if !changes.keys().any(names) {
        return None;
    }
    let mut value: Value = serde_json::from_slice(value).ok()?;
    let mut found = false;
    for place in ["/data/access/groups", "/data/groups"] {
        let Some(Value::Array(groups)) = value.pointer_mut(place) else { continue };
        let change = |name: &Value| changes.iter().find(|(group, _)| *name == group.as_str());
        if !groups.iter().any(|name| change(name).is_some()) {
            continue;
        }
        found = true;
        *groups = groups
            .drain(..)
            .filter_map(|name| match change(&name) {
                Some((_, to)) => to.as_ref().map(|to| Value::from(to.as_str())),
                None => Some(name),
            })
            .collect();
        groups.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        groups.dedup();
    }
    found.then(|| serde_json::to_vec(&value).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;
    use crate::trust::identity::{IdentityKind, IdentityRecord};
    use crate::trust::{Access, Fingerprint, Groups};

    fn declared(owner: Option<&str>, permissions: &[(&str, &str)]) -> Vec<u8> {
        let permissions =
            permissions.iter().map(|(entity_type, entity)| schema::kind::auth_group::Permission {
                entity_type: (*entity_type).to_owned(),
                entitlement: "can_view".to_owned(),
                entity: Some((*entity).to_owned()),
                project: None,
                pool: None,
            });
        let group = AuthGroup { permissions: permissions.collect(), ..AuthGroup::default() };
        encode(&Declared {
            owner: owner.map(|name| name.parse().unwrap()),
            file: None,
            record: Record::AuthGroup(group),
        })
    }

    #[tokio::test]
    async fn what_groups_say_of_an_entity_goes_with_it() {
        let store = SqliteStore::scratch();
        let put = |name: &str, value| Op::Put { key: format!("{GROUPS}{name}"), value };
        let ops = vec![
            put("both", declared(None, &[("cluster_link", "east"), ("cluster_link", "west")])),
            put("other", declared(None, &[("service", "west")])),
            put("owned", declared(Some("shop"), &[("cluster_link", "west")])),
        ];
        store.commit(Txn { guards: Vec::new(), ops }).await.unwrap();
        let gone = [Entity::ClusterLink("west".parse().unwrap())].into();
        let txn = permissions_on(&*store, &gone, |_| false).await.unwrap();
        assert_eq!(txn.ops, [put("both", declared(None, &[("cluster_link", "east")]))]);
        assert_eq!(txn.guards.len(), 1);
        assert_eq!(
            permissions_on(&*store, &gone, |key| key.ends_with("both")).await.unwrap(),
            Txn::default()
        );
    }

    #[test]
    fn a_group_is_replaced_where_it_is_named_and_nothing_else_changes() {
        let groups = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Groups>();
        let record = |names: &[&str]| IdentityRecord {
            kind: IdentityKind::Client,
            name: "ops".to_owned(),
            access: Access::Groups(groups(names)),
            certificate_pem: Fingerprint([1; 32]).to_string(),
        };
        let (ops, web): (GroupName, GroupName) = ("ops".parse().unwrap(), "web".parse().unwrap());
        let change = |names: &[&str], to: Option<&GroupName>| {
            regrouped(&encode(&record(names)), &[(ops.clone(), to.cloned())].into())
        };
        assert_eq!(change(&["dev", "ops"], Some(&web)), Some(encode(&record(&["dev", "web"]))));
        assert_eq!(change(&["ops", "web"], Some(&web)), Some(encode(&record(&["web"]))));
        assert_eq!(change(&["ops"], None), Some(encode(&record(&[]))));
        assert_eq!(change(&["dev"], None), None, "its name is no group");
    }
}
