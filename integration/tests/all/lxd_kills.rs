//! Our agent killed in the middle of an `lxc copy` from and to a real LXD, and the copy begun again.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use integration::tree::{assert_same as same, noise};
use integration::wait_for;

use crate::lxd_migration::Stage;

/// Much more than any of this takes: LXD compresses what it sends.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes that are over when the agent is killed: some, and far from all.
const BEGUN: u64 = 1 << 20;

fn bytes_below(at: &Path) -> u64 {
    let files = fs::read_dir(at).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    files.map(size).sum()
}

/// A copy that is under way.
fn begin(stage: &Stage, line: &str) -> Child {
    let mut command = stage.lxc.command(&line.split(' ').collect::<Vec<_>>());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("lxc starts")
}

/// Begins a copy, kills the first agent once there is something at `arriving` that was not there, and starts it again. The
/// copy fails.
fn interrupted(stage: &mut Stage, line: &str, arriving: &Path) {
    let before = bytes_below(arriving);
    let mut copying = begin(stage, line);
    wait_for("the copy is under way", LIMIT, || (bytes_below(arriving) > before + BEGUN).then_some(()));
    stage.agents[0].kill9();
    let status = wait_for("lxc ends", LIMIT, || copying.try_wait().expect("a child can be asked"));
    assert!(!status.success(), "the copy was over before the agent was killed");
    stage.agents[0].launch();
    stage.agents[0].wait_ready();
}

fn large(at: &Path, seed: u64) {
    for number in 0..6 {
        fs::write(at.join(format!("{seed}-{number}")), noise(seed + number, 3 << 20)).expect("a file");
    }
}

#[test]
fn a_copy_from_and_to_lxd_goes_on_after_our_agent_was_killed() {
    let Some(mut stage) = Stage::set() else { return };
    stage.lxc("init --empty L:c1");
    let rootfs = stage.lxd.instance("c1").join("rootfs");
    fs::create_dir_all(&rootfs).expect("a folder");
    large(&rootfs, 100);
    stage.lxc("snapshot L:c1 s0");
    fs::write(rootfs.join("later"), "than the snapshot").expect("a file");

    // As the target: nothing is listed, what has come stays in staging, and the same command goes on.
    let pool = stage.agents[0].data_dir().join("pools/default");
    interrupted(&mut stage, "copy L:c1 a:c1", &pool.join(".staging"));
    assert!(stage.names("a:/1.0/instances").is_empty());
    assert!(bytes_below(&pool.join(".staging")) > BEGUN && !stage.instance(0, "c1").exists());
    stage.lxc("copy L:c1 a:c1");
    same(&rootfs, &stage.instance(0, "c1").join("rootfs"));
    assert_eq!(stage.names("a:/1.0/instances/c1/snapshots"), ["s0"]);
    assert_eq!(bytes_below(&pool.join(".staging")), 0);

    // In a refresh: it is as it was, and the next one brings it on.
    let was = stage.query("a:/1.0/instances/c1");
    large(&rootfs, 200);
    interrupted(&mut stage, "copy L:c1 a:c1 --refresh", &pool.join(".staging/containers"));
    assert_eq!(stage.query("a:/1.0/instances/c1"), was);
    assert!(!stage.instance(0, "c1").join("rootfs/200-0").exists());
    stage.lxc("copy L:c1 a:c1 --refresh");
    same(&rootfs, &stage.instance(0, "c1").join("rootfs"));

    // As the source: LXD keeps what it has and lists it, as it does with one of its own; a refresh completes it.
    let theirs = stage.lxd.instance("c2").parent().expect("a folder").to_owned();
    interrupted(&mut stage, "copy a:c1 L:c2", &theirs);
    stage.lxc("copy a:c1 L:c2 --refresh");
    same(&rootfs, &stage.lxd.instance("c2").join("rootfs"));

    // Nothing is held any more.
    stage.lxc("snapshot a:c1 free");
    stage.lxc("delete a:c1");
    assert!(stage.names("a:/1.0/instances").is_empty());
}
