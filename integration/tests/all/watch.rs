//! A watched folder: an edit is live by itself, a faulty one changes nothing and is shown.

use integration::{Agent, LIMIT, Operator, wait_for};

const GOOD: &str = "manifest \"shop\" { cluster = \"east\" }\nservice \"web\" { port = 9090 }\n";

fn services(operator: &Operator, agent: &Agent) -> Vec<String> {
    let rows = operator.run_on(agent, &["service", "list", "--format", "json"]);
    let rows = if rows.succeeded() { rows.json() } else { serde_json::Value::Null };
    let rows = rows.as_array().into_iter().flatten();
    rows.filter_map(|row| row["service"].as_str().or(row["name"].as_str()).map(str::to_owned)).collect()
}

fn wait_services(operator: &Operator, agent: &Agent, wanted: &[&str]) {
    wait_for(&format!("the services are {wanted:?}"), LIMIT, || {
        (services(operator, agent) == wanted).then_some(())
    });
}

#[test]
fn an_edit_is_live_and_a_fault_is_shown_with_the_last_good_state_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("shop.hcl");
    std::fs::write(&file, GOOD).expect("a file");
    let watched = folder.path().to_str().expect("temporary paths are UTF-8");
    let mut east = Agent::prepare("east").arguments(&["--watch", watched]);
    east.launch();
    east.wait_ready();
    let operator = Operator::new();
    wait_services(&operator, &east, &["web"]);

    std::fs::write(&file, format!("{GOOD}service \"api\" {{ port = 9091 }}\n")).expect("an edit");
    wait_services(&operator, &east, &["api", "web"]);

    std::fs::write(&file, format!("{GOOD}service \"api\" {{ prot = 9091 }}\n")).expect("a faulty edit");
    wait_for("the fault is shown", LIMIT, || {
        operator.run_on(&east, &["status"]).stdout.contains("prot").then_some(())
    });
    assert!(east.log().contains("prot"), "the fault is in the log");
    assert_eq!(services(&operator, &east), ["api", "web"]);

    std::fs::write(&file, format!("{GOOD}service \"db\" {{ port = env(\"PORT\") }}\n")).expect("an edit");
    wait_for("env is refused", LIMIT, || {
        operator.run_on(&east, &["status"]).stdout.contains("env").then_some(())
    });

    std::fs::write(&file, GOOD).expect("an edit");
    wait_services(&operator, &east, &["web"]);

    // A folder that vanished prunes nothing, not even at the next start.
    std::fs::remove_file(&file).expect("the file goes");
    std::fs::remove_dir(folder.path()).expect("the folder goes");
    wait_for("the missing folder is shown", LIMIT, || {
        let status = operator.run_on(&east, &["status"]).stdout;
        status.contains(watched).then_some(())
    });
    east.kill9();
    east.restart();
    assert_eq!(services(&operator, &east), ["web"]);
}
