//! Identities with groups, bearers and their tokens, and what strangers hear who have a wrong one.

use std::sync::Arc;
use std::time::Instant;

use agent::trust::certificate::KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use integration::{Agent, Http, LIMIT, Operator, wait_for};
use serde_json::{Value, json};

fn group(agent: &Agent, name: &str, entitlement: &str) {
    let permissions = json!([{ "entity_type": "server", "url": "/1.0", "entitlement": entitlement }]);
    let body = json!({ "name": name, "description": "", "permissions": permissions });
    Http::socket(agent).post("/1.0/auth/groups", &body).expect(201);
}

/// A token for a pending identity: its text, and where the identity is.
fn pending(agent: &Agent, name: &str, groups: &[&str]) -> (String, String) {
    let body = json!({ "name": name, "token": true, "groups": groups });
    let answer = Http::socket(agent).post("/1.0/auth/identities/tls", &body).expect(201);
    let location = answer.header("location").expect("a place").to_owned();
    (STANDARD.encode(answer.metadata().to_string()), location)
}

fn redeem(http: &Http, token: &str) -> integration::http::Answer {
    http.post("/1.0/auth/identities/tls", &json!({ "trust_token": token }))
}

#[test]
fn a_pending_identity_becomes_one_of_its_groups() {
    let east = Agent::start("east");
    group(&east, "viewers", "viewer");
    let local = Http::socket(&east);
    let missing = json!({ "name": "x", "token": true, "groups": ["viewers", "gone1", "gone2"] });
    local
        .post("/1.0/auth/identities/tls", &missing)
        .refused(404, "One or more groups were not found: \"gone1\", \"gone2\"");
    let (token, place) = pending(&east, "ada", &[]);
    assert_eq!(local.get(&place).expect(200).metadata()["type"], "Client certificate (pending)");
    let twice = json!({ "name": "ada", "token": true });
    local
        .post("/1.0/auth/identities/tls", &twice)
        .refused(409, "An identity with name \"ada\" already exists");
    local.patch(&place, &json!({ "groups": ["viewers"] })).expect(200);
    local
        .patch(&place, &json!({ "tls_certificate": "x" }))
        .refused(400, "Cannot update certificate for identities of type \"Client certificate (pending)\"");

    let ada = Http::stranger(&east);
    redeem(&ada, "").refused(403, "Trust token required");
    let more = json!({ "trust_token": token, "name": "eve" });
    ada.post("/1.0/auth/identities/tls", &more).refused(403, "Only trust token must be provided");
    ada.post("/1.0/certificates", &json!({ "trust_token": token })).refused(
        400,
        "Failed during search for certificate add token operation: TLS Identity token detected (you must update your client)",
    );
    redeem(&ada, &token).expect(201);
    redeem(&ada, &token).expect(201);
    redeem(&Http::stranger(&east), &token).refused(403, "No pending identities found");
    let current = ada.get("/1.0/auth/identities/current").expect(200).metadata();
    assert_eq!(current["type"], "Client certificate");
    assert_eq!((&current["id"], &current["fine_grained"]), (&json!(ada.fingerprint()), &json!(true)));
    let granted = json!([{ "entity_type": "server", "url": "/1.0", "entitlement": "viewer" }]);
    assert_eq!(current["effective_permissions"], granted);
    local
        .get("/1.0/auth/identities/current")
        .refused(400, "Current identity information must be requested via the HTTPS API");

    // It may renew its own certificate, and nothing else of itself.
    let own = format!("/1.0/auth/identities/tls/{}", ada.fingerprint());
    let next = Arc::new(KeyPair::generate("next", &[]).expect("a key pair"));
    ada.put(&own, &json!({ "tls_certificate": next.pem }))
        .refused(403, "Only the certificate may be changed");
    ada.patch(&own, &json!({ "groups": [] })).refused(403, "Only the certificate may be changed");
    ada.put(&own, &json!({ "tls_certificate": next.pem, "groups": ["viewers"] })).expect(200);
    ada.get("/1.0/auth/identities").refused(403, "Forbidden");
    let renewed = Http::showing(&east, Some(next));
    renewed.get("/1.0/auth/identities/current").expect(200);
    let stale = renewed.get("/1.0/auth/identities/tls/ada").expect(200);
    assert!(stale.header("etag").is_some());
    let tag = [("if-match", "\"stale\"")];
    let place = "/1.0/auth/identities/tls/ada";
    local.send("PUT", place, &tag, Some("{\"groups\":[]}")).refused(412, "ETag does not match");
    renewed.delete(place).expect(200);
    renewed.get("/1.0/auth/identities").refused(403, "Forbidden");
}

