use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};

use super::listener::{Api, network, socket};
use super::*;
use crate::apply::ApplyParts;
use crate::audit::Audit;
use crate::client::{Client, ClientError, NO_BODY, first_contact};
use crate::mesh::MeshParts;
use crate::peering::PeeringParts;
use crate::settings::Listen;
use crate::sockets::Sockets;
use crate::store::sqlite::SqliteStore;
use crate::store::value::encode;
use crate::store::{Op, Txn, keys};
use crate::trust::Access;
use crate::trust::certificate::KeyPair;
use crate::trust::identity::{Backing, IdentityKind, IdentityRecord};
use crate::trust::mesh::{MeshAuthority, PeerBundles};
use crate::trust::server_identity::ServerIdentity;
use crate::tunnel::{self, Incoming, Session, connect, tls};
use crate::web::Web;
use crate::wire::link::StreamHeader;
use crate::wire::status::Status;

mod consul;
mod doors;
mod escalation;
mod link_names;
mod projects;
mod started;

/// An agent's API, served over the network and the socket.
struct Served {
    state: ApiState,
    address: String,
    dir: TempDir,
}

#[derive(Default)]
struct ApiStreams {
    api: OnceLock<Api>,
}

impl tunnel::Router for ApiStreams {
    fn route(&self, session: &Session, incoming: Incoming) -> BoxFuture<'static, ()> {
        let (api, session) = (self.api.get().cloned().unwrap(), session.clone());
        Box::pin(async move { api.serve_stream(&session, incoming.accept().await.unwrap()).await })
    }
}

