//! py-consul 1.8, unmodified, against an agent: over plain HTTP with a token, and over mutual TLS. It speaks to no
//! unix socket.

use std::path::Path;

use integration::http::der_base64;
use integration::{Agent, Clusters, Consul, Http, own_only, py_consul, python};
use serde_json::json;

const EVERYDAY: &str = include_str!("py_consul/everyday.py");
const IMPORTED: &str = include_str!("py_consul/imported.py");

/// What py-consul is told to reach this agent by mutual TLS: a port, a certificate that was added as unrestricted, its
/// key, what the agent shows, and the name in that.
fn mutual(agent: &Agent, folder: &Path) -> [String; 5] {
    let pair = integration::certificate::p256(folder, "client");
    let body = json!({ "type": "client", "name": "python", "certificate": der_base64(&pair) });
    Http::socket(agent).post("/1.0/certificates", &body).expect(201);
    let path = |name: &str| folder.join(name).display().to_string();
    let port = agent.address().rsplit_once(':').expect("an address has a port").1.to_owned();
    let shown = agent.data_dir().join("cluster.crt").display().to_string();
    [port, path("client.crt"), path("client.key"), shown, agent.name().to_owned()]
}

#[test]
fn py_consul_works_over_plain_http_with_a_token() {
    let (false, Some(interpreter)) = (own_only(), py_consul()) else { return };
    let (agent, port) = Consul::agent("east");
    let token = Consul::token(&agent, "python", &[("server", "admin")]);
    let done = python(&interpreter, EVERYDAY, &[&port.to_string(), &token]).success();
    assert_eq!(done.stdout.trim(), "done");
    assert!(!agent.log().contains(&token), "the token is in the log");
}

#[test]
fn py_consul_works_over_mutual_tls() {
    let (false, Some(interpreter)) = (own_only(), py_consul()) else { return };
    let agent = Agent::start("east");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let arguments = mutual(&agent, folder.path());
    let done = python(&interpreter, EVERYDAY, &arguments.each_ref().map(String::as_str)).success();
    assert_eq!(done.stdout.trim(), "done");
}

#[test]
fn py_consul_sees_what_a_peer_exports() {
    let (false, Some(interpreter)) = (own_only(), py_consul()) else { return };
    let clusters = Clusters::linked(
        r#"
service "backend" {
  port = 9090
}
exported_services "default" {
  services = [{ name = "backend", consumers = [{ peer = "west" }] }]
}
"#,
        "",
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mutual = mutual(&clusters.west, folder.path());
    let arguments = [mutual.each_ref().map(String::as_str).as_slice(), &["east", "backend"]].concat();
    let done = python(&interpreter, IMPORTED, &arguments).success();
    assert_eq!(done.stdout.trim(), "done");
}