#[test]
fn a_bearer_is_known_by_its_token_until_it_is_revoked() {
    let east = Agent::start("east");
    group(&east, "viewers", "viewer");
    let local = Http::socket(&east);
    let body = json!({ "type": "Client token bearer", "name": "ci", "groups": ["viewers"] });
    local.post("/1.0/auth/identities/bearer", &body).expect(201);
    let place = "/1.0/auth/identities/bearer/ci";
    assert_eq!(local.get(place).expect(200).metadata()["expires_at"], Value::Null);
    let issued = local.post(&format!("{place}/token"), &json!({ "expiry": "1d" })).expect(200);
    let token = issued.metadata()["token"].as_str().expect("a token").to_owned();
    assert!(local.get(place).expect(200).metadata()["expires_at"].is_string());

    let anybody = Http::anonymous(&east);
    let header = format!("Bearer {token}");
    let asks = |path: &str| anybody.send("GET", path, &[("authorization", &header)], None);
    let server = asks("/1.0").expect(200).metadata();
    let id = local.get(place).metadata()["id"].clone();
    assert_eq!((&server["auth"], &server["auth_user_method"]), (&json!("trusted"), &json!("bearer")));
    assert_eq!(server["auth_user_name"], id);
    asks("/1.0/auth/identities").expect(200);
    anybody.get("/1.0/auth/identities").refused(403, "Forbidden");
    let wrong = [("authorization", "Bearer nonsense")];
    anybody.send("GET", "/1.0", &wrong, None).refused(403, "Forbidden");

    local.delete(&format!("{place}/token")).expect(200);
    asks("/1.0").refused(403, "Forbidden");
    assert_eq!(local.get(place).expect(200).metadata()["expires_at"], Value::Null);
    assert!(!east.log().contains(&token), "the token is in the log");
}

#[test]
fn wrong_tokens_are_slowed_and_a_right_one_is_not() {
    let east = Agent::start("east");
    let (token, _) = pending(&east, "ada", &[]);
    let mut wrong: Value = serde_json::from_slice(&STANDARD.decode(&token).expect("base64")).expect("JSON");
    wrong["secret"] = "0".repeat(64).into();
    let wrong = STANDARD.encode(wrong.to_string());
    let stranger = Http::stranger(&east);
    let refused = wait_for("there were too many", LIMIT, || {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (stranger, wrong) = (stranger.clone(), wrong.clone());
                std::thread::spawn(move || redeem(&stranger, &wrong))
            })
            .collect();
        let answers = threads.into_iter().map(|thread| thread.join().expect("a thread"));
        answers.filter(|answer| answer.status == 429).last()
    });
    assert!(refused.header("retry-after").is_some());
    refused.refused(429, "Too many failed attempts");
    let began = Instant::now();
    redeem(&Http::stranger(&east), &token).expect(201);
    assert!(began.elapsed().as_secs() < 2, "the right one took {:?}", began.elapsed());
}

#[test]
fn of_a_hundred_redeemers_one_wins() {
    let east = Agent::start("east");
    let (token, _) = pending(&east, "ada", &[]);
    let redeemers: Vec<_> = (0..100)
        .map(|_| {
            let (http, token) = (Http::stranger(&east), token.clone());
            std::thread::spawn(move || redeem(&http, &token).status)
        })
        .collect();
    let statuses: Vec<u16> = redeemers.into_iter().map(|thread| thread.join().expect("a thread")).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 201 | 403 | 429)), "{statuses:?}");
}

