//! Auth groups, permissions and identity provider groups: by plain requests with LXD's bodies, and by the command line.

use std::path::Path;

use integration::{Agent, Http, LIMIT, Operator, Transcript, wait_for};
use serde_json::{Value, json};

/// Somebody with a certificate whom `agent` knows as a member of these groups.
fn member(agent: &Agent, name: &str, groups: &[&str]) -> Http {
    let http = Http::stranger(agent);
    let pair = http.identity.as_ref().expect("a stranger shows a certificate");
    let body = json!({ "name": name, "certificate": pair.pem, "groups": groups });
    Http::socket(agent).post("/1.0/auth/identities/tls", &body).expect(201);
    http
}

fn permission(entity_type: &str, url: &str, entitlement: &str) -> Value {
    json!({ "entity_type": entity_type, "url": url, "entitlement": entitlement })
}

#[test]
fn groups_live_by_lxds_requests() {
    let east = Agent::start("east");
    let admin = Http::trusted(&east);
    let server = |word| permission("server", "/1.0", word);
    let body = json!({ "name": "link", "description": "", "permissions": [server("admin")] });
    let created = admin.post("/1.0/auth/groups", &body).expect(201);
    assert_eq!(created.header("location"), Some("/1.0/auth/groups/link"));
    admin.post("/1.0/auth/groups", &body).refused(409, "already exists");
    let listed = admin.get("/1.0/auth/groups").expect(200).metadata();
    assert_eq!(listed, json!(["/1.0/auth/groups/admins", "/1.0/auth/groups/link"]));

    // A GET's body can be sent back, if nobody else has written.
    let shown = admin.get("/1.0/auth/groups/link").expect(200);
    let tag = shown.header("etag").expect("a tag").to_owned();
    let whole = shown.metadata();
    assert_eq!(whole["permissions"], json!([server("admin")]));
    admin.send("PUT", "/1.0/auth/groups/link", &[("if-match", &tag)], Some(&whole.to_string())).expect(200);
    admin.patch("/1.0/auth/groups/link", &json!({ "description": "what links may do" })).expect(200);
    let stale = admin.send("PUT", "/1.0/auth/groups/link", &[("if-match", &tag)], Some(&whole.to_string()));
    stale.refused(412, "ETag does not match: ");

    // A PATCH merges: what was there stays, and so does the description.
    admin.patch("/1.0/auth/groups/link", &json!({ "permissions": [server("can_view_metrics")] })).expect(200);
    let merged = admin.get("/1.0/auth/groups/link").metadata();
    assert_eq!(merged["description"], "what links may do");
    assert_eq!(merged["permissions"], json!([server("admin"), server("can_view_metrics")]));
    admin.put("/1.0/auth/groups/link", &json!({ "permissions": [server("viewer")] })).expect(200);
    let put = admin.get("/1.0/auth/groups/link").metadata();
    assert_eq!((&put["description"], &put["permissions"]), (&json!(""), &json!([server("viewer")])));

    // Members move with the name, and out with the group.
    let ada = member(&east, "ada", &["link"]);
    ada.get("/1.0/auth/groups/link").expect(200);
    admin.post("/1.0/auth/groups/link", &json!({ "name": "links" })).expect(201);
    admin.get("/1.0/auth/groups/link").refused(404, "Not Found");
    let renamed = ada.get("/1.0/auth/groups/links").expect(200).metadata();
    assert_eq!(renamed["identities"], json!({ "tls": [ada.fingerprint()] }));
    admin.delete("/1.0/auth/groups/links").expect(200);
    ada.get("/1.0/auth/groups").expect(200);
    admin
        .post("/1.0/auth/groups", &json!({ "name": "links", "permissions": [server("viewer")] }))
        .expect(201);
    ada.get("/1.0/auth/groups/links").refused(404, "Not Found");
}

