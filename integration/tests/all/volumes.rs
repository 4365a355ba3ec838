//! Volumes: a tree in, over and out again is the same tree, as another program sees it.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use integration::Clusters;

/// A tree with what a copy may lose: modes, links of both kinds, odd names, holes, empty folders.
fn plant(folder: &Path) {
    std::fs::create_dir_all(folder.join("deep/er/empty")).expect("folders");
    std::fs::write(folder.join("order"), "twelve eggs\n").expect("a file");
    std::fs::write(folder.join("odd \u{1F95A} name\n"), "odd").expect("a file");
    std::fs::write(folder.join("large"), (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>())
        .expect("a file");
    std::fs::write(folder.join("secret"), "x").expect("a file");
    std::fs::set_permissions(folder.join("secret"), std::fs::Permissions::from_mode(0o640)).expect("a mode");
    std::fs::hard_link(folder.join("order"), folder.join("deep/same order")).expect("a hard link");
    symlink("../order", folder.join("deep/link")).expect("a symbolic link");
    let sparse = std::fs::File::create(folder.join("sparse")).expect("a file");
    sparse.set_len(64 << 20).expect("a hole");
}

/// What rsync would still change to make `to` like `from`, contents, times, modes and links compared.
fn differences(from: &Path, to: &Path) -> String {
    let done = Command::new("rsync")
        .args(["--dry-run", "--archive", "--hard-links", "--acls", "--xattrs", "--checksum", "--delete"])
        .args(["--itemize-changes", "--omit-dir-times"])
        .arg(format!("{}/", from.display()))
        .arg(format!("{}/", to.display()))
        .output()
        .expect("rsync is installed by integration/run");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn a_tree_survives_import_copy_refresh_and_export() {
    if std::env::var_os("COMITY_OWN_ONLY").is_some() {
        return;
    }
    let clusters = Clusters::start();
    let source = clusters.path("source");
    plant(&source);
    clusters.run(&["volume", "create", "east:default/orders"]).success();
    clusters.run(&["volume", "import", "east:default/orders", "source"]).success();
    clusters.run(&["volume", "copy", "east:default/orders", "west:default/orders"]).success();
    clusters.run(&["volume", "export", "west:default/orders", "first"]).success();
    assert_eq!(differences(&source, &clusters.path("first")), "");
    let held = clusters.path("first/sparse").metadata().expect("the sparse file");
    assert!(std::os::unix::fs::MetadataExt::blocks(&held) < 1000, "the hole was filled");

    let again = clusters.run(&["volume", "copy", "east:default/orders", "west:default/orders"]).exits(1);
    assert!(again.stderr.contains("--refresh"), "{}", again.stderr);

    std::fs::write(source.join("order"), "thirteen eggs\n").expect("a changed file");
    std::fs::remove_file(source.join("secret")).expect("a removed file");
    clusters.run(&["volume", "import", "east:default/orders", "source"]).success();
    clusters.run(&["volume", "copy", "east:default/orders", "west:default/orders", "--refresh"]).success();
    clusters.run(&["volume", "export", "west:default/orders", "second"]).success();
    assert_eq!(differences(&source, &clusters.path("second")), "");

    let full = clusters.run(&["volume", "export", "west:default/orders", "second"]).exits(1);
    assert!(full.stderr.contains("second"), "{}", full.stderr);
}

#[test]
fn a_source_that_goes_down_leaves_the_target_as_it_was() {
    let mut clusters = Clusters::start();
    clusters.write("old/order", "old\n");
    clusters.run(&["volume", "create", "west:default/orders"]).success();
    clusters.run(&["volume", "import", "west:default/orders", "old"]).success();
    clusters.east.kill9();
    let failed =
        clusters.run(&["volume", "copy", "east:default/orders", "west:default/orders", "--refresh"]).exits(1);
    assert!(failed.stderr.contains("east"), "{}", failed.stderr);
    clusters.run(&["volume", "export", "west:default/orders", "kept"]).success();
    assert_eq!(std::fs::read_to_string(clusters.path("kept/order")).expect("the data"), "old\n");
    let listed = clusters.ask("west", &["volume", "list"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "nothing half made is listed: {listed}");
}
