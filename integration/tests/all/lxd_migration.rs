//! Copies between a real LXD and us, both ways, and between two of ours, all by the stock `lxc`.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::tree::{assert_same as same, noise};
use integration::{Agent, Done, Host, Hosts, Lxc, Lxd, own_only, process};
use serde_json::Value;

/// A real LXD (`L`), two agents (`a` and `b`), and somebody whom all of them trust. Dropped from the first to the last.
pub struct Stage {
    pub lxc: Lxc,
    pub lxd: Lxd,
    pub agents: [Agent; 2],
    _hosts: Hosts,
}

impl Stage {
    pub fn set() -> Option<Self> {
        if own_only() {
            return None;
        }
        let hosts = Hosts::start(1)?;
        let host: Host = hosts.host(0).clone();
        let lxd = Lxd::start(&host)?;
        let agents = ["a", "b"].map(|name| {
            let mut agent = Agent::prepare(name).on(&host);
            agent.launch();
            agent
        });
        let mut stage = Self { lxc: Lxc::on(&host), lxd, agents, _hosts: hosts };
        stage.lxc.run(&["remote", "add", "L", &stage.lxd.token()]).success();
        for agent in &mut stage.agents {
            agent.wait_ready();
        }
        for agent in &stage.agents {
            stage.lxc.add(agent);
        }
        Some(stage)
    }

    #[track_caller]
    pub fn lxc(&self, line: &str) -> Done {
        self.lxc.run(&line.split(' ').collect::<Vec<_>>()).success()
    }

    pub fn refused(&self, line: &str) -> String {
        let done = self.lxc.run(&line.split(' ').collect::<Vec<_>>());
        assert!(!done.succeeded(), "{line} succeeded");
        done.stderr
    }

    pub fn query(&self, path: &str) -> Value {
        serde_json::from_str(&self.lxc(&format!("query {path}")).stdout).expect("JSON")
    }

    /// What the last transfer of an agent spoke.
    #[track_caller]
    fn spoken(&self, remote: &str) -> String {
        let all = self.query(&format!("{remote}:/1.0/operations?recursion=1"));
        let ended = all["success"].as_array().expect("one has ended");
        let with = ended.iter().filter(|operation| operation["metadata"]["comity"].is_object());
        let last = with.max_by_key(|operation| operation["created_at"].as_str().map(str::to_owned));
        let last = last.unwrap_or_else(|| panic!("no transfer in {all}"));
        last["metadata"]["comity"]["protocol"].as_str().expect("a protocol").to_owned()
    }

    pub fn volume(&self, agent: usize, name: &str) -> PathBuf {
        self.agents[agent].data_dir().join("pools/default/custom").join(name)
    }

    pub fn instance(&self, agent: usize, name: &str) -> PathBuf {
        self.agents[agent].data_dir().join("pools/default/containers").join(name)
    }

    /// The names of what there is under a path.
    pub fn names(&self, path: &str) -> Vec<String> {
        let list = self.query(path);
        let urls = list.as_array().expect("a list").iter().filter_map(Value::as_str);
        urls.map(|url| url.rsplit('/').next().unwrap_or_default().to_owned()).collect()
    }
}

/// A tree of what LXD's flags of rsync keep: no hard links and no ACLs.
pub fn fill(at: &Path) {
    fs::create_dir_all(at.join("folder/deep")).expect("a folder");
    fs::write(at.join("folder/text"), "first\n").expect("a file");
    fs::write(at.join("folder/deep/noise"), noise(7, 400_000)).expect("a file");
    fs::write(at.join("odd\nname \u{fc}"), "x").expect("a file");
    symlink("/etc/passwd", at.join("link")).expect("a link");
    chown(at.join("folder/text"), Some(1234), Some(4321)).expect("root may give a file away");
    let mut attribute = Command::new("setfattr");
    attribute.args(["-n", "user.note", "-v", "kept"]).arg(at.join("folder/text"));
    process::run(&mut attribute, "setfattr", "").success();
    // LXD's own rsync compares the times of folders and links by the second: one that has another in a snapshot, within the
    // same second, keeps it in the next tree, also between two LXDs. These must not be made in the second of a snapshot.
    touch(at, &["!", "-type", "f"], "@1500000000.123456789");
}

