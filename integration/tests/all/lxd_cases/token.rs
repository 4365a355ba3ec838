//! One-time tokens.

use integration::{Http, LIMIT, Operator, wait_for};
use serde_json::{Value, json};

use super::Case;
use super::world::{World, decode, encode};

pub const CASES: &[Case] = &[
    ("token-001", |w| {
        w.group("g001");
        let done =
            w.comity(&["auth", "identity", "create", "tls/t001", "--quiet", "--group", "g001"]).success();
        assert_eq!(decode(&done.stdout)["client_name"], "t001");
        assert_eq!(done.stdout.lines().count(), 1);
        let list = w.admin.get("/1.0/auth/identities?recursion=1").metadata();
        let row = list
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["name"] == "t001"))
            .expect("it is listed");
        assert_eq!(
            (&row["type"], &row["groups"]),
            (&json!("Client certificate (pending)"), &json!(["g001"]))
        );
    }),
    ("token-002", |w| {
        let body = json!({ "token": true, "type": "client" });
        w.admin.post("/1.0/certificates", &body).refused(400, "Client name must not be empty");
    }),
    ("token-003", |w| {
        let token = w.identity_token("t003", &[]);
        let answer = Http::stranger(&w.east).post("/1.0/certificates", &json!({ "trust_token": token }));
        answer.refused(400, "TLS Identity token detected (you must update your client)");
    }),
    ("token-004", |w| {
        w.group("g004");
        let token = w.identity_token("t004", &["g004"]);
        let other = Operator::new();
        other.run(&["remote", "add", "east", &token]).success();
        let list = w.admin.get("/1.0/auth/identities?recursion=1").metadata();
        let row = list
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["name"] == "t004"))
            .expect("it is listed");
        assert_eq!((&row["type"], &row["groups"]), (&json!("Client certificate"), &json!(["g004"])));
        assert_eq!(row["id"].as_str().map(str::len), Some(64));
    }),
    ("token-005", |w| {
        expiring(w, |w| {
            let token = w.identity_token("t005", &[]);
            let late = wait_until_refused(w, &token, "/1.0/auth/identities/tls");
            assert!(
                late.contains("expired") || late.contains("No pending") || late.contains("Forbidden"),
                "{late}"
            );
            gone(w, "t005");
        });
    }),
    ("token-006", |w| {
        expiring(w, |w| {
            w.identity_token("t006", &[]);
            gone(w, "t006");
        });
    }),
    ("token-007", |w| {
        let mut token = decode(&w.token(&json!({ "token": true, "type": "client", "name": "t007" })));
        token["secret"] = "0".repeat(64).into();
        Operator::new().run(&["remote", "add", "test", &encode(&token)]).exits(1);
        token["client_name"] = "".into();
        Operator::new().run(&["remote", "add", "test", &encode(&token)]).exits(1);
    }),
    ("token-008", |w| {
        w.comity(&["trust", "add", "--quiet", "--name", "t008"]).success();
        let row = listed(w, "t008").expect("it is listed");
        assert!(["ClientName", "client_name", "name"].iter().any(|key| row[*key] == "t008"), "{row}");
    }),
    ("token-009", |w| {
        let token = w.comity(&["trust", "add", "--quiet", "--name", "t009"]).success().stdout;
        w.comity(&["trust", "revoke-token", "t009"]).success();
        assert!(listed(w, "t009").is_none());
        Operator::new().run(&["remote", "add", "east", token.trim()]).exits(1);
    }),
    ("token-010", |w| {
        w.admin.post("/1.0/projects", &json!({ "name": "foo010" })).expect(201);
        let body = json!({ "token": true, "type": "client", "name": "t010", "restricted": true, "projects": ["foo010"] });
        let (token, client) = (w.token(&body), Http::stranger(&w.east));
        client.post("/1.0/certificates", &json!({ "type": "client", "trust_token": token })).expect(201);
        assert!(listed(w, "t010").is_none());
        client.get("/1.0/projects/foo010").expect(200);
        Http::stranger(&w.east).post("/1.0/certificates", &json!({ "trust_token": token })).expect(403);
    }),
    ("token-013", |w| {
        w.admin.post("/1.0/projects", &json!({ "name": "foo013" })).expect(201);
        let body = json!({ "token": true, "type": "client", "name": "t013", "restricted": true, "projects": ["foo013"] });
        let (token, client) = (w.token(&body), Http::stranger(&w.east));
        let more = json!({ "trust_token": token, "projects": ["default", "foo013"], "restricted": true });
        client.post("/1.0/certificates", &more).expect(201);
        let answer = client.get("/1.0/projects/default");
        assert!([403, 404].contains(&answer.status), "{}", answer.status);
        client.get("/1.0/projects/foo013").expect(200);
    }),
    ("token-014", |w| {
        w.comity(&["trust", "add", "--quiet", "--name", "t014"]).success();
        let table = w.comity(&["trust", "list-tokens"]).success().stdout;
        let line = table.lines().find(|line| line.contains("t014")).expect("it is listed").to_owned();
        assert!(line.contains("UTC") || line.contains('Z'), "{line}");
        let made =
            w.admin.post("/1.0/certificates", &json!({ "token": true, "type": "client", "name": "t014b" }));
        let metadata = made.expect(202).metadata();
        assert!(metadata["metadata"]["expiresAt"].is_string(), "{metadata}");
    }),
    ("token-015", |w| {
        expiring(w, |w| {
            let token = w.token(&json!({ "token": true, "type": "client", "name": "t015" }));
            Http::stranger(&w.east).post("/1.0/certificates", &json!({ "trust_token": token })).expect(201);
        });
    }),
    ("token-016", |w| {
        expiring(w, |w| {
            let token = w.token(&json!({ "token": true, "type": "client", "name": "t016" }));
            let late = wait_until_refused(w, &token, "/1.0/certificates");
            assert!(late.contains("expired") || late.contains("No matching"), "{late}");
        });
    }),
    ("token-018", |w| {
        w.token(&json!({ "token": true, "type": "client", "name": "t018" }));
        let list = w.admin.get("/1.0/operations?recursion=1").expect(200).metadata();
        let rows = list["running"].as_array().expect("some run");
        let row = rows.iter().find(|row| row["metadata"]["request"]["name"] == "t018").expect("it is listed");
        let of = |key: &str| row[key].clone();
        assert_eq!(
            (of("class"), of("description"), of("status")),
            (json!("token"), json!("Certificate add token"), json!("Running"))
        );
    }),
    ("token-019", |w| {
        let token = decode(&w.token(&json!({ "token": true, "type": "client", "name": "t019" })));
        for (key, empty, why) in [
            ("client_name", json!(""), "No client name in certificate add token"),
            ("addresses", json!([]), "No server addresses in certificate add token"),
            ("secret", json!(""), "No secret in certificate add token"),
            ("fingerprint", json!(""), "No certificate fingerprint in certificate add token"),
        ] {
            let mut lacking = token.clone();
            lacking[key] = empty;
            let done = Operator::new().run(&["remote", "add", "test", &encode(&lacking)]).exits(1);
            assert!(done.stderr.contains(why), "{}", done.stderr);
        }
    }),
    ("token-021", |w| {
        let token = w.token(&json!({ "token": true, "type": "client", "name": "t021" }));
        w.admin
            .post("/1.0/certificates", &json!({ "trust_token": token }))
            .refused(409, "Client is already trusted");
        Http::stranger(&w.east).post("/1.0/certificates", &json!({ "trust_token": token })).expect(403);
    }),
    ("token-022", |w| {
        let token = w.identity_token("t022", &[]);
        w.admin
            .post("/1.0/auth/identities/tls", &json!({ "trust_token": token }))
            .refused(409, "Client already trusted");
    }),
    ("token-023", |w| {
        let token = w.identity_token("t023", &[]);
        let body = json!({ "trust_token": token, "name": "more" });
        let stranger = Http::stranger(&w.east);
        stranger.post("/1.0/auth/identities/tls", &body).refused(403, "Only trust token must be provided");
    }),
    ("token-024", |w| {
        w.identity("t024", &[]);
        let body = json!({ "name": "t024", "token": true });
        w.admin
            .post("/1.0/auth/identities/tls", &body)
            .refused(409, "An identity with name \"t024\" already exists");
    }),
];

