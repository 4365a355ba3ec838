//! Declarations from file to cluster: three formats that mean the same, the seeds' files as they are, a plan that is
//! empty after every apply, and what one manifest's removal takes away.

use std::path::{Path, PathBuf};

use integration::{Agent, Clusters, Operator};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// `path` within the repository, as an argument.
fn argument(path: &str) -> String {
    repository(path).to_str().expect("the repository's path is UTF-8").to_owned()
}

/// Applies `paths`, then holds the plan to be empty.
#[track_caller]
fn applies_for_good(operator: &Operator, paths: &[&str]) {
    operator.run(&[&["apply", "--yes"], paths].concat()).success();
    let again = operator.run(&[&["plan", "--detailed-exitcode"], paths].concat()).exits(0);
    assert!(again.stdout.starts_with("No changes."), "{}", again.stdout);
    let applied = operator.run(&[&["apply", "--yes"], paths].concat()).success();
    assert!(applied.stdout.contains("No changes."), "{}", applied.stdout);
}

#[test]
fn one_folder_in_three_formats_plans_alike_and_is_applied_for_good() {
    let clusters = Clusters::start();
    let folders =
        |format: &str| ["east", "west"].map(|side| argument(&format!("testdata/formats/{format}/{side}")));
    let plan = |format: &str| {
        let [east, west] = folders(format);
        clusters.run(&["plan", "--detailed-exitcode", &east, &west]).exits(2).stdout
    };
    let wanted = plan("hcl");
    assert_eq!(plan("toml"), wanted);
    assert_eq!(plan("json"), wanted);

    for format in ["hcl", "toml", "json"] {
        let [east, west] = folders(format);
        applies_for_good(&clusters.operator, &[&east, &west]);
    }
}

#[test]
fn the_example_is_applied_for_good() {
    let clusters = Clusters::start();
    let (east, west) =
        (argument("examples/two-clusters/east/shop.hcl"), argument("examples/two-clusters/west/shop.hcl"));
    applies_for_good(&clusters.operator, &[&east, &west]);
}

#[test]
fn the_files_of_consuls_page_are_taken_unchanged() {
    let agent = Agent::start("east");
    let operator = Operator::new();
    operator.trusted_by(&agent);
    let seeds = argument("testdata/seeds/001");

    // As Consul does, entries are taken before their peer exists; the link may come later, by hand.
    applies_for_good(&operator, &[&seeds]);
    operator.run(&["link", "create", "cluster-02"]).success();
    operator.run(&["plan", "--detailed-exitcode", &seeds]).exits(0);
    let explained = operator.run(&["explain", "frontend-service@cluster-02", "backend-service"]).success();
    assert!(explained.stdout.contains("allowed"), "{}", explained.stdout);
}

#[test]
fn a_removed_block_takes_exactly_what_its_manifest_owned() {
    let clusters = Clusters::start();
    let shop = |sources: &str, extra: &str| {
        format!(
            "manifest \"shop\" {{ cluster = \"east\" }}\nservice \"web\" {{ port = 9090 }}\n\
             service_intentions \"web\" {{\n  sources = [{sources}]\n}}\n{extra}"
        )
    };
    let allow = |name: &str| format!("{{ name = \"{name}\", action = \"allow\" }}");
    let volume = "volume \"default/orders\" {}\n";
    clusters.write("shop/shop.hcl", &shop(&[allow("a"), allow("b")].join(", "), volume));
    clusters.write(
        "team/team.hcl",
        "manifest \"team\" { cluster = \"east\" }\n\
         service_intentions \"web\" {\n  sources = [{ name = \"c\", action = \"allow\" }]\n}\n",
    );
    clusters.run(&["apply", "shop", "team", "--yes"]).success();
    clusters.write("data/order", "twelve eggs\n");
    clusters.run(&["volume", "import", "east:default/orders", "data"]).success();

    clusters.write("shop/shop.hcl", &shop(&allow("a"), ""));
    let applied = clusters.run(&["apply", "shop", "--yes"]).success();
    assert!(applied.stdout.contains("1 to change"), "{}", applied.stdout);
    assert!(applied.stdout.contains("1 to forget"), "{}", applied.stdout);
    for (source, decided) in [("a", "allowed"), ("b", "denied"), ("c", "allowed")] {
        let explained = clusters.run(&["--remote", "east", "explain", source, "web"]).stdout;
        assert!(explained.lines().next().unwrap_or_default().ends_with(decided), "{explained}");
    }

    // Forgotten, not destroyed: declared again, the volume has its data.
    clusters.write("shop/shop.hcl", &shop(&allow("a"), volume));
    clusters.run(&["apply", "shop", "--yes"]).success();
    clusters.run(&["volume", "export", "east:default/orders", "kept"]).success();
    assert_eq!(std::fs::read_to_string(clusters.path("kept/order")).expect("the data"), "twelve eggs\n");

    clusters.write("shop/shop.hcl", &shop(&allow("a"), ""));
    clusters.run(&["apply", "shop", "--yes", "--destroy-data"]).success();
    clusters.write("shop/shop.hcl", &shop(&allow("a"), volume));
    clusters.run(&["apply", "shop", "--yes"]).success();
    clusters.run(&["volume", "export", "east:default/orders", "gone"]).success();
    assert!(!clusters.path("gone/order").exists(), "destroyed data is gone");
}

#[test]
fn what_another_manifest_owns_is_refused_with_both_names() {
    let clusters = Clusters::start();
    let manifest = |name: &str| {
        format!("manifest \"{name}\" {{ cluster = \"east\" }}\nservice \"web\" {{ port = 9090 }}\n")
    };
    clusters.write("one/a.hcl", &manifest("one"));
    clusters.write("two/a.hcl", &manifest("two"));
    let both = clusters.run(&["apply", "one", "two", "--yes"]).exits(1);
    assert!(both.stderr.contains("one/a.hcl") && both.stderr.contains("two/a.hcl"), "{}", both.stderr);

    clusters.run(&["apply", "one", "--yes"]).success();
    let refused = clusters.run(&["apply", "two", "--yes"]).exits(1);
    assert!(refused.stderr.contains("service/web") && refused.stderr.contains("one"), "{}", refused.stderr);
}

#[test]
fn faulty_declarations_change_nothing_and_are_all_told() {
    let clusters = Clusters::start();
    clusters.declare("east", "service \"backend\" { prot = 9090 }\nservice \"other\" { port = \"many\" }\n");
    clusters.declare("west", "exported_services \"default\" { services = [{ name = \"x\", consumers = [{ peer = \"nowhere\" }] }] }\n");
    let validated = clusters.run(&["validate", "east", "west"]).exits(1);
    for told in ["prot", "port", "east/shop.hcl:", "many", "nowhere", "west/shop.hcl:"] {
        assert!(validated.stderr.contains(told), "{told} is not in\n{}", validated.stderr);
    }
    let applied = clusters.apply().exits(1);
    assert!(applied.stderr.contains("prot"), "{}", applied.stderr);
    for side in ["east", "west"] {
        assert_eq!(clusters.ask(side, &["link", "list"]), serde_json::json!([]));
    }

    let json = clusters.run(&["validate", "east", "west", "--format", "json"]).exits(1).json();
    assert_eq!(json["valid"], false);
    assert_eq!(
        json["diagnostics"].as_array().map(Vec::len),
        json["error_count"].as_u64().map(|n| usize::try_from(n).expect("few"))
    );
    assert!(json["diagnostics"][0]["range"]["start"]["line"].is_u64(), "{json}");
}
