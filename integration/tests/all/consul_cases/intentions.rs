//! Intentions: their order, who they match, and what is decided by them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::world::World;
use super::{Failure, compare, says};

const UUID: &str = "11111111-2222-3333-4444-555555555555";

/// Writes the intentions, one entry for each destination.
fn declare(world: &World, rows: &[Value]) {
    let mut entries: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for row in rows {
        let destination = row["Destination"].as_str().or(row["Dst"].as_str()).expect("a destination");
        let source = row["Source"].as_str().or(row["Src"].as_str()).expect("a source");
        let mut source = json!({ "Name": source, "Action": row["Action"].as_str().unwrap_or("allow") });
        for key in ["Peer", "SamenessGroup"] {
            if let Some(value) = row.get(key) {
                source[key] = value.clone();
            }
        }
        entries.entry(destination).or_default().push(source);
    }
    for (name, sources) in entries {
        let entry = json!({ "Kind": "service-intentions", "Name": name, "Sources": sources });
        world.consul.put("/v1/config", &entry).expect(200);
    }
}

/// Writes whole entries; a destination whose sources have permissions speaks HTTP.
fn write_all(world: &World, entries: &Value) {
    for entry in entries.as_array().into_iter().flatten() {
        if entry.to_string().contains("Permissions") {
            let defaults = json!({ "Kind": "service-defaults", "Name": entry["Name"], "Protocol": "http" });
            world.consul.put("/v1/config", &defaults).expect(200);
        }
        world.consul.put("/v1/config", entry).expect(200);
    }
}

pub fn precedence(world: &World, input: &Value, expect: &Value) -> Result<(), Failure> {
    if let Some(rows) = input["sort"].as_array() {
        if rows.iter().any(|row| row.get("SrcNS").is_some()) {
            return Err("there is one namespace".to_owned());
        }
        declare(world, rows);
        let listed = world.consul.get("/v1/connect/intentions").expect(200).json();
        let wanted = expect["ok"].as_array().expect("rows").iter().map(|row| {
            let mut wanted = json!({ "SourceName": row["Src"], "DestinationName": row["Dst"] });
            for (from, to) in [("Peer", "SourcePeer"), ("SamenessGroup", "SourceSamenessGroup")] {
                if let Some(value) = row.get(from) {
                    wanted[to] = value.clone();
                }
            }
            wanted
        });
        let wanted = Value::Array(wanted.collect());
        return if says(&listed, &wanted) { Ok(()) } else { Err(format!("listed {listed}")) };
    }
    let name = |key: &str| input[key].as_str().unwrap_or_default();
    if ["source_ns", "destination_ns"].iter().any(|key| input[*key] == "*") {
        return Err("there is one namespace".to_owned());
    }
    let (source, destination) = (name("source"), name("destination"));
    declare(world, &[json!({ "Source": source, "Destination": destination })]);
    let path = format!("/v1/connect/intentions/exact?source={source}&destination={destination}");
    let found = world.consul.get(&path).expect(200).json()["Precedence"].clone();
    if found == expect["ok"] { Ok(()) } else { Err(format!("its precedence is {found}")) }
}

/// The grammar of a source.
pub fn parse(world: &World, input: &Value, expect: &Value) -> Result<(), Failure> {
    let path = format!(
        "/v1/connect/intentions/exact?source={}&destination=nobody",
        input["parse"].as_str().unwrap_or_default()
    );
    let answer = world.consul.get(&path);
    match expect["error"].as_str() {
        Some(error) if answer.text().contains(error) => Ok(()),
        // What can be read names an intention that is not there.
        None if answer.status == 404 && answer.text() == "Intention not found" => Ok(()),
        _ => Err(format!("{} {}", answer.status, answer.text())),
    }
}

/// A question, by its own words or by what is asked.
pub fn ask(world: &World, input: &Value, expect: &Value) -> Result<(), Failure> {
    declare(world, input["intentions"].as_array().map_or(&[], Vec::as_slice));
    write_all(world, &input["entries"]);
    let asked = input["http"].as_str().map(str::to_owned);
    let pair = input.get("check").or(input.get("decide"));
    let asked = asked.unwrap_or_else(|| match (pair, input["by"].as_str()) {
        (Some(pair), _) => {
            let name = |key: &str| pair[key].as_str().unwrap_or_default().to_owned();
            let (source, destination) = (name("source"), name("destination"));
            format!("GET /v1/connect/intentions/check?source={source}&destination={destination}")
        }
        (None, by) => {
            let names = input["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let names: String = names.flat_map(|name| ["&name=", name]).collect();
            format!("GET /v1/connect/intentions/match?by={}{names}", by.unwrap_or_default())
        }
    });
    let asked = asked.replace("<unknown uuid>", UUID);
    let (method, path) = asked.split_once(' ').expect("METHOD PATH");
    let body =
        input.get("body").filter(|body| !body.is_null()).map(|body| body.to_string().replace("<uuid>", UUID));
    let body = body.or_else(|| input["body_raw"].as_str().map(str::to_owned));
    let body = body.map(|body| {
        body.replace("<valid>", &if body.contains("<valid>") { world.token("east") } else { String::new() })
    });
    let answer = world.consul.send(method, path, &[], body.as_deref());
    compare(&answer, expect, |ok| {
        if let (Some(status), Some(text)) = (ok["status"].as_u64(), ok["body"].as_str()) {
            let right = u64::from(answer.status) == status && answer.text().trim() == text;
            return if right { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) };
        }
        let mut wanted = ok.clone();
        // The store's own word, which no request shows.
        if let Some(wanted) = wanted.as_object_mut() {
            wanted.remove("HasExact");
            for rows in wanted.values_mut().filter_map(Value::as_array_mut) {
                for row in rows.iter_mut().filter_map(Value::as_object_mut) {
                    for (from, to) in [("Source", "SourceName"), ("Destination", "DestinationName")] {
                        if let Some(value) = row.remove(from) {
                            row.insert(to.to_owned(), value);
                        }
                    }
                }
            }
        }
        let found = answer.json();
        if says(&found, &wanted) { Ok(()) } else { Err(format!("expected {wanted}; got {found}")) }
    })
}

/// An intention that is created as Consul's older clients do it.
pub fn legacy(world: &World, input: &Value, expect: &Value) -> Result<(), Failure> {
    let answer = world.consul.post("/v1/connect/intentions", &input["legacy_intention"]);
    compare(&answer, expect, |_| Ok(()))
}

/// What a peer is offered.
pub fn exported(world: &World, input: &Value, expect: &Value) -> Result<(), Failure> {
    write_all(world, &input["entries"]);
    let listed = world.consul.get("/v1/exported-services").expect(200).json();
    if listed == expect["ok"] { Ok(()) } else { Err(format!("listed {listed}")) }
}
