//! The agents that the cases share. What a case left is cleared after it.

use integration::{Agent, Consul, LIMIT, Operator, wait_for};
use serde_json::Value;

pub struct World {
    pub agent: Agent,
    pub consul: Consul,
    pub operator: Operator,
    /// Another cluster.
    pub other: Agent,
    pub other_consul: Consul,
}

const KINDS: [&str; 4] = ["exported-services", "service-intentions", "sameness-group", "service-defaults"];

impl World {
    pub fn new() -> Self {
        let (agent, other) = (Agent::start("east"), Agent::start("west"));
        let (consul, other_consul) = (Consul::socket(&agent), Consul::socket(&other));
        Self { agent, consul, operator: Operator::new(), other, other_consul }
    }

    /// A token for this cluster, as the other one makes it.
    pub fn token(&self, peer: &str) -> String {
        let body = serde_json::json!({ "PeerName": peer });
        let answer = self.other_consul.post("/v1/peering/token", &body).expect(200).json();
        answer["PeeringToken"].as_str().expect("a token").to_owned()
    }

    /// Takes away whatever a case has made.
    pub fn clear(&self) {
        // Permissions go before the protocol that they need.
        for kind in KINDS {
            for entry in list(&self.consul, &format!("/v1/config/{kind}")) {
                let name = entry["Name"].as_str().unwrap_or_default();
                self.consul.delete(&format!("/v1/config/{kind}/{name}"));
            }
        }
        let services = self.consul.get("/v1/agent/services");
        let services = if services.status == 200 { services.json() } else { Value::Null };
        for (id, _) in services.as_object().into_iter().flatten() {
            self.consul.send("PUT", &format!("/v1/agent/service/deregister/{id}"), &[], None);
        }
        for consul in [&self.consul, &self.other_consul] {
            for peering in list(consul, "/v1/peerings") {
                let name = peering["Name"].as_str().unwrap_or_default();
                consul.delete(&format!("/v1/peering/{name}")).expect(200);
            }
        }
        for consul in [&self.consul, &self.other_consul] {
            wait_for("peerings are gone", LIMIT, || list(consul, "/v1/peerings").is_empty().then_some(()));
        }
    }
}

fn list(consul: &Consul, path: &str) -> Vec<Value> {
    let answer = consul.get(path);
    if answer.status == 200 { answer.json().as_array().cloned().unwrap_or_default() } else { Vec::new() }
}
