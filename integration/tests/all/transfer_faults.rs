//! What goes wrong with a transfer: sources that lie, networks that are cut, disks that are full, files that change and
//! vanish while they are read, names and volumes in use. Each time the target is what it was, nothing half is listed, and
//! whoever asked is told why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use integration::liar::{Liar, Lie};
use integration::process::{self, Running};
use integration::tree::{assert_same, difference, noise, odd};
use integration::{Agent, Answer, Clusters, Hosts, Http, LIMIT, Operator, wait_for};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
const COPY: [&str; 4] = ["volume", "copy", "east:default/data", "west:default/data"];
const REFRESH: [&str; 5] = ["volume", "copy", "east:default/data", "west:default/data", "--refresh"];

fn tree(agent: &Agent) -> PathBuf {
    agent.data_dir().join("pools/default/custom/data")
}

/// Bytes of what is on its way in.
fn staged(agent: &Agent) -> u64 {
    used(&agent.data_dir().join("pools/default/.staging"))
}

fn used(at: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(at) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => used(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// Two agents, with a volume on east that holds so many MiB.
fn with_source(clusters: Clusters, mebibytes: usize) -> Clusters {
    clusters.run(&["volume", "create", "east:default/data"]).success();
    let source = tree(&clusters.east);
    for number in 0..mebibytes {
        let name = source.join(format!("file-{number:03}"));
        fs::write(name, noise(100 + number as u64, MIB)).unwrap();
    }
    clusters
}

/// West has a small volume of the same name; a copy of what is in it.
fn with_target(clusters: &Clusters) -> PathBuf {
    clusters.run(&["volume", "create", "west:default/data"]).success();
    odd(&tree(&clusters.west));
    let kept = clusters.path("kept");
    let copied = Command::new("cp").arg("-a").args([&tree(&clusters.west), &kept]).status();
    assert!(copied.expect("cp runs").success());
    kept
}

/// West's volume anew, as it was: what was kept of it.
fn put_back(clusters: &Clusters, kept: &Path) {
    clusters.run(&["volume", "delete", "west:default/data"]).success();
    clusters.run(&["volume", "create", "west:default/data"]).success();
    let copied = Command::new("cp").arg("-a").arg(kept.join(".")).arg(tree(&clusters.west)).status();
    assert!(copied.expect("cp runs").success());
}

fn is_listed(clusters: &Clusters) -> bool {
    let listed = clusters.ask("west", &["volume", "list"]);
    listed.as_array().expect("a list").iter().any(|one| one["name"] == "data")
}

/// Waits until so much of the copy is on its way, and that it has not ended.
#[track_caller]
fn underway(running: &mut Running, target: &Agent, bytes: u64) {
    wait_for("the copy is under way", LIMIT, || {
        assert!(!running.has_ended(), "the copy ended before it could be disturbed");
        (staged(target) >= bytes).then_some(())
    });
}

/// What is given to whoever is to fetch east's volume: a source as LXD's clients hand it on.
fn offer(clusters: &Clusters, more: &Value) -> Value {
    let mut asked = json!({"name": "data", "migration": true});
    for (name, value) in more.as_object().expect("an object") {
        asked[name] = value.clone();
    }
    let east = Http::socket(&clusters.east);
    let made = east.post("/1.0/storage-pools/default/volumes/custom/data", &asked).expect(202).json();
    let operation = made["operation"].as_str().expect("an operation");
    let certificate =
        fs::read_to_string(clusters.east.data_dir().join("cluster.crt")).expect("a certificate");
    json!({
        "type": "migration", "mode": "pull", "refresh": true, "certificate": certificate,
        "operation": format!("https://{}{operation}", clusters.east.address()),
        "secrets": made["metadata"]["metadata"],
    })
}

/// The same, by way of a source that lies.
fn through(liar: &Liar, clusters: &Clusters) -> Value {
    let mut offer = offer(clusters, &json!({}));
    let operation = offer["operation"].as_str().expect("an operation");
    offer["operation"] = json!(operation.replace(&clusters.east.address(), &liar.address()));
    offer["certificate"] = json!(liar.key.pem);
    offer
}

/// Has west fetch what was offered, and waits for the end of it.
fn pull(clusters: &Clusters, offer: &Value) -> Result<Value, String> {
    let west = Http::socket(&clusters.west);
    let body = json!({"name": "data", "type": "custom", "source": offer});
    let begun = west.post("/1.0/storage-pools/default/volumes/custom", &body);
    ended(&west, &begun)
}

/// Waits for the operation that an answer names.
fn ended(agent: &Http, begun: &Answer) -> Result<Value, String> {
    let body = begun.json();
    let Some(operation) = body["operation"].as_str().filter(|operation| !operation.is_empty()) else {
        return Err(body["error"].as_str().unwrap_or_default().to_owned());
    };
    let done = agent.get(&format!("{operation}/wait?timeout=20")).json();
    let operation = &done["metadata"];
    match operation["status_code"].as_u64() {
        Some(200) => Ok(operation["metadata"].clone()),
        Some(400..) => Err(operation["err"].as_str().unwrap_or_default().to_owned()),
        _ => panic!("the transfer does not end: {done}"),
    }
}

#[test]
fn whatever_a_source_says_the_target_is_what_it_was_or_what_the_source_has() {
    let clusters = with_source(Clusters::start(), 3);
    let source = tree(&clusters.east);
    odd(&source);
    let kept = with_target(&clusters);
    let liar = Liar::before(&clusters.east);
    let seed = match std::env::var("COMITY_LIES_SEED") {
        Ok(seed) => seed.parse().expect("COMITY_LIES_SEED is a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").subsec_nanos(),
    };
    eprintln!("COMITY_LIES_SEED={seed}");
    let chances = noise(u64::from(seed) + 1, 8 * 64);
    let mut chances =
        chances.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
    let mut chance = |limit: u64| chances.next().expect("enough of them") % limit;
    // How much there is to lie about.
    liar.lies(Lie::None);
    pull(&clusters, &through(&liar, &clusters)).expect("a source that does not lie");
    assert_same(&source, &tree(&clusters.west));
    let all = liar.carried();
    assert!(all > 3 << 20, "the data came this way: {all} bytes");

    let (mut refused, mut taken) = (Vec::new(), 0);
    for round in 0..24_u64 {
        put_back(&clusters, &kept);
        // Half of them early, where manifests and not data are.
        let at = if round % 2 == 0 { chance(all.min(20_000)) } else { chance(all) };
        let lie = match round % 6 {
            0..=2 => Lie::Flip(at),
            3 | 4 => Lie::Cut(at),
            _ => Lie::Repeat(at),
        };
        liar.lies(lie);
        let outcome = pull(&clusters, &through(&liar, &clusters));
        match &outcome {
            Ok(_) => {
                taken += 1;
                if let Some(difference) = difference(&source, &tree(&clusters.west)) {
                    panic!("{lie:?} was believed: {difference}");
                }
            }
            Err(error) => {
                assert!(error.len() > 10, "{lie:?}: it is said why: {error:?}");
                if let Some(difference) = difference(&kept, &tree(&clusters.west)) {
                    panic!("{lie:?} changed the target, and was refused ({error}): {difference}");
                }
                refused.push((lie, error.clone()));
            }
        }
        assert!(!clusters.west.log().contains("panicked"), "{lie:?} broke the agent");
    }
    eprintln!("{} refused, {taken} without effect: {refused:#?}", refused.len());
    assert!(refused.len() > 12, "most lies are refused");
    liar.lies(Lie::None);
    pull(&clusters, &through(&liar, &clusters)).expect("the target can still be reached");
    assert_same(&source, &tree(&clusters.west));
}

#[test]
fn a_secret_is_good_once_for_whom_it_was_made_and_not_after() {
    let clusters = with_source(Clusters::start(), 1);
    let nothing = json!({});
    let used = offer(&clusters, &nothing);
    pull(&clusters, &used).expect("it is good once");
    let again = pull(&clusters, &used).expect_err("a secret that was used");
    let secrets = |offer: &Value| -> Vec<String> {
        let all = offer["secrets"].as_object().expect("secrets").values();
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    assert!(secrets(&used).iter().all(|secret| !again.contains(secret)), "{again}");

    let mut wrong = offer(&clusters, &nothing);
    for (_, secret) in wrong["secrets"].as_object_mut().expect("secrets") {
        let turned: String = secret.as_str().expect("a secret").chars().rev().collect();
        *secret = json!(turned);
    }
    pull(&clusters, &wrong).expect_err("another secret");

    // Taken back with its operation.
    let east = Http::socket(&clusters.east);
    let cancelled = offer(&clusters, &nothing);
    let operation = cancelled["operation"].as_str().expect("an operation");
    let path = &operation[operation.find("/1.0/").expect("a path")..];
    east.delete(path).expect(200);
    pull(&clusters, &cancelled).expect_err("a secret of what was cancelled");

    // Bound to another certificate.
    let other = Http::stranger(&clusters.east).fingerprint();
    let bound = offer(&clusters, &json!({"target_fingerprint": other}));
    pull(&clusters, &bound).expect_err("a secret of somebody else");
    for made in [&used, &wrong, &cancelled, &bound] {
        for secret in secrets(made) {
            for agent in [&clusters.east, &clusters.west] {
                assert!(!agent.log().contains(&secret), "agent {} logged a secret", agent.name());
            }
        }
    }
    assert_same(&tree(&clusters.east), &tree(&clusters.west));
}

#[test]
fn a_network_that_is_cut_leaves_the_target_and_the_copy_goes_on() {
    let Some(hosts) = Hosts::start(2) else { return };
    let [east, west] = [("east", 0), ("west", 1)].map(|(name, at)| Agent::prepare(name).on(hosts.host(at)));
    let clusters = Clusters::run_by(Operator::new().within(hosts.router()), east, west);
    let clusters = with_source(clusters, 48);
    let kept = with_target(&clusters);

    // For a moment: nobody notices.
    let mut running = clusters.operator.begin(&REFRESH);
    underway(&mut running, &clusters.west, 8 << 20);
    hosts.firewall(&["drop"]);
    let before = staged(&clusters.west);
    wait_for("what was on its way has arrived", LIMIT, || {
        let now = staged(&clusters.west);
        (now == staged(&clusters.west)).then_some(now)
    });
    hosts.firewall(&[]);
    assert!(before > 0);
    running.end().success();
    assert_same(&tree(&clusters.east), &tree(&clusters.west));

    // By a reset, as a router does that has forgotten the connection.
    put_back(&clusters, &kept);
    let mut running = clusters.operator.begin(&REFRESH);
    underway(&mut running, &clusters.west, 8 << 20);
    hosts.firewall(&["meta l4proto tcp reject with tcp reset"]);
    let failed = running.end().exits(1);
    assert!(failed.stderr.contains("Error"), "{}", failed.stderr);
    assert_same(&kept, &tree(&clusters.west));
    hosts.firewall(&[]);
    let kept_bytes = staged(&clusters.west);
    assert!(kept_bytes >= 8 << 20, "what had arrived is kept: {kept_bytes}");
    clusters.run(&REFRESH).success();
    assert_same(&tree(&clusters.east), &tree(&clusters.west));
    drop(clusters);
}

/// A small file system. Goes when it is dropped.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this user may not mount.
    fn mount(at: &Path, mebibytes: usize) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: mounting is root's");
            return None;
        }
        fs::create_dir_all(at).unwrap();
        let size = format!("size={mebibytes}m,mode=700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at);
        process::run(&mut mount, "mount", "").success();
        Some(Self(at.to_owned()))
    }

    fn resize(&self, mebibytes: usize) {
        let size = format!("remount,size={mebibytes}m");
        process::run(Command::new("mount").args(["-o", &size]).arg(&self.0), "mount", "").success();
    }

    /// Takes so many more files, whatever their size.
    fn limit_files(&self, more: u64) {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        let limit = format!("remount,nr_inodes={}", stat.f_files - stat.f_ffree + more);
        process::run(Command::new("mount").args(["-o", &limit]).arg(&self.0), "mount", "").success();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What still runs there keeps it until it ends. A panic in a panic would hide the first.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_is_told_to_both_and_what_has_arrived_is_used_once_there_is_room() {
    let west = Agent::prepare("west");
    let Some(disk) = Disk::mount(&west.data_dir(), 24) else { return };
    let clusters = with_source(Clusters::between(Agent::prepare("east"), west), 40);
    let kept = with_target(&clusters);

    let failed = clusters.run(&REFRESH).exits(1);
    let said = failed.stderr.to_lowercase();
    assert!(said.contains("space") || said.contains("room") || said.contains("full"), "{said}");
    assert_same(&kept, &tree(&clusters.west));

    // Something else fills it while it is under way.
    disk.resize(96);
    let ballast = clusters.west.data_dir().join("ballast");
    let mut running = clusters.operator.begin(&REFRESH);
    underway(&mut running, &clusters.west, 4 << 20);
    let filled = fs::write(&ballast, vec![0; 90 * MIB]);
    let ended = running.end();
    if ended.code == Some(0) {
        eprintln!("the copy was quicker than what was to fill the disk");
    } else {
        assert!(filled.is_err() || ballast.exists());
        let said = ended.stderr.to_lowercase();
        assert!(said.contains("space") || said.contains("room") || said.contains("full"), "{said}");
        assert_same(&kept, &tree(&clusters.west));
    }
    fs::remove_file(&ballast).unwrap();
    clusters.run(&REFRESH).success();
    assert_same(&tree(&clusters.east), &tree(&clusters.west));
    drop(clusters);
}

#[test]
fn a_first_copy_onto_a_small_disk_leaves_nothing_listed() {
    let west = Agent::prepare("west");
    let Some(_disk) = Disk::mount(&west.data_dir(), 24) else { return };
    let clusters = with_source(Clusters::between(Agent::prepare("east"), west), 64);
    let failed = clusters.run(&COPY).exits(1);
    let said = &failed.stderr;
    assert!(said.contains("storage pool default is full: 64.00 MiB more are needed there, and "), "{said}");
    assert!(!is_listed(&clusters), "nothing half is listed");
    let log = clusters.east.log();
    assert!(log.contains("storage pool default is full"), "the source is told, too: {log}");
    assert!(!clusters.west.log().contains("panicked"), "{}", clusters.west.log());
    assert!(!tree(&clusters.west).exists());
    drop(clusters);
}

#[test]
fn a_source_that_changes_while_it_is_read_is_refused_or_copied_as_asked() {
    let clusters = with_source(Clusters::start(), 24);
    let source = tree(&clusters.east);
    let restless = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0_u64;
            while restless.load(Ordering::Relaxed) {
                // Never the same again, by content, size and name; and some that vanish at once.
                fs::write(source.join("file-020"), noise(number, 500_000)).unwrap();
                let passing = source.join(format!("passing-{number}"));
                fs::write(&passing, noise(number, 10_000)).unwrap();
                fs::remove_file(&passing).unwrap();
                number += 1;
            }
        });
        let failed = clusters.run(&COPY);
        let allowed = clusters.run(&[&COPY[..], &["--allow-inconsistent"]].concat());
        restless.store(false, Ordering::Relaxed);
        let failed = failed.exits(1);
        assert!(failed.stderr.contains("chang"), "{}", failed.stderr);
        allowed.success();
    });
    // What stood still was copied.
    for number in 0..20 {
        let name = format!("file-{number:03}");
        let (one, other) =
            (fs::read(source.join(&name)).unwrap(), fs::read(tree(&clusters.west).join(&name)).unwrap());
        assert!(one == other, "{name}");
    }
    clusters.run(&REFRESH).success();
    assert_same(&source, &tree(&clusters.west));
}

