//! Pools and snapshots on a real file system, and what crashes leave of them.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use schema::name::{PoolName, VolumeName};

use super::clone::Copying;
use super::{Arrived, Known, PoolError, Pools, Switch, Use};
use crate::dataset::chunk::tests::noise;
use crate::dataset::packed::{Packed, Step};
use crate::dataset::site::{Hand, Site};
use crate::dataset::stock::Linked;
use crate::dataset::survey::{Manner, Stamp, Survey, Unwatched};
use crate::dataset::tests::{listing, odd_tree};
use crate::dataset::{Consistency, Dataset};

fn names() -> (PoolName, VolumeName) {
    ("default".parse().unwrap(), "orders".parse().unwrap())
}

#[tokio::test]
async fn volumes_are_adopted_switched_and_destroyed() {
    let dir = tempfile::tempdir().unwrap();
    let pools = Pools::open(dir.path()).unwrap();
    let (pool, volume) = names();
    pools.ensure(&Dataset::volume(&pool, &volume)).await.unwrap();
    let tree = pools.tree(&Dataset::volume(&pool, &volume)).unwrap();
    fs::write(tree.join("kept"), b"old").unwrap();
    pools.ensure(&Dataset::volume(&pool, &volume)).await.unwrap();
    assert!(tree.join("kept").exists());
    assert!(matches!(
        pools.ensure(&Dataset::volume(&"other".parse().unwrap(), &volume)).await,
        Err(PoolError::NoSuchPool(_))
    ));

    let reading = pools.hold(&Dataset::volume(&pool, &volume), Use::Reading).unwrap();
    let too = pools.hold(&Dataset::volume(&pool, &volume), Use::Reading).unwrap();
    drop(reading);
    assert!(matches!(pools.hold(&Dataset::volume(&pool, &volume), Use::Replacing), Err(PoolError::Busy(..))));
    drop(too);
    let held = pools.hold(&Dataset::volume(&pool, &volume), Use::Replacing).unwrap();
    assert!(matches!(pools.hold(&Dataset::volume(&pool, &volume), Use::Reading), Err(PoolError::Busy(..))));
    let new = held.staging().unwrap().join("1/tree");
    fs::create_dir_all(&new).unwrap();
    fs::write(new.join("kept"), b"new").unwrap();
    assert_eq!(pools.volumes(&pool).unwrap(), std::slice::from_ref(&volume));
    held.switch_in(Switch::main(new)).unwrap();
    assert_eq!(fs::read(tree.join("kept")).unwrap(), b"new");
    drop(held);
    assert!(pools.usage(&Dataset::volume(&pool, &volume)).await.unwrap() > 0);
    pools.destroy(&Dataset::volume(&pool, &volume)).await.unwrap();
    pools.destroy(&Dataset::volume(&pool, &volume)).await.unwrap();
    assert!(!pools.has(&Dataset::volume(&pool, &volume)));
}

#[tokio::test]
async fn a_start_clears_what_a_crash_left() {
    let dir = tempfile::tempdir().unwrap();
    drop(Pools::open(dir.path()).unwrap());
    let base = dir.path().join("pools/default");
    fs::create_dir_all(base.join(".removed/x/y")).unwrap();
    // Still good for resuming.
    fs::create_dir_all(base.join(".staging/custom/other/1/tree")).unwrap();
    drop(Pools::open(dir.path()).unwrap());
    while base.join(".removed/x").exists() {
        std::thread::yield_now();
    }
    assert!(base.join(".staging/custom/other/1/tree").exists());
}

fn snapshot(name: &str) -> schema::name::SnapshotName {
    name.parse().unwrap()
}

/// A pool with a volume that holds an odd tree.
async fn odd_volume(dir: &Path) -> (Pools, Dataset, PathBuf) {
    let pools = Pools::open(dir).unwrap();
    let (pool, volume) = names();
    let dataset = Dataset::volume(&pool, &volume);
    pools.ensure(&dataset).await.unwrap();
    let tree = pools.tree(&dataset).unwrap();
    odd_tree(&tree);
    (pools, dataset, tree)
}