impl Served {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = Listen::At("127.0.0.1:0".parse().unwrap());
        let bound = network::bind(&Sockets::alone(), listen).unwrap().unwrap();
        let address = bound.listener.local_addr().unwrap().to_string();
        let (store, tasks) = (SqliteStore::scratch(), Tasks::new());
        let name: ClusterName = "east".parse().unwrap();
        let identity = ClusterIdentity::new(Arc::new(KeyPair::generate("east", &[]).unwrap())).unwrap();
        let identities = Identities::start(store.clone(), &tasks).await.unwrap();
        let sessions = Arc::new(Sessions::default());
        let catalog = Catalog::start(store.clone(), &tasks).await.unwrap();
        let imports = Arc::new(Imports::new());
        let mesh_ca = MeshAuthority::scratch(store.clone()).await;
        let bundles = Arc::new(PeerBundles::default());
        let audit = Audit::open(&dir.path().join("audit")).unwrap();
        let settings = Settings::start(store.clone(), audit.clone(), &tasks).await.unwrap();
        let addresses = Addresses::new([address.clone()]);
        let health = Health::start(catalog.clone(), &tasks);
        let peering = Peering::new(PeeringParts {
            store: store.clone(),
            identity: identity.clone(),
            identities: identities.clone(),
            sessions: sessions.clone(),
            catalog: catalog.clone(),
            imports: imports.clone(),
            mesh_ca: mesh_ca.clone(),
            bundles: bundles.clone(),
            health: health.clone(),
            addresses: addresses.clone(),
            settings: settings.clone(),
            audit: audit.clone(),
            cluster: name.clone(),
            tasks: tasks.clone(),
        });
        let mesh = Mesh::new(MeshParts {
            catalog: catalog.clone(),
            imports: imports.clone(),
            health: health.clone(),
            sessions: sessions.clone(),
            identities: identities.clone(),
            mesh_ca: mesh_ca.clone(),
            bundles: bundles.clone(),
            sockets: Sockets::alone(),
            tasks: tasks.clone(),
        });
        let (pools, operations) = (Pools::open(dir.path()).unwrap(), Operations::new());
        let history = History::start(store.clone(), &operations, &tasks).await.unwrap();
        let transfers = Transfers::new(pools.clone(), operations.clone(), identity.clone(), tasks.clone());
        let apply = Apply::start(ApplyParts {
            store: store.clone(),
            links: peering.clone(),
            pools: pools.clone(),
            audit: audit.clone(),
            tasks: tasks.clone(),
        });
        let server = ServerIdentity::of_cluster(identity.clone());
        let clients =
            Arc::new(Clients::new(store.clone(), identities.clone(), server.clone(), audit.clone()));
        let observe = Observe::new(store.clone(), peering.clone(), name.clone(), identity.clone());
        let state = ApiState::from(ApiParts {
            name,
            identity,
            acme: Acme::scratch(server.clone()),
            server,
            addresses: addresses.clone(),
            settings,
            failures: Failures::new(audit.clone()),
            audit: audit.clone(),
            doors: Doors::new(false, Vec::new(), addresses.clone(), Sockets::alone()),
            projects: Projects::start(store.clone(), audit.clone(), &tasks).await.unwrap(),
            instances: crate::storage::Instances::new(store.clone(), pools.clone(), audit.clone()),
            backups: Backups::open(dir.path()).unwrap(),
            storage_pools: StoragePools::new(store.clone(), pools.clone(), audit.clone()),
            volume_snapshots: VolumeSnapshots::new(store.clone(), pools.clone(), audit, &tasks),
            store,
            logins: Logins::new(Web::new().unwrap(), identities.clone(), clients.clone(), tasks.clone()),
            identities,
            clients,
            sessions,
            catalog,
            imports,
            health,
            mesh,
            mesh_ca,
            bundles,
            observe,
            apply,
            peering,
            pools,
            operations,
            history,
            transfers,
            reconcile: None,
            blocked: Blocked::default(),
            tasks,
        });
        let api = Api::new(state.clone());
        let streams = Arc::new(ApiStreams::default());
        assert!(streams.api.set(api.clone()).is_ok());
        api.serve_network(Some(bound), streams).await.unwrap();
        api.serve_socket(socket::bind(&Sockets::alone(), &dir.path().join("unix.socket")).unwrap()).unwrap();
        Self { state, address, dir }
    }

    fn local(&self) -> Client {
        Client::unix(self.dir.path().join("unix.socket"))
    }

    fn remote(&self, identity: Option<&Arc<KeyPair>>) -> Client {
        Client::pinned(
            "east",
            vec![self.address.clone()],
            self.state.identity.fingerprint(),
            identity.cloned(),
        )
    }

    /// A client that is trusted, by token.
    async fn trusted(&self, groups: &[String]) -> (Arc<KeyPair>, Client) {
        self.trusted_as("laptop", groups).await
    }

    async fn trusted_as(&self, name: &str, groups: &[String]) -> (Arc<KeyPair>, Client) {
        let pair = Arc::new(KeyPair::generate("laptop", &[]).unwrap());
        let client = self.remote(Some(&pair));
        let minted = self.local().mint_token(name, groups, None).await.unwrap();
        client.redeem_token(minted.token.encode().expose()).await.unwrap();
        (pair, client)
    }

    /// A connection that is kept, with this certificate.
    async fn connection(&self, pair: &KeyPair) -> http1::SendRequest<Full<Bytes>> {
        let config =
            tls::client_config_pinned(self.state.identity.fingerprint(), Some(pair), &[b"http/1.1"]).unwrap();
        speak(connect::connect(&self.address, config).await.unwrap()).await
    }
}

async fn speak<S>(stream: S) -> http1::SendRequest<Full<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    method: Method,
    path: &str,
    body: impl Into<Bytes>,
) -> (Response<()>, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "east")
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, ()), serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn the_machines_administrator_asks_over_the_socket() {
    let served = Served::new().await;
    let status: Status = served.local().request(Method::GET, "/control/v1/status", NO_BODY).await.unwrap();
    assert_eq!((status.name.as_str(), &status.addresses[..]), ("east", &[served.address.clone()][..]));
    assert_eq!(status.fingerprint, served.state.identity.fingerprint().to_string());
    let server = served.local().server().await.unwrap();
    assert_eq!((&*server.auth, server.auth_user_method.as_deref()), ("trusted", Some("unix")));
    assert_eq!(server.environment.unwrap().certificate, served.state.identity.current().pem);
}