#[test]
fn faults_are_lxds() {
    let east = Agent::start("east");
    let admin = Http::trusted(&east);
    let create = |body: Value| admin.post("/1.0/auth/groups", &body);
    create(json!({ "name": "" })).refused(400, "Group name cannot be empty");
    create(json!({ "name": "a/b" })).refused(400, "Group name cannot contain a forward slash");
    create(json!({ "name": "a:b" })).refused(400, "Group name cannot contain a colon");
    create(json!({ "name": "admins" })).refused(409, "already exists");
    create(json!({ "name": "a", "permisions": [] })).refused(400, "permisions");
    create(json!({ "name": "a", "permissions": "none" })).refused(400, "");
    create(json!([])).refused(400, "");
    let with = |entity_type, url, entitlement| {
        create(json!({ "name": "a", "permissions": [permission(entity_type, url, entitlement)] }))
    };
    with("not_an_entity_type", "/1.0", "admin").refused(400, "Unknown entity type \"not_an_entity_type\"");
    for derived in ["container", "instance_snapshot", "storage_volume_backup", "cluster_group", "operation"] {
        with(derived, "/1.0/instances/x", "can_view")
            .refused(400, &format!("No entitlements can be granted against entities of type {derived:?}"));
    }
    with("project", "/1.0", "can_view").refused(400, "Entity type does not correspond to entity reference");
    with("project", "/1.0/projects/default", "not_one")
        .refused(400, "Entitlement \"not_one\" not valid for entity type \"project\"");
    for (entity_type, url) in [
        ("instance", "/1.0/instances/c1?project=default"),
        ("project", "/1.0/projects/blah"),
        ("cluster_link", "/1.0/cluster/links/west"),
        ("storage_volume", "/1.0/storage-pools/default/volumes/custom/x?project=default"),
    ] {
        with(entity_type, url, "can_view").refused(400, "Could not resolve permission URLs: ");
    }
    create(json!({ "name": "a" })).expect(201);

    let admins = "/1.0/auth/groups/admins";
    admin.put(admins, &json!({})).refused(400, "The admins group cannot be modified");
    admin.patch(admins, &json!({})).refused(400, "The admins group cannot be modified");
    admin.post(admins, &json!({ "name": "b" })).refused(400, "The admins group cannot be renamed");
    admin.delete(admins).refused(400, "The admins group cannot be deleted");
    let shown = admin.get(admins).expect(200).metadata();
    assert_eq!(shown["permissions"], json!([permission("server", "/1.0", "admin")]));

    for path in [
        "/1.0/auth/groups",
        "/1.0/auth/groups/a",
        "/1.0/auth/permissions",
        "/1.0/auth/identity-provider-groups",
    ] {
        Http::stranger(&east).get(path).refused(403, "Forbidden");
    }
}

#[test]
fn a_project_must_be_seen_by_who_is_let_into_what_is_in_it() {
    let east = Agent::start("east");
    let admin = Http::trusted(&east);
    admin.post("/1.0/storage-pools/default/volumes/custom", &json!({ "name": "vol1" })).expect(201);
    let url = "/1.0/storage-pools/default/volumes/custom/vol1?project=default";
    let backups = permission("storage_volume", url, "can_manage_backups");
    admin.post("/1.0/auth/groups", &json!({ "name": "backup", "permissions": [backups] })).refused(
        400,
        "Entitlement \"can_manage_backups\" on entity type \"storage_volume\" references project \"default\", but the \
         project cannot be viewed by the group",
    );
    let viewer = permission("project", "/1.0/projects/default", "can_view");
    let body = json!({ "name": "backup", "permissions": [viewer, backups] });
    admin.post("/1.0/auth/groups", &body).expect(201);

    // Backups are what lets the data out; seeing the volume does not.
    let (send, as_copied) =
        ("/1.0/storage-pools/default/volumes/custom/vol1", json!({ "name": "vol1", "migration": true }));
    let offered = member(&east, "ada", &["backup"]).post(send, &as_copied).expect(202);
    let view = permission("storage_volume", url, "can_view");
    admin.post("/1.0/auth/groups", &json!({ "name": "see", "permissions": [viewer, view] })).expect(201);
    member(&east, "bob", &["see"]).post(send, &as_copied).expect(403);
    admin.post("/1.0/auth/groups", &json!({ "name": "none" })).expect(201);
    member(&east, "eve", &["none"]).post(send, &as_copied).expect(404);

    // What groups say of an entity goes with it. Nobody deletes what is offered to be copied.
    let volume = "/1.0/storage-pools/default/volumes/custom/vol1";
    admin.delete(volume).refused(409, "volume default/vol1 is in use by another transfer");
    admin.delete(offered.json()["operation"].as_str().expect("an operation")).expect(200);
    wait_for("the offer is withdrawn", LIMIT, || (admin.delete(volume).status == 200).then_some(()));
    assert_eq!(admin.get("/1.0/auth/groups/backup").metadata()["permissions"], json!([viewer]));
}

