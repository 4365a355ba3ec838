use std::collections::BTreeMap;
use std::slice;

use schema::kind::auth_group::{AuthGroup, Permission};
use schema::record;

use super::step::{Left, Step};
use super::*;
use crate::authorize::{Entitlement, Entity, decide};
use crate::storage::refresh::Refresh;
use crate::storage::schedule::next_name;
use crate::storage::{Shape, SnapshotTimes};
use crate::store::sqlite::SqliteStore;
use crate::store::value::Declared;
use crate::trust::Caller;
use crate::trust::policy::Policy;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn permit() -> Permit {
    decide(&Caller::local(0), Entitlement::Admin, Entity::Server, &Policy::default()).unwrap()
}

fn instance(pool: &str) -> Instance {
    Instance {
        pool: pool.parse().unwrap(),
        shape: Shape { architecture: "x86_64".to_owned(), ..Shape::default() },
        created_at: NOW,
        last_used_at: None,
        snapshots: BTreeMap::new(),
    }
}

/// Instances over `store`, with pools in a folder that lasts as long as it is held.
fn scratch(store: &Arc<dyn Store>) -> (Arc<Instances>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let pools = Pools::open(folder.path()).unwrap();
    (Instances::new(Arc::clone(store), pools, Audit::none()), folder)
}

fn taken() -> InstanceSnapshot {
    InstanceSnapshot { shape: Shape::default(), times: SnapshotTimes { created_at: NOW, expires_at: None } }
}

fn names() -> (ProjectName, ContainerName, ContainerName, SnapshotName) {
    let name = |text: &str| text.parse().unwrap();
    ("default".parse().unwrap(), name("c1"), name("c2"), "snap0".parse().unwrap())
}

#[tokio::test]
async fn an_instance_is_made_changed_moved_and_deleted_with_what_refers_to_it() {
    let store = SqliteStore::scratch();
    let (instances, _folder) = scratch(&store);
    let (project, c1, c2, snap) = names();
    let permit = permit();
    let permission = Permission {
        entity_type: "instance".to_owned(),
        entitlement: "can_view".to_owned(),
        entity: Some("c1".to_owned()),
        project: Some("default".to_owned()),
        pool: None,
    };
    let group = AuthGroup { permissions: vec![permission], ..AuthGroup::default() };
    let key = "/declared/auth_group/ops".to_owned();
    let value = encode(&Declared::by_hand(record::Record::AuthGroup(group)));
    store.commit(Txn { guards: vec![], ops: vec![Op::Put { key: key.clone(), value }] }).await.unwrap();
    let granted_on =
        async || match decode::<Declared>(&store.get(&key).await.unwrap().unwrap()).unwrap().record {
            record::Record::AuthGroup(group) => group.permissions.first().and_then(|p| p.entity.clone()),
            _ => None,
        };

    instances.begin(&"default".parse().unwrap(), &project, &c1, &Step::Remove).await.unwrap();
    instances.create(&permit, &project, &c1, instance("default"), NOW).await.unwrap();
    assert_eq!(instances.left().await.unwrap(), [], "the tree is the record's now");
    let again = instances.create(&permit, &project, &c1, instance("default"), NOW).await.unwrap_err();
    assert_eq!(again.to_string(), "Instance \"c1\" already exists");

    instances.put_snapshot(&permit, (&project, &c1), &snap, taken(), NOW).await.unwrap();
    let twice = instances.put_snapshot(&permit, (&project, &c1), &snap, taken(), NOW).await.unwrap_err();
    assert_eq!(twice.to_string(), "Snapshot \"c1/snap0\" already exists");
    instances.set_expiry(&permit, (&project, &c1), &snap, Some(NOW), NOW).await.unwrap();
    let there = instances.find(&project, &c1).await.unwrap();
    assert_eq!(there.instance.snapshots[&snap].times.expires_at, Some(NOW));

    let mut moved = there.instance.clone();
    moved.pool = "other".parse().unwrap();
    instances.relocate(&permit, (&project, &c1), (&project, &c2), &moved, NOW).await.unwrap();
    assert!(instances.get(&project, &c1).await.unwrap().is_none());
    assert_eq!(instances.find(&project, &c2).await.unwrap().instance, moved);
    assert_eq!(granted_on().await.as_deref(), Some("c2"));
    let left = |pool: &str, name: &ContainerName| Left {
        pool: pool.parse().unwrap(),
        project: project.clone(),
        name: name.clone(),
        step: Step::Remove,
    };
    assert_eq!(instances.left().await.unwrap(), [left("default", &c1)]);

    let stale = instances.update(&permit, &project, &c2, Revision(1), &moved, NOW).await.unwrap_err();
    assert!(matches!(stale, InstanceError::Contended));
    instances.delete(&permit, &project, &c2, NOW).await.unwrap();
    assert_eq!(granted_on().await, None);
    assert!(instances.left().await.unwrap().contains(&left("other", &c2)));
    assert!(matches!(instances.find(&project, &c2).await, Err(InstanceError::NotFound)));
}

