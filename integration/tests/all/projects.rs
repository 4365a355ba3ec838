//! `/1.0/projects`.

use integration::{Agent, Http, Lxc, Operator, own_only};
use serde_json::json;

#[test]
fn projects_are_made_changed_renamed_and_deleted_and_default_stays() {
    let east = Agent::start("east");
    let admin = Http::socket(&east);
    assert_eq!(admin.get("/1.0/projects").metadata(), json!(["/1.0/projects/default"]));
    let made = admin.post("/1.0/projects", &json!({"name": "blah", "config": {"user.x": "1"}})).expect(201);
    assert_eq!(made.header("location"), Some("/1.0/projects/blah"));
    admin.post("/1.0/projects", &json!({"name": "blah"})).refused(409, "already exists");
    admin.post("/1.0/projects", &json!({"name": "a/b"})).refused(400, "Invalid project name");
    admin.post("/1.0/projects", &json!({"name": "c", "config": {"limits.x": "1"}})).refused(400, "limits.x");
    admin.patch("/1.0/projects/blah", &json!({"description": "d", "config": {"user.x": ""}})).expect(200);
    let shown = admin.get("/1.0/projects/blah").expect(200);
    assert_eq!(shown.metadata()["description"], "d");
    assert!(shown.metadata()["config"]["user.x"].is_null());
    admin.put("/1.0/projects/blah", &shown.metadata()).expect(200);
    let stale = json!({"config": {}}).to_string();
    admin.send("PUT", "/1.0/projects/blah", &[("if-match", "\"0\"")], Some(&stale)).refused(412, "ETag");
    admin.delete("/1.0/projects/default").refused(403, "cannot be deleted");
    admin.post("/1.0/projects/default", &json!({"name": "x"})).refused(403, "cannot be renamed");
    // Nothing is in it, and nothing can be put there.
    let volumes = "/1.0/storage-pools/default/volumes/custom?project=blah";
    assert_eq!(admin.get(volumes).metadata(), json!([]));
    admin.post(volumes, &json!({"name": "v"})).refused(400, "default");
    admin.get("/1.0/operations?project=nowhere").refused(404, "Project not found");
    admin.post("/1.0/projects/blah", &json!({"name": "new"})).expect(202);
    admin.get("/1.0/projects/blah").expect(404);
    admin.get("/1.0/projects/new/state").expect(200);
    admin.delete("/1.0/projects/new").expect(200);
    admin.delete("/1.0/projects/new").expect(404);
}

#[test]
fn a_permission_goes_with_its_project() {
    let east = Agent::start("east");
    let admin = Http::socket(&east);
    let project = |verb: &str, name: &str| {
        Operator::new().run_on(&east, &["project", verb, name]).success();
    };
    project("create", "blah");
    let permission = json!({"entity_type": "project", "url": "/1.0/projects/blah", "entitlement": "viewer"});
    admin.post("/1.0/auth/groups", &json!({"name": "g", "permissions": [permission]})).expect(201);
    project("delete", "blah");
    project("create", "blah");
    assert_eq!(admin.get("/1.0/auth/groups/g").metadata()["permissions"], json!([]));
}

#[test]
fn lxc_manages_projects() {
    if own_only() {
        return;
    }
    let east = Agent::start("east");
    let lxc = Lxc::trusted_by(&east);
    lxc.run(&["project", "create", "blah"]).success();
    let listed = lxc.run(&["project", "list", "--format", "csv"]).success();
    assert!(listed.stdout.starts_with("blah,"), "{}", listed.stdout);
    lxc.run(&["project", "rename", "blah", "new"]).success();
    lxc.run(&["project", "delete", "new"]).success();
    lxc.run(&["project", "delete", "default"]).exits(1);
}
