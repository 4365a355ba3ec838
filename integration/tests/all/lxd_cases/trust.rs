//! The trust store: `/1.0/certificates`, restricted clients, what certificates are taken.

use integration::http::der_base64;
use integration::{Http, certificate};
use serde_json::json;
use time::Duration;

use super::Case;
use super::world::{World, last_parts, shown};

/// RSA, 1024 bits: weaker than anything that could be made here. Base64 of DER.
const WEAK: &str = include_str!("weak.b64");

pub const CASES: &[Case] = &[
    ("trust-001", |w| {
        Http::stranger(&w.east).get("/1.0/metrics").refused(403, "");
    }),
    ("trust-002", |w| {
        let metrics = Http::stranger(&w.east);
        let certificate = der_base64(metrics.identity.as_ref().expect("a certificate"));
        let body = json!({ "type": "metrics", "name": "m002", "certificate": certificate });
        w.admin.post("/1.0/certificates", &body).expect(201);
        metrics.get("/1.0/metrics").expect(200);
        metrics.get("/1.0/certificates").refused(403, "");
    }),
    ("trust-003", |w| {
        let client = w.client("c003", None);
        let body = json!({ "type": "server", "name": "c003" });
        w.admin.put(&own(&client), &body).refused(403, "type");
    }),
    ("trust-004", |w| {
        let client = w.client("c004", Some(&["default"]));
        let current = client.get(&own(&client)).expect(200).metadata();
        for (key, value) in [
            ("type", json!("metrics")),
            ("name", json!("other")),
            ("restricted", json!(false)),
            ("projects", json!(["default", "more"])),
        ] {
            let mut whole = current.clone();
            whole[key] = value.clone();
            client.put(&own(&client), &whole).expect(403);
            client.patch(&own(&client), &json!({ key: value })).expect(403);
        }
    }),
    ("trust-006", |w| {
        let client = w.client("c006", Some(&[]));
        assert_eq!(client.get("/1.0/projects").expect(200).metadata(), json!([]));
    }),
    ("trust-008", |w| {
        let client = w.client("c008", Some(&["default"]));
        let list = client.get("/1.0/certificates").expect(200).metadata();
        assert_eq!(last_parts(&list), [client.fingerprint()]);
        let list = client.get("/1.0/certificates?recursion=1").expect(200).metadata();
        assert_eq!(list.as_array().map(Vec::len), Some(1));
        assert_eq!(list[0]["fingerprint"], client.fingerprint());
    }),
    ("trust-009", |w| {
        let (client, other) = (w.client("c009", Some(&["default"])), w.client("o009", None));
        let answer = client.get(&own(&other));
        assert!([403, 404].contains(&answer.status), "{}", answer.status);
    }),
    ("trust-012", |w| {
        w.admin.post("/1.0/projects", &json!({ "name": "blah012" })).expect(201);
        let client = w.client("c012", Some(&["blah012"]));
        let path = "/1.0/projects/blah012";
        client.patch(path, &json!({ "config": { "user.x": "y" } })).expect(403);
        client.delete(path).expect(403);
        client.post("/1.0/projects", &json!({ "name": "blah012b" })).expect(403);
    }),
    ("trust-013", |w| {
        w.admin.post("/1.0/projects", &json!({ "name": "blah013" })).expect(201);
        let client = w.client("c013", Some(&["blah013"]));
        for path in
            ["/1.0/operations?project=default", "/1.0/storage-pools/default/volumes/custom?project=default"]
        {
            let answer = client.get(path);
            let empty = answer.status == 200 && [json!([]), json!({})].contains(&answer.metadata());
            assert!(empty || answer.status == 403, "{path}: {}", answer.status);
        }
    }),
    ("trust-015", |w| {
        // `lxc project switch` looks the project up first.
        w.admin.post("/1.0/projects", &json!({ "name": "blah015" })).expect(201);
        let client = w.client("c015", Some(&["blah015"]));
        client.get("/1.0/projects/blah015").expect(200);
        let answer = client.get("/1.0/projects/default");
        assert!([403, 404].contains(&answer.status), "{}", answer.status);
    }),
    ("trust-016", |w| renewed(w, "c016", None)),
    ("trust-017", |w| renewed(w, "c017", Some(&["default"]))),
    ("trust-022", |w| {
        let client = w.client("c022", None);
        let body = json!({ "type": "client", "name": "again", "certificate": der_base64(&shown(&client)) });
        w.admin.post("/1.0/certificates", &body).refused(409, "Certificate already in trust store");
    }),
    ("trust-023", |w| {
        let body = json!({ "type": "client", "name": "c023", "certificate": WEAK.trim() });
        w.admin.post("/1.0/certificates", &body).refused(400, "RSA key is too weak (minimum of 2048bit)");
    }),
    ("trust-024", |w| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (begins, ends, why) in [(-2, -1, "is expired"), (1, 2, "is not valid yet")] {
            let pair =
                certificate::timed(folder.path(), "c024", Duration::hours(begins), Duration::hours(ends));
            let body = json!({ "type": "client", "name": "c024", "certificate": der_base64(&pair) });
            w.admin.post("/1.0/certificates", &body).refused(400, why);
        }
    }),
    ("trust-025", |w| {
        let pair = shown(&Http::stranger(&w.east));
        let body = json!({
            "type": "client", "name": "c025", "certificate": der_base64(&pair), "projects": ["a"], "restricted": false,
        });
        w.admin.post("/1.0/certificates", &body).expect(400);
    }),
    ("trust-027", |w| {
        let client = w.client("c027", Some(&["default"]));
        client.post("/1.0/auth/identities/tls", &json!({ "name": "x027", "token": true })).expect(403);
        client.post("/1.0/auth/groups", &json!({ "name": "x027" })).expect(403);
        client.post("/1.0/cluster/links", &json!({ "name": "x027", "type": "bidirectional" })).expect(403);
        client.patch("/1.0", &json!({ "config": {} })).expect(403);
    }),
    ("trust-028", |w| {
        let (client, other) = (w.client("c028", Some(&["default"])), w.client("o028", None));
        client.get(&own(&client)).expect(200);
        client.patch(&own(&client), &json!({ "name": "x" })).expect(403);
        client.delete(&own(&client)).expect(403);
        let answer = client.get(&own(&other));
        assert!([403, 404].contains(&answer.status), "{}", answer.status);
    }),
    ("trust-030", |w| {
        // What is no token is no password either; a token in its place is how lxc 5.0.2 sends one.
        let stranger = Http::stranger(&w.east);
        let answer = stranger.post("/1.0/certificates", &json!({ "type": "client", "password": "x" }));
        assert!((400..=501).contains(&answer.status), "{}", answer.status);
        let token = w.token(&json!({ "type": "client", "name": "c030", "token": true }));
        stranger.post("/1.0/certificates", &json!({ "type": "client", "password": token })).expect(201);
    }),
];

fn own(client: &Http) -> String {
    format!("/1.0/certificates/{}", client.fingerprint())
}

fn renewed(w: &World, name: &str, projects: Option<&[&str]>) {
    let (client, next) = (w.client(name, projects), Http::stranger(&w.east));
    client.patch(&own(&client), &json!({ "certificate": shown(&next).pem })).expect(200);
    assert_eq!(next.get("/1.0").metadata()["auth"], "trusted");
    assert_eq!(client.get("/1.0").metadata()["auth"], "untrusted");
}