#[tokio::test]
async fn an_instance_is_changed_by_one_at_a_time() {
    let (instances, _folder) = scratch(&SqliteStore::scratch());
    let (project, c1, c2, _) = names();
    let held = instances.hold((&project, &c1), "snapshot").unwrap();
    let busy = instances.hold((&project, &c1), "update").unwrap_err().to_string();
    assert_eq!(busy, "Instance is busy running a \"snapshot\" operation");
    assert!(instances.hold((&project, &c2), "update").is_ok());
    drop(held);
    assert!(instances.hold((&project, &c1), "update").is_ok());
}

fn shaped(pool: &str) -> Instance {
    Instance {
        shape: Shape { profiles: vec!["default".to_owned()], ..instance(pool).shape },
        ..instance(pool)
    }
}

#[tokio::test]
async fn trees_come_change_and_go_with_their_records() {
    let store = SqliteStore::scratch();
    let (instances, _folder) = scratch(&store);
    let (project, c1, c2, snap) = names();
    let (permit, place, other) = (permit(), (&project, &c1), (&project, &c2));
    let hold = || instances.hold(place, "work").unwrap();
    instances.make_empty(&permit, place, shaped("default"), hold(), NOW).await.unwrap();
    let pool: PoolName = "default".parse().unwrap();
    let tree = || instances.pools.tree(&dataset(place, &pool)).unwrap();
    let file = tree().join("rootfs/file");
    std::fs::write(&file, "one").unwrap();
    instances.take_snapshot(&permit, place, &snap, None, hold(), NOW).await.unwrap();
    std::fs::write(&file, "two").unwrap();
    let there = instances.find(&project, &c1).await.unwrap();
    let mut changed = there.instance.clone();
    changed.shape.description = "changed".to_owned();
    instances.update(&permit, &project, &c1, there.revision, &changed, NOW).await.unwrap();

    let next: SnapshotName = "snap1".parse().unwrap();
    assert_eq!(next_name(&changed.shape.config, changed.snapshots.keys(), NOW).unwrap(), next);
    instances.take_snapshot(&permit, place, &next, None, hold(), NOW).await.unwrap();
    instances.restore(&permit, place, &snap, hold(), NOW).await.unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");
    assert_eq!(instances.find(&project, &c1).await.unwrap().instance.shape.description, "");
    let last: SnapshotName = "last".parse().unwrap();
    instances.move_snapshot(&permit, place, (&next, &last), hold(), NOW).await.unwrap();
    assert_eq!(instances.pools.snapshots(&dataset(place, &pool)).unwrap(), [snap.clone(), last.clone()]);

    let there = instances.find(&project, &c1).await.unwrap().instance;
    let both = (hold(), instances.hold(other, "work").unwrap());
    instances.rename(&permit, place, other, &there, both, NOW).await.unwrap();
    let extra: PoolName = "extra".parse().unwrap();
    instances.pools.create_pool(&extra, None).await.unwrap();
    let moved = Instance { pool: extra.clone(), ..there };
    let held = (instances.hold(other, "work").unwrap(), None);
    instances.change_pool(&permit, other, other, &moved, held, NOW).await.unwrap();
    let tree = dataset(other, &extra);
    assert_eq!(
        std::fs::read_to_string(instances.pools.tree(&tree).unwrap().join("rootfs/file")).unwrap(),
        "one"
    );
    assert_eq!(instances.pools.snapshots(&tree).unwrap(), [snap, last.clone()]);
    assert!(!instances.pools.has(&dataset(other, &pool)));

    instances
        .remove_snapshot(&permit, other, &last, instances.hold(other, "work").unwrap(), NOW)
        .await
        .unwrap();
    assert_eq!(instances.pools.snapshots(&tree).unwrap().len(), 1);
    instances.remove(&permit, other, instances.hold(other, "work").unwrap(), NOW).await.unwrap();
    assert!(!instances.pools.has(&tree));
    assert_eq!(instances.left().await.unwrap(), []);
}