/// Gives this time to all below a folder that `find` finds by these words.
pub fn touch(at: &Path, which: &[&str], time: &str) {
    let mut find = Command::new("find");
    find.arg(at).args(which).args(["-exec", "touch", "-h", "-d", time, "{}", "+"]);
    process::run(&mut find, "find", "").success();
}

fn add(at: &Path, text: &str) {
    let path = at.join("folder/text");
    let whole = fs::read_to_string(&path).expect("a file") + text;
    fs::write(path, whole).expect("a file");
}

#[test]
fn volumes_go_from_lxd_to_us_and_from_us_to_lxd() {
    let Some(stage) = Stage::set() else { return };
    stage.lxc("storage volume create L:default v");
    let theirs = stage.lxd.volume("v");
    fill(&theirs);
    stage.lxc("storage volume snapshot L:default v s0");
    add(&theirs, "second\n");
    stage.lxc("storage volume snapshot L:default v s1");
    fs::remove_file(theirs.join("folder/deep/noise")).expect("it was there");

    // To us, in each way that there is.
    for (mode, name) in [("pull", "pulled"), ("push", "pushed"), ("relay", "relayed")] {
        stage.lxc(&format!("storage volume copy L:default/v a:default/{name} --mode {mode}"));
        assert_eq!(stage.spoken("a"), "rsync");
        same(&theirs, &stage.volume(0, name));
        let path = format!("a:/1.0/storage-pools/default/volumes/custom/{name}/snapshots");
        assert_eq!(stage.names(&path), ["s0", "s1"]);
    }
    stage.lxc("storage volume copy a:default/pulled/s0 a:default/at-s0");
    same(&stage.lxd.volume_snapshot("v", "s0"), &stage.volume(0, "at-s0"));

    // What has changed since, and what is ours alone stays.
    stage.lxc("storage volume snapshot a:default pulled ours");
    add(&theirs, "third\n");
    stage.lxc("storage volume snapshot L:default v s2");
    stage.lxc("storage volume copy L:default/v a:default/pulled --refresh");
    same(&theirs, &stage.volume(0, "pulled"));
    let snapshots = stage.names("a:/1.0/storage-pools/default/volumes/custom/pulled/snapshots");
    assert_eq!(snapshots, ["ours", "s0", "s1", "s2"]);

    // To LXD, in each way.
    for (mode, name) in [("pull", "back-pulled"), ("push", "back-pushed"), ("relay", "back-relayed")] {
        stage.lxc(&format!("storage volume copy a:default/pulled L:default/{name} --mode {mode}"));
        same(&theirs, &stage.lxd.volume(name));
        same(&stage.lxd.volume_snapshot("v", "s1"), &stage.lxd.volume_snapshot(name, "s1"));
        same(&stage.lxd.volume_snapshot("v", "s2"), &stage.lxd.volume_snapshot(name, "s2"));
    }
    add(&stage.volume(0, "pulled"), "fourth\n");
    stage.lxc("storage volume copy a:default/pulled L:default/back-pulled --refresh");
    same(&stage.volume(0, "pulled"), &stage.lxd.volume("back-pulled"));

    let said = stage.refused("storage volume copy L:default/v a:default/pulled");
    assert!(said.contains("already exists"), "{said}");
    let said = stage.refused("storage volume copy L:default/none a:default/new");
    assert!(said.contains("not found"), "{said}");
    assert!(!stage.volume(0, "new").exists());

    // A move is a copy, and the source's deletion once that is there.
    stage.lxc("storage volume move L:default/back-relayed a:default/moved");
    same(&theirs, &stage.volume(0, "moved"));
    assert!(!stage.lxd.volume("back-relayed").exists());

    between_two_of_ours(&stage);
}

/// The chunk stream, though neither `lxc` nor what relays it knows of it.
fn between_two_of_ours(stage: &Stage) {
    for (mode, name) in [("pull", "ours-pulled"), ("push", "ours-pushed"), ("relay", "ours-relayed")] {
        stage.lxc(&format!("storage volume copy a:default/pulled b:default/{name} --mode {mode}"));
        assert_eq!(stage.spoken("b"), "chunk stream");
        same(&stage.volume(0, "pulled"), &stage.volume(1, name));
        let path = format!("b:/1.0/storage-pools/default/volumes/custom/{name}/snapshots");
        assert_eq!(stage.names(&path), ["ours", "s0", "s1", "s2"]);
    }
    add(&stage.volume(0, "pulled"), "fifth\n");
    stage.lxc("storage volume snapshot b:default ours-pulled own");
    stage.lxc("storage volume copy a:default/pulled b:default/ours-pulled --refresh");
    same(&stage.volume(0, "pulled"), &stage.volume(1, "ours-pulled"));
    let path = "b:/1.0/storage-pools/default/volumes/custom/ours-pulled/snapshots";
    assert_eq!(stage.names(path), ["ours", "own", "s0", "s1", "s2"]);
}

