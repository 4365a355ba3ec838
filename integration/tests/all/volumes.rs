//! Storage pools, custom volumes, their snapshots and backups: Debian's own `lxc` 5.0.2 and plain requests.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use integration::tree::{assert_same, odd, odd_of_root};
use integration::{Agent, Answer, Http, LIMIT, Lxc, own_only, wait_for};
use serde_json::{Value, json};

const VOLUMES: &str = "/1.0/storage-pools/default/volumes/custom";

/// Waits for the operation that a request began; its error, if it failed.
fn settle(http: &Http, begun: &Answer) -> Result<Value, String> {
    let path = begun.header("location").expect("an operation").to_owned();
    let operation = http.get(&format!("{path}/wait?timeout=60")).expect(200).metadata();
    match operation["status_code"].as_u64() {
        Some(200) => Ok(operation),
        _ => Err(operation["err"].as_str().unwrap_or_default().to_owned()),
    }
}

fn tree(agent: &Agent, volume: &str) -> PathBuf {
    agent.data_dir().join("pools/default/custom").join(volume)
}

/// What a pool has on disk besides volumes that are there, once what is removed in the background has gone.
fn leftovers(agent: &Agent) -> Vec<String> {
    let staging = agent.data_dir().join("pools/default/.staging/custom");
    let entries = fs::read_dir(staging).map(|all| all.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let holds = |path: &Path| fs::read_dir(path).is_ok_and(|mut inside| inside.next().is_some());
    entries
        .iter()
        .filter(|entry| holds(&entry.path()))
        .map(|entry| entry.path().display().to_string())
        .collect()
}

#[test]
fn pools_are_made_set_and_deleted_when_nothing_is_in_them() {
    let east = Agent::start("east");
    let admin = Http::socket(&east);
    let pools = "/1.0/storage-pools";
    let post = |body: Value| admin.post(pools, &body);
    post(json!({"driver": "dir"})).refused(400, "No name provided");
    post(json!({"name": "p2"})).refused(400, "No driver provided");
    post(json!({"name": "p2", "driver": "zfs"})).refused(400, "driver not supported");
    post(json!({"name": "a/b", "driver": "dir"})).refused(400, "slashes");
    post(json!({"name": "p2", "driver": "dir", "config": {"zfs.x": "1"}})).refused(400, "zfs.x");
    post(json!({"name": "p2", "driver": "dir", "config": {"source": "here"}})).refused(400, "absolute");
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("p2");
    let config = json!({"source": source, "volume.snapshots.expiry": "1w"});
    post(json!({"name": "p2", "driver": "dir", "config": config})).expect(201);
    post(json!({"name": "p2", "driver": "dir"})).refused(400, "already exists");
    let shown = admin.get("/1.0/storage-pools/p2").expect(200);
    assert_eq!(shown.metadata()["config"]["source"], json!(source));
    let tag = shown.header("etag").unwrap().to_owned();
    let moved = json!({"config": {"source": "/elsewhere"}});
    admin.put("/1.0/storage-pools/p2", &moved).refused(400, "source cannot be changed");
    admin.patch("/1.0/storage-pools/p2", &json!({"description": "second"})).expect(200);
    let stale = json!({"config": {}}).to_string();
    admin.send("PUT", "/1.0/storage-pools/p2", &[("if-match", &tag)], Some(&stale)).refused(412, "ETag");

    // What a volume does not say, its pool does.
    admin.post("/1.0/storage-pools/p2/volumes/custom", &json!({"name": "v"})).expect(201);
    let volume = admin.get("/1.0/storage-pools/p2/volumes/custom/v").metadata();
    assert_eq!(volume["config"]["snapshots.expiry"], "1w");
    assert!(source.join("custom/v").is_dir());
    let used = admin.get("/1.0/storage-pools/p2").metadata()["used_by"].clone();
    assert_eq!(used, json!(["/1.0/storage-pools/p2/volumes/custom/v"]));
    admin.delete("/1.0/storage-pools/p2").refused(400, "currently in use");
    admin.delete("/1.0/storage-pools/p2/volumes/custom/v").expect(200);
    admin.delete("/1.0/storage-pools/p2").expect(200);
    admin.get("/1.0/storage-pools/p2").expect(404);
    admin.delete("/1.0/storage-pools/default").refused(400, "default");
}

#[test]
fn volumes_keep_what_is_set_of_them_and_refuse_what_makes_no_sense() {
    let east = Agent::start("east");
    let admin = Http::socket(&east);
    let bad = |config: Value, words: &str| {
        admin.post(VOLUMES, &json!({"name": "v", "config": config})).refused(400, words);
    };
    bad(json!({"snapshots.expiri": "1d"}), "did you mean \"snapshots.expiry\"?");
    bad(json!({"snapshots.expiry": "soon"}), "snapshots.expiry");
    bad(json!({"snapshots.schedule": "often"}), "snapshots.schedule");
    bad(json!({"snapshots.pattern": "{% include '/etc/passwd' %}"}), "snapshots.pattern");
    bad(json!({"size": "big"}), "size");
    let config = json!({"size": "1GiB", "user.x": "1"});
    admin.post(VOLUMES, &json!({"name": "v", "config": config, "description": "d"})).expect(201);
    let path = format!("{VOLUMES}/v");
    let shown = admin.get(&path).expect(200);
    assert_eq!(shown.metadata()["config"], config);
    let tag = shown.header("etag").unwrap().to_owned();
    admin.put(&path, &shown.metadata()).expect(200);
    admin.patch(&path, &json!({"config": {"user.x": "", "snapshots.schedule": "@daily"}})).expect(200);
    let config = json!({"size": "1GiB", "snapshots.schedule": "@daily"});
    assert_eq!(admin.get(&path).metadata()["config"], config);
    admin.send("PUT", &path, &[("if-match", &tag)], Some("{}")).refused(412, "ETag");
    assert_eq!(admin.get(&format!("{path}/state")).metadata()["usage"]["total"], 1 << 30);
}

#[test]
fn lxc_works_with_volumes_and_their_snapshots() {
    if own_only() {
        return;
    }
    let east = Agent::start("east");
    let lxc = Lxc::trusted_by(&east);
    let volume = |arguments: &[&str]| lxc.run(&[&["storage", "volume"], arguments].concat());
    lxc.run(&["storage", "create", "p2", "dir"]).success();
    volume(&["create", "default", "v1", "snapshots.pattern=x%d"]).success();
    fs::write(tree(&east, "v1").join("f"), "hello").unwrap();
    volume(&["snapshot", "default", "v1"]).success();
    volume(&["snapshot", "default", "v1", "named"]).success();
    assert!(volume(&["snapshot", "default", "v1", "named"]).exits(1).stderr.contains("already in use"));
    let info = volume(&["info", "default", "v1"]).success().stdout;
    assert!(info.contains("x0") && info.contains("named"), "{info}");
    fs::write(tree(&east, "v1").join("f"), "bye").unwrap();
    volume(&["restore", "default", "v1", "x0"]).success();
    assert_eq!(fs::read_to_string(tree(&east, "v1").join("f")).unwrap(), "hello");
    volume(&["rename", "default", "v1", "v2"]).success();
    volume(&["rename", "default", "v2/named", "v2/other"]).success();
    let listed = volume(&["list", "default", "--format", "csv"]).success().stdout;
    assert!(listed.contains("custom (snapshot),v2/other") && listed.contains("custom,v2"), "{listed}");
    assert!(!tree(&east, "v1").exists());
    let all = "/1.0/storage-pools/p2/volumes/custom/v3/snapshots";
    volume(&["move", "default/v2", "p2/v3"]).success();
    assert!(!tree(&east, "v2").exists());
    assert_eq!(Http::socket(&east).get(all).metadata(), json!([format!("{all}/other"), format!("{all}/x0")]));
    let moved = east.data_dir().join("pools/p2/custom/v3/f");
    fs::write(&moved, "changed").unwrap();
    volume(&["restore", "p2", "v3", "x0"]).success();
    assert_eq!(fs::read_to_string(&moved).unwrap(), "hello");
    volume(&["delete", "p2", "v3/other"]).success();
    volume(&["delete", "p2", "v3"]).success();
    lxc.run(&["storage", "delete", "p2"]).success();
}

#[test]
fn a_backup_holds_all_of_a_volume() {
    if own_only() {
        return;
    }
    let east = Agent::start("east");
    let lxc = Lxc::trusted_by(&east);
    let volume = |arguments: &[&str]| lxc.run(&[&["storage", "volume"], arguments].concat());
    volume(&["create", "default", "v1", "user.x=1"]).success();
    if rustix::process::geteuid().is_root() {
        odd_of_root(&tree(&east, "v1"));
    } else {
        odd(&tree(&east, "v1"));
    }
    // A tar cannot hold one.
    fs::remove_file(tree(&east, "v1").join("socket")).unwrap();
    volume(&["snapshot", "default", "v1", "s0"]).success();
    fs::write(tree(&east, "v1").join("later"), "later").unwrap();
    let folder = tempfile::tempdir().unwrap();
    for compression in ["none", "gzip", "zstd"] {
        let (file, name) = (folder.path().join(compression), format!("of-{compression}"));
        let file = file.to_str().unwrap();
        volume(&["export", "default", "v1", file, "--compression", compression]).success();
        volume(&["import", "default", file, &name]).success();
        assert_same(&tree(&east, "v1"), &tree(&east, &name));
        volume(&["restore", "default", &name, "s0"]).success();
        assert!(!tree(&east, &name).join("later").exists());
        let config = Http::socket(&east).get(&format!("{VOLUMES}/{name}")).metadata()["config"].clone();
        assert_eq!(config, json!({"user.x": "1"}));
    }
    // The client takes its backups away.
    assert_eq!(Http::socket(&east).get(&format!("{VOLUMES}/v1/backups")).metadata(), json!([]));

    let file = folder.path().join("none").to_str().unwrap().to_owned();
    assert!(volume(&["import", "default", &file]).exits(1).stderr.contains("already exists"));
    // What is cut off, and what is no backup, leaves nothing.
    let whole = fs::read(&file).unwrap();
    for (name, bytes) in [("cut", &whole[..whole.len() / 2]), ("text", &b"hello"[..]), ("empty", &b""[..])] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        volume(&["import", "default", path.to_str().unwrap(), name]).exits(1);
        assert!(!tree(&east, name).exists());
        Http::socket(&east).get(&format!("{VOLUMES}/{name}")).expect(404);
    }
    wait_for("nothing to be left in staging", LIMIT, || leftovers(&east).is_empty().then_some(()));
}