#[tokio::test]
async fn what_a_crash_cut_short_is_mended_and_what_is_nobodys_stays() {
    let store = SqliteStore::scratch();
    let (instances, _folder) = scratch(&store);
    let (project, c1, c2, snap) = names();
    let (permit, pool): (_, PoolName) = (permit(), "default".parse().unwrap());
    let tree = |name: &ContainerName| dataset((&project, name), &pool);
    let hold = |name: &ContainerName| instances.hold((&project, name), "work").unwrap();

    // A creation that came as far as the tree, and a tree that nobody knows of.
    instances.begin(&pool, &project, &c1, &Step::Remove).await.unwrap();
    instances.pools.ensure(&tree(&c1)).await.unwrap();
    instances.pools.ensure(&tree(&c2)).await.unwrap();
    instances.mend(NOW).await.unwrap();
    assert!(!instances.pools.has(&tree(&c1)) && instances.pools.has(&tree(&c2)));
    let refused =
        instances.make_empty(&permit, (&project, &c2), shaped("default"), hold(&c2), NOW).await.unwrap_err();
    assert!(matches!(refused, InstanceError::InTheWay(_)), "{refused}");
    instances.pools.destroy(&tree(&c2)).await.unwrap();

    // A renaming that came as far as the tree.
    instances.make_empty(&permit, (&project, &c1), shaped("default"), hold(&c1), NOW).await.unwrap();
    instances.take_snapshot(&permit, (&project, &c1), &snap, None, hold(&c1), NOW).await.unwrap();
    let step = Step::Rename { project: project.clone(), name: c1.clone() };
    instances.begin(&pool, &project, &c2, &step).await.unwrap();
    instances.pools.rename(&tree(&c1), &tree(&c2)).await.unwrap();
    instances.mend(NOW).await.unwrap();
    assert!(instances.pools.has(&tree(&c1)) && !instances.pools.has(&tree(&c2)));

    // A snapshot's renaming, then one that was taken and not written down.
    let stray: SnapshotName = "stray".parse().unwrap();
    let step = Step::RenameSnapshot { from: snap.clone(), to: stray.clone() };
    instances.begin(&pool, &project, &c1, &step).await.unwrap();
    instances.pools.rename_snapshot(&tree(&c1), &snap, &stray).await.unwrap();
    instances.mend(NOW).await.unwrap();
    assert_eq!(instances.pools.snapshots(&tree(&c1)).unwrap(), slice::from_ref(&snap));
    instances.pools.take_snapshot(&tree(&c1), &stray).await.unwrap();
    instances.mend(NOW).await.unwrap();
    assert_eq!(instances.pools.snapshots(&tree(&c1)).unwrap(), slice::from_ref(&snap));

    // A refresh that has come as far as the disk: the record says what is there.
    let (contents, fresh) = (instances.pools.contents(&tree(&c1)).unwrap(), taken());
    let take = BTreeMap::from([(stray.clone(), fresh.clone())]);
    let step = Step::Refresh(Refresh::new(contents, take, Vec::new()));
    instances.begin(&pool, &project, &c1, &step).await.unwrap();
    instances.pools.take_snapshot(&tree(&c1), &stray).await.unwrap();
    instances.mend(NOW).await.unwrap();
    let there = instances.find(&project, &c1).await.unwrap().instance;
    assert_eq!(there.snapshots.get(&stray), Some(&fresh));
    assert_eq!(instances.pools.snapshots(&tree(&c1)).unwrap(), [snap.clone(), stray.clone()]);
    // What could not be set here cannot be restored either.
    let place = (&project, &c1);
    let mut wrong = fresh;
    wrong.shape.config.insert("no.such.key".to_owned(), "1".to_owned());
    instances.delete_snapshot(&permit, place, &stray, NOW).await.unwrap();
    instances.put_snapshot(&permit, place, &stray, wrong, NOW).await.unwrap();
    let refused = instances.restore(&permit, place, &stray, hold(&c1), NOW).await.unwrap_err();
    assert_eq!(refused.to_string(), "Unknown configuration key: no.such.key");
    instances.remove_snapshot(&permit, place, &stray, hold(&c1), NOW).await.unwrap();

    // A restoring that had not begun yet.
    let there = instances.find(&project, &c1).await.unwrap();
    let mut changed = there.instance.clone();
    changed.shape.description = "changed".to_owned();
    instances.update(&permit, &project, &c1, there.revision, &changed, NOW).await.unwrap();
    instances.begin(&pool, &project, &c1, &Step::Restore { snapshot: snap }).await.unwrap();
    instances.mend(NOW).await.unwrap();
    assert_eq!(instances.find(&project, &c1).await.unwrap().instance, there.instance);
    assert_eq!(instances.left().await.unwrap(), []);
}
