//! Backups between a real LXD and us, what a pool has room for, and what a volume may hold, all by the stock `lxc`.

use std::fs;

use integration::tree::{assert_same as same, noise};

use crate::lxd_migration::{Stage, fill, touch};

/// LXD's tar files have times in whole seconds.
const WHOLE: &str = "@1500000000";

#[test]
fn backups_of_volumes_and_instances_go_both_ways() {
    let Some(stage) = Stage::set() else { return };
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str| scratch.path().join(name).display().to_string();

    stage.lxc("storage volume create L:default v user.kept=yes");
    let theirs = stage.lxd.volume("v");
    fill(&theirs);
    touch(&theirs, &[], WHOLE);
    stage.lxc("storage volume snapshot L:default v s0");
    fs::write(theirs.join("later"), "than the snapshot").expect("a file");
    touch(&theirs, &[], WHOLE);
    let (to_us, to_lxd) = (file("to-us.tar.gz"), file("to-lxd.tar.gz"));
    stage.lxc(&format!("storage volume export L:default v {to_us}"));
    stage.lxc(&format!("storage volume import a:default {to_us} v"));
    same(&theirs, &stage.volume(0, "v"));
    let snapshots = "/1.0/storage-pools/default/volumes/custom/v/snapshots";
    assert_eq!(stage.names(&format!("a:{snapshots}")), ["s0"]);
    let volume = stage.query("a:/1.0/storage-pools/default/volumes/custom/v");
    assert_eq!(volume["config"]["user.kept"], "yes");
    stage.lxc(&format!("storage volume export a:default v {to_lxd}"));
    stage.lxc(&format!("storage volume import L:default {to_lxd} back"));
    same(&theirs, &stage.lxd.volume("back"));
    same(&stage.lxd.volume_snapshot("v", "s0"), &stage.lxd.volume_snapshot("back", "s0"));

    stage.lxc("init --empty L:c1 -c user.kept=yes");
    let rootfs = stage.lxd.instance("c1").join("rootfs");
    fs::create_dir_all(&rootfs).expect("a folder");
    fill(&rootfs);
    touch(&rootfs, &[], WHOLE);
    stage.lxc("snapshot L:c1 s0");
    let (to_us, to_lxd) = (file("c1.tar.gz"), file("c1-back.tar.gz"));
    stage.lxc(&format!("export L:c1 {to_us}"));
    stage.lxc(&format!("import a: {to_us}"));
    same(&rootfs, &stage.instance(0, "c1").join("rootfs"));
    assert_eq!(stage.names("a:/1.0/instances/c1/snapshots"), ["s0"]);
    assert_eq!(stage.query("a:/1.0/instances/c1")["config"]["user.kept"], "yes");
    // LXD's file of its own records is not part of the tree.
    assert!(!stage.instance(0, "c1").join("backup.yaml").exists());
    stage.lxc(&format!("export a:c1 {to_lxd}"));
    stage.lxc(&format!("import L: {to_lxd} back"));
    same(&rootfs, &stage.lxd.instance("back").join("rootfs"));
    same(&rootfs, &stage.lxd.snapshot("back", "s0").join("rootfs"));
    // What it has taken in, it can use.
    stage.lxc("snapshot L:back s1");
    stage.lxc("copy L:back b:back");
    same(&rootfs, &stage.instance(1, "back").join("rootfs"));
}

#[test]
fn a_pool_tells_its_room_and_a_volume_takes_no_more_than_its_size() {
    let Some(stage) = Stage::set() else { return };
    let told = stage.lxc("storage info a:default").stdout;
    assert!(told.contains("space used") && told.contains("total space"), "{told}");
    let resources = stage.query("a:/1.0/resources");
    assert!(resources["memory"]["total"].as_u64().is_some_and(|total| total > 0), "{resources}");

    stage.lxc("storage volume create L:default v");
    fs::write(stage.lxd.volume("v").join("data"), noise(3, 300_000)).expect("a file");
    stage.lxc("storage volume copy L:default/v a:default/v");
    stage.lxc("storage volume snapshot a:default v s0");
    fs::remove_file(stage.volume(0, "v").join("data")).expect("it was there");
    stage.lxc("storage volume set a:default v size 256KiB");
    assert!(stage.lxc("storage volume info a:default v").stdout.contains("Usage: "));

    let said = stage.refused("storage volume restore a:default v s0");
    assert!(said.contains("at most 262144 bytes") && said.contains("300000 bytes"), "{said}");
    for from in ["L:default/v", "b:default/v"] {
        if from.starts_with('b') {
            stage.lxc("storage volume copy L:default/v b:default/v");
        }
        let said = stage.refused(&format!("storage volume copy {from} a:default/v --refresh"));
        assert!(said.contains("at most 262144 bytes"), "{from}: {said}");
        assert!(!stage.volume(0, "v").join("data").exists());
    }
    stage.lxc("storage volume set L:default v size 256KiB");
    let said = stage.refused("storage volume copy L:default/v a:default/new");
    assert!(said.contains("at most 262144 bytes"), "{said}");
    assert!(!stage.volume(0, "new").exists());
    stage.lxc("storage volume set a:default v size 1MiB");
    stage.lxc("storage volume restore a:default v s0");
    stage.lxc("storage volume copy L:default/v a:default/v --refresh");
    same(&stage.lxd.volume("v"), &stage.volume(0, "v"));
}