#[tokio::test]
async fn a_client_becomes_trusted_by_token_and_is_cut_off_when_it_is_removed() {
    let served = Served::new().await;
    let stranger = served.remote(Some(&Arc::new(KeyPair::generate("stranger", &[]).unwrap())));
    let server = stranger.server().await.unwrap();
    assert_eq!((&*server.auth, server.environment, server.client_certificate), ("untrusted", None, true));
    let refused = stranger.request::<Status>(Method::GET, "/control/v1/status", NO_BODY).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused { code, hint: Some(_), .. } if code == "untrusted"),
        "{refused}"
    );

    let (pair, client) = served.trusted(&[]).await;
    assert_eq!(client.server().await.unwrap().auth_user_name, Some(pair.fingerprint.to_string()));
    client.request::<Status>(Method::GET, "/control/v1/status", NO_BODY).await.unwrap();
    assert_eq!(client.trusted().await.unwrap()[0].fingerprint, pair.fingerprint.to_string());

    let mut kept = served.connection(&pair).await;
    assert_eq!(ask(&mut kept, Method::GET, "/1.0", "").await.0.status(), StatusCode::OK);
    served.local().distrust(&pair.fingerprint.to_string()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while kept.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the connection is cut");
    assert_eq!(client.server().await.unwrap().auth, "untrusted");
}

#[tokio::test]
async fn tokens_are_taken_as_lxc_sends_them_and_bad_ones_are_told_apart() {
    let served = Served::new().await;
    let pair = KeyPair::generate("laptop", &[]).unwrap();
    let mut sender = served.connection(&pair).await;
    let text = served.local().mint_token("laptop", &[], None).await.unwrap().token.encode();
    assert_eq!(served.local().pending_tokens().await.unwrap()[0].name, "laptop");
    let body = |password: &str| {
        json!({"name": "", "type": "client", "restricted": false, "projects": null, "certificate": "",
               "password": password, "token": false})
        .to_string()
    };
    let cases = [("", "Forbidden"), ("secret", "Forbidden"), (&text.expose()[..200], "Forbidden")];
    for (password, expected) in cases {
        let (head, envelope) = ask(&mut sender, Method::POST, "/1.0/certificates", body(password)).await;
        assert_eq!(head.status(), StatusCode::FORBIDDEN);
        let error = envelope["error"].as_str().unwrap();
        assert!(error.contains(expected), "{error}");
    }
    let (head, _) = ask(&mut sender, Method::POST, "/1.0/certificates", body(text.expose())).await;
    assert_eq!(head.status(), StatusCode::CREATED);
    let location = format!("/1.0/certificates/{}", pair.fingerprint);
    assert_eq!(head.headers()["location"], location.as_str());
    // The same connection is trusted from here on: the caller is looked up for each request.
    let (_, certificates) = ask(&mut sender, Method::GET, "/1.0/certificates", "").await;
    assert_eq!(certificates["metadata"], json!([location]));
    let used = served.remote(Some(&Arc::new(KeyPair::generate("other", &[]).unwrap())));
    let used = used.redeem_token(text.expose()).await.unwrap_err();
    assert_eq!(used.to_string(), "No matching certificate add operation found");

    let revoked = served.local().mint_token("tablet", &[], None).await.unwrap();
    served.local().revoke_token("tablet").await.unwrap();
    let late = served.remote(Some(&Arc::new(KeyPair::generate("tablet", &[]).unwrap())));
    let late = late.redeem_token(revoked.token.encode().expose()).await.unwrap_err();
    assert_eq!(late.to_string(), "No matching certificate add operation found");
}