/// `testdata/lxd/volume.tar.gz` is what `lxc storage volume export` of LXD 5.0.2 wrote.
#[test]
fn an_export_of_lxd_is_imported() {
    if own_only() {
        return;
    }
    let east = Agent::start("east");
    let lxc = Lxc::trusted_by(&east);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/lxd/volume.tar.gz");
    lxc.run(&["storage", "volume", "import", "default", file.to_str().unwrap()]).success();
    let admin = Http::socket(&east);
    assert_eq!(admin.get(&format!("{VOLUMES}/lv")).metadata()["config"], json!({"user.x": "1"}));
    let snapshots = format!("{VOLUMES}/lv/snapshots");
    assert_eq!(
        admin.get(&snapshots).metadata(),
        json!([format!("{snapshots}/s0"), format!("{snapshots}/s1")])
    );
    let tree = tree(&east, "lv");
    let meta = |name: &str| fs::symlink_metadata(tree.join(name)).unwrap();
    assert_eq!(fs::read_to_string(tree.join("deep/a")).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(tree.join("later")).unwrap(), "later\n");
    assert_eq!((meta("b").ino(), meta("b").nlink()), (meta("deep/a").ino(), 2));
    assert_eq!(fs::read_link(tree.join("s")).unwrap(), Path::new("nowhere"));
    assert!(meta("fifo").file_type().is_fifo());
    assert_eq!((meta("sparse").size(), meta("sparse").blocks()), (1 << 20, 0));
    let mut colour = [0; 16];
    let length = rustix::fs::getxattr(tree.join("b"), "user.c", &mut colour).unwrap();
    assert_eq!(&colour[..length], b"blue");
    if rustix::process::geteuid().is_root() {
        assert_eq!(meta("b").mode() & 0o7777, 0o4755);
        assert!(meta("null").file_type().is_char_device());
        let mut acl = [0; 256];
        assert!(rustix::fs::getxattr(tree.join("b"), "system.posix_acl_access", &mut acl).unwrap() > 28);
    }
    lxc.run(&["storage", "volume", "restore", "default", "lv", "s0"]).success();
    assert!(!tree.join("later").exists());
}