#[test]
fn who_cannot_see_is_told_nothing_and_who_cannot_act_is_told_so() {
    let east = Agent::start("east");
    let admin = Http::trusted(&east);
    let create = |name: &str, permissions: Value| {
        admin.post("/1.0/auth/groups", &json!({ "name": name, "permissions": permissions })).expect(201);
    };
    create("hidden", json!([]));
    create("seen", json!([]));
    create("eyes", json!([permission("group", "/1.0/auth/groups/seen", "can_view")]));
    let ada = member(&east, "ada", &["eyes"]);
    assert_eq!(
        ada.get("/1.0/auth/groups").metadata(),
        json!(["/1.0/auth/groups/eyes", "/1.0/auth/groups/seen"])
    );
    ada.get("/1.0/auth/groups/hidden").refused(404, "Not Found");
    ada.get("/1.0/auth/groups/absent").refused(404, "Not Found");
    ada.delete("/1.0/auth/groups/hidden").refused(404, "Not Found");
    ada.delete("/1.0/auth/groups/seen").refused(403, "Forbidden");
    ada.put("/1.0/auth/groups/seen", &json!({})).refused(403, "Forbidden");
    ada.post("/1.0/auth/groups", &json!({ "name": "more" })).refused(403, "Forbidden");
    ada.get("/1.0/auth/permissions").refused(403, "Forbidden");
    let asked = ada.get("/1.0/auth/groups/seen?with-access-entitlements=can_view,can_edit").metadata();
    assert_eq!(asked["access_entitlements"], json!(["can_view"]));
    admin.get("/1.0/auth/groups?recursion=1&with-access-entitlements=can_view").refused(400, "fine-grained");

    // The same through any group that says so, from the next request on.
    admin.patch("/1.0/auth/groups/eyes", &json!({ "permissions": [permission("server", "/1.0", "can_edit_groups"), permission("server", "/1.0", "can_view_groups")] })).expect(200);
    ada.get("/1.0/auth/groups/hidden").expect(200);
    ada.patch("/1.0/auth/groups/hidden", &json!({ "description": "found" })).expect(200);
    admin.delete("/1.0/auth/groups/seen").expect(200);
    let eyes = admin.get("/1.0/auth/groups/eyes").metadata();
    assert!(!eyes["permissions"].to_string().contains("/groups/seen"), "{eyes}");
}

#[test]
fn groups_of_a_manifest_are_its_own() {
    let east = Agent::start("east");
    let admin = Http::trusted(&east);
    let operator = Operator::new();
    operator.trusted_by(&east);
    let folder = tempfile::tempdir().expect("a folder");
    let declared = "manifest \"shop\" {\n  cluster = \"east\"\n}\nauth_group \"shop\" {\n  permissions = [{ entity_type = \"server\", entitlement = \"viewer\" }]\n}\n";
    std::fs::write(folder.path().join("shop.hcl"), declared).expect("a file");
    operator.run_in(folder.path(), &["apply", ".", "--yes"]).success();
    let group = "/1.0/auth/groups/shop";
    let shown = admin.get(group).expect(200).metadata();
    admin.put(group, &shown).expect(200);
    let change = json!({ "description": "by hand" });
    admin.patch(group, &change).refused(409, "belongs to manifest \"shop\"");
    admin.delete(group).refused(409, "belongs to manifest \"shop\"");
    admin.post(group, &json!({ "name": "other" })).refused(409, "belongs to manifest \"shop\"");
    std::fs::write(
        folder.path().join("shop.hcl"),
        declared.replace("\"shop\" {\n  perm", "\"admins\" {\n  perm"),
    )
    .expect("a file");
    let refused = operator.run_in(folder.path(), &["apply", ".", "--yes"]).exits(1);
    assert!(refused.stderr.contains("built in"), "{}", refused.stderr);
}

