use std::time::Duration;

use schema::kind::service::{Check, Probe, Service};
use schema::record::{Record, RecordKey};
use tokio::net::TcpListener;

use super::*;
use crate::store::sqlite::SqliteStore;
use crate::store::value::{Declared, encode};
use crate::store::{Op, Store, Txn, keys};

async fn declare(store: &dyn Store, checks: Vec<Check>) {
    let key = keys::declared(&RecordKey::Service("web".parse().unwrap()));
    let record = Record::Service(Service { port: Some(80), checks, ..Service::default() });
    let op = Op::Put { key, value: encode(&Declared::by_hand(record)) };
    store.commit(Txn { guards: Vec::new(), ops: vec![op] }).await.unwrap();
}

#[tokio::test]
async fn health_follows_the_instance_and_the_declaration() {
    let (store, tasks) = (SqliteStore::scratch(), Tasks::new());
    let catalog = Catalog::start(store.clone(), &tasks).await.unwrap();
    let health = Health::start(catalog.clone(), &tasks);
    let web: ServiceName = "web".parse().unwrap();
    assert_eq!(health.status(&web), Status::Critical, "not declared");

    let instance = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = instance.local_addr().unwrap();
    let check = Check::new(Probe::Tcp(address.to_string()), 100, 1_000);
    let mut seen = health.subscribe();
    declare(&*store, vec![check]).await;
    let mut until = async |wanted: Option<Status>| {
        let wait = seen.wait_for(|view| {
            let health = view.get(&web).and_then(|service| service.get(&(&web).into()));
            health.map(|health| health.status) == wanted
        });
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap().unwrap();
    };
    until(Some(Status::Passing)).await;
    drop(instance);
    until(Some(Status::Critical)).await;
    let instance = TcpListener::bind(address).await.unwrap();
    until(Some(Status::Passing)).await;
    drop(instance);

    declare(&*store, Vec::new()).await;
    until(None).await;
    assert_eq!(health.status(&web), Status::Passing, "nothing to ask");
    assert_eq!(tasks.drain(Duration::from_secs(5)).await, crate::task::Drained::Clean);
}
