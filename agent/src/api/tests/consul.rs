//! `/v1` over real connections: its errors, its tokens, its waiting queries.

use jiff::Timestamp;

use super::*;
use crate::api::consul::answer::{Answer, ConsulError};
use crate::api::consul::asked::Asked;
use crate::api::consul::blocking::{self, Found};
use crate::clock::Clock;
use axum::extract::State;
use axum::routing::get;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;

/// One request over the network, with these headers; gives the head and the body as text.
async fn send(
    served: &Served,
    pair: Option<&KeyPair>,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> (http::response::Parts, String) {
    let mut sender = match pair {
        Some(pair) => served.connection(pair).await,
        None => nameless(served).await,
    };
    let mut request = Request::builder().method(method).uri(path).header("host", served.address.as_str());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head, String::from_utf8(body.to_vec()).unwrap())
}

/// A connection without a certificate.
async fn nameless(served: &Served) -> http1::SendRequest<Full<Bytes>> {
    let config =
        tls::client_config_pinned(served.state.identity.fingerprint(), None, &[b"http/1.1"]).unwrap();
    speak(connect::connect(&served.address, config).await.unwrap()).await
}

#[tokio::test]
async fn the_shape_of_answers_and_errors_is_consuls() {
    let served = Served::new().await;
    let (pair, _) = served.trusted(&[]).await;
    let ask = |method, path: &'static str| {
        let (served, pair) = (&served, &*pair);
        async move { send(served, Some(pair), method, path, &[]).await }
    };
    let (head, body) = ask(Method::GET, "/v1/status/leader").await;
    assert_eq!((head.status.as_u16(), body.as_str()), (200, format!("\"{}\"", served.address).as_str()));
    assert_eq!(head.headers["x-consul-lastcontact"], "0");
    assert_eq!(head.headers["x-consul-knownleader"], "true");
    let (_, body) = ask(Method::GET, "/v1/status/peers?pretty").await;
    assert_eq!(body, format!("[\n    \"{}\"\n]\n", served.address));

    for (method, path, status, text) in [
        (Method::GET, "/v1/nothing", 404, "Invalid URL path: not a recognized HTTP API endpoint"),
        (Method::GET, "/v1", 404, "Invalid URL path: not a recognized HTTP API endpoint"),
        (Method::PUT, "/v1/status/leader", 405, "method PUT not allowed"),
        (Method::OPTIONS, "/v1/status/leader", 200, ""),
        (Method::GET, "/v1/status/leader?wait=x", 400, "Invalid wait time"),
        (Method::GET, "/v1/status/leader?dc=dc9", 500, "No path to datacenter"),
    ] {
        let (head, body) = ask(method.clone(), path).await;
        assert_eq!((head.status.as_u16(), body.as_str()), (status, text), "{method} {path}");
        if status >= 400 {
            assert_eq!(head.headers["content-type"], "text/plain; charset=utf-8", "{path}");
        }
        if path == "/v1/status/leader" {
            assert_eq!(head.headers["allow"], "OPTIONS,GET");
        }
    }
}