/// The names in a folder that are not `.new-…`.
fn folder(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_snapshot_is_the_tree_of_its_moment() {
    let dir = tempfile::tempdir().unwrap();
    let (pools, dataset, tree) = odd_volume(dir.path()).await;
    let frozen_area = dir.path().join("pools/default/.frozen");
    let before = listing(&tree);
    pools.take_snapshot(&dataset, &snapshot("first")).await.unwrap();
    let first = pools.snapshot(&dataset, &snapshot("first")).unwrap();
    assert_eq!(listing(&first.tree()), before);
    // No inode is shared with the live tree.
    let inodes = |path: &Path| -> std::collections::HashSet<u64> {
        walkdir::WalkDir::new(path)
            .into_iter()
            .map(|entry| entry.unwrap().metadata().unwrap().ino())
            .collect()
    };
    assert!(inodes(&first.tree()).is_disjoint(&inodes(&tree)));

    // The second of the same is a reference.
    pools.take_snapshot(&dataset, &snapshot("second")).await.unwrap();
    assert_eq!(folder(&frozen_area), [first.hash().to_string()]);
    assert!(matches!(
        pools.take_snapshot(&dataset, &snapshot("second")).await,
        Err(PoolError::SnapshotExists { .. })
    ));

    // A change makes another, which shares what is the same; two equal files stay two.
    fs::write(tree.join("b/-rf"), b"changed").unwrap();
    fs::set_permissions(tree.join("a"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::rename(tree.join("a/big"), tree.join("a/renamed")).unwrap();
    let after = listing(&tree);
    pools.take_snapshot(&dataset, &snapshot("third")).await.unwrap();
    let third = pools.snapshot(&dataset, &snapshot("third")).unwrap();
    let plain = |lines: Vec<String>| -> Vec<String> {
        // All but the count of names, which a frozen tree's files have in others too.
        lines
            .into_iter()
            .map(|line| {
                let mut words: Vec<&str> = line.split(' ').collect();
                words.retain(|word| word.parse::<u8>().is_err());
                words.join(" ")
            })
            .collect()
    };
    assert_eq!(plain(listing(&third.tree())), plain(after.clone()));
    let shared = |path: &str| {
        let inode =
            |frozen: &super::Frozen, path: &str| fs::metadata(frozen.tree().join(path)).unwrap().ino();
        inode(&first, path) == inode(&third, path)
    };
    assert!(shared("a/same") && shared("b/sparse") && !shared("b/-rf"));
    assert_eq!(
        pools.snapshots(&dataset).unwrap(),
        [snapshot("first"), snapshot("second"), snapshot("third")]
    );

    // Shared data counts once.
    let usage = pools.usage(&dataset).await.unwrap();
    assert!(usage < 4 * 3_200_000, "{usage}");

    pools.restore_snapshot(&dataset, &snapshot("first")).await.unwrap();
    assert_eq!(listing(&tree), before);
    pools.restore_snapshot(&dataset, &snapshot("third")).await.unwrap();
    assert_eq!(listing(&tree), after);
    assert!(inodes(&third.tree()).is_disjoint(&inodes(&tree)));

    // What somebody reads stays; then it goes.
    pools.rename_snapshot(&dataset, &snapshot("third"), &snapshot("newest")).await.unwrap();
    pools.delete_snapshot(&dataset, &snapshot("first")).await.unwrap();
    pools.delete_snapshot(&dataset, &snapshot("second")).await.unwrap();
    assert_eq!(folder(&frozen_area).len(), 2);
    drop(first);
    pools.delete_snapshot(&dataset, &snapshot("first")).await.unwrap();
    assert_eq!(folder(&frozen_area), [third.hash().to_string()]);

    let other = Dataset::volume(&dataset.pool, &"renamed".parse().unwrap());
    pools.rename(&dataset, &other).await.unwrap();
    assert!(!pools.has(&dataset) && pools.snapshots(&dataset).unwrap().is_empty());
    assert_eq!(pools.snapshots(&other).unwrap(), [snapshot("newest")]);
    drop(third);
    pools.destroy(&other).await.unwrap();
    assert!(folder(&frozen_area).is_empty() && pools.volumes(&dataset.pool).unwrap().is_empty());
}

#[tokio::test]
async fn a_switch_that_was_decided_is_done_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (pools, dataset, tree) = odd_volume(dir.path()).await;
    pools.take_snapshot(&dataset, &snapshot("old")).await.unwrap();
    let frozen = pools.snapshot(&dataset, &snapshot("old")).unwrap();
    let base = dir.path().join("pools/default");
    let staging = base.join(".staging/custom/orders");
    for switched in [false, true] {
        fs::create_dir_all(staging.join("1/tree")).unwrap();
        fs::write(staging.join("1/tree/new"), format!("{switched}")).unwrap();
        let intent = serde_json::json!({
            "main": {"at": "1/tree", "inode": fs::metadata(staging.join("1/tree")).unwrap().ino(), "mode": null},
            "snapshots": [{"name": "arrived", "tree": frozen.hash()}],
        });
        fs::write(staging.join("switching"), intent.to_string()).unwrap();
        if switched {
            // Killed between the exchange and the rest.
            fs::rename(&tree, staging.join("aside")).unwrap();
            fs::rename(staging.join("1/tree"), &tree).unwrap();
        }
        let again = Pools::open(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(tree.join("new")).unwrap(), format!("{switched}"));
        assert_eq!(again.snapshots(&dataset).unwrap(), [snapshot("arrived")]);
        assert!(!staging.exists());
    }
    // A tree whose references were written and which never came, and a half frozen tree, are nobody's.
    fs::write(base.join(".snapshots/custom/ghost"), fs::read(base.join(".snapshots/custom/orders")).unwrap())
        .unwrap();
    fs::create_dir_all(base.join(".frozen/new-1/tree")).unwrap();
    drop(Pools::open(dir.path()).unwrap());
    assert_eq!(folder(&base.join(".snapshots/custom")), ["orders"]);
    assert_eq!(folder(&base.join(".frozen")), [frozen.hash().to_string()]);
}

/// Every file of `tree`, which is what `packed` says, by the name that it has in a new one, and how it looks then.
fn linked(tree: &Path, new: &Path, packed: &Packed) -> Vec<Linked> {
    fs::create_dir_all(new).unwrap();
    let mut linked = Vec::new();
    let mut walk = packed.walk();
    while let Some(step) = walk.next() {
        if let Step::Entry(record) = step {
            let name = std::str::from_utf8(record.name).unwrap();
            fs::hard_link(tree.join(name), new.join(name)).unwrap();
            let stamp = Stamp::of(&rustix::fs::lstat(new.join(name)).unwrap());
            linked.push(Linked { number: record.number, stamp: Some(stamp) });
        }
    }
    let meta = fs::metadata(tree).unwrap();
    fs::set_permissions(new, meta.permissions()).unwrap();
    File::open(new).unwrap().set_modified(meta.modified().unwrap()).unwrap();
    linked
}

#[tokio::test]
async fn a_tree_that_was_put_in_place_is_known_without_reading_it() {
    let dir = tempfile::tempdir().unwrap();
    let pools = Pools::open(dir.path()).unwrap();
    let (pool, volume) = names();
    let dataset = Dataset::volume(&pool, &volume);
    pools.ensure(&dataset).await.unwrap();
    let tree = pools.tree(&dataset).unwrap();
    for at in 0..50 {
        let path = tree.join(format!("file-{at}"));
        fs::write(&path, noise(5000 + at)).unwrap();
        File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    let read = || pools.survey(&dataset, Consistency::Strict, &Unwatched).unwrap();
    let packed = read().packed().clone();
    let gone = || {
        while !folder(&dir.path().join("pools/default/.removed")).is_empty() {
            std::thread::yield_now();
        }
    };
    for round in 0..3 {
        // As a refresh does it: what is the same is linked.
        let held = pools.hold(&dataset, Use::Replacing).unwrap();
        let new = held.staging().unwrap().join("1/tree");
        let linked = linked(&tree, &new, &packed);
        let known = Some(Known { packed: packed.clone(), linked });
        held.switch_in(Switch { known, ..Switch::main(new) }).unwrap();
        drop(held);
        gone();
        let found = read();
        assert_eq!(found.packed().hash(), packed.hash(), "round {round}");
        assert_eq!(found.bytes_read(), 0, "round {round}");
    }
    // And it is not fooled.
    let path = tree.join("file-7");
    File::options().write(true).open(&path).unwrap().write_all_at(b"other", 0).unwrap();
    File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_ne!(read().packed().hash(), packed.hash());
}

#[tokio::test]
async fn what_is_done_to_a_file_while_a_tree_takes_the_place_of_another_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let pools = Pools::open(dir.path()).unwrap();
    let (pool, volume) = names();
    let dataset = Dataset::volume(&pool, &volume);
    pools.ensure(&dataset).await.unwrap();
    let tree = pools.tree(&dataset).unwrap();
    let changes: [fn(&Path); 3] = [
        |file| {
            File::options().write(true).open(file).unwrap().write_all_at(b"other", 0).unwrap();
            File::open(file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        },
        |file| fs::set_permissions(file, fs::Permissions::from_mode(0o4777)).unwrap(),
        // Nothing but the ctime shows it.
        |file| fs::hard_link(file, file.with_extension("more")).unwrap(),
    ];
    for at in 0..changes.len() {
        let path = tree.join(format!("file-{at}"));
        fs::write(&path, noise(5000 + at)).unwrap();
        File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    let packed = pools.survey(&dataset, Consistency::Strict, &Unwatched).unwrap().packed().clone();
    let held = pools.hold(&dataset, Use::Replacing).unwrap();
    let new = held.staging().unwrap().join("1/tree");
    let linked = linked(&tree, &new, &packed);
    for (at, change) in changes.iter().enumerate() {
        change(&tree.join(format!("file-{at}")));
    }
    let known = Some(Known { packed: packed.clone(), linked });
    held.switch_in(Switch { known, ..Switch::main(new) }).unwrap();
    drop(held);
    let sizes = (0..3).map(|at| fs::metadata(tree.join(format!("file-{at}"))).unwrap().len());
    while !folder(&dir.path().join("pools/default/.removed")).is_empty() {
        std::thread::yield_now();
    }
    let found = pools.survey(&dataset, Consistency::Strict, &Unwatched).unwrap();
    assert_ne!(found.packed().hash(), packed.hash());
    assert_eq!(found.bytes_read(), sizes.sum::<u64>(), "each is read again");
}

/// An access control list as the kernel has it: version 2, then tag, permissions and id of each entry.
fn default_list() -> Vec<u8> {
    let entries =
        [(1_u16, 7_u16, u32::MAX), (2, 7, 4242), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)];
    let entry = |(tag, rights, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [&2_u32.to_le_bytes()[..], &entries.map(entry).concat()].concat()
}

#[tokio::test]
async fn a_list_that_a_pool_s_folder_hands_down_is_on_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    let handing = dir.path().join("handing");
    fs::create_dir(&handing).unwrap();
    if xattr::set(&handing, "system.posix_acl_default", &default_list()).is_err() {
        eprintln!("not run: the file system has no access control lists");
        return;
    }
    let site = Site::begin(&handing.join("staging/tree")).unwrap();
    site.folder(b"a/b").unwrap();
    let mut hand = Hand::new(&site);
    hand.write(b"file", 0, b"data").unwrap();
    drop(hand);

    let from = dir.path().join("from");
    odd_tree(&from);
    let packed = Survey::read(&from, Manner::default(), &Unwatched).unwrap().packed().clone();
    let copy = handing.join("copy");
    Copying { from: &from, packed: &packed, to: &copy, like: None }.run().unwrap();
    assert_eq!(listing(&copy), listing(&from));

    for folder in [site.tree(), &copy] {
        for entry in walkdir::WalkDir::new(folder) {
            let path = entry.unwrap().into_path();
            if !path.is_symlink() {
                let names = xattr::list(&path).unwrap().map(|name| name.to_string_lossy().into_owned());
                let lists: Vec<_> = names.filter(|name| name.starts_with("system.posix_acl")).collect();
                let own = xattr::list(from.join(path.strip_prefix(folder).unwrap())).map_or(0, |all| {
                    all.filter(|name| name.to_string_lossy().starts_with("system.posix_acl")).count()
                });
                assert!(lists.len() == own || folder != copy, "{}: {lists:?}", path.display());
                assert!(lists.is_empty() || folder == copy, "{}: {lists:?}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn a_frozen_tree_that_nothing_refers_to_does_not_outlive_a_switch_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let pools = Pools::open(dir.path()).unwrap();
    let (pool, volume) = names();
    let dataset = Dataset::volume(&pool, &volume);
    pools.ensure(&dataset).await.unwrap();
    let held = pools.hold(&dataset, Use::Replacing).unwrap();
    let built = held.staging().unwrap().join("1/now/s");
    fs::create_dir_all(&built).unwrap();
    fs::write(built.join("file"), b"data").unwrap();
    let arrived = |name: &str, tree: PathBuf| (name.parse().unwrap(), Arrived::Built(tree));
    let missing = built.with_file_name("none");
    let snapshots = vec![arrived("s", built), arrived("t", missing)];
    held.switch_in(Switch { snapshots, ..Switch::default() }).unwrap_err();
    assert_eq!(folder(&dir.path().join("pools/default/.frozen")), [] as [&str; 0]);
    assert_eq!(pools.snapshots(&dataset).unwrap(), []);
}

#[tokio::test]
async fn a_pool_may_be_in_a_folder_of_the_administrator() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let pools = Pools::open(dir.path()).unwrap();
    let fast: PoolName = "fast".parse().unwrap();
    let source = elsewhere.path().join("made");
    pools.create_pool(&fast, Some(&source)).await.unwrap();
    assert!(matches!(pools.create_pool(&fast, None).await, Err(PoolError::PoolExists(_))));
    let other: PoolName = "other".parse().unwrap();
    fs::create_dir(elsewhere.path().join("full")).unwrap();
    fs::write(elsewhere.path().join("full/file"), b"mine").unwrap();
    for bad in
        [&source.join("custom"), elsewhere.path(), &elsewhere.path().join("full"), Path::new("relative")]
    {
        let made = pools.create_pool(&other, Some(bad)).await;
        assert!(matches!(made, Err(PoolError::BadSource { .. })), "{}", bad.display());
    }
    assert!(matches!(
        pools.create_pool(&other, Some(&dir.path().join("pools/default/custom/x"))).await,
        Err(PoolError::BadSource { .. })
    ));
    // Others could exchange it, or a folder above it, for a symlink.
    let open = elsewhere.path().join("open");
    fs::create_dir_all(open.join("below")).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    for bad in [&open.join("below"), &open.join("new")] {
        let made = pools.create_pool(&other, Some(bad)).await;
        assert!(matches!(made, Err(PoolError::BadSource { .. })), "{}", bad.display());
    }
    let dataset = Dataset::volume(&fast, &"orders".parse().unwrap());
    pools.ensure(&dataset).await.unwrap();
    assert!(source.join("custom/orders").is_dir());
    assert!(matches!(pools.delete_pool(&fast).await, Err(PoolError::NotEmpty { .. })));
    // Its disk is away: the agent starts all the same, and says so.
    fs::rename(&source, elsewhere.path().join("away")).unwrap();
    let again = Pools::open(dir.path()).unwrap();
    assert_eq!(again.list().unwrap().len(), 2);
    assert!(matches!(again.tree(&dataset), Err(PoolError::Unavailable { .. })));
    fs::rename(elsewhere.path().join("away"), &source).unwrap();
    again.destroy(&dataset).await.unwrap();
    again.delete_pool(&fast).await.unwrap();
    assert!(source.is_dir() && folder(&source).is_empty());
    assert_eq!(again.list().unwrap().len(), 1);
    let default: PoolName = "default".parse().unwrap();
    assert!(matches!(again.delete_pool(&default).await, Err(PoolError::Default(_))));
}
