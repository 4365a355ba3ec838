//! What instances owe to their project.

use schema::name::ProjectName;

use crate::audit::Audit;
use crate::authorize::{Entitlement, Entity, decide};
use crate::dataset::Pools;
use crate::project::{Config, Project, ProjectError, Projects};
use crate::storage::instances::InstanceError;
use crate::storage::{Instance, Instances, Shape};
use crate::store::sqlite::SqliteStore;
use crate::task::Tasks;
use crate::trust::Caller;
use crate::trust::policy::Policy;
use jiff::Timestamp;

#[tokio::test]
async fn a_project_with_an_instance_stays() {
    let now = Timestamp::UNIX_EPOCH;
    let (store, folder) = (SqliteStore::scratch(), tempfile::tempdir().unwrap());
    let projects = Projects::start(store.clone(), Audit::none(), &Tasks::new()).await.unwrap();
    let instances = Instances::new(store, Pools::open(folder.path()).unwrap(), Audit::none());
    let permit = decide(&Caller::local(0), Entitlement::Admin, Entity::Server, &Policy::default()).unwrap();
    let (blah, c1): (ProjectName, _) = ("blah".parse().unwrap(), "c1".parse().unwrap());
    let instance = Instance {
        pool: "default".parse().unwrap(),
        shape: Shape::default(),
        created_at: now,
        last_used_at: None,
        snapshots: std::collections::BTreeMap::new(),
    };
    let absent = instances.create(&permit, &blah, &c1, instance.clone(), now).await.unwrap_err();
    assert!(matches!(absent, InstanceError::NoSuchProject));
    let project = Project { description: String::new(), config: Config::default() };
    projects.create(&permit, &blah, project, now).await.unwrap();
    instances.create(&permit, &blah, &c1, instance, now).await.unwrap();
    let refused = projects.delete(&permit, &blah, now).await.unwrap_err();
    assert!(matches!(refused, ProjectError::NotEmpty("removed")), "{refused}");
    instances.delete(&permit, &blah, &c1, now).await.unwrap();
    projects.delete(&permit, &blah, now).await.unwrap();
}