#[test]
fn a_snapshot_that_was_not_recorded_goes_when_the_agent_starts_again() {
    let mut east = Agent::start("east");
    Http::socket(&east).post(VOLUMES, &json!({"name": "v"})).expect(201);
    let path = format!("{VOLUMES}/v/snapshots");
    let begun = Http::socket(&east).post(&path, &json!({"name": "first"})).expect(202);
    settle(&Http::socket(&east), &begun).unwrap();
    east.terminate();
    east.set_env("COMITY_CRASH_AT", "snapshot-before-record");
    east.launch();
    east.wait_ready();
    // It may be gone before it has answered.
    let _ = Http::socket(&east).try_send("POST", &path, &[], Some("{\"name\":\"second\"}"));
    east.wait_end();
    let references = east.data_dir().join("pools/default/.snapshots/custom/v");
    assert!(fs::read_to_string(&references).unwrap().contains("second"));
    east.clear_env();
    east.launch();
    east.wait_ready();
    let admin = Http::socket(&east);
    assert_eq!(admin.get(&path).metadata(), json!([format!("{path}/first")]));
    assert!(!fs::read_to_string(&references).unwrap().contains("second"));
    let begun = admin.post(&path, &json!({"name": "second"})).expect(202);
    settle(&admin, &begun).unwrap();
    let shown = admin.get(&format!("{path}/second")).metadata();
    assert_eq!((&shown["name"], &shown["expires_at"]), (&json!("second"), &json!("0001-01-01T00:00:00Z")));
}

