//! Copies as an operator types them: with snapshots, each way round, refreshed, pruned, moved, interrupted, and as a file.

use std::fs;

use integration::{Clusters, LIMIT, wait_for};
use serde_json::Value;

/// A volume on east with two snapshots: `old` in s1, `new` in s2 and now.
fn with_snapshots(clusters: &Clusters) {
    clusters.run(&["volume", "create", "east:default/orders", "--description", "Orders"]).success();
    for (content, snapshot) in [("old", "s1"), ("new", "s2")] {
        clusters.write("source/order", content);
        let source = clusters.path("source");
        let source = source.to_str().expect("temporary paths are UTF-8");
        clusters.run(&["volume", "import", "east:default/orders", source]).success();
        clusters.run(&["volume", "snapshot", "east:default/orders", snapshot]).success();
    }
}

fn content(clusters: &Clusters, volume: &str) -> String {
    let tree = clusters.west.data_dir().join("pools/default/custom").join(volume);
    fs::read_to_string(tree.join("order")).expect("the volume's file")
}

fn snapshots(clusters: &Clusters, volume: &str) -> Vec<String> {
    let listed = clusters.run(&["volume", "snapshot", "list", volume, "--format", "json"]).success().json();
    let name =
        |snapshot: &Value| snapshot["name"].as_str().map(|name| name.rsplit('/').next().map(str::to_owned));
    listed.as_array().expect("a list").iter().filter_map(|snapshot| name(snapshot).flatten()).collect()
}

#[test]
fn a_volume_goes_with_its_snapshots_whoever_connects_to_whom() {
    let clusters = Clusters::start();
    with_snapshots(&clusters);
    for mode in ["pull", "push", "relay"] {
        let target = format!("west:default/{mode}");
        let copied = clusters
            .run(&["volume", "copy", "east:default/orders", &target, "--mode", mode, "--format", "json"])
            .success()
            .json();
        assert!(copied["protocol"].is_string(), "{copied}");
        assert_eq!(snapshots(&clusters, &target), ["s1", "s2"], "{mode}");
        assert_eq!(content(&clusters, mode), "new");
        clusters.run(&["volume", "restore", &target, "s1"]).success();
        assert_eq!(content(&clusters, mode), "old", "{mode}");
    }
    // A snapshot alone becomes a volume without any.
    clusters.run(&["volume", "copy", "east:default/orders/s1", "west:default/first"]).success();
    assert_eq!(
        (content(&clusters, "first").as_str(), snapshots(&clusters, "west:default/first").len()),
        ("old", 0)
    );
    let again = clusters.run(&["volume", "copy", "east:default/orders", "west:default/pull"]).exits(1);
    assert!(again.stderr.contains("exists") && again.stderr.contains("--refresh"), "{}", again.stderr);
}

#[test]
fn a_refresh_keeps_what_only_the_target_has_until_it_is_told_to_prune() {
    let clusters = Clusters::start();
    with_snapshots(&clusters);
    let copy = ["volume", "copy", "east:default/orders", "west:default/orders"];
    clusters.run(&copy).success();
    clusters.run(&["volume", "snapshot", "west:default/orders", "own"]).success();
    clusters.run(&["volume", "snapshot", "east:default/orders", "s3"]).success();
    clusters.run(&["volume", "delete", "east:default/orders/s1"]).success();
    clusters.run(&[&copy[..], &["--refresh"]].concat()).success();
    let mut kept = snapshots(&clusters, "west:default/orders");
    kept.sort();
    assert_eq!(kept, ["own", "s1", "s2", "s3"]);
    clusters.run(&[&copy[..], &["--refresh", "--prune"]].concat()).success();
    assert_eq!(snapshots(&clusters, "west:default/orders"), ["s2", "s3"]);
    clusters.run(&[&copy[..], &["--prune"]].concat()).exits(64);
}

