//! Ids of instances, and who is out of service.

use schema::kind::service::{Check, Probe};

use super::*;
use crate::apply::overdue::deregister;
use crate::catalog::Catalog;
use crate::health::{CheckPlace, Health, Status};
use crate::trust::identity::Identities;

fn put(key: &str) -> Edit {
    Edit::put(key.parse().unwrap(), service(1))
}

fn delete(key: &str) -> Edit {
    Edit::delete(key.parse().unwrap(), Data::Keep)
}

#[tokio::test]
async fn an_id_is_one_instances_in_the_cluster() {
    let bench = bench();
    bench.edit(vec![put("service/web"), put("service/web/web-2")]).await.unwrap();
    for (taken, by) in [("service/api/web-2", "service.web/web-2"), ("service/api/web", "service.web")] {
        let refused = bench.edit(vec![put(taken)]).await.unwrap_err();
        assert!(matches!(refused, ApplyError::IdTaken { .. }), "{refused}");
        assert!(refused.to_string().ends_with(&format!("is taken: {by} has it")), "{refused}");
    }
    // A service whose name is an instance's id has no instance of its own name.
    let refused = bench.edit(vec![put("service/web-2")]).await.unwrap_err();
    assert!(matches!(refused, ApplyError::IdTaken { .. }), "{refused}");
    let refused = bench.edit(vec![put("service/a/same"), put("service/b/same")]).await.unwrap_err();
    assert!(matches!(refused, ApplyError::IdTaken { .. }), "{refused}");

    // It goes from one to another in one commit, and is free once its instance is gone.
    bench.edit(vec![delete("service/web/web-2"), put("service/api/web-2")]).await.unwrap();
    assert_eq!(bench.keys().await, ["service/web", "service/api/web-2"]);
    assert!(bench.edit(vec![put("service/web/web-2")]).await.is_err());
    bench.edit(vec![delete("service/api/web-2")]).await.unwrap();
    bench.edit(vec![put("service/web-2")]).await.unwrap();
    assert!(bench.store.range(keys::INSTANCE).await.unwrap().entries.is_empty());

    // The same rule for many at once, which are looked up together.
    let many: Vec<Edit> = (0..100).map(|n| put(&format!("service/many/m-{n}"))).collect();
    bench.edit(many.clone()).await.unwrap();
    bench.edit(many).await.unwrap();
    let more: Vec<Edit> = (99..199).map(|n| put(&format!("service/more/m-{n}"))).collect();
    let refused = bench.edit(more).await.unwrap_err();
    assert_eq!(refused.to_string(), "instance id \"m-99\" is taken: service.many/m-99 has it");
}

#[tokio::test]
async fn who_is_out_of_service_is_kept_until_it_goes() {
    let bench = bench();
    let tasks = Tasks::new();
    let catalog = Catalog::start(Arc::clone(&bench.store), &tasks).await.unwrap();
    let health = Health::start(Arc::clone(&catalog), &tasks);
    bench.edit(vec![put("service/web"), put("service/web/web-2")]).await.unwrap();
    let two: RecordKey = "service/web/web-2".parse().unwrap();
    let permit = permit(&Caller::local(0));
    bench.apply.maintain(&permit, two.clone(), Some("moving".to_owned())).await.unwrap();
    let nobody = "service/none".parse().unwrap();
    assert!(bench.apply.maintain(&permit, nobody, Some(String::new())).await.is_err());

    // As after a restart: the store knows, health is told.
    let mut seen = catalog.subscribe();
    seen.wait_for(|view| view.instance(&"web-2".parse().unwrap()).is_some()).await.unwrap();
    let (web, id) = ("web".parse().unwrap(), "web-2".parse().unwrap());
    // The keeper hears of the catalog by itself, which may be a moment later.
    let mut told = health.subscribe();
    while health.instance(&web, &id).status != Status::Maintenance {
        maintenance::restore(&*bench.store, &catalog, &health).await.unwrap();
        tokio::task::yield_now().await;
    }
    told.mark_unchanged();
    assert_eq!(health.status(&web), Status::Passing, "the other is in service");
    bench.edit(vec![delete("service/web/web-2")]).await.unwrap();
    assert!(bench.store.range(keys::MAINTENANCE).await.unwrap().entries.is_empty());
    tasks.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_overdue_instance_goes_unless_a_manifest_declares_it_or_it_came_round() {
    let bench = bench();
    let tasks = Tasks::new();
    let catalog = Catalog::start(Arc::clone(&bench.store), &tasks).await.unwrap();
    let health = Health::start(Arc::clone(&catalog), &tasks);
    let identities = Identities::start(Arc::clone(&bench.store), &tasks).await.unwrap();
    let check = Check { deregister_after_ms: 60_000, ..Check::new(Probe::Ttl(86_400_000), 0, 0) };
    let ill = Record::Service(Service { port: Some(1), checks: vec![check], ..Service::default() });
    bench.make("shop", &[("service/owned", ill.clone())]).await.unwrap();
    let edit = |key: &str| Edit::put(key.parse().unwrap(), ill.clone());
    bench.edit(vec![edit("service/web"), edit("service/web/web-2")]).await.unwrap();
    let mut seen = health.subscribe();
    seen.wait_for(|view| view.len() == 2 && view.get(&"web".parse().unwrap()).is_some()).await.unwrap();
    let place = CheckPlace {
        service: "web".parse().unwrap(),
        instance: "web-2".parse().unwrap(),
        check: "service:web-2".into(),
    };
    while health.update(&place, Status::Passing, "").await.is_err() {
        tokio::task::yield_now().await;
    }
    for (service, instance) in [("owned", "owned"), ("web", "web"), ("web", "web-2")] {
        let place = CheckPlace {
            service: service.parse().unwrap(),
            instance: instance.parse().unwrap(),
            check: format!("service:{instance}").into(),
        };
        deregister(&bench.apply, &health, &identities, place).await;
    }
    assert_eq!(bench.keys().await, ["service/owned", "service/web/web-2"]);
    tasks.drain(Duration::from_secs(5)).await;
}