/// Runs `body` while tokens last a second.
fn expiring(w: &World, body: impl FnOnce(&World)) {
    let set = |value: &str| {
        w.admin.patch("/1.0", &json!({ "config": { "core.remote_token_expiry": value } })).expect(200);
    };
    set("1S");
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(w)));
    set("");
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// Presents a token once its second is over, and gives what is said.
fn wait_until_refused(w: &World, token: &str, path: &str) -> String {
    let expires = decode(token)["expires_at"].as_str().expect("it expires").parse::<jiff::Timestamp>();
    let expires = expires.expect("a time");
    wait_for("the token expires", LIMIT, || (jiff::Timestamp::now() > expires).then_some(()));
    let answer = Http::stranger(&w.east).post(path, &json!({ "trust_token": token }));
    assert!(answer.status >= 400, "{}", answer.status);
    answer.error()
}

fn gone(w: &World, name: &str) {
    wait_for("the pending identity is gone", LIMIT, || {
        let list = w.admin.get("/1.0/auth/identities?recursion=1").metadata();
        list.as_array()?.iter().all(|row| row["name"] != name).then_some(())
    });
}

fn listed(w: &World, name: &str) -> Option<Value> {
    let list = w.comity(&["--format", "json", "trust", "list-tokens"]).success().json();
    list.as_array()?.iter().find(|row| row.to_string().contains(&format!("\"{name}\""))).cloned()
}
