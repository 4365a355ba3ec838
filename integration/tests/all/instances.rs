//! Instances that are kept and do not run: by stock `lxc`, by pylxd, and by requests that no client sends.

use std::fs;
use std::path::PathBuf;

use integration::{Agent, Answer, Http, LIMIT, Lxc, own_only, pylxd, python, wait_for};
use serde_json::{Value, json};

/// How the operation ended that an answer names.
#[track_caller]
fn ended(http: &Http, answer: Answer) -> Value {
    let answer = answer.expect(202);
    let operation = answer.header("location").expect("the operation's place").to_owned();
    http.get(&format!("{operation}/wait?timeout=30")).expect(200).metadata()
}

#[track_caller]
fn done(http: &Http, answer: Answer) {
    let operation = ended(http, answer);
    assert_eq!(operation["status_code"], 200, "{operation}");
}

fn make(http: &Http, name: &str) {
    done(http, http.post("/1.0/instances", &json!({"name": name, "source": {"type": "none"}})));
}

/// Where an instance's files are, in the default project and pool.
fn rootfs(agent: &Agent, name: &str) -> PathBuf {
    agent.data_dir().join("pools/default/containers").join(name).join("rootfs")
}

#[test]
fn lxc_makes_changes_snapshots_moves_and_deletes_instances() {
    if own_only() {
        return;
    }
    let east = Agent::start("east");
    let lxc = Lxc::trusted_by(&east);
    let ok = |arguments: &[&str]| lxc.run(arguments).success().stdout;
    let refused = |arguments: &[&str], words: &str| {
        let done = lxc.run(arguments).exits(1);
        assert!(done.stderr.contains(words), "{arguments:?}: {}", done.stderr);
    };
    ok(&["init", "--empty", "c1", "-c", "limits.cpu=2", "-c", "user.x=1"]);
    assert_eq!(ok(&["list", "--format", "csv"]), "c1,STOPPED,,,CONTAINER,0\n");
    let named = ok(&["init", "--empty"]);
    let given =
        named.lines().find_map(|line| line.strip_prefix("Instance name is: ")).expect("a name").to_owned();
    ok(&["delete", &given]);
    refused(&["init", "--empty", "c1"], "already exists");
    refused(&["init", "--empty", "bad_name"], "Name can only contain alphanumeric and hyphen characters");
    refused(&["init", "--empty", "1a"], "Name must not start with a number");
    refused(&["init", "--empty", "c2", "-c", "foo.bar=1"], "Unknown configuration key: foo.bar");
    refused(
        &["init", "--empty", "c2", "-s", "nope"],
        "Failed loading storage pool \"nope\": Storage pool not found",
    );
    refused(&["init", "--empty", "c2", "-p", "nope"], "Requested profile \"nope\" doesn't exist");
    refused(&["init", "--empty", "c2", "--vm"], "virtual-machine");
    refused(&["start", "c1"], "do not run here yet");
    refused(&["stop", "c1"], "The instance is already stopped");

    fs::write(rootfs(&east, "c1").join("file"), "one").expect("a file");
    ok(&["snapshot", "c1"]);
    refused(&["snapshot", "c1", "snap0"], "already exists");
    refused(&["snapshot", "c1", "--stateful"], "Unable to create a stateful snapshot");
    ok(&["config", "set", "c1", "user.x=2"]);
    refused(&["config", "set", "c1", "foo.bar", "1"], "Unknown configuration key: foo.bar");
    fs::write(rootfs(&east, "c1").join("file"), "two").expect("a file");
    ok(&["snapshot", "c1", "later", "--no-expiry"]);
    ok(&["snapshot", "c1", "later", "--reuse"]);
    let info = ok(&["info", "c1"]);
    assert!(info.contains("Status: STOPPED") && info.contains("snap0") && info.contains("later"), "{info}");
    ok(&["restore", "c1", "snap0"]);
    assert_eq!(fs::read_to_string(rootfs(&east, "c1").join("file")).expect("it is there"), "one");
    assert_eq!(ok(&["config", "get", "c1", "user.x"]), "1\n");
    refused(&["restore", "c1", "nope"], "Snapshot c1/nope does not exist");
    ok(&["rename", "c1/later", "c1/last"]);
    ok(&["delete", "c1/last"]);

    let shown = ok(&["config", "show", "c1"]);
    lxc.run_with(&["config", "edit", "c1"], &shown.replace("user.x: \"1\"", "user.x: \"3\"")).success();
    assert_eq!(ok(&["config", "get", "c1", "user.x"]), "3\n");
    ok(&["config", "device", "add", "c1", "eth0", "nic", "nictype=p2p"]);
    ok(&["config", "device", "remove", "c1", "eth0"]);
    ok(&["config", "set", "c1", "security.protection.delete", "true"]);
    refused(&["delete", "c1"], "protected");
    ok(&["config", "unset", "c1", "security.protection.delete"]);

    ok(&["rename", "c1", "c2"]);
    refused(&["rename", "c2", "c2"], "Name \"c2\" already in use");
    ok(&["storage", "create", "other", "dir"]);
    ok(&["move", "c2", "c3", "--storage", "other"]);
    assert!(ok(&["config", "show", "c3"]).contains("pool: other"));
    let moved = east.data_dir().join("pools/other/containers/c3/rootfs/file");
    assert_eq!(fs::read_to_string(moved).expect("it went along"), "one");
    assert!(!rootfs(&east, "c2").exists());
    refused(&["storage", "delete", "other"], "use");

    ok(&["project", "create", "blah"]);
    ok(&["move", "c3", "c4", "--target-project", "blah"]);
    assert_eq!(ok(&["list", "--project", "blah", "--format", "csv"]), "c4,STOPPED,,,CONTAINER,1\n");
    assert_eq!(ok(&["list", "--format", "csv"]), "");
    assert_eq!(ok(&["list", "--all-projects", "--format", "csv"]), "blah,c4,STOPPED,,,CONTAINER,1\n");
    refused(&["project", "delete", "blah"], "Only empty projects can be removed");
    refused(&["project", "rename", "blah", "foo"], "Only empty projects can be renamed");
    ok(&["init", "--empty", "c5", "--project", "blah"]);
    ok(&["delete", "c4", "c5", "--project", "blah"]);
    ok(&["storage", "delete", "other"]);
    ok(&["project", "delete", "blah"]);
}