#[test]
fn everything_that_can_be_granted_is_listed() {
    let east = Agent::start("east");
    let admin = Http::trusted(&east);
    let body = json!({ "name": "ops", "permissions": [permission("server", "/1.0", "viewer")] });
    admin.post("/1.0/auth/groups", &body).expect(201);
    let list = |query: &str| {
        let listed = admin.get(&format!("/1.0/auth/permissions{query}")).expect(200).metadata();
        listed.as_array().expect("a list").clone()
    };
    let server = list("?entity-type=server&recursion=1");
    let groups = |word: &str| {
        let found = server.iter().find(|row| row["entitlement"] == word).expect("it is listed");
        found["groups"].clone()
    };
    assert_eq!(groups("admin"), json!(["admins"]));
    assert_eq!(groups("viewer"), json!(["ops"]));
    assert_eq!(groups("can_edit"), json!([]));
    assert_eq!(list("?entity-type=group").len(), 6);
    let project = list("?project=default");
    assert!(project.iter().all(|row| row["url"].as_str().is_some_and(|url| url.contains("default"))));
    admin.get("/1.0/auth/permissions?entity-type=nonsense").refused(400, "Unknown entity type");
}

#[test]
fn identity_provider_groups_are_mapped() {
    let east = Agent::start("east");
    let admin = Http::trusted(&east);
    admin.post("/1.0/auth/groups", &json!({ "name": "dev" })).expect(201);
    let all = "/1.0/auth/identity-provider-groups";
    admin
        .post(all, &json!({ "name": "eng", "groups": ["dev", "x", "y"] }))
        .refused(404, "One or more groups were not found: \"x\", \"y\"");
    admin.post(all, &json!({ "name": "eng/core", "groups": ["dev"] })).expect(201);
    admin.post(all, &json!({ "name": "eng/core" })).refused(409, "already exists");
    admin.post(all, &json!({ "name": "" })).refused(400, "cannot be empty");
    let one = format!("{all}/eng%2Fcore");
    let shown = admin.get(&one).expect(200);
    let tag = shown.header("etag").expect("a tag").to_owned();
    assert_eq!(shown.metadata(), json!({ "name": "eng/core", "groups": ["dev"] }));
    assert_eq!(admin.get("/1.0/auth/groups/dev").metadata()["identity_provider_groups"], json!(["eng/core"]));
    admin.patch(&one, &json!({ "groups": ["admins"] })).expect(200);
    assert_eq!(admin.get(&one).metadata()["groups"], json!(["admins", "dev"]));
    admin.send("PUT", &one, &[("if-match", &tag)], Some("{\"groups\":[]}")).refused(412, "ETag");
    admin.post("/1.0/auth/groups/dev", &json!({ "name": "devs" })).expect(201);
    assert_eq!(admin.get(&one).metadata()["groups"], json!(["admins", "devs"]));
    admin.post(&one, &json!({ "name": "core" })).expect(201);
    admin.get(&one).refused(404, "Not Found");

    // To map is to give: who may make mappings cannot give what it has not.
    let word = permission("server", "/1.0", "can_create_identity_provider_groups");
    admin.post("/1.0/auth/groups", &json!({ "name": "mappers", "permissions": [word] })).expect(201);
    let ada = member(&east, "ada", &["mappers"]);
    ada.post(all, &json!({ "name": "mine", "groups": ["admins"] })).refused(404, "Not Found");
    ada.post(all, &json!({ "name": "mine", "groups": ["mappers"] })).expect(201);
    ada.get(&format!("{all}/core")).refused(404, "Not Found");
    admin.delete(&format!("{all}/core")).expect(200);
    assert_eq!(admin.get(all).metadata(), json!([format!("{all}/mine")]));
}

