//! What the commands of volumes, pools, instances and transfers refuse, leave alone, and say of it.

use std::fs;
use std::process::Command;

use integration::tree::noise;
use integration::{Clusters, LIMIT, wait_for};

#[track_caller]
fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// The process that looks on at an operation: what it is called with is its own.
fn process_of(operand: &str) -> u32 {
    let wanted = format!("\0--watch\0{operand}\0");
    let all = fs::read_dir("/proc").expect("the kernel's list of processes").flatten();
    let mut found = all.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(&wanted).then(|| entry.file_name())
    });
    found.next().and_then(|pid| pid.to_str()?.parse().ok()).expect("it runs")
}

#[test]
fn a_misspelt_key_of_a_document_changes_nothing() {
    let clusters = Clusters::start();
    let edit = |arguments: &[&str], document: &str| {
        clusters.operator.run_with(clusters.folder(), &[&["--remote", "east"], arguments].concat(), document)
    };
    clusters.run(&["volume", "create", "east:default/orders", "size=1GiB"]).success();
    let refused = edit(&["volume", "edit", "default/orders"], "confg:\n  size: 2GiB\n").exits(1).stderr;
    says(&refused, &["unknown key \"confg\", did you mean \"config\"?", "Nothing was changed."]);
    let size = ["volume", "get", "east:default/orders", "size"];
    assert_eq!(clusters.run(&size).success().stdout, "1GiB\n");
    edit(&["volume", "edit", "default/orders"], "config:\n  size: 2GiB\n").success();
    assert_eq!(clusters.run(&size).success().stdout, "2GiB\n");

    clusters.run(&["init", "east:web", "--empty", "-c", "user.role=web"]).success();
    let shown = clusters.run(&["config", "show", "east:web"]).success().stdout;
    let misspelt = shown.replacen("config:", "confg:", 1);
    assert_ne!(shown, misspelt);
    edit(&["config", "edit", "web"], &misspelt).exits(1);
    edit(&["config", "edit", "web"], &shown).success();
    assert_eq!(clusters.run(&["config", "get", "east:web", "user.role"]).success().stdout, "web\n");

    // What `show` prints is a document as it is.
    let shown = clusters.run(&["pool", "show", "east:default"]).success().stdout;
    edit(&["pool", "edit", "default"], &shown.replace("description: \"\"", "description: mine")).success();
    assert!(clusters.run(&["pool", "show", "east:default"]).success().stdout.contains("description: mine"));
    edit(&["pool", "edit", "default"], &shown.replace("description:", "descripton:")).exits(1);
}

#[test]
fn what_is_set_of_an_instance_has_a_value_that_makes_sense() {
    let clusters = Clusters::start();
    clusters.run(&["init", "east:web", "--empty"]).success();
    let forgotten = clusters.run(&["config", "set", "east:web", "limits.cpu"]).exits(64).stderr;
    says(&forgotten, &["limits.cpu needs a value", "`comity config set east:web limits.cpu=VALUE`"]);
    clusters.run(&["config", "device", "override", "east:web", "root", "size=1GiB"]).success();
    let set = |pair: &str| clusters.run(&["config", "device", "set", "east:web", "root", pair]);
    says(&set("size=zz").exits(1).stderr, &["Invalid value for device option \"size\""]);
    says(&set("sise=1GiB").exits(1).stderr, &["Invalid device option \"sise\"; did you mean \"size\"?"]);
    clusters.run(&["copy", "east:web", "west:web", "-d", "root,size=abc"]).exits(1);
    assert_eq!(
        clusters.run(&["config", "device", "get", "east:web", "root", "size"]).success().stdout,
        "1GiB\n"
    );
    let listed = clusters.run(&["list", "east:", "type=container", "--format", "csv"]).success().stdout;
    assert!(listed.starts_with("web,"), "{listed}");
    assert_eq!(
        clusters.run(&["list", "east:", "type=virtual-machine", "--format", "csv"]).success().stdout,
        ""
    );
    let volume = clusters.run(&["copy", "east:web", "west:default/big"]).exits(64).stderr;
    says(&volume, &["an instance belongs here", "`comity volume copy`"]);
    says(
        &clusters.run(&["remote", "set-url", "local", "https://127.0.0.1:1"]).exits(1).stderr,
        &["is static"],
    );
}