#[test]
fn what_is_in_use_is_not_taken_away_and_not_written_twice() {
    let clusters = with_source(Clusters::start(), 3);
    let is_busy = |arguments: &[&str]| {
        let refused = clusters.run(arguments).exits(1);
        assert!(refused.stderr.contains("use") || refused.stderr.contains("busy"), "{}", refused.stderr);
    };
    // A source that falls silent half way keeps both ends at it.
    let liar = Liar::before(&clusters.east);
    let offered = through(&liar, &clusters);
    liar.lies(Lie::Stall(1 << 20));
    let body = json!({"name": "data", "type": "custom", "source": offered});
    let west = Http::socket(&clusters.west);
    let begun = west.post("/1.0/storage-pools/default/volumes/custom", &body).expect(202).json();
    wait_for("it has fallen silent", LIMIT, || liar.has_lied().then_some(()));
    is_busy(&["volume", "delete", "east:default/data"]);
    is_busy(&REFRESH);
    assert!(!is_listed(&clusters), "nothing half is listed");
    west.delete(begun["operation"].as_str().expect("an operation")).expect(200);
    drop(liar);
    wait_for("both ends are free", LIMIT, || clusters.run(&REFRESH).succeeded().then_some(()));
    assert_same(&tree(&clusters.east), &tree(&clusters.west));
    let exists = clusters.run(&COPY).exits(1);
    assert!(exists.stderr.contains("exists") && exists.stderr.contains("--refresh"), "{}", exists.stderr);
}