#[test]
fn lxc_lists_by_name_and_key() {
    if own_only() {
        return;
    }
    let east = Agent::start("east");
    let http = Http::socket(&east);
    for name in ["web1", "web2", "db"] {
        make(&http, name);
    }
    http.patch("/1.0/instances/db", &json!({"config": {"user.role": "data"}})).expect(200);
    let lxc = Lxc::trusted_by(&east);
    let list = |filter: &str| lxc.run(&["list", filter, "-c", "n", "--format", "csv"]).success().stdout;
    assert_eq!(list("web"), "web1\nweb2\n");
    assert_eq!(list("user.role=data"), "db\n");
    assert_eq!(list("name=web2"), "web2\n");
    assert_eq!(list("status=running"), "");
}

#[test]
fn instances_are_shown_and_refused_in_lxds_shapes() {
    let east = Agent::start("east");
    let http = Http::socket(&east);
    make(&http, "c1");
    assert_eq!(http.get("/1.0/instances").metadata(), json!(["/1.0/instances/c1"]));
    assert_eq!(http.get("/1.0/containers").metadata(), json!(["/1.0/containers/c1"]));
    assert_eq!(http.get("/1.0/instances?instance-type=virtual-machine").metadata(), json!([]));
    assert_eq!(http.get("/1.0/projects/default").metadata()["used_by"], json!(["/1.0/instances/c1"]));
    let pool = http.get("/1.0/storage-pools/default").metadata();
    assert!(pool["used_by"].to_string().contains("/1.0/instances/c1"), "{pool}");
    let profile = http.get("/1.0/profiles/default").metadata();
    assert_eq!(profile["used_by"], json!(["/1.0/instances/c1"]));
    assert_eq!(profile["devices"]["root"]["pool"], "default");

    let got = http.get("/1.0/instances/c1").expect(200);
    let shown = got.metadata();
    for (key, value) in [
        ("status", json!("Stopped")),
        ("status_code", json!(102)),
        ("type", json!("container")),
        ("location", json!("none")),
        ("project", json!("default")),
        ("profiles", json!(["default"])),
        ("devices", json!({})),
        ("last_used_at", json!("1970-01-01T00:00:00Z")),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    assert_eq!(shown["expanded_devices"]["root"]["type"], "disk");
    // What was read can be written back, and what was read too long ago cannot.
    let tag = got.header("etag").expect("a tag").to_owned();
    let body = shown.to_string();
    done(&http, http.send("PUT", "/1.0/instances/c1", &[("if-match", &tag)], Some(&body)));
    let with = json!({"description": "d", "config": {"user.x": "1"}});
    http.patch("/1.0/instances/c1", &with).expect(200);
    http.send("PUT", "/1.0/instances/c1", &[("if-match", &tag)], Some(&body))
        .refused(412, "ETag does not match");
    http.patch("/1.0/instances/c1", &json!({"config": {"user.x": ""}})).expect(200);
    let full = http.get("/1.0/instances?recursion=2").metadata();
    assert_eq!((&full[0]["description"], &full[0]["state"]["status_code"]), (&json!("d"), &json!(102)));
    assert!(full[0]["config"]["user.x"].is_null() && full[0]["config"]["volatile.uuid"].is_string());

    let snapshots = "/1.0/instances/c1/snapshots";
    done(&http, http.post(snapshots, &json!({"name": "s", "expires_at": "2030-01-01T00:00:00Z"})));
    done(&http, http.post(snapshots, &json!({})));
    assert_eq!(http.get(&format!("{snapshots}?recursion=1")).metadata()[1]["name"], "snap0");
    let taken = http.get(&format!("{snapshots}/s")).metadata();
    assert_eq!((&taken["expires_at"], &taken["size"]), (&json!("2030-01-01T00:00:00Z"), &json!(-1)));
    let never = json!({"expires_at": "0001-01-01T00:00:00Z"});
    done(&http, http.put(&format!("{snapshots}/s"), &never));
    assert_eq!(http.get(&format!("{snapshots}/s")).metadata()["expires_at"], "0001-01-01T00:00:00Z");
    http.put(&format!("{snapshots}/s"), &json!({"ephemeral": true})).refused(400, "Only \"expires_at\"");
    done(&http, http.put("/1.0/instances/c1", &json!({"restore": "s"})));

    let post = |body: Value| http.post("/1.0/instances", &body);
    post(json!({"name": "c2", "source": {"type": "image", "alias": "x"}})).refused(400, "no images here");
    post(json!({"name": "c2", "source": {"type": "bla"}})).refused(400, "Unknown source type bla");
    post(json!({"name": "c2", "source": {}})).refused(400, "Unknown source type");
    post(json!({"name": "c2", "type": "foo", "source": {"type": "none"}}))
        .refused(400, "Invalid instance type");
    post(json!({"name": "../x", "source": {"type": "none"}})).refused(400, "Invalid instance name");
    let devices = json!({"data": {"type": "disk", "path": "/data", "pool": "default", "source": "nope"}});
    post(json!({"name": "c2", "source": {"type": "none"}, "devices": devices}))
        .refused(400, "volume not found");
    http.get("/1.0/instances/nope").refused(404, "Instance not found");
    http.get("/1.0/instances/..%2F..%2Fx").refused(404, "Instance not found");
    http.get(&format!("{snapshots}/nope")).refused(404, "snapshot not found");
    http.get("/1.0/instances?filter=name").refused(400, "clause has no operator");
    http.get("/1.0/instances?all-projects=true&project=default").refused(400, "Cannot specify a project");
    http.put("/1.0/instances/c1/state", &json!({"action": "start"})).refused(400, "do not run here yet");
    http.put("/1.0/instances/c1/state", &json!({"action": "foo"})).refused(400, "Unknown action: 'foo'");
    http.get("/1.0/instances/c1/state").expect(200);
    http.post("/1.0/instances/c1/exec", &json!({"command": ["x"]})).refused(400, "do not run here yet");
    http.get("/1.0/instances/c1/files?path=/etc/hosts").refused(400, "not reached one by one");
    http.get("/1.0/images/aliases/jammy").refused(400, "no images here");
    http.put("/1.0/profiles/default", &json!({"devices": {}})).refused(501, "cannot be changed");
    done(&http, http.delete("/1.0/instances/c1"));
    assert!(!rootfs(&east, "c1").exists());
}

#[test]
fn what_is_done_to_an_instance_is_told_and_seen_by_those_who_may() {
    let east = Agent::start("east");
    let admin = Http::socket(&east);
    make(&admin, "c1");
    make(&admin, "c2");
    let permission = |entitlement: &str, name: &str| {
        let url = format!("/1.0/instances/{name}?project=default");
        json!({"entity_type": "instance", "url": url, "entitlement": entitlement})
    };
    let viewer = json!({"entity_type": "project", "url": "/1.0/projects/default", "entitlement": "can_view"});
    let group = json!({"name": "g", "permissions": [viewer, permission("operator", "c1")]});
    admin.post("/1.0/auth/groups", &group).expect(201);
    let user = Http::showing(&east, None);
    user.get("/1.0/instances").expect(403);
    let key = tempfile::tempdir().expect("a temporary folder");
    let pair = integration::certificate::p256(key.path(), "user");
    let pem = fs::read_to_string(key.path().join("user.crt")).expect("its certificate");
    let identity = json!({"name": "user", "certificate": pem, "groups": ["g"]});
    admin.post("/1.0/auth/identities/tls", &identity).expect(201);
    let user = Http::showing(&east, Some(pair));
    assert_eq!(user.get("/1.0/instances").metadata(), json!(["/1.0/instances/c1"]));
    user.get("/1.0/instances/c2").expect(404);
    done(&user, user.post("/1.0/instances/c1/snapshots", &json!({"name": "s"})));
    user.delete("/1.0/instances/c1").expect(403);
    user.post("/1.0/instances", &json!({"name": "c3", "source": {"type": "none"}})).expect(403);

    // The permission follows the instance, and goes with it.
    done(&admin, admin.post("/1.0/instances/c1", &json!({"name": "c9"})));
    assert_eq!(user.get("/1.0/instances").metadata(), json!(["/1.0/instances/c9"]));
    done(&admin, admin.delete("/1.0/instances/c9"));
    make(&admin, "c9");
    assert_eq!(user.get("/1.0/instances").metadata(), json!([]));
    let listed = admin.get("/1.0/auth/permissions?entity-type=instance").metadata();
    assert!(listed.to_string().contains("/1.0/instances/c2?project=default"), "{listed}");

    let told = fs::read_to_string(east.data_dir().join("audit.log")).expect("the audit log");
    for action in ["instance-created", "instance-snapshot-created", "instance-renamed", "instance-deleted"] {
        assert!(told.contains(action), "{action} in {told}");
    }
}

#[test]
fn an_instance_and_its_snapshots_outlive_the_agent() {
    let mut east = Agent::start("east");
    make(&Http::socket(&east), "c1");
    fs::write(rootfs(&east, "c1").join("file"), "one").expect("a file");
    let http = Http::socket(&east);
    done(&http, http.post("/1.0/instances/c1/snapshots", &json!({"name": "s"})));
    // Files that no record has are left alone.
    fs::create_dir_all(rootfs(&east, "strange")).expect("a folder");
    east.kill9();
    east.restart();
    let http = Http::socket(&east);
    fs::write(rootfs(&east, "c1").join("file"), "two").expect("a file");
    done(&http, http.put("/1.0/instances/c1", &json!({"restore": "s"})));
    assert_eq!(fs::read_to_string(rootfs(&east, "c1").join("file")).expect("it is there"), "one");
    let there = http.post("/1.0/instances", &json!({"name": "strange", "source": {"type": "none"}}));
    let failed = ended(&http, there);
    assert!(failed["err"].as_str().is_some_and(|err| err.contains("belong to no instance")), "{failed}");
    assert_eq!(http.get("/1.0/instances").metadata(), json!(["/1.0/instances/c1"]));
    wait_for("the failed operation to be listed no more", LIMIT, || {
        let listed = http.get("/1.0/operations").metadata();
        listed.get("failure").is_none().then_some(())
    });
}

const PROGRAM: &str = r#"
import sys, warnings
warnings.filterwarnings("ignore")
from pylxd import Client
from pylxd.exceptions import LXDAPIException, NotFound
endpoint, crt, key, server = sys.argv[1:5]
client = Client(endpoint=endpoint, cert=(crt, key), verify=server)
made = client.instances.create({"name": "c1", "source": {"type": "none"}, "config": {"user.x": "1"}}, wait=True)
assert made.name == "c1" and made.status == "Stopped", made.status
assert [c.name for c in client.instances.all()] == ["c1"]
assert client.instances.exists("c1") and not client.instances.exists("c2")
made.config["user.x"] = "2"
made.save(wait=True)
assert client.instances.get("c1").config["user.x"] == "2"
snapshot = made.snapshots.create("s0", wait=True)
assert [s.name for s in made.snapshots.all()] == ["s0"]
made.restore_snapshot("s0", wait=True)
snapshot = made.snapshots.get("s0")
snapshot.rename("s1", wait=True)
made.snapshots.get("s1").delete(wait=True)
assert made.snapshots.all() == []
made.rename("c2", wait=True)
assert client.profiles.get("default").devices["root"]["type"] == "disk"
try:
    client.instances.get("c2").start(wait=True)
    raise SystemExit("it started")
except LXDAPIException as error:
    assert "do not run here yet" in str(error), error
client.instances.get("c2").delete(wait=True)
try:
    client.instances.get("c2")
    raise SystemExit("it is still there")
except NotFound:
    pass
print("done")
"#;

#[test]
fn pylxd_manages_instances_and_snapshots() {
    let (false, Some(interpreter)) = (own_only(), pylxd()) else { return };
    let agent = Agent::start("east");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let client = integration::certificate::p256(folder.path(), "client");
    let body = json!({
        "type": "client", "name": "python", "certificate": integration::http::der_base64(&client),
    });
    Http::socket(&agent).post("/1.0/certificates", &body).expect(201);
    let path = |name: &str| folder.path().join(name).to_str().expect("temporary paths are UTF-8").to_owned();
    let server = agent.data_dir().join("cluster.crt");
    let endpoint = format!("https://{}", agent.address());
    let files = [path("client.crt"), path("client.key"), server.display().to_string()];
    let mut arguments = vec![endpoint.as_str()];
    arguments.extend(files.iter().map(String::as_str));
    let told = python(&interpreter, PROGRAM, &arguments).success();
    assert_eq!(told.stdout, "done\n");
}
