use std::collections::BTreeMap;

use schema::kind::auth_group::{AuthGroup, Permission};
use schema::record;

use super::step::{Left, Step};
use super::*;
use crate::authorize::{Entitlement, Entity, decide};
use crate::project::{Config, Project, ProjectError, Projects};
use crate::storage::{Shape, SnapshotTimes};
use crate::store::sqlite::SqliteStore;
use crate::store::value::Declared;
use crate::task::Tasks;
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
    let instances = Instances::new(store.clone(), Audit::none());
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
    let instances = Instances::new(SqliteStore::scratch(), Audit::none());
    let (project, c1, c2, _) = names();
    let held = instances.hold((&project, &c1), "snapshot").unwrap();
    let busy = instances.hold((&project, &c1), "update").unwrap_err().to_string();
    assert_eq!(busy, "Instance is busy running a \"snapshot\" operation");
    assert!(instances.hold((&project, &c2), "update").is_ok());
    drop(held);
    assert!(instances.hold((&project, &c1), "update").is_ok());
}

#[tokio::test]
async fn a_project_with_an_instance_stays() {
    let store = SqliteStore::scratch();
    let projects = Projects::start(store.clone(), Audit::none(), &Tasks::new()).await.unwrap();
    let instances = Instances::new(store, Audit::none());
    let (_, c1, ..) = names();
    let (permit, blah): (_, ProjectName) = (permit(), "blah".parse().unwrap());
    let absent = instances.create(&permit, &blah, &c1, instance("default"), NOW).await.unwrap_err();
    assert!(matches!(absent, InstanceError::NoSuchProject));
    let project = Project { description: String::new(), config: Config::default() };
    projects.create(&permit, &blah, project, NOW).await.unwrap();
    instances.create(&permit, &blah, &c1, instance("default"), NOW).await.unwrap();
    let refused = projects.delete(&permit, &blah, NOW).await.unwrap_err();
    assert!(matches!(refused, ProjectError::NotEmpty("removed")), "{refused}");
    instances.delete(&permit, &blah, &c1, NOW).await.unwrap();
    projects.delete(&permit, &blah, NOW).await.unwrap();
}