#[tokio::test]
async fn a_limited_client_sees_itself_and_can_make_no_unlimited_one() {
    let served = Served::new().await;
    let group = json!({"v": 1, "data": {"record": {"auth_group": {"permissions":
        [{"entity_type": "server", "entitlement": "can_create_identities"},
         {"entity_type": "server", "entitlement": "can_create_cluster_links"}]}}}});
    let admins = json!({"v": 1, "data": {"record": {"auth_group": {"permissions":
        [{"entity_type": "server", "entitlement": "admin"}]}}}});
    let south = json!({"v": 1, "data": {"record": {"cluster_link": {"type": "bidirectional",
        "auth_groups": ["admins"]}}}});
    let put = |key: &str, value: serde_json::Value| Op::Put {
        key: format!("/declared/{key}"),
        value: value.to_string().into_bytes(),
    };
    let ops = vec![
        put("cluster_link/south", south),
        put("auth_group/makers", group),
        put("auth_group/admins", admins),
    ];
    served.state.store.commit(Txn { guards: Vec::new(), ops }).await.unwrap();
    let mut changed = served.state.identities.changed();
    while served.state.identities.policy().groups().count() < 2 {
        changed.changed().await.unwrap();
    }

    served.trusted(&[]).await;
    let (pair, limited) = served.trusted(&["makers".to_owned()]).await;
    let seen = limited.identities().await.unwrap();
    assert_eq!((seen.len(), &seen[0].id), (1, &pair.fingerprint.to_string()));
    assert!(limited.trusted().await.unwrap().is_empty(), "it is no entry of the trust store");
    let wider = limited.mint_token("wider", &[], None).await.unwrap_err();
    assert_eq!(wider.status(), Some(StatusCode::FORBIDDEN));
    limited.mint_token("alike", &["makers".to_owned()], None).await.unwrap();
    // A group that it is not in is not its to give, whichever way.
    let more = limited.mint_token("x", &["admins".to_owned()], None).await.unwrap_err();
    assert_eq!(more.status(), Some(StatusCode::NOT_FOUND));
    let mut sender = served.connection(&pair).await;
    let link = json!({"name": "west", "type": "bidirectional", "auth_groups": ["admins"], "config": {}});
    let (head, _) = ask(&mut sender, Method::POST, "/1.0/cluster/links", link.to_string()).await;
    assert_eq!(head.status(), StatusCode::NOT_FOUND);
    let (head, _) = ask(&mut sender, Method::POST, "/control/v1/links/south/token", "").await;
    assert_eq!(head.status(), StatusCode::NOT_FOUND);
    let missing = limited.mint_token("x", &["nowhere".to_owned()], None).await.unwrap_err();
    assert_eq!(missing.to_string(), "One or more groups were not found: \"nowhere\"");
    limited.delete_identity("tls", "laptop").await.unwrap();
}

#[tokio::test]
async fn errors_that_no_handler_made_have_their_surfaces_shape() {
    let served = Served::new().await;
    let (pair, _) = served.trusted(&[]).await;
    let mut sender = served.connection(&pair).await;
    let large = "x".repeat(MAX_BODY + 1);
    let cases = [
        (Method::GET, "/1.0/nowhere", String::new(), 404),
        (Method::PUT, "/1.0/certificates", String::new(), 501),
        (Method::POST, "/1.0/certificates", "{".to_owned(), 400),
        (Method::POST, "/1.0/certificates", large, 413),
        (Method::GET, "/control/v1/nowhere", String::new(), 404),
        (Method::PUT, "/control/v1/status", String::new(), 405),
        (Method::GET, "/nowhere", String::new(), 404),
    ];
    for (method, path, body, status) in cases {
        let (head, body) = ask(&mut sender, method, path, body).await;
        assert_eq!(head.status().as_u16(), status, "{path} {body}");
        assert!(head.headers().contains_key("x-request-id"));
        if path.starts_with("/1.0") {
            let found = (body["type"].as_str(), body["error_code"].as_u64());
            assert_eq!(found, (Some("error"), Some(u64::from(status))), "{body}");
        } else {
            assert!(body["code"].is_string() && body["message"].is_string(), "{body}");
        }
        if sender.ready().await.is_err() {
            // A body that is too large is not read to its end.
            sender = served.connection(&pair).await;
        }
    }
}

