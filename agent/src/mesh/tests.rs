//! The mesh on real sockets: an app, an upstream's port, an instance, and the store that declares them.

use std::time::Duration;

use schema::kind::exported_services::Export;
use schema::kind::service::{Service, Upstream};
use schema::kind::service_intentions::{Action, IntentionSource};
use schema::record::{Record, RecordKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::sockets::Sockets;
use crate::store::sqlite::SqliteStore;
use crate::store::value::{Declared, encode};
use crate::store::{Op, Store, Txn, keys};
use crate::trust::Access;
use crate::trust::certificate::KeyPair;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::trust::identity::{Backing, IdentityKind, IdentityRecord};
use crate::tunnel::{ALPN_LINK, tls};
use crate::wire::service::PortState;

mod breaks;
mod grants;
mod instances;
mod locals;
mod targets;

const LIMIT: Duration = Duration::from_secs(10);

fn put(key: &str, record: Record) -> Op {
    let key: RecordKey = key.parse().unwrap();
    Op::Put { key: keys::declared(&key), value: encode(&Declared::by_hand(record)) }
}

fn intention(action: Action) -> Record {
    Record::ServiceIntentions(IntentionSource { action, description: String::new(), permissions: Vec::new() })
}

fn instance(port: u16) -> Record {
    Record::Service(Service { port: Some(port), ..Service::default() })
}

fn caller(upstreams: &[(&str, u16)]) -> Record {
    calling(upstreams.iter().map(|(destination, port)| upstream(destination, *port)).collect())
}

fn calling(upstreams: Vec<Upstream>) -> Record {
    Record::Service(Service { upstreams, ..Service::default() })
}

fn upstream(destination: &str, port: u16) -> Upstream {
    Upstream::to(destination.parse().unwrap(), None, port)
}

/// Answers with what it got, in capitals, once all of it is there: nothing comes back unless the half-close does.
async fn shouter() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut text = String::new();
                if socket.read_to_string(&mut text).await.is_ok() {
                    let _ = socket.write_all(text.to_uppercase().as_bytes()).await;
                }
            });
        }
    });
    port
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// One agent's mesh over a store of its own.
struct Side {
    store: Arc<dyn Store>,
    mesh: Arc<Mesh>,
    tasks: Tasks,
}

impl Side {
    async fn start() -> Self {
        let (store, tasks) = (SqliteStore::scratch(), Tasks::new());
        let catalog = Catalog::start(store.clone(), &tasks).await.unwrap();
        let health = Health::start(catalog.clone(), &tasks);
        let identities = Identities::start(store.clone(), &tasks).await.unwrap();
        let imports = Arc::new(Imports::new());
        let sessions = Arc::new(Sessions::default());
        // A store of its own, since tests count this one's revisions.
        let mesh_ca = MeshAuthority::scratch(SqliteStore::scratch()).await;
        let bundles = Arc::default();
        let parts = MeshParts {
            catalog,
            imports,
            health,
            sessions,
            identities,
            mesh_ca,
            bundles,
            sockets: Sockets::alone(),
            tasks: tasks.clone(),
        };
        let mesh = Mesh::new(parts);
        tasks.spawn("mesh", mesh.clone().run());
        Self { store, mesh, tasks }
    }

    async fn declare(&self, ops: Vec<Op>) {
        self.store.commit(Txn { guards: Vec::new(), ops }).await.unwrap();
    }

    /// Waits until the upstreams' ports are in these states, in order.
    async fn ports(&self, wanted: impl Fn(&[PortState]) -> bool) {
        until(|| {
            let states: Vec<_> = self.mesh.upstreams().into_iter().map(|row| row.port).collect();
            wanted(&states)
        })
        .await;
    }

    async fn drain(self) {
        assert_eq!(self.tasks.drain(LIMIT).await, crate::task::Drained::Clean);
    }
}

async fn until(condition: impl Fn() -> bool) {
    let polled = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, polled).await.expect("the condition never held");
}

fn listening(states: &[PortState]) -> bool {
    states == [PortState::Listening]
}

/// What comes back for `text`, or the error that came instead.
async fn shout(port: u16, text: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.write_all(text.as_bytes()).await?;
    socket.shutdown().await?;
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, socket.read_to_string(&mut answer)).await.expect("no answer in time")?;
    Ok(answer)
}

/// An open connection ends within this without a byte.
async fn is_cut(mut socket: TcpStream) {
    let ended = tokio::time::timeout(Duration::from_secs(1), socket.read(&mut [0; 16])).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "still open: {ended:?}");
}

