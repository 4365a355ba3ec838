//! Config entries, written over HTTP and read back.

use serde_json::{Value, json};

use super::world::World;
use super::{Failure, compare, says};

/// Writes the entry, and where it is taken reads it back.
pub fn write(world: &World, input: &Value, expect: &Value) -> Result<(), Failure> {
    let consul = &world.consul;
    let entry = input.get("config");
    if input.to_string().to_lowercase().contains("permissions") {
        // These cases look at the entry alone; Consul, as we do, asks the destination's protocol when it is stored.
        // Where the name is none, so is the protocol's.
        let name = entry.and_then(|entry| entry["Name"].as_str()).unwrap_or("web");
        consul.put("/v1/config", &json!({ "Kind": "service-defaults", "Name": name, "Protocol": "http" }));
    }
    let answer = match (entry, input.get("hcl").and_then(Value::as_str)) {
        (Some(entry), _) => consul.put("/v1/config", entry),
        (None, Some(hcl)) => consul.curl("PUT", "/v1/config", hcl),
        (None, None) => consul.send("PUT", "/v1/config", &[], input["raw"].as_str()),
    };
    compare(&answer, expect, |ok| {
        if !ok.is_object() {
            return Ok(());
        }
        let field = |name: &str| {
            let known = ok[name].as_str().map(str::to_owned);
            let given = entry.and_then(|entry| entry[name].as_str().map(str::to_owned));
            known.or(given)
        };
        let kind = field("Kind").unwrap_or_else(|| "service-intentions".to_owned());
        let name = field("Name").unwrap_or_else(|| "default".to_owned());
        let read = consul.get(&format!("/v1/config/{kind}/{name}"));
        if read.status == 200 && says(&read.json(), ok) {
            return Ok(());
        }
        Err(format!("expected {ok}; read {} {}", read.status, read.text()))
    })
}

/// Writes and deletions with a `cas`.
pub fn conditional(world: &World, id: &str, input: &Value, expect: &Value) -> Result<(), Failure> {
    let consul = &world.consul;
    let entry = |protocol: &str| json!({ "Kind": "service-defaults", "Name": "foo", "Protocol": protocol });
    let path = "/v1/config/service-defaults/foo";
    let index = || consul.get(path).json()["ModifyIndex"].as_u64().expect("an index");
    let answer = match id {
        "cas-011" => consul.get("/v1/config/service-defaults/absent"),
        "cas-008" => {
            consul.put("/v1/config", &entry("http")).expect(200);
            consul.delete(&format!("{path}?cas={}", index()))
        }
        "cas-010" => consul.delete(path),
        _ => {
            let mut cas = input["cas"].as_u64().expect("a cas");
            if input["existing_modify_index"].is_u64() {
                consul.put("/v1/config", &entry("http")).expect(200);
                cas = index() - 1;
            }
            consul.put(&format!("/v1/config?cas={cas}"), &entry("tcp"))
        }
    };
    compare(&answer, expect, |ok| {
        let right = ok["status"].as_u64() == Some(answer.status.into()) && answer.json() == ok["body"];
        if right { Ok(()) } else { Err(format!("expected {ok}; {} {}", answer.status, answer.text())) }
    })
}
