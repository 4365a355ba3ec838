//! Transfers from outside: import, copy, export, a kill at each step, and what becomes of data that is forgotten.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use integration::{Clusters, LIMIT, wait_for};

/// Bytes without a pattern, the same each time for a seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A folder with what a copy must keep.
fn odd_tree(at: &Path) {
    fs::create_dir_all(at.join("a/empty")).unwrap();
    fs::write(at.join("a/big"), noise(1, 3_000_000)).unwrap();
    fs::write(at.join(std::ffi::OsStr::from_bytes(b"a/odd \xff\n name")), b"odd").unwrap();
    fs::hard_link(at.join("a/big"), at.join("linked")).unwrap();
    symlink("a/big", at.join("link")).unwrap();
    symlink("nowhere", at.join("dangling")).unwrap();
    let sparse = fs::File::create(at.join("sparse")).unwrap();
    sparse.set_len(32 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", 9 << 20).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    fs::set_permissions(at.join("a/empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(at.join("a/big"), fs::Permissions::from_mode(0o4750)).unwrap();
}

/// Every difference between two trees, by rsync where it is here, and always by our own eyes.
fn assert_same(one: &Path, other: &Path) {
    assert_eq!(listing(one), listing(other));
    let rsync = Command::new("rsync")
        .args(["-aHAXn", "--checksum", "--delete", "--itemize-changes"])
        .arg(format!("{}/", one.display()))
        .arg(format!("{}/", other.display()))
        .output();
    match rsync {
        Ok(rsync) => {
            assert!(rsync.status.success(), "{}", String::from_utf8_lossy(&rsync.stderr));
            assert_eq!(String::from_utf8_lossy(&rsync.stdout), "");
        }
        Err(_) => eprintln!("rsync is not here: only the test's own comparison was made"),
    }
}

fn listing(at: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![at.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let sum = content.iter().fold(7_u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
        let link = fs::read_link(&path).ok();
        let name = path.strip_prefix(at).unwrap().as_os_str().as_bytes().escape_ascii();
        let (mode, owner, time) = (meta.mode(), (meta.uid(), meta.gid()), (meta.mtime(), meta.mtime_nsec()));
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        lines.push(format!("{name} {mode:o} {owner:?} {time:?} {links} {} {link:?} {sum}", content.len()));
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    lines.sort();
    lines
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

#[test]
fn a_tree_goes_in_across_and_out_and_is_the_same() {
    let clusters = Clusters::start();
    let (source, out) = (clusters.path("source"), clusters.path("out"));
    odd_tree(&source);
    clusters.run(&["volume", "create", "east:default/orders", "--description", "Orders"]).success();
    clusters.run(&["volume", "import", "east:default/orders", text(&source)]).success();
    clusters.run(&["volume", "copy", "east:default/orders", "west:default/orders"]).success();
    let listed = clusters.ask("west", &["volume", "list"]);
    assert_eq!((&listed[0]["name"], &listed[0]["description"]), (&"orders".into(), &"Orders".into()));
    clusters.run(&["volume", "export", "west:default/orders", text(&out)]).success();
    assert_same(&source, &out);
    let sparse = fs::metadata(out.join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < sparse.len() / 2, "the holes were filled");
    let exported_again = clusters.run(&["volume", "export", "west:default/orders", text(&out)]).exits(1);
    assert!(exported_again.stderr.contains("is not empty"), "{}", exported_again.stderr);

    // A target that exists is refused, and named with what to do; a refresh sends what is new.
    let again = clusters.run(&["volume", "copy", "east:default/orders", "west:default/orders"]).exits(1);
    assert!(
        again.stderr.contains("already exists") && again.stderr.contains("--refresh"),
        "{}",
        again.stderr
    );
    fs::write(source.join("a/new"), b"new").unwrap();
    fs::remove_file(source.join("dangling")).unwrap();
    clusters.run(&["volume", "import", "east:default/orders", text(&source)]).success();
    let refresh = ["volume", "copy", "east:default/orders", "west:default/orders", "--refresh"];
    let refreshed = clusters.run(&[&refresh[..], &["--format", "json"]].concat()).success().json();
    assert_eq!(refreshed["sent"], 3, "{refreshed}");
    // Within one cluster it is the same.
    clusters.run(&["volume", "copy", "west:default/orders", "west:default/other"]).success();
    let other = clusters.path("other");
    clusters.run(&["volume", "export", "west:default/other", text(&other)]).success();
    assert_same(&source, &other);

    clusters.run(&["volume", "delete", "west:default/other"]).success();
    clusters.run(&["volume", "delete", "west:default/other"]).exits(1);
    let missing = clusters.run(&["volume", "copy", "east:default/none", "west:default/none"]).exits(1);
    assert!(missing.stderr.contains("volume east:default/none does not exist"), "{}", missing.stderr);
}

#[test]
fn killed_at_any_step_the_target_is_old_or_new_and_the_copy_goes_on() {
    for (step, new) in
        [("transfer-half", false), ("transfer-before-switch", false), ("transfer-after-switch", true)]
    {
        let mut clusters = Clusters::start();
        let (old, source) = (clusters.path("old"), clusters.path("source"));
        fs::create_dir(&old).unwrap();
        fs::write(old.join("file"), b"old").unwrap();
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), noise(2, 16 << 20)).unwrap();
        clusters.run(&["volume", "import", "west:default/orders", text(&old)]).success();
        clusters.run(&["volume", "import", "east:default/orders", text(&source)]).success();

        clusters.west.terminate();
        clusters.west.set_env("COMITY_CRASH_AT", step);
        clusters.west.launch();
        clusters.west.wait_ready();
        let copy =
            ["volume", "copy", "east:default/orders", "west:default/orders", "--refresh", "--format", "json"];
        clusters.run(&copy).exits(1);
        clusters.west.wait_end();
        clusters.west.clear_env();
        clusters.west.launch();
        clusters.west.wait_ready();
        let tree = clusters.west.data_dir().join("pools/default/custom/orders");
        assert_same(if new { &source } else { &old }, &tree);
        assert_eq!(clusters.ask("west", &["volume", "list"]).as_array().map(Vec::len), Some(1), "{step}");

        let copied = clusters.run(&copy).success().json();
        let received = copied["sent"].as_u64().unwrap();
        // What is complete but not switched in is dropped at the start; everything else counts.
        let limit = if step == "transfer-half" { 12 << 20 } else { 16 << 20 };
        assert!(received <= limit, "{step}: {received} bytes were sent again");
        assert_same(&source, &tree);
        assert_eq!(
            fs::read_dir(clusters.west.data_dir().join("pools/default/.staging/custom")).unwrap().count(),
            0
        );
    }
}

#[test]
fn a_forgotten_volume_keeps_its_data_until_it_is_declared_again_or_destroyed() {
    let clusters = Clusters::start();
    let source = clusters.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), b"data").unwrap();
    let manifest = "manifest \"shop\" {\n  cluster = \"east\"\n}\n";
    let declared = format!(
        "{manifest}volume \"default/orders\" {{}}\ntransfer \"orders-to-west\" {{\n  source = \"east:default/orders\"\n  target = \"west:default/orders\"\n  mode = \"refresh\"\n}}\n"
    );
    clusters.write("east/shop.hcl", &declared);
    clusters.run(&["apply", "east", "--yes"]).success();
    clusters.run(&["volume", "import", "east:default/orders", text(&source)]).success();
    clusters.run(&["plan", "east", "--detailed-exitcode"]).success();
    let refused = clusters.run(&["volume", "delete", "east:default/orders"]).exits(1);
    assert!(refused.stderr.contains("shop"), "names the manifest: {}", refused.stderr);
    let run = clusters.run(&["--remote", "east", "transfer", "run", "orders-to-west"]).success();
    assert!(run.stdout.contains("west:default/orders"), "{}", run.stdout);
    let listed = clusters.ask("east", &["transfer", "list"]);
    assert_eq!(listed["declared"][0]["mode"], "refresh");
    wait_for("the run in the history", LIMIT, || {
        let listed = clusters.ask("east", &["transfer", "list"]);
        (listed["declared"][0]["last_run"]["result"] == "success").then_some(())
    });

    let tree = clusters.east.data_dir().join("pools/default/custom/orders");
    clusters.write("east/shop.hcl", manifest);
    clusters.run(&["apply", "east", "--yes"]).success();
    assert_eq!(clusters.ask("east", &["volume", "list"]).as_array().map(Vec::len), Some(0));
    assert_same(&source, &tree);
    clusters.write("east/shop.hcl", &declared);
    clusters.run(&["apply", "east", "--yes"]).success();
    assert_same(&source, &tree);
    clusters.write("east/shop.hcl", manifest);
    clusters.run(&["apply", "east", "--yes", "--destroy-data"]).success();
    assert!(!tree.exists());
}

