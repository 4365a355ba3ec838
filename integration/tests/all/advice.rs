//! What the command line of volumes, instances and transfers says when something is not so: what, where, and a command
//! that can be given as it stands.

use std::process::Command;

use integration::tree::noise;
use integration::{Clusters, Http, LIMIT, Operator, wait_for};
use serde_json::Value;

/// What a command that failed says.
fn said(clusters: &Clusters, arguments: &[&str]) -> String {
    clusters.run(arguments).exits(1).stderr
}

#[track_caller]
fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// A volume on east that holds so many MiB.
fn with_volume(mebibytes: u64) -> Clusters {
    let clusters = Clusters::start();
    let source = clusters.path("source");
    std::fs::create_dir(&source).expect("a folder");
    for number in 0..mebibytes {
        std::fs::write(source.join(number.to_string()), noise(number, 1 << 20)).expect("a file");
    }
    clusters.run(&["volume", "create", "east:default/orders"]).success();
    let source = source.to_str().expect("temporary paths are UTF-8");
    clusters.run(&["volume", "import", "east:default/orders", source]).success();
    clusters
}

/// Bytes of a volume that have arrived at west and are not in their place yet.
fn staged(clusters: &Clusters) -> u64 {
    let staging = clusters.west.data_dir().join("pools/default/.staging");
    let du = Command::new("du").args(["-sb"]).arg(staging).output().expect("du runs");
    String::from_utf8_lossy(&du.stdout).split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Whether somebody has a connection to an address of this machine.
fn is_called(address: &str) -> bool {
    const ESTABLISHED: &str = "01";
    let port: u16 = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let remote = format!(":{port:04X}");
    let connections = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's list of connections");
    let mut rows = connections.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.any(|row| row.len() > 3 && row[2].ends_with(&remote) && row[3] == ESTABLISHED)
}

#[test]
fn what_is_not_there_is_named_with_the_command_that_lists_what_is() {
    let clusters = with_volume(1);
    clusters.run(&["volume", "snapshot", "east:default/orders", "s1"]).success();
    clusters.run(&["init", "east:c1", "--empty"]).success();
    let list = "`comity volume snapshot list east:default/orders`";
    for arguments in [
        &["volume", "snapshot", "show", "east:default/orders/s2"][..],
        &["volume", "snapshot", "delete", "east:default/orders/s2"],
        &["volume", "snapshot", "rename", "east:default/orders/s2", "s3"],
        &["volume", "restore", "east:default/orders", "s2"],
        &["volume", "copy", "east:default/orders/s2", "west:default/orders"],
    ] {
        says(&said(&clusters, arguments), &["volume east:default/orders has no snapshot s2", list]);
    }
    let volume = said(&clusters, &["volume", "copy", "east:default/none/s1", "west:default/orders"]);
    says(&volume, &["volume east:default/none does not exist", "`comity volume list east:`"]);
    let instance = said(&clusters, &["restore", "east:c1", "s2"]);
    says(&instance, &["instance east:c1 has no snapshot s2", "`comity info east:c1`"]);
    let pool = said(&clusters, &["volume", "create", "east:none/orders"]);
    says(&pool, &["storage pool east:none does not exist", "`comity pool list east:`"]);
    // Whom a command asks goes on in what it advises.
    let asked = said(&clusters, &["--remote", "west", "info", "c1"]);
    says(&asked, &["instance c1 does not exist", "`comity --remote west list`"]);
    let nowhere = "00000000-0000-4000-8000-000000000000";
    let unknown = said(&clusters, &["operation", "show", &format!("west:{nowhere}")]);
    says(&unknown, &[nowhere, "`comity operation list west:`", "`comity transfer list west:`"]);
}

#[test]
fn what_has_arrived_is_found_by_the_beginning_of_its_id() {
    let clusters = with_volume(1);
    clusters.run(&["volume", "copy", "east:default/orders", "west:default/orders"]).success();
    let id = wait_for("the run in the history", LIMIT, || {
        let listed = clusters.ask("west", &["transfer", "list"]);
        let run = &listed["runs"][0];
        (run["result"] == "success").then(|| run["id"].as_str().expect("an id").to_owned())
    });
    let table = clusters.run(&["transfer", "list", "west:"]).success().stdout;
    says(&table, &[&format!("| {} | default/orders |", &id[..8])]);
    let widest = table.lines().map(str::len).max();
    assert!(widest.is_some_and(|width| width <= 80), "{table}");
    let begins = format!("west:{}", &id[..8]);
    for show in [["transfer", "show"], ["operation", "show"]] {
        let shown = clusters.run(&[&show[..], &[&begins]].concat()).success().stdout;
        says(&shown, &[&id]);
    }
    // Long after its end, too: an operation is forgotten, what arrived is not.
    let rows = clusters.run(&["transfer", "list", "west:", "--format", "csv"]).success().stdout;
    assert!(rows.starts_with(&format!("arrived,{id},east:default/orders,default/orders,")), "{rows}");
    says(
        &said(&clusters, &["operation", "show", "west:ffffffff"]),
        &["begins with ffffffff", "operation list west:"],
    );
    clusters.run(&["operation", "show", "west:orders"]).exits(64);
}

#[test]
fn a_move_replaces_nothing_and_begins_only_if_it_may_end() {
    let clusters = with_volume(1);
    clusters.run(&["volume", "create", "west:default/orders"]).success();
    let exists = said(&clusters, &["volume", "move", "east:default/orders", "west:default/orders"]);
    says(&exists, &["already exists", "`comity volume delete west:default/orders`"]);
    assert!(!exists.contains("--refresh"), "{exists}");
    let copy = said(&clusters, &["volume", "copy", "east:default/orders", "west:default/orders"]);
    says(&copy, &["`comity volume copy east:default/orders west:default/orders --refresh`"]);

    // Who may take the data along and not delete it copies nothing.
    let mover = Operator::new();
    clusters.run(&["auth", "group", "create", "east:movers"]).success();
    let permit = |words: &str| {
        let words: Vec<&str> =
            "auth group permission add east:movers".split(' ').chain(words.split(' ')).collect();
        clusters.run(&words)
    };
    let backups = "storage_volume orders can_manage_backups project=default type=custom pool=default";
    let see = "project default can_view";
    let order = format!("`comity auth group permission add east:movers {see}`");
    says(&permit(backups).exits(1).stderr, &[&order]);
    permit(see).success();
    permit(backups).success();
    permit("storage_volume orders can_view project=default type=custom pool=default").success();
    mover.trusted_by(&clusters.west);
    let token = clusters
        .operator
        .run_on(&clusters.east, &["auth", "identity", "create", "tls/mover", "--group", "movers", "--quiet"]);
    mover.run(&["remote", "add", "east", token.success().stdout.trim()]).success();
    let refused = mover.run(&["volume", "move", "east:default/orders", "west:default/moved"]).exits(1);
    let given = "`comity auth group permission add east:GROUP storage_volume orders can_manage_backups";
    says(&refused.stderr, &["east refuses it: Forbidden", given, "can_delete"]);
    assert_eq!(
        clusters.ask("west", &["volume", "list"]).as_array().map(Vec::len),
        Some(1),
        "nothing was copied"
    );
    mover.run(&["volume", "copy", "east:default/orders", "west:default/copied"]).success();
}

#[test]
fn a_name_that_a_copy_is_arriving_under_is_taken() {
    let clusters = with_volume(48);
    let copy = ["volume", "copy", "east:default/orders", "west:default/orders"];
    let mut running = clusters.operator.begin(&copy);
    wait_for("the copy is under way", LIMIT, || {
        assert!(!running.has_ended(), "the copy ended too soon");
        (staged(&clusters) > 4 << 20).then_some(())
    });
    let create = clusters.run(&["volume", "create", "west:default/orders"]);
    let again = clusters.run(&copy);
    let was_running = !running.has_ended();
    let ended = running.end();
    if was_running {
        says(&create.exits(1).stderr, &["default/orders", "just arriving"]);
        says(&again.exits(1).stderr, &["default/orders", "`comity operation list west:`"]);
    }
    ended.success();
}

#[test]
fn an_interrupted_command_says_what_is_true_and_how_to_go_on() {
    let clusters = with_volume(48);
    // Before anything was begun: the other side does not answer.
    let west = clusters.west.pid().expect("it runs");
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &west.to_string()]).status().expect("kill runs").success());
    };
    signal("-STOP");
    let copy = ["volume", "copy", "east:default/orders", "west:default/orders"];
    let mut early = clusters.operator.begin(&copy);
    wait_for("the command asks west", LIMIT, || {
        assert!(!early.has_ended(), "nobody answers it");
        is_called(&clusters.west.address()).then_some(())
    });
    early.interrupt();
    let early = early.end();
    signal("-CONT");
    assert_eq!(early.code, Some(130), "{}", early.stderr);
    says(&early.stderr, &["Interrupted before anything was copied"]);
    let running = Http::socket(&clusters.east).get("/1.0/operations").json();
    assert!(running["metadata"]["running"].is_null(), "{running}");

    let mut running = clusters.operator.begin(&copy);
    wait_for("the copy is under way", LIMIT, || {
        assert!(!running.has_ended(), "the copy ended too soon");
        (staged(&clusters) > 4 << 20).then_some(())
    });
    running.interrupt();
    let ended = running.end();
    if ended.code == Some(0) {
        return;
    }
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    says(
        &ended.stderr,
        &[
            "canceled by user",
            "`comity volume copy east:default/orders west:default/orders` goes on",
            "`comity transfer list west:`",
            "`comity transfer cancel west:default/orders`",
        ],
    );
    for side in [&clusters.east, &clusters.west] {
        wait_for("nothing runs any more", LIMIT, || {
            let operations: Value = Http::socket(side).get("/1.0/operations").json();
            operations["metadata"]["running"].is_null().then_some(())
        });
    }
    clusters.run(&copy).success();
}