#[test]
fn who_uses_a_volume_is_named() {
    let clusters = Clusters::start();
    clusters.run(&["volume", "create", "east:default/orders"]).success();
    clusters.run(&["init", "east:web", "--empty"]).success();
    let device = ["source=orders", "pool=default", "path=/mnt"];
    clusters.run(&[&["config", "device", "add", "east:web", "d2", "disk"][..], &device].concat()).success();
    for arguments in [
        &["volume", "delete", "east:default/orders"][..],
        &["volume", "rename", "east:default/orders", "other"],
        &["volume", "move", "east:default/orders", "west:default/orders"],
    ] {
        let refused = clusters.run(arguments).exits(1).stderr;
        says(&refused, &["The storage volume is still in use: used by instance web (device d2)"]);
    }
    says(
        &clusters.run(&["volume", "show", "east:default/orders"]).success().stdout,
        &["Used by:      web\n"],
    );
    let taken = clusters.run(&["volume", "snapshot", "east:default/orders"]).success().stdout;
    says(&taken, &["Took snapshot snap0 of east:default/orders."]);
    let copied = clusters.run(&["volume", "copy", "east:default/orders", "west:default/orders"]).success();
    says(&copied.stdout, &["Copied east:default/orders with 1 snapshot to west:default/orders"]);
    for flags in [&["east:default/orders", "--volume-only"][..], &["east:default/orders/snap0"]] {
        let prune = ["volume", "copy", "west:default/orders", "--refresh", "--prune"];
        let line = [&["volume", "copy"], flags, &prune[2..]].concat();
        says(&clusters.run(&line).exits(64).stderr, &["--prune"]);
    }
}

#[test]
fn a_pool_that_is_away_keeps_nobody_from_the_others() {
    let mut clusters = Clusters::start();
    let (folder, away) = (clusters.path("fast"), clusters.path("gone"));
    let source = format!("source={}", folder.display());
    let made = clusters.run(&["pool", "create", "west:fast", &source]).success();
    says(&made.stderr, &["was not there, and was made"]);
    clusters.run(&["volume", "create", "west:default/orders"]).success();
    clusters.run(&["volume", "create", "west:fast/orders"]).success();
    fs::rename(&folder, &away).expect("a folder can be taken away");
    clusters.west.restart();
    let listed = clusters.run(&["volume", "list", "west:", "--format", "csv"]).success();
    assert_eq!(listed.stdout, "default,orders,,\n");
    says(&listed.stderr, &["Storage pool fast is unavailable"]);
    says(&clusters.run(&["pool", "list", "west:"]).success().stdout, &["UNAVAILABLE"]);
    says(&clusters.run(&["pool", "show", "west:fast"]).success().stdout, &["status: Unavailable"]);
    says(&clusters.run(&["volume", "list", "west:fast"]).exits(1).stderr, &["is unavailable"]);
    // A record tells that something is in it.
    says(&clusters.run(&["pool", "delete", "west:fast"]).exits(1).stderr, &["in use"]);
    fs::rename(&away, &folder).expect("a folder can be brought back");
    clusters.run(&["volume", "delete", "west:fast/orders"]).success();
    fs::rename(&folder, &away).expect("a folder can be taken away");
    clusters.run(&["pool", "delete", "west:fast"]).success();
    assert!(away.join("custom").is_dir(), "what is in the folder stays");
    assert!(!clusters.run(&["pool", "list", "west:"]).success().stdout.contains("fast"));
}

#[test]
fn a_target_that_cannot_be_asked_is_said_to_be_and_what_is_left_is_looked_for_there() {
    let mut clusters = Clusters::start();
    clusters.run(&["volume", "create", "east:default/orders"]).success();
    clusters.write(
        "declared/shop.hcl",
        r#"
        manifest "shop" {
          cluster = "east"
        }
        transfer "orders-to-west" {
          source = "default/orders"
          target = "west:default/orders"
        }
        "#,
    );
    clusters.run(&["apply", "declared", "--yes"]).success();
    let run = ["--remote", "east", "transfer", "run", "orders-to-west"];
    let ran = clusters.run(&run).success().stdout;
    says(&ran, &["Copied east:default/orders to west:default/orders"]);
    clusters.run(&[&run[..], &["--connect", "push"]].concat()).success();
    let nothing = clusters.run(&["transfer", "cancel", "east:orders-to-west"]).exits(1).stderr;
    says(&nothing, &["`comity transfer list west:`"]);
    says(&clusters.run(&["transfer", "show", "west:8"]).exits(1).stderr, &["at least 4 digits"]);
    clusters.west.terminate();
    let listed = clusters.run(&["--remote", "east", "transfer", "list"]).success();
    says(&listed.stdout, &["| not asked |"]);
    says(&listed.stderr, &["orders-to-west: its target cannot be asked now"]);
    let listed = clusters.ask("east", &["transfer", "list"]);
    assert!(listed["declared"][0]["not_asked"].is_string(), "{listed}");
}

