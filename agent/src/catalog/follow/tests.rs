use std::time::Duration;

use schema::access::Source;
use schema::kind::exported_services::Export;
use schema::kind::service::Service;
use schema::kind::service_intentions::{Action, IntentionSource};
use schema::name::{LinkName, ServiceName};

use super::*;
use crate::store::sqlite::SqliteStore;
use crate::store::{Op, Txn};

fn put(key: &str, record: Record) -> Op {
    let key: RecordKey = key.parse().unwrap();
    Op::Put { key: keys::declared(&key), value: value::encode(&Declared::by_hand(record)) }
}

fn delete(key: &str) -> Op {
    Op::Delete { key: keys::declared(&key.parse().unwrap()) }
}

fn service(port: Option<u16>) -> Record {
    Record::Service(Service { port, ..Service::default() })
}

fn export(consumers: &[&str]) -> Record {
    Record::ExportedServices(Export {
        consumers: consumers.iter().map(|link| link.parse().unwrap()).collect(),
    })
}

fn intention(action: Action) -> Record {
    Record::ServiceIntentions(IntentionSource { action, description: String::new(), permissions: Vec::new() })
}

async fn commit(store: &dyn Store, ops: Vec<Op>) {
    store.commit(Txn { guards: Vec::new(), ops }).await.unwrap();
}

fn names(services: &[ServiceName]) -> Vec<&str> {
    services.iter().map(ServiceName::as_str).collect()
}

#[tokio::test]
async fn each_commit_is_seen_whole_and_exports_name_what_is_there_or_is_to_be() {
    let (store, tasks) = (SqliteStore::scratch(), Tasks::new());
    commit(&*store, vec![put("service/backend", service(Some(9090)))]).await;
    let catalog = Catalog::start(store.clone(), &tasks).await.unwrap();
    assert_eq!(catalog.view().services.len(), 1);
    let mut views = catalog.subscribe();
    let (west, south): (LinkName, LinkName) = ("west".parse().unwrap(), "south".parse().unwrap());

    commit(
        &*store,
        vec![
            put("exported_services/default/backend", export(&["west"])),
            put("exported_services/default/absent", export(&["west"])),
            put("service_intentions/backend/west/frontend", intention(Action::Allow)),
        ],
    )
    .await;
    let next = |views: &mut watch::Receiver<Arc<CatalogView>>| {
        let mut views = views.clone();
        async move {
            tokio::time::timeout(Duration::from_secs(10), views.changed()).await.unwrap().unwrap();
            views.borrow().clone()
        }
    };
    let view = next(&mut views).await;
    views.mark_unchanged();
    // What is exported by its name is offered before it is declared, as Consul has it.
    assert_eq!(names(&view.exported_to(&west)), ["absent", "backend"]);
    assert!(view.exported_to(&south).is_empty());
    let backend = "backend".parse().unwrap();
    let frontend =
        |peer: &LinkName| Source { peer: Some(peer.clone()), service: "frontend".parse().unwrap() };
    assert!(view.intentions.decide(&frontend(&west), &backend).is_allowed());
    assert!(!view.intentions.decide(&frontend(&south), &backend).is_allowed());

    // A wildcard offers what has a port; a destination of `*` reaches every part of the intentions.
    commit(
        &*store,
        vec![
            put("exported_services/default/*", export(&["south"])),
            put("service/frontend", service(None)),
            put("service/web", service(Some(80))),
            put("service_intentions/*/south/*", intention(Action::Allow)),
            delete("service_intentions/backend/west/frontend"),
        ],
    )
    .await;
    let view = next(&mut views).await;
    assert_eq!(names(&view.exported_to(&south)), ["backend", "web"]);
    assert_eq!(view.consumers_of(&backend).iter().collect::<Vec<_>>(), [&south, &west]);
    assert!(view.consumers_of(&"frontend".parse().unwrap()).is_empty());
    assert!(view.is_exported(&backend, &south) && !view.is_exported(&"frontend".parse().unwrap(), &south));
    assert!(view.intentions.decide(&frontend(&south), &backend).is_allowed());
    assert!(!view.intentions.decide(&frontend(&west), &backend).is_allowed());
    assert_eq!(tasks.drain(Duration::from_secs(5)).await, crate::task::Drained::Clean);
}
