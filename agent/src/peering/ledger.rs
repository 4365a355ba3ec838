//! Links' halves in the store, and what must change with them in the same commit.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schema::kind::cluster_link::ClusterLink;
use schema::name::LinkName;
use schema::record::{Record, RecordKey};
use serde::{Deserialize, Serialize};

use super::PeeringError;
use super::half::{Half, Peer};
use crate::store::value::{self, Declared};
use crate::store::{Entry, Guard, Op, Revision, Store, Txn, keys};
use crate::trust::identity::{Backing, IdentityKind, IdentityRecord};
use crate::trust::{Access, Fingerprint, Groups};
use crate::wire::cluster_link::Dials;

/// A half as it was read. One that was never written is the default, at revision 0.
#[derive(Debug, Clone, Default)]
pub struct Held {
    pub half: Half,
    pub revision: Revision,
}

/// A peer that is to be told that the link was deleted here: what `/tombstone/FINGERPRINT` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    pub link: LinkName,
    pub at: Timestamp,
    /// Who would open the connection to tell it.
    pub dials: Dials,
    pub addresses: Vec<String>,
}

pub async fn read(store: &dyn Store, link: &LinkName) -> Result<Held, PeeringError> {
    store.get(&keys::link(link)).await?.map_or_else(|| Ok(Held::default()), |entry| held(&entry))
}

pub fn held(entry: &Entry) -> Result<Held, PeeringError> {
    Ok(Held { half: value::decode(entry)?, revision: entry.modify_revision })
}

/// Every half that is written, as of one revision.
pub async fn all(store: &dyn Store) -> Result<(Revision, BTreeMap<LinkName, Held>), PeeringError> {
    let snapshot = store.range(keys::LINK).await?;
    let mut links = BTreeMap::new();
    for entry in &snapshot.entries {
        // Keys under this prefix are made of names; another one is not ours to judge.
        if let Ok(name) = keys::last_part(&entry.key).parse() {
            links.insert(name, held(entry)?);
        }
    }
    Ok((snapshot.revision, links))
}

/// The declaration of `link` and its guard.
pub async fn declared(store: &dyn Store, link: &LinkName) -> Result<(ClusterLink, Guard), PeeringError> {
    let key = keys::declared(&RecordKey::ClusterLink(link.clone()));
    let Some(entry) = store.get(&key).await? else { return Err(PeeringError::NotFound(link.clone())) };
    match value::decode::<Declared>(&entry)?.record {
        Record::ClusterLink(declared) => {
            Ok((declared, Guard { key, modify_revision: entry.modify_revision }))
        }
        _ => Err(PeeringError::NotFound(link.clone())),
    }
}

/// Every declared link.
pub async fn all_declared(store: &dyn Store) -> Result<BTreeMap<LinkName, ClusterLink>, PeeringError> {
    let snapshot = store.range(&format!("{}cluster_link/", keys::DECLARED)).await?;
    let mut links = BTreeMap::new();
    for entry in &snapshot.entries {
        let declared: Declared = value::decode(entry)?;
        if let (Some(RecordKey::ClusterLink(name)), Record::ClusterLink(link)) =
            (keys::declared_record(&entry.key), declared.record)
        {
            links.insert(name, link);
        }
    }
    Ok(links)
}

/// The link whose peer shows this certificate.
pub async fn link_of(store: &dyn Store, peer: &Fingerprint) -> Result<Option<LinkName>, PeeringError> {
    let Some(entry) = store.get(&keys::identity(&peer.to_string())).await? else { return Ok(None) };
    Ok(match value::decode::<IdentityRecord>(&entry)?.kind {
        IdentityKind::ClusterLink { link, .. } => Some(link),
        IdentityKind::Client
        | IdentityKind::Newcomer
        | IdentityKind::User
        | IdentityKind::Node { .. }
        | IdentityKind::Metrics
        | IdentityKind::Oidc
        | IdentityKind::Bearer { .. } => None,
    })
}

/// The cluster with this certificate, if it may call here without a link standing behind it: what it is called, and
/// the guard on its identity.
pub async fn guest(store: &dyn Store, peer: &Fingerprint) -> Result<Option<(LinkName, Guard)>, PeeringError> {
    let key = keys::identity(&peer.to_string());
    let Some(entry) = store.get(&key).await? else { return Ok(None) };
    let IdentityKind::ClusterLink { link, .. } = value::decode::<IdentityRecord>(&entry)?.kind else {
        return Ok(None);
    };
    let held = read(store, &link).await?;
    let stands = held.half.admitted().is_some_and(|admitted| admitted.accepts(peer));
    let guard = Guard { key, modify_revision: entry.modify_revision };
    Ok((!stands).then_some((link, guard)))
}