#[test]
fn a_project_is_named_for_one_command() {
    let clusters = Clusters::start();
    clusters.run(&["project", "create", "east:blue"]).success();
    clusters.run(&["--project", "blue", "init", "east:c1", "--empty"]).success();
    let names = |arguments: &[&str]| {
        let listed = clusters.run(&[arguments, &["--format", "json"]].concat()).success().json();
        listed.as_array().expect("a list").iter().map(|one| one["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["list", "east:"]), [] as [Value; 0]);
    assert_eq!(names(&["list", "east:", "--project", "blue"]), ["c1"]);
    clusters.run(&["copy", "east:c1", "west:", "--target-project", "default", "--project", "blue"]).success();
    assert_eq!(names(&["list", "west:"]), ["c1"]);
    let missing = said(&clusters, &["--project", "blue", "info", "east:c2"]);
    says(&missing, &["`comity --project blue list east:`"]);
    says(
        &said(&clusters, &["--project", "blue", "volume", "import", "east:default/v", "."]),
        &["--project blue: volumes are kept in the project \"default\""],
    );
}

#[test]
fn a_device_of_a_profile_is_changed_and_not_replaced() {
    let clusters = Clusters::start();
    clusters.run(&["init", "east:c1", "--empty", "-d", "root,size=2GiB"]).success();
    let shown = clusters.run(&["info", "east:c1", "--format", "json"]).success().json();
    let root = &shown["devices"]["root"];
    assert_eq!(
        (&root["size"], &root["path"], &root["pool"]),
        (&"2GiB".into(), &"/".into(), &"default".into())
    );
    let unknown = said(&clusters, &["init", "east:c2", "--empty", "-d", "eth0,mtu=1400"]);
    says(&unknown, &["eth0", "Device not found in profile devices", "root"]);
}
