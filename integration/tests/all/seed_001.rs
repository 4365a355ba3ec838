//! Seed 001, "Establish cluster peering connections", walked word for word: its four steps by Consul's own command, by
//! `comity` with the same command lines, and by HTTP with the bodies that it shows.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use integration::golden::testdata;
use integration::{Agent, Consul, ConsulCommand, Done, LIMIT, Operator, own_only, wait_for};
use serde_json::{Value, json};

/// The two clusters under the names that the seed gives them.
struct World {
    first: Agent,
    second: Agent,
}

impl World {
    fn start() -> Self {
        let (mut first, mut second) = (Agent::prepare("cluster-01"), Agent::prepare("cluster-02"));
        first.launch();
        second.launch();
        first.wait_ready();
        second.wait_ready();
        Self { first, second }
    }

    /// What the seed promises at its end, however one came there.
    fn is_peered(&self) {
        let (first, second) = (Consul::socket(&self.first), Consul::socket(&self.second));
        let of = |consul: &Consul, name: &str| consul.get(&format!("/v1/peering/{name}")).expect(200).json();
        wait_for("both clusters call the peering ACTIVE", LIMIT, || {
            let states = [of(&first, "cluster-02"), of(&second, "cluster-01")];
            states.iter().all(|peering| peering["State"] == "ACTIVE").then_some(())
        });
        wait_for("the export is seen on both sides", LIMIT, || {
            let exported = &of(&first, "cluster-02")["StreamStatus"]["ExportedServices"];
            let imported = &of(&second, "cluster-01")["StreamStatus"]["ImportedServices"];
            (exported == &json!(["service-name"]) && imported == exported).then_some(())
        });
        // The namespace `default` is taken, and is not kept.
        let exports = first.get("/v1/config/exported-services/default").expect(200).json();
        let services = json!([{ "Name": "service-name", "Consumers": [{ "Peer": "cluster-02" }] }]);
        assert_eq!(exports["Services"], services, "{exports}");
        let intentions = first.get("/v1/config/service-intentions/backend-service").expect(200).json();
        let source = json!({ "Name": "frontend-service", "Peer": "cluster-02", "Action": "allow",
            "Precedence": 9, "Type": "consul" });
        assert_eq!(intentions["Sources"], json!([source]), "{intentions}");
        let check = |source: &str| {
            let query = format!("source={source}&destination=backend-service");
            let answer = first.get(&format!("/v1/connect/intentions/check?{query}")).expect(200);
            answer.json()["Allowed"].as_bool().expect("true or false")
        };
        assert!(check("peer:cluster-02/frontend-service"));
        // "If the peer's name is not specified in `Peer`, then Consul assumes that the service is in the local cluster."
        assert!(!check("frontend-service"));
        assert!(!check("peer:cluster-02/other-service"));
        let explained = Operator::new()
            .run_on(&self.first, &["explain", "frontend-service@cluster-02", "backend-service"])
            .success();
        assert!(explained.stdout.contains("allowed"), "{}", explained.stdout);
    }

    /// The four steps by a command line that is Consul's.
    fn walk(&self, first: impl Fn(&[&str]) -> Done, second: impl Fn(&[&str]) -> Done) {
        // "Create a peering token": only the newest is good.
        let generate = ["peering", "generate-token", "-name", "cluster-02"];
        let old = first(&generate).success().stdout.trim().to_owned();
        let token = first(&generate).success().stdout.trim().to_owned();
        assert_ne!(old, token);
        // "A base64-encoded string containing the token details."
        let decoded = STANDARD.decode(&token).expect("base64");
        assert!(serde_json::from_slice::<Value>(&decoded).expect("JSON").is_object());

        // "Establish a connection between clusters"
        let establish = ["peering", "establish", "-name", "cluster-01", "-peering-token"];
        let refused = second(&[&establish[..], &[&old]].concat()).exits(1);
        assert!(refused.stderr.contains("invalid peering establishment secret"), "{}", refused.stderr);
        let done = second(&[&establish[..], &[&token]].concat()).success();
        assert_eq!(done.stdout.trim(), "Successfully established peering connection with cluster-01");
        // "Peering tokens cannot be reused after being used to establish a connection."
        let again = ["peering", "establish", "-name", "cluster-03", "-peering-token", &token];
        second(&again).exits(1);

        // "Export services between clusters", "Authorize services for peers"
        let written = first(&["config", "write", "peering-config.hcl"]).success();
        assert_eq!(written.stdout.trim(), "Config entry written: exported-services/default");
        let written = first(&["config", "write", "peering-intentions.hcl"]).success();
        assert_eq!(written.stdout.trim(), "Config entry written: service-intentions/backend-service");
        self.is_peered();
    }
}