pub async fn tombstone(
    store: &dyn Store,
    peer: &Fingerprint,
) -> Result<Option<(Tombstone, Guard)>, PeeringError> {
    let key = keys::tombstone(&peer.to_string());
    let Some(entry) = store.get(&key).await? else { return Ok(None) };
    Ok(Some((value::decode(&entry)?, Guard { key, modify_revision: entry.modify_revision })))
}

/// Replaces a half, and with it the peer's identity: whoever is trusted is so by the very same commit.
pub fn replace(link: &LinkName, before: &Held, after: &Half) -> Txn {
    let key = keys::link(link);
    let mut txn = Txn {
        guards: vec![Guard { key: key.clone(), modify_revision: before.revision }],
        ops: vec![Op::Put { key, value: value::encode(after) }],
    };
    // While a peer renews its certificate it has two, and is the same under either.
    let linked = |half: &Half| half.linked().map(Peer::certificates).unwrap_or_default();
    let (old, new) = (linked(&before.half), linked(after));
    for fingerprint in new.keys().filter(|fingerprint| !old.contains_key(*fingerprint)) {
        // A peer that is linked anew need not be told that an older link is gone.
        txn.ops.push(Op::Delete { key: keys::tombstone(&fingerprint.to_string()) });
    }
    let admitted = |half: &Half| half.admitted().map(Peer::certificates).unwrap_or_default();
    let (old, new) = (admitted(&before.half), admitted(after));
    for gone in old.keys().filter(|fingerprint| !new.contains_key(*fingerprint)) {
        txn.ops.push(Op::Delete { key: keys::identity(&gone.to_string()) });
    }
    for (fingerprint, pem) in new.into_iter().filter(|(fingerprint, _)| !old.contains_key(fingerprint)) {
        let key = keys::identity(&fingerprint.to_string());
        txn.guards.push(Guard { key: key.clone(), modify_revision: Revision(0) });
        txn.ops.push(Op::Put { key, value: value::encode(&identity(link, pem)) });
    }
    txn
}

/// Moves a half to another name, with the identities that bear the link's name.
pub fn rename(from: &LinkName, to: &LinkName, held: &Held) -> Txn {
    let (old, new) = (keys::link(from), keys::link(to));
    let mut txn = Txn {
        guards: vec![
            Guard { key: old.clone(), modify_revision: held.revision },
            Guard { key: new.clone(), modify_revision: Revision(0) },
        ],
        ops: Vec::new(),
    };
    if held.revision.0 == 0 {
        return txn;
    }
    txn.ops.push(Op::Delete { key: old });
    txn.ops.push(Op::Put { key: new, value: value::encode(&held.half) });
    for (fingerprint, pem) in held.half.admitted().map(Peer::certificates).unwrap_or_default() {
        let key = keys::identity(&fingerprint.to_string());
        txn.ops.push(Op::Put { key, value: value::encode(&identity(to, pem)) });
    }
    txn
}

/// Ends a half because its declaration ends. A peer that was trusted gets a tombstone.
pub fn remove(link: &LinkName, before: &Held, now: Timestamp) -> Txn {
    let key = keys::link(link);
    let mut txn = Txn {
        guards: vec![Guard { key: key.clone(), modify_revision: before.revision }],
        ops: vec![Op::Delete { key }],
    };
    let admitted = before.half.admitted().map(Peer::certificates).unwrap_or_default();
    let identity = |fingerprint: &Fingerprint| Op::Delete { key: keys::identity(&fingerprint.to_string()) };
    txn.ops.extend(admitted.keys().map(identity));
    txn.ops.extend(told_later(link, &before.half, now));
    txn
}

/// What has the peer of a half that ends here told of it.
pub fn told_later(link: &LinkName, half: &Half, now: Timestamp) -> Vec<Op> {
    let (Half::Established(established), Some(peer)) = (half, half.linked()) else { return Vec::new() };
    let tombstone =
        Tombstone { link: link.clone(), at: now, dials: established.dials, addresses: peer.reached_at() };
    let value = value::encode(&tombstone);
    let put = |fingerprint: &Fingerprint| Op::Put {
        key: keys::tombstone(&fingerprint.to_string()),
        value: value.clone(),
    };
    peer.certificates().keys().map(put).collect()
}

/// The identity of a link's peer. Its groups are the declaration's, looked up when they are asked for, so that
/// changing the declaration changes the peer's rights without writing this.
fn identity(link: &LinkName, certificate_pem: String) -> IdentityRecord {
    IdentityRecord {
        kind: IdentityKind::ClusterLink { link: link.clone(), backing: Backing::Declaration },
        name: link.to_string(),
        access: Access::Groups(Groups::default()),
        certificate_pem,
    }
}
