//! Agents without their upper floors: a store, a listener for both protocols, and peering between them.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming as Body};
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use schema::kind::cluster_link::{ClusterLink, LinkType};
use schema::kind::exported_services::Export;
use schema::kind::service::Service;
use schema::name::LinkName;
use schema::plan::LinkState;
use schema::record::{Record, RecordKey};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::audit::Audit;
use crate::authorize::{Entitlement, Entity, Permit, decide};
use crate::catalog::{Catalog, Imports};
use crate::health::Health;
use crate::peering::half::Attempt;
use crate::peering::{ActivateRequest, Peering, PeeringError, PeeringParts, Way};
use crate::settings::{Addresses, Settings};
use crate::store::sqlite::SqliteStore;
use crate::store::{CommitError, Op, Store, Txn, keys, value};
use crate::task::Tasks;
use crate::trust::certificate::{KeyPair, fingerprint};
use crate::trust::cluster_identity::ClusterIdentity;
use crate::trust::identity::Identities;
use crate::trust::mesh::MeshAuthority;
use crate::trust::policy::Policy;
use crate::trust::{Caller, Who};
use crate::tunnel::{ALPN_LINK, Incoming, Room, Router, Session, Sessions, serve, tls};
use crate::wire::cluster_link::{Activated, LinkPost, LinkReport};

pub struct Agent {
    pub peering: Arc<Peering>,
    pub store: Arc<dyn Store>,
    pub key: Arc<KeyPair>,
    pub imports: Arc<Imports>,
    pub address: String,
    pub tasks: Tasks,
}

/// Gives streams and sessions to peering, as the daemon's router does.
#[derive(Default)]
struct ToPeering(OnceLock<Arc<Peering>>);

impl Router for ToPeering {
    fn route(&self, session: &Session, incoming: Incoming) -> BoxFuture<'static, ()> {
        self.0.get().unwrap().serve(session, incoming)
    }

    fn arrived(&self, session: &Session) {
        self.0.get().unwrap().adopt(session.clone());
    }
}

impl Agent {
    pub async fn start(name: &str) -> Self {
        let key = Arc::new(KeyPair::generate(name, &[]).unwrap());
        Self::run(name, SqliteStore::scratch(), key, "127.0.0.1:0").await
    }

    /// The agent's next life, after it was ended: the same store, key and address.
    pub async fn again(self) -> Self {
        self.tasks.drain(Duration::from_secs(5)).await;
        Self::run("again", self.store, self.key, &self.address).await
    }

    async fn run(name: &str, store: Arc<dyn Store>, key: Arc<KeyPair>, address: &str) -> Self {
        let tasks = Tasks::new();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let catalog = Catalog::start(Arc::clone(&store), &tasks).await.unwrap();
        let imports = Arc::new(Imports::new());
        let identity = ClusterIdentity::new(Arc::clone(&key)).unwrap();
        let peering = Peering::new(PeeringParts {
            store: Arc::clone(&store),
            identity: Arc::clone(&identity),
            identities: Identities::start(Arc::clone(&store), &tasks).await.unwrap(),
            sessions: Arc::new(Sessions::default()),
            health: Health::start(Arc::clone(&catalog), &tasks),
            catalog,
            imports: Arc::clone(&imports),
            mesh_ca: MeshAuthority::scratch(Arc::clone(&store)).await,
            bundles: Arc::default(),
            addresses: Addresses::new([address.clone()]),
            settings: Settings::start(store.clone(), Audit::none(), &tasks).await.unwrap(),
            audit: Audit::none(),
            cluster: name.parse().unwrap(),
            tasks: tasks.clone(),
        });
        let router = Arc::new(ToPeering::default());
        router.0.set(Arc::clone(&peering)).ok().unwrap();
        listen(listener, &identity, &peering, &router, &tasks);
        peering.run(router).await.unwrap();
        Self { peering, store, key, imports, address, tasks }
    }

    pub async fn put(&self, key: &str, record: Record) {
        let key = keys::declared(&key.parse::<RecordKey>().unwrap());
        let op = Op::Put { key, value: value::encode(&value::Declared::by_hand(record)) };
        self.store.commit(Txn { guards: vec![], ops: vec![op] }).await.unwrap();
    }

    pub async fn declare(&self, link: &str) {
        self.put(&format!("cluster_link/{link}"), Record::ClusterLink(ClusterLink::default())).await;
    }

    /// Declares a link of another type: with a group it is the side of a one-way link that is called.
    pub async fn declare_as(&self, link: &str, kind: LinkType, group: Option<&str>) {
        let auth_groups = group.into_iter().map(|group| group.parse().unwrap()).collect();
        let record = ClusterLink { kind, auth_groups, ..ClusterLink::default() };
        self.put(&format!("cluster_link/{link}"), Record::ClusterLink(record)).await;
    }

    pub async fn export(&self, service: &str, peer: &str) {
        let port = Some(1);
        self.put(&format!("service/{service}"), Record::Service(Service { port, ..Service::default() }))
            .await;
        let consumers = vec![peer.parse().unwrap()];
        self.put(
            &format!("exported_services/default/{service}"),
            Record::ExportedServices(Export { consumers }),
        )
        .await;
    }