#[test]
fn what_an_interrupted_copy_has_left_is_shown_with_its_run_and_what_to_do() {
    let mut clusters = Clusters::start();
    let source = clusters.path("source");
    fs::create_dir(&source).expect("a folder");
    fs::write(source.join("order"), noise(1, 8 << 20)).expect("a file");
    clusters.run(&["volume", "create", "east:default/orders"]).success();
    let source = source.to_str().expect("temporary paths are UTF-8");
    clusters.run(&["volume", "import", "east:default/orders", source]).success();
    clusters.west.terminate();
    clusters.west.set_env("COMITY_CRASH_AT", "transfer-before-switch");
    clusters.west.launch();
    clusters.west.wait_ready();
    clusters.run(&["volume", "copy", "east:default/orders", "west:default/orders"]).exits(1);
    clusters.west.clear_env();
    clusters.west.restart();
    let id = wait_for("the run in the history", LIMIT, || {
        let listed = clusters.ask("west", &["transfer", "list"]);
        let run = &listed["runs"][0];
        run["id"].as_str().filter(|_| run["result"] == "interrupted").map(str::to_owned)
    });
    let short = &id[..8];
    let listed = clusters.run(&["transfer", "list", "west:"]).success().stdout;
    says(
        &listed,
        &[
            &format!("| {short} | east:default/orders | default/orders |"),
            "`comity transfer resume west:ID`",
            "`comity transfer cancel west:TARGET`",
        ],
    );
    let shown = clusters.run(&["transfer", "show", &format!("west:{short}")]).success().stdout;
    says(&shown, &["Result:      INTERRUPTED", "`comity transfer cancel west:default/orders`"]);
    for called in [format!("west:{id}"), "west:default/orders".to_owned()] {
        let refused = clusters.run(&["transfer", "resume", &called]).exits(1).stderr;
        says(&refused, &["not a run of a declared", "`comity transfer cancel west:default/orders`"]);
    }
    let ended = clusters.run(&["transfer", "cancel", &format!("west:{id}")]).exits(1).stderr;
    says(&ended, &["`comity transfer cancel west:default/orders` discards"]);
    clusters.run(&["transfer", "cancel", "west:default/orders"]).success();
}

#[test]
fn who_looks_on_at_a_copy_does_not_cancel_it() {
    let clusters = Clusters::start();
    let source = clusters.path("source");
    fs::create_dir(&source).expect("a folder");
    for number in 0..128 {
        fs::write(source.join(number.to_string()), noise(number, 1 << 20)).expect("a file");
    }
    clusters.run(&["volume", "create", "east:default/orders"]).success();
    let source = source.to_str().expect("temporary paths are UTF-8");
    clusters.run(&["volume", "import", "east:default/orders", source]).success();
    let running = clusters.operator.begin(&["volume", "copy", "east:default/orders", "west:default/orders"]);
    let staging = clusters.west.data_dir().join("pools/default/.staging");
    wait_for("some of it has arrived", LIMIT, || {
        let du = Command::new("du").arg("-sb").arg(&staging).output().expect("du runs");
        let bytes: u64 = String::from_utf8_lossy(&du.stdout).split_whitespace().next()?.parse().ok()?;
        (bytes > 4 << 20).then_some(())
    });
    // The source is held, so that the copy ends only once it has been looked at.
    let signal = |name: &str| {
        let pid = clusters.east.pid().expect("it runs").to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill runs").success());
    };
    signal("-STOP");
    let id = wait_for("the copy is listed", LIMIT, || {
        let listed = clusters.ask("west", &["operation", "list"]);
        Some(listed.as_array()?.first()?["id"].as_str()?.to_owned())
    });
    let operand = format!("west:{id}");
    let mut looking = clusters.operator.begin_on_terminal(&["operation", "show", "--watch", &operand]);
    wait_for("its progress is shown", LIMIT, || looking.has_said("receiving").then_some(()));
    let pid = process_of(&operand).to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill runs").success());
    let left = looking.end();
    signal("-CONT");
    assert_eq!(left.code, Some(130), "{}", left.stdout);
    says(
        &left.stdout,
        &["The operation goes on", &format!("`comity operation delete {operand}` cancels it")],
    );
    assert_eq!(running.end().code, Some(0));
}