#[test]
fn a_move_leaves_nothing_behind_and_a_failed_one_everything() {
    let clusters = Clusters::start();
    with_snapshots(&clusters);
    clusters.run(&["volume", "create", "west:default/taken"]).success();
    clusters.run(&["volume", "move", "east:default/orders", "west:default/taken"]).exits(1);
    assert_eq!(snapshots(&clusters, "east:default/orders"), ["s1", "s2"]);
    clusters.run(&["volume", "move", "east:default/orders", "west:default/orders"]).success();
    clusters.run(&["volume", "show", "east:default/orders"]).exits(1);
    assert_eq!(snapshots(&clusters, "west:default/orders"), ["s1", "s2"]);
    // Within a cluster it is renamed.
    clusters.run(&["volume", "move", "west:default/orders", "west:default/renamed"]).success();
    assert_eq!(content(&clusters, "renamed"), "new");
}

#[test]
fn what_was_interrupted_is_listed_and_discarded_and_what_arrived_is_remembered() {
    let mut clusters = Clusters::start();
    clusters.write("old/order", "old");
    fs::create_dir_all(clusters.path("source")).expect("a folder");
    let mut noise = vec![0; 8 << 20];
    for (at, byte) in noise.iter_mut().enumerate() {
        *byte = u8::try_from((at * at / 7 + at) % 251).expect("less than 256");
    }
    fs::write(clusters.path("source/order"), noise).expect("a file");
    for (volume, folder) in [("west:default/orders", "old"), ("east:default/orders", "source")] {
        let folder = clusters.path(folder);
        let folder = folder.to_str().expect("temporary paths are UTF-8");
        clusters.run(&["volume", "create", volume]).success();
        clusters.run(&["volume", "import", volume, folder]).success();
    }
    clusters.west.terminate();
    clusters.west.set_env("COMITY_CRASH_AT", "transfer-half");
    clusters.west.launch();
    clusters.west.wait_ready();
    let refresh = ["volume", "copy", "east:default/orders", "west:default/orders", "--refresh"];
    let killed = clusters.run(&refresh).exits(1).stderr;
    let again = "`comity volume copy east:default/orders west:default/orders --refresh` goes on";
    assert!(killed.contains(again) && killed.contains("--watch west:"), "{killed}");
    clusters.west.clear_env();
    clusters.west.restart();
    let listed = clusters.ask("west", &["transfer", "list"]);
    assert_eq!(listed["resumable"][0]["name"], "default/orders", "{listed}");
    assert_eq!(content(&clusters, "orders"), "old");
    clusters.run(&["transfer", "cancel", "west:default/orders"]).success();
    assert_eq!(clusters.ask("west", &["transfer", "list"])["resumable"], serde_json::json!([]));
    assert_eq!(content(&clusters, "orders"), "old");
    let nothing = clusters.run(&["transfer", "cancel", "west:default/orders"]).exits(1);
    assert!(nothing.stderr.contains("transfer list"), "{}", nothing.stderr);

    clusters.run(&refresh).success();
    wait_for("the run in the history", LIMIT, || {
        let listed = clusters.ask("west", &["transfer", "list"]);
        let run = &listed["runs"][0];
        (run["result"] == "success" && run["total"] == 8 << 20).then_some(())
    });
    let run =
        clusters.ask("west", &["transfer", "list"])["runs"][0]["id"].as_str().expect("an id").to_owned();
    let shown = clusters.run(&["transfer", "show", &format!("west:{run}")]).success();
    assert!(shown.stdout.contains("Result:      SUCCESS"), "{}", shown.stdout);
}