#[test]
fn what_goes_wrong_is_said_and_no_secret_with_it() {
    let mut clusters = Clusters::start();
    let source = clusters.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), b"data").unwrap();
    clusters.run(&["volume", "import", "east:default/orders", text(&source)]).success();
    for wrong in ["orders", "east:orders", "default/-x", "a/b/c"] {
        clusters.run(&["volume", "create", wrong]).exits(64);
    }
    let pool = clusters.run(&["volume", "create", "east:none/orders"]).exits(1);
    assert!(pool.stderr.to_lowercase().contains("pool"), "{}", pool.stderr);
    clusters.run(&["volume", "import", "east:default/orders", "/does/not/exist"]).exits(1);
    clusters.east.kill9();
    let down = clusters.run(&["volume", "copy", "east:default/orders", "west:default/orders"]).exits(1);
    assert!(down.stderr.contains("east"), "names who is down: {}", down.stderr);
    assert_eq!(clusters.ask("west", &["volume", "list"]).as_array().map(Vec::len), Some(0));
    for log in [clusters.east.log(), clusters.west.log()] {
        assert!(!log.to_lowercase().contains("secret"), "{log}");
    }
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
    assert_eq!(fs::read_to_string(clusters.path("kept/order")).expect("the data"), "old\n");
    let listed = clusters.ask("west", &["volume", "list"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "nothing half made is listed: {listed}");
}
