//! `/1.0/operations`: tokens that are out are among them.

use integration::{Agent, Http, Lxc, Operator, own_only, wait_for};
use serde_json::json;

#[test]
fn a_token_is_an_operation_until_it_is_revoked() {
    let east = Agent::start("east");
    let admin = Http::socket(&east);
    let minted = admin.post("/1.0/certificates", &json!({"token": true, "type": "client", "name": "foo"}));
    let id = minted.expect(202).metadata()["id"].as_str().expect("an id").to_owned();
    let path = format!("/1.0/operations/{id}");
    assert_eq!(admin.get("/1.0/operations").metadata(), json!({"running": [path]}));
    let listed = admin.get("/1.0/operations?recursion=1").metadata()["running"][0].clone();
    assert_eq!(
        (&listed["class"], &listed["description"]),
        (&json!("token"), &json!("Certificate add token"))
    );
    assert_eq!((&listed["may_cancel"], &listed["location"]), (&json!(true), &json!("none")));
    assert_eq!(listed["metadata"]["request"]["name"], "foo");
    assert!(admin.get("/1.0/operations?recursion=2").metadata()["running"][0]["children"].is_array());
    let still = admin.get(&format!("{path}/wait?timeout=0")).expect(200).metadata();
    assert_eq!(still["status"], "Running");
    Http::stranger(&east).get(&path).refused(403, "Forbidden");
    admin.delete(&path).expect(200);
    admin.delete(&path).refused(404, "Not Found");
    assert_eq!(admin.get("/1.0/operations").metadata(), json!({}));
}

#[test]
fn what_cannot_be_is_refused_in_lxds_words() {
    let east = Agent::start("east");
    let admin = Http::socket(&east);
    let nothing = "/1.0/operations/00000000-0000-0000-0000-000000000000";
    admin.get(nothing).refused(404, "Not Found");
    admin.get("/1.0/operations/x").expect(400);
    admin.get(&format!("{nothing}/websocket")).refused(400, "Missing websocket secret");
    admin.get(&format!("{nothing}/websocket?secret=x")).refused(404, "Not Found");
    admin.post("/1.0/projects", &json!({"name": "a"})).expect(201);
    let renamed = admin.post("/1.0/projects/a", &json!({"name": "b"})).expect(202);
    let path = renamed.json()["operation"].as_str().expect("a path").to_owned();
    let ended = admin.get(&format!("{path}/wait")).expect(200).metadata();
    assert_eq!((&ended["status"], &ended["status_code"]), (&json!("Success"), &json!(200)));
    admin.delete(&path).refused(400, "Operation already finalized");
    wait_for("the operation is no longer listed", std::time::Duration::from_secs(20), || {
        (admin.get("/1.0/operations").metadata() == json!({})).then_some(())
    });
}

#[test]
fn lxc_lists_and_revokes_tokens() {
    if own_only() {
        return;
    }
    let east = Agent::start("east");
    let lxc = Lxc::trusted_by(&east);
    lxc.run(&["config", "trust", "add", "--name", "foo"]).success();
    let tokens = lxc.run(&["config", "trust", "list-tokens", "--format", "csv"]).success();
    assert!(tokens.stdout.starts_with("foo,"), "{}", tokens.stdout);
    let operations = lxc.run(&["operation", "list", "--format", "csv"]).success();
    assert!(operations.stdout.contains(",TOKEN,Certificate add token,RUNNING,YES,"), "{}", operations.stdout);
    let revoked = lxc.run(&["config", "trust", "revoke-token", "foo"]).success();
    assert_eq!(revoked.stdout, "Certificate add token for foo deleted\n");
    assert_eq!(lxc.run(&["config", "trust", "list-tokens", "--format", "csv"]).success().stdout.trim(), "");
    let listed = Operator::new().run_on(&east, &["operation", "list", "--format", "json"]).success();
    assert_eq!(listed.json(), json!([]));
}