#[test]
fn a_declared_transfer_runs_again_and_is_known_and_resumed_by_its_runs() {
    let mut clusters = Clusters::start();
    with_snapshots(&clusters);
    clusters.run(&["init", "east:web", "--empty"]).success();
    clusters.write(
        "declared/shop.hcl",
        r#"
        manifest "shop" {
          cluster = "east"
        }
        transfer "orders" {
          source = "default/orders"
          target = "west:default/orders"
        }
        transfer "first" {
          source   = "default/orders"
          snapshot = "s1"
          target   = "west:default/first"
          mode     = "copy"
        }
        transfer "web" {
          source        = "web"
          target        = "west:web"
          connect       = "push"
          instance_only = true
        }
        "#,
    );
    clusters.run(&["apply", "declared", "--yes"]).success();
    assert!(clusters.run(&["plan", "declared"]).success().stdout.contains("No changes"));
    clusters.run(&["snapshot", "east:web"]).success();
    let run = |name: &str| clusters.run(&["--remote", "east", "transfer", "run", name]);
    for _ in 0..2 {
        run("orders").success();
        run("web").success();
    }
    assert_eq!(snapshots(&clusters, "west:default/orders"), ["s1", "s2"]);
    let web = clusters.run(&["info", "west:web", "--format", "json"]).success().json();
    assert_eq!(web["snapshots"].as_array().map_or(0, Vec::len), 0, "{web}");
    run("first").success();
    assert_eq!(content(&clusters, "first"), "old");
    let again = run("first").exits(1);
    assert!(again.stderr.contains("mode = \"refresh\""), "{}", again.stderr);

    wait_for("the runs in the history", LIMIT, || {
        let listed = clusters.ask("east", &["transfer", "list"]);
        let declared = listed["declared"].as_array()?;
        (declared.len() == 3 && declared.iter().all(|one| one["last_run"]["result"] == "success"))
            .then_some(())
    });
    let listed = clusters.ask("west", &["transfer", "list"]);
    let last = &listed["runs"][0];
    assert_eq!((&last["transfer"], &last["source"]), (&"first".into(), &"east:default/orders/s1".into()));

    // Cut off where it arrives, and gone on with from there.
    clusters.run(&["volume", "delete", "west:default/orders"]).success();
    clusters.west.terminate();
    clusters.west.set_env("COMITY_CRASH_AT", "transfer-before-switch");
    clusters.west.launch();
    clusters.west.wait_ready();
    clusters.run(&["--remote", "east", "transfer", "run", "orders"]).exits(1);
    clusters.west.clear_env();
    clusters.west.restart();
    let listed = clusters.ask("west", &["transfer", "list"]);
    let last = &listed["runs"][0];
    assert_eq!((&last["transfer"], &last["result"]), (&"orders".into(), &"interrupted".into()), "{listed}");
    let id = format!("west:{}", last["id"].as_str().expect("an id"));
    clusters.run(&["transfer", "resume", &id]).success();
    assert_eq!(content(&clusters, "orders"), "new");
    let id = wait_for("the run in the history", LIMIT, || {
        let listed = clusters.ask("west", &["transfer", "list"]);
        let run = &listed["runs"][0];
        run["id"].as_str().filter(|_| run["result"] == "success").map(str::to_owned)
    });
    let done = clusters.run(&["transfer", "resume", &format!("west:{id}")]).exits(1);
    assert!(done.stderr.contains("nothing to resume"), "{}", done.stderr);
}

#[test]
fn a_volume_is_exported_as_one_file_and_made_of_it_again() {
    let clusters = Clusters::start();
    with_snapshots(&clusters);
    let file = clusters.path("orders.tar.gz");
    let file = file.to_str().expect("temporary paths are UTF-8");
    clusters.run(&["volume", "export", "east:default/orders", file]).success();
    clusters.run(&["volume", "import", "west:default/again", file]).success();
    assert_eq!(content(&clusters, "again"), "new");
    assert_eq!(snapshots(&clusters, "west:default/again"), ["s1", "s2"]);
    let taken = clusters.run(&["volume", "import", "west:default/again", file]).exits(1);
    assert!(taken.stderr.contains("exists"), "{}", taken.stderr);
    let optimized =
        clusters.run(&["volume", "export", "east:default/orders", "x.tar", "--optimized-storage"]).exits(1);
    assert!(optimized.stderr.contains("dir"), "{}", optimized.stderr);
}