/// Where the seed's two files are.
fn files() -> PathBuf {
    testdata().join("seeds/001")
}

fn file(name: &str) -> String {
    std::fs::read_to_string(files().join(name)).expect("a file of the seed")
}

#[test]
fn by_consuls_own_command() {
    if own_only() {
        return;
    }
    let world = World::start();
    let commands = (ConsulCommand::socket(&world.first), ConsulCommand::socket(&world.second));
    let (Some(first), Some(second)) = commands else { return };
    world.walk(
        |arguments| first.run_with(&files(), arguments, ""),
        |arguments| second.run_with(&files(), arguments, ""),
    );
}

#[test]
fn by_comity_with_the_same_command_lines() {
    let world = World::start();
    let operator = Operator::new();
    let run = |agent: &Agent, arguments: &[&str]| {
        let socket = agent.socket().display().to_string();
        operator.run_in(&files(), &[&["--socket", &socket], arguments].concat())
    };
    world.walk(|arguments| run(&world.first, arguments), |arguments| run(&world.second, arguments));
}

#[test]
fn by_http_with_the_bodies_that_it_shows() {
    let world = World::start();
    let (first, second) = (Consul::socket(&world.first), Consul::socket(&world.second));
    let answer = first.curl("POST", "/v1/peering/token", r#"{"Peer":"cluster-02"}"#).expect(200);
    let token = answer.json()["PeeringToken"].as_str().expect("a token").to_owned();
    let body = json!({ "Peer": "cluster-01", "PeeringToken": token }).to_string();
    let answer = second.curl("POST", "/v1/peering/establish", &body).expect(200);
    assert_eq!(answer.json(), json!({}));

    // "The HTTP API and the Consul UI do not support exported-services": it does here.
    let exports = file("peering-config.hcl");
    assert_eq!(first.curl("PUT", "/v1/config", &exports).expect(200).text().trim(), "true");
    // What `curl --data @FILE` sends has no line ends left. The comments of that file now run to its end.
    let stripped = |text: &str| text.replace(['\r', '\n'], "");
    first.curl("PUT", "/v1/config", &stripped(&exports)).says(400, "--data-binary");
    let intentions = stripped(&file("peering-intentions.hcl"));
    assert_eq!(first.curl("PUT", "/v1/config", &intentions).expect(200).text().trim(), "true");
    world.is_peered();

    // The names that Consul's reference has for the same, and its answer to a token that was used.
    first.curl("POST", "/v1/peering/token", r#"{"PeerName":"cluster-02"}"#).expect(200);
    let body = json!({ "PeerName": "cluster-03", "PeeringToken": token }).to_string();
    second
        .curl("POST", "/v1/peering/establish", &body)
        .says(403, "a new peering token must be generated: invalid peering establishment secret");
    second.get("/v1/peering/cluster-03").expect(404);
    first
        .curl("POST", "/v1/peering/token", r#"{"Per":"cluster-02"}"#)
        .says(400, "Body decoding failed: json: unknown field \"Per\"");
    // A live link is not disturbed by a new token.
    world.is_peered();
}
