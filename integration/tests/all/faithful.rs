//! What a copy must keep, by every way that a tree goes: another cluster, a snapshot and back, a tar file and back, a folder
//! and back. Compared by other programs than ours, as root and as a user, who is told what was not his to set.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use integration::tree::{assert_same, noise, odd, odd_of_root};
use integration::{Agent, Clusters};

/// Who nobody is on every machine.
const NOBODY: u32 = 65_534;

fn tree(agent: &Agent, volume: &str) -> PathBuf {
    agent.data_dir().join("pools/default/custom").join(volume)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A volume on east that holds whatever this user may make.
fn with_odd_source() -> (Clusters, PathBuf) {
    let clusters = Clusters::start();
    clusters.run(&["volume", "create", "east:default/data"]).success();
    let source = tree(&clusters.east, "data");
    if rustix::process::geteuid().is_root() {
        odd_of_root(&source);
    } else {
        odd(&source);
    }
    (clusters, source)
}

#[test]
fn a_copy_to_another_cluster_keeps_everything_and_so_does_a_refresh() {
    let (clusters, source) = with_odd_source();
    clusters.run(&["volume", "copy", "east:default/data", "west:default/data"]).success();
    assert_same(&source, &tree(&clusters.west, "data"));
    // Metadata alone changes, and what kind of thing a name is.
    let shell = "chmod 1711 a && chown -h 5:6 link && touch -d '2001-01-01 00:00:00.000000001' z/same &&
        setfattr -n user.another -v 1 a/nothing && setfacl -b z && rm dangling && mkdir dangling &&
        rm -r a/empty && ln -s b a/empty && mv sparse z/moved && ln a/big 'a/big too' && rm linked && echo x > linked";
    let mut command = std::process::Command::new("sh");
    command.args(["-ec", if rustix::process::geteuid().is_root() { shell } else { "chmod 1711 a" }]);
    integration::process::run(command.current_dir(&source), "sh", "").success();
    clusters.run(&["volume", "copy", "east:default/data", "west:default/data", "--refresh"]).success();
    assert_same(&source, &tree(&clusters.west, "data"));
}

#[test]
fn a_snapshot_restored_is_what_was_there_and_travels() {
    let (clusters, source) = with_odd_source();
    let kept = clusters.path("kept");
    copy_by_cp(&source, &kept);
    clusters.run(&["volume", "snapshot", "east:default/data", "before"]).success();
    for name in ["a", "z", "link", "fifo", "sparse"] {
        let path = source.join(name);
        let gone = if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        gone.unwrap();
    }
    fs::write(source.join("other"), noise(9, 100_000)).unwrap();
    let later = clusters.path("later");
    copy_by_cp(&source, &later);
    clusters.run(&["volume", "copy", "east:default/data", "west:default/data"]).success();
    assert_same(&later, &tree(&clusters.west, "data"));

    for side in ["east", "west"] {
        clusters.run(&["volume", "restore", &format!("{side}:default/data"), "before"]).success();
    }
    assert_same(&kept, &source);
    assert_same(&kept, &tree(&clusters.west, "data"));
    // What was restored may be written to without the snapshot noticing.
    fs::write(source.join("a/big"), b"short").unwrap();
    fs::write(source.join("z/length-4096"), b"short").unwrap();
    clusters.run(&["volume", "restore", "east:default/data", "before"]).success();
    assert_same(&kept, &source);
}

#[test]
fn tar_files_and_folders_bring_back_what_went_out() {
    let (clusters, source) = with_odd_source();
    let (folder, tar) = (clusters.path("out"), clusters.path("out.tar"));
    clusters.run(&["volume", "export", "east:default/data", text(&folder)]).success();
    assert_same(&source, &folder);
    clusters.run(&["volume", "import", "west:default/folder", text(&folder)]).success();
    assert_same(&source, &tree(&clusters.west, "folder"));

    // A tar holds no sockets.
    fs::remove_file(source.join("socket")).unwrap();
    clusters.run(&["volume", "snapshot", "east:default/data", "before"]).success();
    clusters.run(&["volume", "export", "east:default/data", text(&tar)]).success();
    clusters.run(&["volume", "import", "west:default/data", text(&tar)]).success();
    assert_same(&source, &tree(&clusters.west, "data"));
    fs::write(tree(&clusters.west, "data").join("more"), b"more").unwrap();
    clusters.run(&["volume", "restore", "west:default/data", "before"]).success();
    assert_same(&source, &tree(&clusters.west, "data"));
}

#[test]
fn what_a_user_may_not_set_is_told_and_the_rest_is_kept() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: becoming somebody else is root's");
        return;
    }
    let clusters = Clusters::between(Agent::prepare("east"), Agent::prepare("west").run_by_user(NOBODY));
    clusters.run(&["volume", "create", "east:default/data"]).success();
    let source = tree(&clusters.east, "data");
    odd(&source);
    fs::write(source.join("of somebody"), b"text").unwrap();
    std::os::unix::fs::lchown(source.join("of somebody"), Some(12_345), Some(54_321)).unwrap();
    let made = std::process::Command::new("mknod").arg(source.join("null")).args(["c", "1", "3"]).status();
    assert!(made.expect("mknod runs").success());

    let copied = clusters.run(&["volume", "copy", "east:default/data", "west:default/data"]).success();
    let said = format!("{}{}", copied.stdout, copied.stderr);
    for (what, words) in [("owners", "own"), ("devices", "null")] {
        assert!(said.contains(words), "{what} that could not be set are told: {said}");
    }
    let target = tree(&clusters.west, "data");
    assert_eq!(fs::read(target.join("of somebody")).unwrap(), b"text");
    assert_eq!(fs::metadata(target.join("of somebody")).unwrap().uid(), NOBODY);
    assert!(!target.join("null").exists());
    assert_eq!(fs::read(target.join("z/same")).unwrap(), noise(1, 3_000_000));
    for name in ["a/big", "link", "a/nothing", "a"] {
        let of = |root: &Path| {
            fs::symlink_metadata(root.join(name)).map(|meta| (meta.mtime(), meta.mtime_nsec())).unwrap()
        };
        assert_eq!(of(&source), of(&target), "{name}");
    }
    // And it is no change for a second one.
    clusters.run(&["volume", "copy", "east:default/data", "west:default/data", "--refresh"]).success();
}

