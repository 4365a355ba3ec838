//! What the administrator sets, and who did what.

use integration::{Agent, Http, Lxc, Operator, own_only};
use serde_json::json;

/// An agent that listens where its settings say, not where it was told when it was started.
fn settable() -> Agent {
    Agent::start("east")
}

#[test]
fn settings_are_replaced_by_put_merged_by_patch_and_guarded_by_etag() {
    let east = settable();
    let admin = Http::socket(&east);
    admin.put("/1.0", &json!({"config": {"user.a": "1", "user.b": "2"}})).expect(200);
    admin.patch("/1.0", &json!({"config": {"user.a": "", "core.remote_token_expiry": "1d 2H"}})).expect(200);
    let shown = admin.get("/1.0").expect(200);
    assert_eq!(shown.metadata()["config"], json!({"core.remote_token_expiry": "1d 2H", "user.b": "2"}));
    // What a GET shows can be sent back.
    admin.put("/1.0", &shown.metadata()).expect(200);
    let tag = shown.header("etag").expect("an ETag").to_owned();
    let body = json!({"config": {"user.c": "3"}}).to_string();
    let guarded = |tag: &str| admin.send("PUT", "/1.0", &[("if-match", tag)], Some(&body));
    guarded("\"0000\"").refused(412, "ETag does not match");
    guarded(&tag).expect(200);
    guarded(&tag).refused(412, "ETag does not match");
    for (config, words) in [
        (json!({"core.trust_password": "hunter2"}), "comity trust add"),
        (json!({"core.https_adress": "x"}), "did you mean \"core.https_address\"?"),
        (json!({"core.remote_token_expiry": "soon"}), "core.remote_token_expiry"),
        (json!({"user.x": 1}), "expected a string"),
    ] {
        admin.patch("/1.0", &json!({"config": config})).refused(400, words);
    }
    admin.patch("/1.0", &json!({"confg": {}})).refused(400, "did you mean \"config\"?");
    Http::anonymous(&east).patch("/1.0", &json!({"config": {}})).refused(403, "Forbidden");
    assert!(Http::anonymous(&east).get("/1.0").metadata()["config"].is_null());
}

#[test]
fn who_is_trusted_is_said_by_those_who_may_do_everything() {
    let east = settable();
    let admin = Http::socket(&east);
    let permissions = json!([{ "entity_type": "server", "url": "/1.0", "entitlement": "can_edit" }]);
    admin.post("/1.0/auth/groups", &json!({ "name": "editors", "permissions": permissions })).expect(201);
    let editor = Http::stranger(&east);
    let certificate = editor.identity.as_ref().expect("a certificate").pem.clone();
    let body = json!({ "name": "ed", "groups": ["editors"], "certificate": certificate });
    admin.post("/1.0/auth/identities/tls", &body).expect(201);
    editor.patch("/1.0", &json!({ "config": { "user.x": "1" } })).expect(200);
    for config in [
        json!({ "core.trust_ca_certificates": "true" }),
        json!({ "oidc.groups.claim": "groups" }),
        json!({ "oidc.issuer": "http://127.0.0.1:1", "oidc.client.id": "x" }),
    ] {
        editor.patch("/1.0", &json!({ "config": config })).expect(403);
    }
    // Sent back as it was, it is no change.
    let shown = editor.get("/1.0").expect(200).metadata();
    editor.put("/1.0", &shown).expect(200);
}

#[test]
fn an_address_given_at_the_start_goes_before_the_setting() {
    let east = settable();
    let refused =
        Http::socket(&east).patch("/1.0", &json!({"config": {"core.https_address": "127.0.0.1:9"}}));
    refused.refused(400, "--listen");
    let shown = Operator::new().run_on(&east, &["server", "get", "core.https_address"]).success();
    assert_eq!(shown.stdout, "\n");
}

#[test]
fn every_change_is_in_the_log_with_who_made_it() {
    let east = settable();
    let operator = Operator::new();
    operator.run_on(&east, &["server", "set", "user.secret=hunter2"]).success();
    operator.run_on(&east, &["project", "create", "blah"]).success();
    operator.run_on(&east, &["trust", "add", "--quiet", "--name", "laptop"]).success();
    let log = operator.run_on(&east, &["audit", "--format", "json", "--since", "1h"]).success();
    assert!(!log.stdout.contains("hunter2"), "{}", log.stdout);
    let log = log.json();
    let actions: Vec<&str> =
        log.as_array().expect("a list").iter().filter_map(|record| record["action"].as_str()).collect();
    assert_eq!(actions, ["config-updated", "project-created", "token-issued"]);
    assert_eq!(log[0]["who"]["method"], "unix");
    assert_eq!(log[1]["changed"][0]["key"], "/project/blah");
    assert_eq!(log[1]["changed"][0]["before"], 0);
    assert_eq!(log[1]["changed"][0]["after"], log[1]["revision"]);
    let none = operator.run_on(&east, &["audit", "--format", "json", "--who", "nobody"]).success();
    assert_eq!(none.json(), json!([]));
    Http::stranger(&east).get("/control/v1/audit").expect(403);
}

#[test]
fn lxc_reads_and_writes_settings() {
    if own_only() {
        return;
    }
    let east = settable();
    let lxc = Lxc::trusted_by(&east);
    lxc.run(&["config", "set", "user.colour", "blue"]).success();
    assert_eq!(lxc.run(&["config", "get", "user.colour"]).success().stdout.trim(), "blue");
    assert!(lxc.run(&["config", "show"]).success().stdout.contains("user.colour: blue"));
    lxc.run(&["config", "unset", "user.colour"]).success();
    assert_eq!(lxc.run(&["config", "get", "user.colour"]).success().stdout.trim(), "");
    let refused = lxc.run(&["config", "set", "core.trust_password", "x"]).exits(1);
    assert!(refused.stderr.contains("lxc config trust add"), "{}", refused.stderr);
}