#[tokio::test]
async fn a_service_of_this_cluster_is_reached_as_long_as_an_intention_allows_it() {
    let side = Side::start().await;
    let (backend, local) = (shouter().await, free_port().await);
    side.declare(vec![
        put("service/backend", instance(backend)),
        put("service/frontend", caller(&[("backend", local)])),
    ])
    .await;
    side.ports(listening).await;
    assert_eq!(shout(local, "hello").await.unwrap_or_default(), "", "denied unless allowed");

    side.declare(vec![put("service_intentions/backend/@/frontend", intention(Action::Allow))]).await;
    let seen = side.mesh.parts.catalog.subscribe().wait_for(|view| view.revision.0 == 2).await.is_ok();
    assert!(seen);
    assert_eq!(shout(local, "hello").await.unwrap(), "HELLO");
    let large = "x".repeat(1 << 20);
    assert_eq!(shout(local, &large).await.unwrap().len(), large.len());

    let open = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
    until(|| side.mesh.status().traffic.iter().any(|row| row.open == 1)).await;
    side.declare(vec![put("service_intentions/backend/@/frontend", intention(Action::Deny))]).await;
    is_cut(open).await;
    assert_eq!(shout(local, "hello").await.unwrap_or_default(), "");

    let traffic = side.mesh.status().traffic;
    // One row for what no intention matched, one for what this intention allowed and then denied.
    let [unmatched, row] = &traffic[..] else { panic!("{traffic:?}") };
    assert_eq!((unmatched.rule.as_ref(), unmatched.connections, unmatched.denied), (None, 0, 1));
    assert_eq!((row.connections, row.denied, row.open, row.failed, row.cut), (3, 1, 0, 0, 1));
    assert_eq!((row.sent, row.received), (5 + (1 << 20), 5 + (1 << 20)));
    assert_eq!(row.set_up.count, 3);
    side.drain().await;
}

#[tokio::test]
async fn ports_follow_the_catalog_and_wait_for_one_that_is_in_use() {
    let side = Side::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (first, second) = (taken.local_addr().unwrap().port(), free_port().await);
    let backend = shouter().await;
    side.declare(vec![
        put("service/backend", instance(backend)),
        put("service/frontend", caller(&[("backend", first)])),
        put("service_intentions/*/@/*", intention(Action::Allow)),
    ])
    .await;
    side.ports(|states| matches!(states, [PortState::Waiting { reason }] if reason.contains("in use"))).await;
    drop(taken);
    side.ports(listening).await;
    assert_eq!(shout(first, "one").await.unwrap(), "ONE");

    // Another port: the old one closes, and what was open on it with it.
    let open = TcpStream::connect(("127.0.0.1", first)).await.unwrap();
    until(|| side.mesh.status().traffic.iter().any(|row| row.open == 1)).await;
    side.declare(vec![put("service/frontend", caller(&[("backend", second)]))]).await;
    is_cut(open).await;
    side.ports(listening).await;
    assert_eq!(shout(second, "two").await.unwrap(), "TWO");
    tokio::time::timeout(LIMIT, async { while TcpStream::connect(("127.0.0.1", first)).await.is_ok() {} })
        .await
        .expect("the old port is still open");

    // The same port leads elsewhere: it stays bound and the next connection goes there.
    side.declare(vec![put("service/frontend", caller(&[("absent", second)]))]).await;
    until(|| side.mesh.upstreams().iter().any(|row| row.destination.as_str() == "absent")).await;
    assert_eq!(shout(second, "three").await.unwrap_or_default(), "");

    side.declare(vec![Op::Delete { key: keys::declared(&"service/frontend".parse().unwrap()) }]).await;
    until(|| side.mesh.upstreams().is_empty()).await;
    side.drain().await;
}

/// Gives every stream to a mesh.
struct ToMesh(Arc<Mesh>);

impl crate::tunnel::Router for ToMesh {
    fn route(&self, session: &Session, incoming: Incoming) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(self.0.clone().serve(session.clone(), incoming))
    }
}