#[tokio::test]
async fn a_linked_cluster_calls_the_api_over_its_session_as_itself() {
    let served = Served::new().await;
    let west = KeyPair::generate("west", &[]).unwrap();
    let identity = IdentityRecord {
        kind: IdentityKind::ClusterLink { link: "west".parse().unwrap(), backing: Backing::Declaration },
        name: "west".to_owned(),
        access: Access::Groups(vec![].into()),
        certificate_pem: west.pem.clone(),
    };
    let key = keys::identity(&west.fingerprint.to_string());
    let put = Op::Put { key: key.clone(), value: encode(&identity) };
    let revision = served.state.store.commit(Txn { guards: Vec::new(), ops: vec![put] }).await.unwrap();
    served.state.identities.seen(revision).await;

    let router = Arc::new(ApiStreams::default());
    let addresses = [served.address.clone()];
    let session = tunnel::dial(&addresses, served.state.identity.fingerprint(), &west, router, &Tasks::new())
        .await
        .unwrap();
    let mut sender = speak(session.open(&StreamHeader::Api).await.unwrap()).await;
    let (_, server) = ask(&mut sender, Method::GET, "/1.0", "").await;
    assert_eq!(server["metadata"]["auth_user_method"], "tls");
    let (head, _) = ask(&mut sender, Method::GET, "/control/v1/trust/tokens", "").await;
    assert_eq!(head.status(), StatusCode::FORBIDDEN);

    served.state.store.commit(Txn { guards: Vec::new(), ops: vec![Op::Delete { key }] }).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), session.closed()).await;
    assert!(ended.is_ok(), "a session does not outlive its identity");
}

#[tokio::test]
async fn a_stranger_sends_no_large_body() {
    let served = Served::new().await;
    let (known, _) = served.trusted(&[]).await;
    let body = format!("{{\"name\": \"{}\"", "x".repeat(100_000));
    let stranger = KeyPair::generate("stranger", &[]).unwrap();
    for (pair, status) in [(&stranger, StatusCode::PAYLOAD_TOO_LARGE), (&*known, StatusCode::BAD_REQUEST)] {
        for path in ["/1.0/certificates", "/1.0/cluster/links"] {
            let mut sender = served.connection(pair).await;
            let (head, answer) = ask(&mut sender, Method::POST, path, body.clone()).await;
            assert_eq!(head.status(), status, "{path} {answer}");
        }
    }
}

#[tokio::test]
async fn a_stranger_is_told_nothing_but_that_it_is_one() {
    let served = Served::new().await;
    let mut sender = served.connection(&KeyPair::generate("stranger", &[]).unwrap()).await;
    for path in [
        "/1.0/certificates",
        "/1.0/cluster/links",
        "/1.0/operations",
        "/1.0/storage-pools",
        "/control/v1/explain?source=a&destination=b",
        "/control/v1/links",
        "/control/v1/links/west",
        "/control/v1/services",
        "/control/v1/services/exported",
        "/control/v1/services/imported",
        "/control/v1/state",
        "/control/v1/status",
        "/control/v1/trust/tokens",
        "/control/v1/watch",
    ] {
        let (head, body) = ask(&mut sender, Method::GET, path, "").await;
        assert_eq!(head.status(), StatusCode::FORBIDDEN, "{path} {body}");
    }
}

#[tokio::test]
async fn a_client_hears_why_it_cannot_reach_an_agent() {
    let served = Served::new().await;
    let shown = first_contact(&served.address, tls::Door::Clients).await.unwrap();
    assert_eq!(shown.fingerprint, served.state.identity.fingerprint());

    let wrong = KeyPair::generate("other", &[]).unwrap().fingerprint;
    let mismatch =
        Client::pinned("east", vec![served.address.clone()], wrong, None).server().await.unwrap_err();
    let expected = format!("expected {wrong}, got {}", served.state.identity.fingerprint());
    assert!(mismatch.to_string().contains(&expected), "{mismatch}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let refused = Client::pinned("east", vec![closed.clone()], wrong, None).server().await.unwrap_err();
    assert!(refused.to_string().contains(&format!("{closed}: connection refused")), "{refused}");

    let nowhere = Client::unix(served.dir.path().join("nowhere")).server().await.unwrap_err();
    assert!(nowhere.to_string().contains("no such socket"), "{nowhere}");

    // Accepts and says nothing.
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = hangs.local_addr().unwrap().to_string();
    let hung = Client::pinned("east", vec![address], wrong, None).with_timeout(Duration::from_millis(50));
    assert!(matches!(hung.server().await, Err(ClientError::Timeout { .. })));
}
