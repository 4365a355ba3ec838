//! Who may reach what, as a plan tells beforehand and `explain` afterwards, and as connections find it: by sameness group,
//! from any peer, and with two teams' manifests for one destination.

use integration::{Clusters, LIMIT, Server, free_port, shout, wait_for};

const FRONTEND: &str = r#"service "frontend" {
  port      = 9000
  upstreams = [{ destination_name = "backend", destination_peer = "east", local_bind_port = LOCAL }]
}
"#;

/// East's own file: `backend`, exported to a group that west may be a member of.
fn backend(port: u16, members: &str) -> String {
    format!(
        r#"
service "backend" {{
  port = {port}
}}
sameness_group "partners" {{
  members = [{members}]
}}
exported_services "default" {{
  services = [{{ name = "backend", consumers = [{{ sameness_group = "partners" }}] }}]
}}
"#
    )
}

/// A team's folder within east's cluster, with its own sources of `backend`.
fn team(clusters: &Clusters, name: &str, sources: &str) {
    clusters.write(
        &format!("{name}/access.hcl"),
        &format!(
            "manifest \"{name}\" {{\n  cluster = \"east\"\n}}\nservice_intentions \"backend\" {{\n  sources = [{sources}]\n}}\n"
        ),
    );
}

fn plan(clusters: &Clusters, folders: &[&str]) -> String {
    clusters.run(&[&["plan"], folders].concat()).success().stdout
}

#[test]
fn a_plan_tells_the_pairs_that_are_granted_and_withdrawn_and_so_it_is() {
    let (server, local) = (Server::shouting(), free_port());
    let west = FRONTEND.replace("LOCAL", &local.to_string());
    let clusters = Clusters::linked(&backend(server.port(), "{ peer = \"west\" }"), &west);
    team(&clusters, "sales", "{ name = \"frontend\", sameness_group = \"partners\", action = \"allow\" }");
    let told = plan(&clusters, &["sales"]);
    assert!(told.contains("Access: granted: frontend@west → backend\n"), "{told}");
    clusters.run(&["apply", "sales", "--yes"]).success();
    wait_for("the group lets west in", LIMIT, || (shout(local, "hello").ok()? == "HELLO").then_some(()));

    // Any peer is a weaker word for west than its group is, so it changes nothing for it.
    team(&clusters, "audit", "{ name = \"frontend\", peer = \"*\", action = \"deny\" }");
    assert!(plan(&clusters, &["audit"]).contains("No change in access."));
    clusters.run(&["apply", "audit", "--yes"]).success();
    let explained =
        clusters.run(&["--remote", "east", "explain", "frontend@west", "backend"]).success().stdout;
    let decided = "decided by service_intentions/backend/@partners/frontend (precedence 9), declared by manifest sales in sales/access.hcl";
    assert!(explained.contains(decided), "{explained}");
    let overruled = "overruled: service_intentions/backend/*/frontend (precedence 9), declared by manifest audit in audit/access.hcl";
    assert!(explained.contains(overruled), "{explained}");
    let listed = clusters.run(&["--remote", "east", "explain", "backend"]).success().stdout;
    assert!(listed.contains("backend is exported to west."), "{listed}");
    assert!(listed.contains("9  allow  service_intentions/backend/@partners/frontend"), "{listed}");

    // Out of the group, west has neither the export nor the rule.
    clusters.declare("east", &backend(server.port(), ""));
    let told = plan(&clusters, &["east"]);
    assert!(told.contains("Access: withdrawn: frontend@west → backend\n"), "{told}");
    clusters.apply().success();
    wait_for("west is out", LIMIT, || (shout(local, "hello").unwrap_or_default() != "HELLO").then_some(()));
}

#[test]
fn two_teams_own_their_sources_and_a_quarrel_names_both_files() {
    let clusters = Clusters::start();
    team(&clusters, "sales", "{ name = \"shop\", action = \"allow\" }");
    team(&clusters, "audit", "{ name = \"books\", action = \"allow\" }");
    clusters.run(&["apply", "sales", "audit", "--yes"]).success();
    let allowed = |source: &str| {
        let done = clusters.run(&["--remote", "east", "explain", "--check", source, "backend"]);
        done.stdout.contains("decided by service_intentions/backend/@/") && done.stdout.contains("allowed")
    };
    assert!(allowed("shop") && allowed("books"));

    team(&clusters, "audit", "{ name = \"shop\", action = \"deny\" }");
    // Seen beside one another, and seen on the cluster.
    let both = clusters.run(&["plan", "sales", "audit"]).exits(1).stderr;
    assert!(both.contains("sales/access.hcl") && both.contains("audit/access.hcl"), "{both}");
    let held = clusters.run(&["plan", "audit"]).exits(1).stderr;
    assert!(held.contains("owned by manifest \"sales\"") && held.contains("(in sales/access.hcl)"), "{held}");

    // What one team takes back is its own.
    clusters.write("audit/access.hcl", "manifest \"audit\" {\n  cluster = \"east\"\n}\n");
    clusters.run(&["apply", "audit", "--yes"]).success();
    assert!(allowed("shop") && !allowed("books"));
}
