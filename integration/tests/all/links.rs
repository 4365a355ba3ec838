//! Links made by files, from outside: two agents, one apply, and what becomes of it when an agent is killed.

use integration::{Clusters, LIMIT, wait_for};
use serde_json::{Value, json};

const EAST: &str = r#"
service "backend" {
  port = 9090
}
service "inner" {
  port = 9091
}
exported_services "default" {
  services = [{ name = "backend", consumers = [{ peer = "west" }] }]
}
"#;

fn names(rows: &Value) -> Vec<String> {
    let rows = rows.as_array().into_iter().flatten();
    rows.filter_map(|row| row["service"].as_str().map(str::to_owned)).collect()
}

fn wait_imported(clusters: &Clusters, wanted: &[&str]) {
    wait_for(&format!("west imports {wanted:?}"), LIMIT, || {
        (names(&clusters.ask("west", &["service", "imported"])) == wanted).then_some(())
    });
}

#[test]
fn a_link_made_by_files_carries_exports_and_outlives_a_kill_of_either_side() {
    let mut clusters = Clusters::linked(EAST, "");
    clusters.run(&["plan", "east", "west", "--detailed-exitcode"]).success();
    let exported = clusters.ask("east", &["service", "exported"]);
    assert_eq!(exported, json!([{"service": "backend", "peers": ["west"]}]));
    wait_imported(&clusters, &["backend"]);
    let imported = clusters.ask("west", &["service", "imported"]);
    assert_eq!((&imported[0]["peer"], &imported[0]["status"]), (&json!("east"), &json!("passing")));

    // A wait for what never comes would show here, and in the time that the apply took.
    for agent in [&clusters.east, &clusters.west] {
        assert!(!agent.log().contains("has not been seen yet"), "{}", agent.log());
    }

    clusters.east.restart();
    clusters.wait_active();
    wait_imported(&clusters, &["backend"]);
    clusters.west.restart();
    clusters.wait_active();
    wait_imported(&clusters, &["backend"]);

    // A change of the exports is told over the link, a removal too.
    clusters.declare("east", &EAST.replace("\"backend\", consumers", "\"*\", consumers"));
    clusters.apply().success();
    wait_imported(&clusters, &["backend", "inner"]);
    clusters.declare("east", "");
    clusters.apply().success();
    wait_imported(&clusters, &[]);
    assert!(
        clusters
            .run(&["--remote", "east", "service", "exported"])
            .stdout
            .contains("No exported services found")
    );
}

#[test]
fn a_peer_that_is_down_is_shown_and_its_services_are_stale_until_it_is_back() {
    let mut clusters = Clusters::linked(EAST, "");
    wait_imported(&clusters, &["backend"]);
    clusters.east.kill9();
    clusters.wait_state("west", "east", "FAILING");
    let imported = clusters.ask("west", &["service", "imported"]);
    assert_eq!(imported[0]["status"], "stale");
    clusters.east.restart();
    clusters.wait_active();
    wait_for("the import is current again", LIMIT, || {
        (clusters.ask("west", &["service", "imported"])[0]["status"] == "passing").then_some(())
    });
    assert!(clusters.east.terminate().success());
}