#[test]
fn the_trust_store_has_its_own_rules() {
    let east = Agent::start("east");
    let local = Http::socket(&east);
    let admin = Http::trusted(&east);
    let restricted = Http::stranger(&east);
    let pair = restricted.identity.clone().expect("a certificate");
    let add = json!({ "type": "client", "name": "ci", "restricted": true, "projects": ["default"],
        "certificate": integration::http::der_base64(&pair) });
    local.post("/1.0/certificates", &add).expect(201);
    local.post("/1.0/certificates", &add).refused(409, "Certificate already in trust store");
    let unknown = json!({ "type": "client", "nmae": "x" });
    local.post("/1.0/certificates", &unknown).refused(400, "nmae");
    let wide = json!({ "type": "client", "name": "x", "token": true, "projects": ["default"] });
    local.post("/1.0/certificates", &wide).refused(400, "restricted");
    let own = format!("/1.0/certificates/{}", restricted.fingerprint());
    assert_eq!(restricted.get("/1.0/certificates").expect(200).metadata(), json!([own]));
    restricted.get(&format!("/1.0/certificates/{}", admin.fingerprint())).refused(403, "Forbidden");
    for change in [json!({ "name": "x" }), json!({ "restricted": false }), json!({ "projects": [] })] {
        restricted.patch(&own, &change).refused(403, "Forbidden");
    }
    local.patch(&own, &json!({ "type": "server" })).refused(403, "The certificate type cannot be changed");
    let next = Arc::new(KeyPair::generate("next", &[]).expect("a key pair"));
    restricted.patch(&own, &json!({ "certificate": next.pem })).expect(200);
    restricted.get("/1.0/certificates").refused(403, "Forbidden");
    Http::showing(&east, Some(next)).get("/1.0/certificates").expect(200);

    let metrics = Http::stranger(&east);
    metrics.get("/1.0/metrics").refused(403, "Forbidden");
    let pair = metrics.identity.clone().expect("a certificate");
    let add = json!({ "type": "metrics", "name": "m", "certificate": integration::http::der_base64(&pair) });
    local.post("/1.0/certificates", &add).expect(201);
    let text = metrics.get("/1.0/metrics").expect(200).body;
    assert!(String::from_utf8_lossy(&text).ends_with("# EOF\n"));
    metrics.get("/1.0/certificates").refused(403, "Forbidden");
}

#[test]
fn the_command_line_manages_identities() {
    let east = Agent::start("east");
    group(&east, "viewers", "viewer");
    let operator = Operator::new();
    let run = |arguments: &[&str]| operator.run_on(&east, arguments);
    let create = ["auth", "identity", "create", "tls/ada", "--group", "viewers", "--quiet"];
    let token = run(&create).success().stdout;
    operator.run(&["remote", "add", "east", token.trim()]).success();
    let listed = run(&["auth", "identity", "list", "--format", "csv"]).success().stdout;
    assert!(listed.starts_with("tls,Client certificate,ada,") && listed.contains("viewers"), "{listed}");
    let again = run(&["auth", "identity", "group", "add", "tls/ada", "viewers"]).exits(1);
    assert!(again.stderr.contains("Identity \"ada\" is already a member of group \"viewers\""));
    run(&["auth", "identity", "group", "remove", "tls/ada", "viewers"]).success();
    let oidc = run(&["auth", "identity", "create", "oidc/a@b"]).exits(1);
    assert!(oidc.stderr.contains("OIDC identities cannot be created manually"), "{}", oidc.stderr);
    run(&["auth", "identity", "create", "bearer/ci"]).success();
    assert!(run(&["auth", "identity", "token", "issue", "bearer/ci"]).success().stdout.contains("eyJ"));
    run(&["auth", "identity", "token", "revoke", "bearer/ci"]).success();
    run(&["auth", "identity", "delete", "tls/ada"]).success();
}
