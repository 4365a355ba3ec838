//! Two agents with a link between them, one worker thread each.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use integration::{Agent, Clusters, LIMIT, certificate, free_port, wait_for};

use super::contender::Contender;
use super::load;

/// West is A, east is B.
pub struct Ours {
    clusters: Clusters,
    web: u16,
    bulk: u16,
}

impl Ours {
    pub fn start(origin: u16, receiver: u16) -> Self {
        let (web, bulk) = (free_port(), free_port());
        let clusters = Clusters::between(agent("east"), agent("west"));
        clusters
            .declare("east", &format!("{}{}{EXPORTS}", service("web", origin), service("bulk", receiver)));
        clusters.declare(
            "west",
            &format!(
                r#"
service "app" {{
  port      = 9000
  upstreams = [
    {{ destination_name = "web",  destination_peer = "east", local_bind_port = {web} }},
    {{ destination_name = "bulk", destination_peer = "east", local_bind_port = {bulk} }},
  ]
}}
"#
            ),
        );
        clusters.apply().success();
        clusters.wait_active();
        wait_for("the upstream answers", LIMIT, || {
            load::once(&mut TcpStream::connect(("127.0.0.1", web)).ok()?).ok()
        });
        Self { clusters, web, bulk }
    }

    pub fn contender(&self) -> Contender {
        let ends = [&self.clusters.west, &self.clusters.east];
        let processes = ends.map(|agent| agent.pid().expect("the agent runs"));
        Contender::new("ours", self.web, Some(self.bulk), processes.to_vec(), Vec::new())
    }
}

const EXPORTS: &str = r#"
exported_services "default" {
  services = [
    { name = "web",  consumers = [{ peer = "west" }] },
    { name = "bulk", consumers = [{ peer = "west" }] },
  ]
}
"#;

fn service(name: &str, port: u16) -> String {
    format!(
        r#"
service "{name}" {{
  port = {port}
}}
service_intentions "{name}" {{
  sources = [{{ name = "app", peer = "west", action = "allow" }}]
}}
"#
    )
}

/// With a P-256 certificate, as the others have.
fn agent(name: &str) -> Agent {
    let agent = Agent::prepare(name).arguments(&["--worker-threads", "1"]);
    certificate::p256(&agent.data_dir(), "cluster");
    std::fs::set_permissions(agent.data_dir(), std::fs::Permissions::from_mode(0o700)).expect("a folder");
    agent
}