#[tokio::test]
async fn nobody_is_refused_and_a_token_in_the_url_is() {
    let served = Served::new().await;
    let (head, body) = send(&served, None, Method::GET, "/v1/status/leader", &[]).await;
    assert_eq!(head.status, StatusCode::FORBIDDEN);
    assert!(body.starts_with("Permission denied: anonymous token lacks permission"), "{body}");
    for header in [("x-consul-token", "nobodys"), ("authorization", "bearer nobodys")] {
        let (head, body) = send(&served, None, Method::GET, "/v1/status/leader", &[header]).await;
        assert_eq!((head.status.as_u16(), body.as_str()), (403, "ACL not found"), "{header:?}");
    }
    let (pair, _) = served.trusted(&[]).await;
    let (head, body) =
        send(&served, Some(&pair), Method::GET, "/v1/status/leader?token=topsecret", &[]).await;
    assert_eq!(head.status, StatusCode::BAD_REQUEST);
    assert!(body.contains("X-Consul-Token") && !body.contains("topsecret"), "{body}");
    let other = ("origin", "https://evil.example");
    let (head, _) = send(&served, Some(&pair), Method::PUT, "/v1/status/leader", &[other]).await;
    assert_eq!(head.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn who_lacks_a_right_is_told_which() {
    let served = Served::new().await;
    let group = json!({"v": 1, "data": {"record": {"auth_group": {"permissions": []}}}});
    let put =
        Op::Put { key: "/declared/auth_group/nobody".to_owned(), value: group.to_string().into_bytes() };
    let mut changed = served.state.identities.changed();
    served.state.store.commit(Txn { guards: Vec::new(), ops: vec![put] }).await.unwrap();
    changed.changed().await.unwrap();
    let (pair, _) = served.trusted(&["nobody".to_owned()]).await;
    let caller = served.state.identities.caller_by_fingerprint(pair.fingerprint).into();
    for (entity, message) in [
        (
            Entity::Service("web".parse().unwrap()),
            "Permission denied: client laptop lacks permission 'can_view' on service \"web\"",
        ),
        (Entity::Server, "Permission denied: client laptop lacks permission 'can_view' on the server"),
    ] {
        let denied = served.state.permit(&caller, Entitlement::CanView, entity).unwrap_err();
        let told = ConsulError::from(denied);
        assert_eq!((told.status.as_u16(), told.message.as_str()), (403, message));
    }
}

/// A thing that queries wait on, and how often they looked at it.
struct Watched {
    clock: Clock,
    value: watch::Sender<&'static str>,
    looks: AtomicUsize,
}

/// The agent's API with one endpoint more.
fn waiting(served: &Served, watched: &Arc<Watched>) -> axum::Router {
    let watched = Arc::clone(watched);
    let route = get(move |State(state): State<ApiState>, asked: Asked| {
        let watched = Arc::clone(&watched);
        async move {
            let changes = watched.clock.subscribe();
            let told = blocking::answer(&state, &asked, changes, |caller| {
                watched.looks.fetch_add(1, Ordering::SeqCst);
                state.permit(caller, Entitlement::CanView, Entity::Server)?;
                let index = watched.clock.now();
                Ok(match *watched.value.borrow() {
                    "" => Found::absent(index, ConsulError::not_found("there is none")),
                    value => Found::new(index, value),
                })
            });
            told.await as Result<Answer, ConsulError>
        }
    });
    axum::Router::new().route("/v1/watched", route).with_state(served.state.clone())
}

async fn watch_it(app: &axum::Router, caller: Caller, query: &str) -> (StatusCode, u64, String) {
    use tower::ServiceExt as _;
    let mut request =
        axum::extract::Request::get(format!("/v1/watched{query}")).body(axum::body::Body::empty()).unwrap();
    request.extensions_mut().insert(caller);
    let response = app.clone().oneshot(request).await.unwrap();
    let index = response
        .headers()
        .get("x-consul-index")
        .map_or(0, |index| index.to_str().unwrap().parse::<u64>().unwrap());
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, index, String::from_utf8(body.to_vec()).unwrap())
}

impl Watched {
    fn new(value: &'static str) -> Arc<Self> {
        Arc::new(Self {
            clock: Clock::starting(Timestamp::now()),
            value: watch::Sender::new(value),
            looks: AtomicUsize::new(0),
        })
    }

    fn set(&self, value: &'static str) -> u64 {
        self.value.send_replace(value);
        self.clock.tick()
    }

    /// Returns once so many looks were had.
    async fn looked(&self, looks: usize) {
        while self.looks.load(Ordering::SeqCst) < looks {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_query_waits_for_what_it_has_not_seen() {
    let served = Served::new().await;
    let watched = Watched::new("one");
    let app = waiting(&served, &watched);
    let local = Caller::local(0);
    let (status, index, body) = watch_it(&app, local.clone(), "").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "\"one\""));
    // Behind, and ahead: both at once.
    for index in [index - 1, index + 1, u64::MAX] {
        let query = format!("?index={index}");
        assert_eq!(watch_it(&app, local.clone(), &query).await.2, "\"one\"");
    }
    let looks = watched.looks.load(Ordering::SeqCst);
    let query = format!("?index={index}&wait=10m");
    let blocked = tokio::spawn({
        let (app, local) = (app.clone(), local.clone());
        async move { watch_it(&app, local, &query).await }
    });
    watched.looked(looks + 1).await;
    // Something has changed, but not what is told.
    watched.set("one");
    watched.looked(looks + 2).await;
    assert!(!blocked.is_finished());
    let changed = watched.set("two");
    let (status, told, body) = blocked.await.unwrap();
    assert_eq!((status, told, body.as_str()), (StatusCode::OK, changed, "\"two\""));
    // In the end it is told what it knows.
    let query = format!("?index={changed}&wait=1ms");
    assert_eq!(watch_it(&app, local, &query).await, (StatusCode::OK, changed, "\"two\"".to_owned()));
}

#[tokio::test]
async fn a_query_for_what_is_not_there_waits_until_it_is() {
    let served = Served::new().await;
    let watched = Watched::new("");
    let app = waiting(&served, &watched);
    let (status, index, body) = watch_it(&app, Caller::local(0), "").await;
    assert_eq!((status, body.as_str()), (StatusCode::NOT_FOUND, "there is none"));
    let blocked =
        tokio::spawn(async move { watch_it(&app, Caller::local(0), &format!("?index={index}")).await });
    watched.looked(2).await;
    watched.set("");
    watched.looked(3).await;
    assert!(!blocked.is_finished());
    watched.set("here");
    assert_eq!(blocked.await.unwrap().2, "\"here\"");
}

#[tokio::test]
async fn a_waiting_query_ends_with_its_callers_rights_and_with_the_agent() {
    let served = Served::new().await;
    let watched = Watched::new("one");
    let app = waiting(&served, &watched);
    let (pair, _) = served.trusted(&[]).await;
    let caller: Caller = served.state.identities.caller_by_fingerprint(pair.fingerprint).into();
    let query = format!("?index={}", watched.clock.now());
    let blocked = |caller: Caller| {
        let (app, query) = (app.clone(), query.clone());
        tokio::spawn(async move { watch_it(&app, caller, &query).await })
    };
    let (revoked, local) = (blocked(caller), blocked(Caller::local(0)));
    watched.looked(2).await;
    let key = keys::identity(&pair.fingerprint.to_string());
    served.state.store.commit(Txn { guards: Vec::new(), ops: vec![Op::Delete { key }] }).await.unwrap();
    let (status, _, body) = revoked.await.unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    assert!(!local.is_finished());
    served.state.tasks.end();
    assert_eq!(local.await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn a_thousand_waiting_queries_are_not_woken_while_nothing_changes() {
    let served = Served::new().await;
    let watched = Watched::new("one");
    let app = waiting(&served, &watched);
    let query = format!("?index={}&wait=10m", watched.clock.now());
    let blocked: Vec<_> = (0..1000)
        .map(|_| {
            let (app, query) = (app.clone(), query.clone());
            tokio::spawn(async move { watch_it(&app, Caller::local(0), &query).await })
        })
        .collect();
    watched.looked(1000).await;
    // What others do here is nothing to them.
    let (pair, client) = served.trusted_as("other", &[]).await;
    let _ = (pair, client.server().await.unwrap());
    assert_eq!(watched.looks.load(Ordering::SeqCst), 1000);
    watched.set("two");
    for query in blocked {
        assert_eq!(query.await.unwrap().2, "\"two\"");
    }
}

/// One request in the clear, with these headers.
async fn plainly(address: &str, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
    let mut sender = speak(tokio::net::TcpStream::connect(address).await.unwrap()).await;
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_bearer_is_known_over_tls_and_in_the_clear_until_its_token_is_revoked() {
    use crate::wire::lxd::identity::BearerIdentityPost;
    let served = Served::new().await;
    let listen = Listen::At("127.0.0.1:0".parse().unwrap());
    let bound = network::bind(&Sockets::alone(), listen).unwrap().unwrap();
    let plain = bound.listener.local_addr().unwrap().to_string();
    Api::new(served.state.clone()).serve_plain(bound).unwrap();
    let body = json!({"type": "Client token bearer", "name": "ci", "groups": []});
    let body: BearerIdentityPost = serde_json::from_value(body).unwrap();
    served.local().add_bearer(&body).await.unwrap();
    let token = served.local().issue_bearer_token("ci", "1d").await.unwrap();
    let token = token.expose();
    let (leader, host) = ("/v1/status/leader", ("host", plain.as_str()));
    let (bearer, wrong) = (format!("bEARER {token}"), format!("Bearer {token}x"));
    let own = ("x-consul-token", token);
    for headers in [&[own][..], &[("authorization", &bearer)], &[own, ("authorization", &wrong)]] {
        let (head, body) = send(&served, None, Method::GET, leader, headers).await;
        assert_eq!(head.status, StatusCode::OK, "{body}");
        let (status, body) = plainly(&plain, leader, &[headers, &[host]].concat()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    // On its own surface Consul's header means nothing.
    let (head, body) = send(&served, None, Method::GET, "/1.0", &[own]).await;
    assert!(head.status == StatusCode::OK && body.contains("\"untrusted\""), "{body}");

    for (path, headers, status, told) in [
        (leader, vec![host], 403, "anonymous token"),
        (leader, vec![host, ("x-consul-token", "nobodys")], 403, "ACL not found"),
        (leader, vec![own], 403, "under localhost"),
        (leader, vec![own, ("host", "evil.example")], 403, "under localhost"),
        (leader, vec![own, host, ("origin", "http://evil.example")], 403, "browser"),
        ("/1.0", vec![own, host], 404, "Invalid URL path"),
        ("/healthz", vec![own, host], 404, "Invalid URL path"),
    ] {
        let (found, body) = plainly(&plain, path, &headers).await;
        assert!(found.as_u16() == status && body.contains(told), "{path} {found} {body}");
    }

    let mut kept = speak(tokio::net::TcpStream::connect(&plain).await.unwrap()).await;
    let request = || {
        let request = Request::builder().uri(leader).header("host", &plain).header("x-consul-token", token);
        request.body(Full::new(Bytes::new())).unwrap()
    };
    assert_eq!(kept.send_request(request()).await.unwrap().status(), StatusCode::OK);
    served.local().revoke_bearer_token("ci").await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while kept.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the connection is cut");
    let (status, body) = plainly(&plain, leader, &[host, own]).await;
    assert_eq!((status.as_u16(), body.as_str()), (403, "ACL not found"));
}

#[tokio::test]
async fn an_agent_says_what_it_is() {
    let served = Served::new().await;
    let (pair, _) = served.trusted(&[]).await;
    let mut sender = served.connection(&pair).await;
    let (_, own) = ask(&mut sender, Method::GET, "/v1/agent/self", "").await;
    assert_eq!((&own["Config"]["Datacenter"], &own["Config"]["Server"]), (&json!("east"), &json!(true)));
    // What Go's client reads it into.
    assert!(own.as_object().unwrap().values().all(Value::is_object), "{own}");
    let (_, members) = ask(&mut sender, Method::GET, "/v1/agent/members", "").await;
    assert_eq!((&members[0]["Addr"], &members[0]["Status"]), (&json!("127.0.0.1"), &json!(1)));
    let (_, datacenters) = ask(&mut sender, Method::GET, "/v1/catalog/datacenters", "").await;
    assert_eq!(datacenters, json!(["east"]));
}