/// East is dialled by west, which it knows by the link `west`.
async fn linked() -> (Side, Side, Arc<KeyPair>) {
    let (east, west) = (Side::start().await, Side::start().await);
    let server = Arc::new(KeyPair::generate("east", &[]).unwrap());
    let client = Arc::new(KeyPair::generate("west", &[]).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = tls::server_config(
        ClusterIdentity::new(server.clone()).unwrap(),
        &[ALPN_LINK],
        tls::ClientCertificate::Required,
    )
    .unwrap();
    let (router, tasks, peer) = (Arc::new(ToMesh(east.mesh.clone())), east.tasks.clone(), client.fingerprint);
    tokio::spawn(async move {
        let socket = listener.accept().await.unwrap().0;
        let stream = tokio_rustls::TlsAcceptor::from(config).accept(socket).await.unwrap();
        crate::tunnel::serve(stream, peer, crate::tunnel::Room::Full, router, &tasks).await.unwrap();
    });
    let router = Arc::new(ToMesh(west.mesh.clone()));
    let session =
        crate::tunnel::dial(&[address], server.fingerprint, &client, router, &west.tasks).await.unwrap();
    west.mesh.parts.sessions.put("east".parse().unwrap(), session);
    (east, west, client)
}

fn identity(pair: &KeyPair) -> Op {
    let record = IdentityRecord {
        kind: IdentityKind::ClusterLink { link: "west".parse().unwrap(), backing: Backing::Declaration },
        name: "west".to_owned(),
        access: Access::Groups(vec![].into()),
        certificate_pem: crate::trust::certificate::to_pem(&pair.certificate),
    };
    Op::Put { key: keys::identity(&pair.fingerprint.to_string()), value: encode(&record) }
}

#[tokio::test]
async fn a_peer_reaches_what_is_exported_to_it_and_allowed_until_either_ends() {
    let (east, west, client) = linked().await;
    let (backend, local) = (shouter().await, free_port().await);
    let mut frontend = caller(&[("backend", local)]);
    if let Record::Service(service) = &mut frontend {
        service.upstreams[0].destination_peer = Some("east".parse().unwrap());
    }
    west.declare(vec![put("service/frontend", frontend)]).await;
    west.ports(listening).await;
    let allow = || put("service_intentions/backend/west/frontend", intention(Action::Allow));
    let export = || {
        put(
            "exported_services/default/backend",
            Record::ExportedServices(Export { consumers: vec!["west".parse().unwrap()] }),
        )
    };
    let remove = |key: &str| Op::Delete { key: keys::declared(&key.parse().unwrap()) };
    let deny = || put("service_intentions/backend/west/frontend", intention(Action::Deny));

    // All but one of the three that it takes is not enough, whichever is missing.
    east.declare(vec![put("service/backend", instance(backend)), allow(), identity(&client)]).await;
    until(|| east.mesh.parts.identities.get(&client.fingerprint.into()).is_some()).await;
    assert_eq!(shout(local, "hello").await.unwrap_or_default(), "");
    east.declare(vec![export()]).await;
    until(|| !east.mesh.parts.catalog.view().exports.is_empty()).await;
    assert_eq!(shout(local, "hello").await.unwrap(), "HELLO");
    let large = "x".repeat(3 << 20);
    assert_eq!(shout(local, &large).await.unwrap().len(), large.len());

    // Each way to lose the permit cuts an open connection and refuses the next; giving it back lets the next through.
    let identity_key = keys::identity(&client.fingerprint.to_string());
    let ways: [(Op, Op); 4] = [
        (deny(), allow()),
        (remove("exported_services/default/backend"), export()),
        (Op::Delete { key: identity_key }, identity(&client)),
        (remove("service/backend"), put("service/backend", instance(backend))),
    ];
    for (lose, regain) in ways {
        let open = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
        until(|| east.mesh.status().traffic.iter().any(|row| row.open == 1)).await;
        east.declare(vec![lose.clone()]).await;
        is_cut(open).await;
        assert_eq!(shout(local, "hello").await.unwrap_or_default(), "", "after {lose:?}");
        east.declare(vec![regain]).await;
        let again = async { while shout(local, "again").await.unwrap_or_default() != "AGAIN" {} };
        tokio::time::timeout(LIMIT, again).await.expect("not allowed again");
    }
    // No instance listens: allowed, and still an error for the app rather than an empty answer.
    east.declare(vec![put("service/backend", instance(free_port().await))]).await;
    let failed = || west.mesh.status().traffic.iter().map(|row| row.failed).sum::<u64>();
    let none = async {
        while failed() == 0 {
            let _ = shout(local, "hello").await;
        }
    };
    tokio::time::timeout(LIMIT, none).await.unwrap();
    west.drain().await;
    east.drain().await;
}