#[test]
fn instances_go_from_lxd_to_us_and_from_us_to_lxd() {
    let Some(stage) = Stage::set() else { return };
    stage.lxc("init --empty L:c1 -c user.kept=yes");
    let rootfs = stage.lxd.instance("c1").join("rootfs");
    fs::create_dir_all(&rootfs).expect("a folder");
    fill(&rootfs);
    stage.lxc("snapshot L:c1 s0");
    add(&rootfs, "second\n");
    stage.lxc("snapshot L:c1 s1");
    add(&rootfs, "third\n");

    for (mode, name) in [("pull", "c1"), ("push", "c2"), ("relay", "c3")] {
        stage.lxc(&format!("copy L:c1 a:{name} --mode {mode}"));
        assert_eq!(stage.spoken("a"), "rsync");
        same(&rootfs, &stage.instance(0, name).join("rootfs"));
        assert_eq!(stage.names(&format!("a:/1.0/instances/{name}/snapshots")), ["s0", "s1"]);
    }
    let theirs = stage.query("L:/1.0/instances/c1");
    let ours = stage.query("a:/1.0/instances/c1");
    assert_eq!(ours["config"]["user.kept"], "yes");
    assert_ne!(ours["config"]["volatile.uuid"], theirs["config"]["volatile.uuid"]);
    let taken =
        |remote: &str| stage.query(&format!("{remote}:/1.0/instances/c1/snapshots/s0"))["created_at"].clone();
    assert_eq!(seconds(&taken("L")), seconds(&taken("a")));
    stage.lxc("copy a:c1/s0 a:at-s0");
    same(&stage.lxd.snapshot("c1", "s0").join("rootfs"), &stage.instance(0, "at-s0").join("rootfs"));

    add(&rootfs, "fourth\n");
    stage.lxc("snapshot L:c1 s2");
    stage.lxc("snapshot a:c1 ours");
    stage.lxc("copy L:c1 a:c1 --refresh");
    same(&rootfs, &stage.instance(0, "c1").join("rootfs"));
    assert_eq!(stage.names("a:/1.0/instances/c1/snapshots"), ["s0", "s1", "s2", "ours"]);

    for (mode, name) in [("pull", "b1"), ("push", "b2"), ("relay", "b3")] {
        stage.lxc(&format!("copy a:c1 L:{name} --mode {mode}"));
        same(&rootfs, &stage.lxd.instance(name).join("rootfs"));
        let snapshot = |of: &str| stage.lxd.snapshot(of, "s1").join("rootfs");
        same(&snapshot("c1"), &snapshot(name));
    }
    add(&stage.instance(0, "c1").join("rootfs"), "fifth\n");
    stage.lxc("copy a:c1 L:b1 --refresh");
    same(&stage.instance(0, "c1").join("rootfs"), &stage.lxd.instance("b1").join("rootfs"));

    for (mode, name) in [("pull", "c1"), ("push", "c2"), ("relay", "c3")] {
        stage.lxc(&format!("copy a:c1 b:{name} --mode {mode}"));
        assert_eq!(stage.spoken("b"), "chunk stream");
        same(&stage.instance(0, "c1"), &stage.instance(1, name));
    }
    stage.lxc("copy a:c1 b:only --instance-only");
    assert!(stage.names("b:/1.0/instances/only/snapshots").is_empty());
    let said = stage.refused("copy a:c1 b:c1");
    assert!(said.contains("already exists"), "{said}");

    // A move keeps what a copy makes anew.
    let before = stage.query("L:/1.0/instances/b3");
    stage.lxc("move L:b3 b:moved");
    let after = stage.query("b:/1.0/instances/moved");
    assert_eq!(before["config"]["volatile.uuid"], after["config"]["volatile.uuid"]);
    assert!(stage.refused("info L:b3").contains("not found"));
}

fn seconds(time: &Value) -> String {
    time.as_str().expect("a time").chars().take(19).collect()
}