#[test]
fn a_link_reads_exports_and_nothing_else() {
    let clusters = integration::Clusters::linked(
        "service \"backend\" {\n  port = 9\n}\nexported_services \"default\" {\n  services = [{ name = \"backend\", consumers = [{ peer = \"west\" }] }]\n}",
        "",
    );
    let admin = Http::socket(&clusters.east);
    let exports = permission("exported_services", "/control/v1/exported-services/default", "can_view");
    admin.post("/1.0/auth/groups", &json!({ "name": "readers", "permissions": [exports] })).expect(201);
    let reader = member(&clusters.east, "reader", &["readers"]);
    let seen = reader.get("/control/v1/services/exported").expect(200).json();
    assert_eq!(seen[0]["service"], "backend");
    assert_eq!(reader.get("/control/v1/services").expect(200).json(), json!([]));
    assert_eq!(reader.get("/1.0/cluster/links").expect(200).metadata(), json!([]));
    reader.get("/control/v1/state").expect(403);
    let nobody = member(&clusters.east, "nobody", &["clusters"]);
    assert_eq!(nobody.get("/control/v1/services/exported").expect(200).json(), json!([]));
}

/// Seed 000's commands as they are written, `lxc` being `comity`, and what else there is to say about groups.
#[test]
fn the_command_line_says_what_lxds_says() {
    let east = Agent::start("east");
    let operator = Operator::new();
    operator.trusted_by(&east);
    let mut shown = Transcript::of(&[&east]);
    let mut run = |line: &str, input: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let done = operator.run_with(Path::new("."), &words, input);
        shown.add(done);
    };
    run("auth group create link", "");
    run("auth group permission add link server admin", "");
    run("auth group permission add link server admin", "");
    run("auth group create backup", "");
    // The seed's example lacks the instance's name.
    run("auth group permission add backup instance can_manage_backups", "");
    run("auth group permission add backup instance c1 can_manage_backups", "");
    run("auth group permission add backup instance c1 can_manage_backups project=default", "");
    run("auth group permission add backup not_an_entity_type x can_view", "");
    run("auth group permission add backup container x can_view", "");
    run("auth group permission add backup project default operator", "");
    run("auth group list", "");
    run("auth group list -f csv", "");
    run("auth group list -c n --format compact", "");
    run("auth group show backup", "");
    run("auth group show backup --format json", "");
    run("auth group permission list backup", "");
    run("auth group permission remove backup project default operator", "");
    run("auth group permission remove backup project default operator", "");
    run(
        "auth group edit backup",
        "description: nightly\npermissions:\n- entity_type: server\n  url: /1.0\n  entitlement: can_view_metrics\n",
    );
    run("auth group show east:backup", "");
    run("auth group edit backup", "descripton: mistyped\n");
    run("auth group create yaml", "description: from standard input\n");
    run("auth group rename backup nightly", "");
    run("auth group delete backup", "");
    run("auth group delete nightly", "");
    run("auth group delete admins", "");
    run("auth permission list entity_type=project", "");
    run("auth permission list entity_type=server --max-entitlements 2 -f csv", "");
    run("auth permission list entity_type=exported_services --max-entitlements 0 -f csv", "");
    run("auth identity-provider-group create engineering", "");
    run("auth idp-group group add engineering link", "");
    run("auth idp-group group add engineering link", "");
    run("auth idp-group group add engineering absent", "");
    run("auth idp-group list", "");
    run("auth idp-group show engineering", "");
    run("auth idp-group group remove engineering link", "");
    run("auth idp-group group remove engineering link", "");
    run("auth idp-group rename engineering core", "");
    run("auth idp-group delete core", "");
    run("auth idp-group delete core", "");
    shown.matches_in("transcripts", "auth-group");
}