#[test]
fn what_expired_or_was_due_while_the_agent_was_away_is_done_when_it_is_back() {
    let mut east = Agent::start("east");
    let admin = Http::socket(&east);
    admin.post(VOLUMES, &json!({"name": "v", "config": {"snapshots.schedule": "@hourly"}})).expect(201);
    let path = format!("{VOLUMES}/v/snapshots");
    let gone = json!({"name": "gone", "expires_at": "2020-01-01T00:00:00Z"});
    let stays = json!({"name": "stays"});
    for wanted in [gone, stays] {
        settle(&admin, &admin.post(&path, &wanted).expect(202)).unwrap();
    }
    east.terminate();
    fs::write(east.data_dir().join("schedules-seen"), "2026-01-01T00:00:00Z").unwrap();
    east.launch();
    east.wait_ready();
    let expected = json!([format!("{path}/snap0"), format!("{path}/stays")]);
    wait_for("the snapshots to be those that are due", LIMIT, || {
        let listed = Http::socket(&east).get(&path).metadata();
        (listed == expected).then_some(())
    });
}

#[test]
fn rights_on_a_volume_decide_what_may_be_done_with_it() {
    let east = Agent::start("east");
    let admin = Http::socket(&east);
    admin.post(VOLUMES, &json!({"name": "v"})).expect(201);
    let stranger = Http::stranger(&east);
    for path in [format!("{VOLUMES}/v/snapshots"), format!("{VOLUMES}/v/backups"), VOLUMES.to_owned()] {
        stranger.get(&path).refused(403, "Forbidden");
        stranger.post(&path, &json!({})).refused(403, "Forbidden");
    }
    admin.post(&format!("{VOLUMES}/none/snapshots"), &json!({})).refused(404, "not found");
    admin.get(&format!("{VOLUMES}/v/snapshots/none")).refused(404, "not found");
    admin.get(&format!("{VOLUMES}/v/backups/none/export")).refused(404, "not found");
    let many = json!({"compression_algorithm": "sh -c evil"});
    admin.post(&format!("{VOLUMES}/v/backups"), &many).refused(400, "Unsupported compression");
    admin
        .post(&format!("{VOLUMES}/v/backups"), &json!({"optimized_storage": true}))
        .refused(400, "not offered");
}