    /// What `apply` does to end a link.
    pub async fn delete(&self, link: &str) {
        loop {
            let key = keys::declared(&RecordKey::ClusterLink(name(link)));
            let mut txn = self.peering.removal(&name(link)).await.unwrap();
            txn.ops.push(Op::Delete { key });
            match self.store.commit(txn).await {
                Ok(_) => return,
                // The link's first data was noted meanwhile.
                Err(CommitError::Conflict(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub async fn mint(&self, link: &str, to: Option<&Agent>) -> String {
        let bound_to = to.map(|agent| agent.key.fingerprint);
        let minted = self.peering.mint(&permit(), &name(link), bound_to).await.unwrap();
        minted.token.encode().expose().to_owned()
    }

    pub async fn redeem(&self, link: &str, token: &str) -> Result<LinkReport, PeeringError> {
        self.peering.redeem(&permit(), &name(link), token).await
    }

    pub async fn activate(&self, token: &str, with: &KeyPair) -> Result<LinkName, PeeringError> {
        let token_secret = crate::wire::token::TrustToken::decode(token).unwrap().secret;
        self.peering
            .activate(
                &nobody(),
                ActivateRequest {
                    token: token.to_owned(),
                    attempt: Some(Attempt::of(&token_secret, &with.fingerprint)),
                    presented: Some(with.certificate.clone()),
                    cluster_certificate: None,
                    addresses: vec![],
                    way: Way::Loopback,
                },
            )
            .await
    }

    /// Waits until the link's state is `wanted`, and gives the report.
    pub async fn reaches(&self, link: &str, wanted: LinkState) -> LinkReport {
        self.settles(link, |report| report.state == wanted).await
    }

    pub async fn settles(&self, link: &str, wanted: impl Fn(&LinkReport) -> bool) -> LinkReport {
        let mut changed = self.peering.changed();
        let mut last = None;
        let settling = async {
            loop {
                changed.borrow_and_update();
                let report = self.peering.report(&name(link)).await.unwrap();
                if wanted(&report) {
                    return report;
                }
                last = Some(report);
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), settling).await.unwrap_or_else(|_| panic!("{last:?}"))
    }

    /// Waits until exactly these services are imported over `link`.
    pub async fn imports(&self, link: &str, wanted: &[&str]) {
        let mut view = self.imports.subscribe();
        let arriving = view.wait_for(|view| {
            let names = view.get(&name(link)).map(|imported| {
                imported.services.sorted().into_iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
            });
            names.unwrap_or_default() == wanted
        });
        tokio::time::timeout(Duration::from_secs(20), arriving).await.expect("the imports arrive").unwrap();
    }
}

pub fn name(link: &str) -> LinkName {
    link.parse().unwrap()
}

pub fn nobody() -> Caller {
    Caller::from(Who::Anonymous { certificate: None })
}

pub fn permit() -> Permit {
    decide(&Caller::local(0), Entitlement::Admin, Entity::Server, &Policy::default()).unwrap()
}

fn listen(
    listener: TcpListener,
    identity: &Arc<ClusterIdentity>,
    peering: &Arc<Peering>,
    router: &Arc<ToPeering>,
    tasks: &Tasks,
) {
    let alpn = [ALPN_LINK, b"http/1.1"];
    let config = tls::server_config(identity.clone(), &alpn, tls::ClientCertificate::Requested).unwrap();
    let own = identity.current().pem.clone();
    let (peering, router, group) = (Arc::clone(peering), Arc::clone(router), tasks.clone());
    tasks.spawn("listener", async move {
        loop {
            let tcp = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                () = group.ending().cancelled_owned() => break,
            };
            let (acceptor, router) = (TlsAcceptor::from(config.clone()), Arc::clone(&router));
            let (peering, own, inner) = (Arc::clone(&peering), own.clone(), group.clone());
            group.spawn("connection", async move {
                // A handshake that fails is the dialler's to report.
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let shown = shown.map(|der| der.clone().into_owned());
                if stream.get_ref().1.alpn_protocol() == Some(ALPN_LINK) {
                    let peer = fingerprint(&shown.unwrap());
                    let _ = serve(stream, peer, Room::Full, router, &inner).await;
                    return;
                }
                let answer = |request| answer(Arc::clone(&peering), shown.clone(), own.clone(), request);
                let service = hyper::service::service_fn(answer);
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
}

/// `/1.0`, as far as an exchange needs it.
async fn answer(
    peering: Arc<Peering>,
    presented: Option<CertificateDer<'static>>,
    own: String,
    request: Request<Body>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let done = match path.as_str() {
        "/1.0" => Ok((200, serde_json::json!({"auth": "untrusted"}))),
        "/1.0/auth/identities/tls" => {
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let token = body["trust_token"].as_str().unwrap();
            peering.admit(&nobody(), token, &presented.unwrap()).await.map(|_| (201, serde_json::Value::Null))
        }
        _ => {
            let post: LinkPost = serde_json::from_slice(&body).unwrap();
            let request = ActivateRequest::from_post(post, presented, None);
            let metadata = serde_json::json!(Activated { cluster_certificate: own });
            peering.activate(&nobody(), request).await.map(|_| (201, metadata))
        }
    };
    let (status, envelope) = match done {
        Ok((status, metadata)) => (
            status,
            serde_json::json!({"type": "sync", "status": "", "status_code": 200, "metadata": metadata}),
        ),
        Err(error) => (
            403,
            serde_json::json!({"type": "error", "status": "", "status_code": 0, "error_code": 403,
                "error": error.to_string()}),
        ),
    };
    Ok(Response::builder().status(status).body(Full::new(envelope.to_string().into())).unwrap())
}