#[test]
fn a_command_that_is_interrupted_leaves_the_target_and_can_be_run_again() {
    let clusters = with_source(Clusters::start(), 32);
    let kept = with_target(&clusters);
    let mut running = clusters.operator.begin(&REFRESH);
    underway(&mut running, &clusters.west, 4 << 20);
    running.interrupt();
    let ended = running.end();
    assert_ne!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    // A command that ends takes its transfer along, or says how it is joined again.
    wait_for("nothing runs any more", Duration::from_secs(30), || {
        let operations = Http::socket(&clusters.west).get("/1.0/operations").json();
        operations["metadata"]["running"].as_array().is_none_or(Vec::is_empty).then_some(())
    });
    if difference(&tree(&clusters.east), &tree(&clusters.west)).is_some() {
        assert_same(&kept, &tree(&clusters.west));
    }
    clusters.operator.begin(&REFRESH).end().success();
    assert_same(&tree(&clusters.east), &tree(&clusters.west));
}

#[test]
fn a_disk_that_takes_no_more_files_is_not_said_to_be_short_of_bytes() {
    let west = Agent::prepare("west");
    let Some(disk) = Disk::mount(&west.data_dir(), 64) else { return };
    let clusters = with_source(Clusters::between(Agent::prepare("east"), west), 1);
    for number in 0..400 {
        fs::write(tree(&clusters.east).join(format!("small-{number:03}")), number.to_string()).unwrap();
    }
    disk.limit_files(200);
    let failed = clusters.run(&COPY).exits(1);
    let said = &failed.stderr;
    assert!(
        said.contains("storage pool default takes no more, though ") && said.contains("inodes"),
        "{said}"
    );
    assert!(!is_listed(&clusters), "nothing half is listed");
    disk.limit_files(2_000);
    clusters.run(&COPY).success();
    assert_same(&tree(&clusters.east), &tree(&clusters.west));
    drop(clusters);
}
