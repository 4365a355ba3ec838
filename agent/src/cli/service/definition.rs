//! Consul's service definition files: `service { … }`, several of them, or `services = [ … ]`, in HCL or JSON.
//!
//! The agent judges what is in them. Here keys become what JSON calls them (`tagged_addresses` is `taggedaddresses`,
//! which the agent reads in any case), and what HCL writes as a block becomes the one object that it is.

use std::path::Path;
use std::sync::Arc;

use schema::diagnostic::{Sources, has_errors};
use schema::document::{Content, Node, Syntax, Table, Value, parse_entries};
use schema::render::Colour;
use schema::render::diagnostic::text;
use serde_json::{Map, Value as Json};

use crate::cli::CliError;

/// Largest file of definitions, bytes.
const MAX_FILE: usize = 4 * 1024 * 1024;

/// Keys whose value is a list, whatever it looks like in HCL.
const LISTS: [&str; 5] = ["checks", "tags", "upstreams", "args", "scriptargs"];
/// Keys whose value has keys of the user's own.
const FREE: [&str; 5] = ["meta", "header", "taggedaddresses", "config", "opaqueconfig"];

/// The definitions in the file at `path`, as they are sent.
pub fn read(path: &Path) -> Result<Vec<Json>, CliError> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        CliError::failed(format!("Failed to read the service definitions in {shown}: {error}"))
    })?;
    parse(&shown.to_string(), &bytes)
}

/// The definitions in `bytes`, which are the file at `path`.
fn parse(path: &str, bytes: &[u8]) -> Result<Vec<Json>, CliError> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let syntax = if first == Some(&b'{') { Syntax::Json } else { Syntax::Hcl };
    let name: Arc<str> = path.into();
    let parsed = parse_entries(&name, bytes, syntax, MAX_FILE);
    if has_errors(&parsed.diagnostics) {
        let sources = Sources([(name, parsed.source)].into());
        let faults = text(&parsed.diagnostics, &sources, Colour::Never);
        return Err(CliError::failed(format!("Failed to read the service definitions in {path}:\n{faults}")));
    }
    let tables = match parsed.document.map(|document| document.content) {
        Some(Content::Entries(tables)) => tables,
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    for (key, node) in tables.iter().flat_map(|table| &table.0) {
        let items = match (key.text.to_ascii_lowercase().as_str(), &node.value) {
            ("service" | "services", Value::List(items)) => items.as_slice(),
            ("service" | "services", _) => std::slice::from_ref(node),
            _ => {
                let word = schema::diagnostic::secret::quoted(&key.text);
                let message = format!("{path}: {word} is neither \"service\" nor \"services\"");
                return Err(CliError::failed(message));
            }
        };
        for item in items {
            let Value::Table(table) = &item.value else {
                return Err(CliError::failed(format!("{path}: a service is an object")));
            };
            let mut definition = object(table, Keys::Known);
            // What the agent knows the caller by is not in a file beside it.
            definition.remove("token");
            found.push(Json::Object(definition));
        }
    }
    if found.is_empty() {
        return Err(CliError::failed(format!("{path} defines no service")));
    }
    Ok(found)
}

/// Whose the keys of an object are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    Known,
    Free,
}

fn object(table: &Table, keys: Keys) -> Map<String, Json> {
    let entry = |(key, node): &(schema::document::Key, Node)| {
        if keys == Keys::Free {
            return (key.text.clone(), value(node, "", Keys::Known));
        }
        let name: String = key.text.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect();
        let inside = if FREE.contains(&name.as_str()) { Keys::Free } else { Keys::Known };
        let value = value(node, &name, inside);
        (name, value)
    };
    table.0.iter().map(entry).collect()
}

fn value(node: &Node, name: &str, inside: Keys) -> Json {
    match &node.value {
        Value::Null | Value::Faulty => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Integer(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::String(text) => text.as_str().into(),
        // A block is a list of one object in HCL.
        Value::List(items) if !LISTS.contains(&name) => match &items[..] {
            [only @ Node { value: Value::Table(_), .. }] => value(only, name, inside),
            _ => items.iter().map(|item| value(item, "", inside)).collect(),
        },
        Value::List(items) => items.iter().map(|item| value(item, "", Keys::Known)).collect(),
        Value::Table(table) => {
            let object = Json::Object(object(table, inside));
            if LISTS.contains(&name) { Json::Array(vec![object]) } else { object }
        }
    }
}

/// The value of `key` as a text, if it is one.
pub fn text_of<'a>(definition: &'a Json, key: &str) -> &'a str {
    let found = definition.as_object().and_then(|fields| fields.get(key));
    found.and_then(Json::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn definitions_are_read_as_consul_writes_them() {
        let hcl = r#"
            service {
              name = "web"
              id   = "web-1"
              port = 80
              token = "secret"
              meta { team_name = "a" }
              tagged_addresses { lan = { address = "10.0.0.1", port = 80 } }
              check { http = "http://127.0.0.1/", interval = "10s", tls_skip_verify = true }
              connect { sidecar_service { proxy { upstreams { destination_name = "db", local_bind_port = 9191 } } } }
            }
            service { name = "db" }
        "#;
        let found = parse("a.hcl", hcl.as_bytes()).unwrap();
        assert_eq!(
            found[0],
            json!({
                "name": "web", "id": "web-1", "port": 80, "meta": {"team_name": "a"},
                "taggedaddresses": {"lan": {"address": "10.0.0.1", "port": 80}},
                "check": {"http": "http://127.0.0.1/", "interval": "10s", "tlsskipverify": true},
                "connect": {"sidecarservice": {"proxy": {"upstreams": [
                    {"destinationname": "db", "localbindport": 9191}]}}},
            })
        );
        assert_eq!(text_of(&found[1], "name"), "db");
        let json =
            r#"{"services": [{"Name": "a", "Checks": [{"CheckID": "x", "TTL": "5s"}]}, {"name": "b"}]}"#;
        let found = parse("a.json", json.as_bytes()).unwrap();
        assert_eq!(found[0], json!({"name": "a", "checks": [{"checkid": "x", "ttl": "5s"}]}));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn what_defines_nothing_is_told_with_its_place() {
        for (text, part) in [
            ("", "a.hcl defines no service"),
            ("check { name = \"x\" }", "a.hcl: \"check\" is neither"),
            ("service = 1", "a service is an object"),
            ("service {", "Failed to read the service definitions in a.hcl:\nerror"),
        ] {
            let message = parse("a.hcl", text.as_bytes()).unwrap_err().message;
            assert!(message.contains(part), "{message}");
        }
    }
}