#[test]
fn names_deeper_than_any_path_may_be_are_copied_or_refused_whole() {
    let clusters = Clusters::start();
    clusters.run(&["volume", "create", "east:default/data"]).success();
    // A shell goes down step by step, where no path would do.
    let shell =
        "d=$(printf 'x%.0s' $(seq 200)); for i in $(seq 30); do mkdir $d; cd -P ./$d; done; echo deep > file";
    let mut command = std::process::Command::new("bash");
    command.args(["-ec", shell]);
    integration::process::run(command.current_dir(tree(&clusters.east, "data")), "bash", "").success();
    let copied = clusters.run(&["volume", "copy", "east:default/data", "west:default/data"]);
    if copied.code == Some(0) {
        let mut count = std::process::Command::new("find");
        count.args([".", "-printf", "%d %y %s\n"]);
        let found =
            integration::process::run(count.current_dir(tree(&clusters.west, "data")), "find", "").success();
        assert_eq!(found.stdout.lines().count(), 32, "{}", found.stdout);
        assert!(found.stdout.contains("31 f 5"), "{}", found.stdout);
    } else {
        assert!(copied.stderr.contains("long") || copied.stderr.contains("deep"), "{}", copied.stderr);
        assert!(!tree(&clusters.west, "data").exists());
    }
    // The trees go with their agents, whose folders are removed by path.
    for agent in [&clusters.east, &clusters.west] {
        let _ = std::process::Command::new("rm").arg("-rf").arg(agent.data_dir().join("pools")).status();
    }
}

fn copy_by_cp(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp runs").success());
}
