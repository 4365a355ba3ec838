use schema::record::{Record, RecordKey};
use time::{Duration as Days, OffsetDateTime};

use super::*;
use crate::store::sqlite::SqliteStore;
use crate::store::value::{Declared, encode};
use crate::store::{Op, Txn};
use crate::trust::Caller;
use crate::trust::certificate::KeyPair;

fn trusted(who: Who) -> bool {
    Caller::from(who).is_trusted()
}

fn identity(kind: IdentityKind, pair: &KeyPair) -> Op {
    let record = IdentityRecord {
        kind,
        name: "laptop".to_owned(),
        access: Access::Groups(vec!["old".parse().unwrap()].into()),
        certificate_pem: pair.pem.clone(),
    };
    Op::Put { key: keys::identity(&pair.fingerprint.to_string()), value: encode(&record) }
}

async fn commit(store: &dyn Store, op: Op) -> Revision {
    store.commit(Txn { guards: Vec::new(), ops: vec![op] }).await.unwrap()
}

#[tokio::test]
async fn who_is_known_follows_the_store() {
    let (store, tasks) = (SqliteStore::scratch(), Tasks::new());
    let identities = Identities::start(store.clone(), &tasks).await.unwrap();
    let pair = KeyPair::generate("laptop", &[]).unwrap();
    assert!(!trusted(identities.caller(Some(&pair.certificate))));

    let link: LinkName = "west".parse().unwrap();
    let revision = commit(
        &*store,
        identity(IdentityKind::ClusterLink { link: link.clone(), backing: Backing::Declaration }, &pair),
    )
    .await;
    identities.seen(revision).await;
    let groups = |identities: &Identities| match identities.caller(Some(&pair.certificate)) {
        Who::Peer { groups, .. } => groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        other => Caller::from(other).to_string(),
    };
    assert_eq!(groups(&identities), "old");

    // The declaration's groups are the ones that count.
    let mut changed = identities.changed();
    let auth_groups = vec!["new".parse().unwrap()];
    let declared = schema::kind::cluster_link::ClusterLink { auth_groups, ..Default::default() };
    let record = Declared::by_hand(Record::ClusterLink(declared));
    let key = keys::declared(&RecordKey::ClusterLink(link.clone()));
    commit(&*store, Op::Put { key, value: encode(&record) }).await;
    changed.changed().await.unwrap();
    assert_eq!(groups(&identities), "new");

    // A cluster of that name which no declaration stands behind has nothing from it.
    let guest = IdentityKind::ClusterLink { link, backing: Backing::Itself };
    identities.seen(commit(&*store, identity(guest, &pair)).await).await;
    assert_eq!(groups(&identities), "anonymous");

    let gone = Op::Delete { key: keys::identity(&pair.fingerprint.to_string()) };
    identities.seen(commit(&*store, gone).await).await;
    assert_eq!(groups(&identities), "anonymous");
}

#[tokio::test]
async fn a_certificate_out_of_its_time_and_a_damaged_identity_are_nobodys() {
    let (store, tasks) = (SqliteStore::scratch(), Tasks::new());
    let now = OffsetDateTime::now_utc();
    let expired = KeyPair::generate_valid("old", &[], now - Days::days(2), now - Days::days(1)).unwrap();
    let damaged = KeyPair::generate("damaged", &[]).unwrap();
    commit(&*store, identity(IdentityKind::Client, &expired)).await;
    let key = keys::identity(&damaged.fingerprint.to_string());
    commit(&*store, Op::Put { key, value: b"{\"v\":1".to_vec() }).await;
    let identities = Identities::start(store, &tasks).await.unwrap();
    assert!(identities.get(&expired.fingerprint.into()).is_some());
    assert!(!trusted(identities.caller(Some(&expired.certificate))));
    assert!(!trusted(identities.caller(Some(&damaged.certificate))));
}
