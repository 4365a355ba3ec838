//! A record, or an entry of several, as the block that declares it: in HCL for people, as an object for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hcl::format::{Format, Formatter};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::diagnostic::secret::masked;
use crate::kind::auth_group::AuthGroup;
use crate::kind::cluster_link::ClusterLink;
use crate::kind::exported_services::Consumer;
use crate::kind::service::{Check, Initial, Probe, Service, Target, Upstream, Weights};
use crate::kind::service_intentions::IntentionSource;
use crate::kind::transfer::{Connect, Consistency, Snapshots, Transfer};
use crate::origin::Origin;
use crate::record::{Record, RecordKey};
use crate::render::visible;

/// The block that declares this record alone.
pub fn hcl(key: &RecordKey, record: &Record) -> String {
    let name = match key {
        RecordKey::Instance { service, .. } => service.to_string(),
        key => key.entry_name(),
    };
    let mut text = format!("{} \"{name}\" {{\n", key.kind());
    let attributes = attributes(&BTreeMap::from([(key, record)]));
    let width = attributes.keys().map(String::len).max().unwrap_or_default();
    for (name, value) in &attributes {
        let lines = lines(value);
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {name:width$} = {}", lines.join("\n  "));
    }
    text.push_str("}\n");
    text
}

/// What a block with these records would say, by attribute, in the order in which people write them. Attributes that
/// say nothing (an empty description) are left out.
pub fn attributes(parts: &BTreeMap<&RecordKey, &Record>) -> Map<String, Value> {
    let mut attributes = Map::new();
    for (key, record) in parts {
        match record {
            Record::AuthGroup(group) => auth_group(&mut attributes, group),
            Record::ClusterLink(link) => cluster_link(&mut attributes, link),
            Record::Service(service) => {
                if let RecordKey::Instance { id, .. } = key {
                    set(&mut attributes, "id", id);
                }
                describe_service(&mut attributes, service);
            }
            Record::ExportedServices(export) => {
                let RecordKey::Export(service) = key else { continue };
                let consumers = export.consumers.iter().map(|consumer| match consumer {
                    Consumer::Peer(peer) => json!({ "peer": peer }),
                    Consumer::Group(group) => json!({ "sameness_group": group }),
                });
                let consumers: Vec<Value> = consumers.collect();
                push(&mut attributes, "services", json!({ "name": service, "consumers": consumers }));
            }
            Record::ServiceIntentions(rule) => {
                let RecordKey::Intention { origin, source, .. } = key else { continue };
                let mut row = Map::new();
                set(&mut row, "name", source);
                match origin {
                    Origin::Local => {}
                    Origin::Peer(peer) => set(&mut row, "peer", peer),
                    Origin::Group(group) => set(&mut row, "sameness_group", group),
                    Origin::AnyPeer => set(&mut row, "peer", "*"),
                }
                intention(&mut row, rule);
                push(&mut attributes, "sources", Value::Object(row));
            }
            Record::SamenessGroup(group) => {
                let members: Vec<Value> = group.members.iter().map(|peer| json!({ "peer": peer })).collect();
                set(&mut attributes, "members", members);
                set_if(&mut attributes, "include_local", group.include_local);
                set_if(&mut attributes, "default_for_failover", group.default_for_failover);
                set(&mut attributes, "meta", &group.meta);
            }
            Record::ServiceDefaults(defaults) => {
                set(&mut attributes, "protocol", defaults.protocol);
                set(&mut attributes, "meta", &defaults.meta);
            }
            Record::ExportEntry(entry) | Record::IntentionEntry(entry) => {
                set(&mut attributes, "meta", &entry.meta);
                if !entry.jwt.is_empty() {
                    set(&mut attributes, "jwt", &entry.jwt);
                }
            }
            Record::Volume(volume) => {
                set(&mut attributes, "description", &volume.description);
                set(&mut attributes, "config", &volume.config);
            }
            Record::Transfer(transfer) => describe_transfer(&mut attributes, transfer),
        }
    }
    attributes
}

fn auth_group(attributes: &mut Map<String, Value>, group: &AuthGroup) {
    set(attributes, "description", &group.description);
    set(attributes, "permissions", &group.permissions);
}

fn cluster_link(attributes: &mut Map<String, Value>, link: &ClusterLink) {
    set(attributes, "description", &link.description);
    set(attributes, "type", link.kind);
    set(attributes, "cluster", &link.cluster);
    set(attributes, "auth_groups", &link.auth_groups);
    set(attributes, "address", &link.address);
    set(attributes, "fingerprint", &link.fingerprint);
    set(attributes, "config", &link.config);
}

fn describe_transfer(attributes: &mut Map<String, Value>, transfer: &Transfer) {
    set(attributes, "source", transfer.source.to_string());
    set(attributes, "snapshot", &transfer.snapshot);
    set(attributes, "target", transfer.target.to_string());
    set(attributes, "mode", transfer.mode);
    if transfer.connect != Connect::default() {
        set(attributes, "connect", transfer.connect);
    }
    set_if(attributes, transfer.source.alone(), transfer.snapshots == Snapshots::None);
    set_if(attributes, "prune", transfer.snapshots == Snapshots::Pruned);
    set_if(attributes, "allow_inconsistent", transfer.consistency == Consistency::AllowInconsistent);
}

fn describe_service(attributes: &mut Map<String, Value>, service: &Service) {
    set(attributes, "port", service.port);
    set(attributes, "address", &service.address);
    set(attributes, "socket_path", &service.socket_path);
    set(attributes, "tags", &service.tags);
    set(attributes, "meta", &service.meta);
    let tagged = service.tagged_addresses.iter().map(|(name, tagged)| {
        let mut row = Map::new();
        set(&mut row, "address", &tagged.address);
        set(&mut row, "port", (tagged.port > 0).then_some(tagged.port));
        (name.clone(), Value::Object(row))
    });
    set(attributes, "tagged_addresses", tagged.collect::<Map<_, _>>());
    if service.weights != Weights::default() {
        set(attributes, "weights", service.weights);
    }
    set(attributes, "enable_tag_override", service.enable_tag_override.then_some(true));
    set(attributes, "connect", service.connect_native.then(|| json!({ "native": true })));
    set(attributes, "proxy_protocol", service.proxy_protocol);
    set(attributes, "checks", service.checks.iter().map(check).collect::<Vec<_>>());
    set(attributes, "upstreams", service.upstreams.iter().map(upstream).collect::<Vec<_>>());
}

fn check(check: &Check) -> Value {
    let mut row = Map::new();
    set(&mut row, "id", &check.id);
    set(&mut row, "name", &check.name);
    set(&mut row, "notes", &check.notes);
    match &check.probe {
        Probe::Tcp(target) => set(&mut row, "tcp", target),
        Probe::Http(url) => set(&mut row, "http", url),
        Probe::Ttl(ttl) => set(&mut row, "ttl", duration(*ttl)),
    }
    if let Some(request) = &check.request {
        set(&mut row, "method", &request.method);
        // A header is where credentials are.
        let header = request
            .header
            .iter()
            .map(|(name, values)| (name, values.iter().map(|value| masked(value)).collect::<Vec<_>>()));
        set(&mut row, "header", header.collect::<BTreeMap<_, _>>());
        set(&mut row, "body", &request.body);
        set(&mut row, "tls_server_name", &request.tls_server_name);
        set(&mut row, "tls_skip_verify", request.tls_skip_verify.then_some(true));
    }
    if !matches!(check.probe, Probe::Ttl(_)) {
        set(&mut row, "interval", duration(check.interval_ms));
        set(&mut row, "timeout", duration(check.timeout_ms));
    }
    set(&mut row, "status", (check.status != Initial::Critical).then_some(check.status));
    let thresholds = check.thresholds;
    for (name, count) in [
        ("success_before_passing", thresholds.success_before_passing),
        ("failures_before_warning", thresholds.failures_before_warning),
        ("failures_before_critical", thresholds.failures_before_critical),
    ] {
        set(&mut row, name, (count > 0).then_some(count));
    }
    let after = check.deregister_after_ms;
    set(&mut row, "deregister_critical_service_after", (after > 0).then(|| duration(after)));
    Value::Object(row)
}

fn upstream(upstream: &Upstream) -> Value {
    let mut row = Map::new();
    set(&mut row, "destination_name", &upstream.destination_name);
    set(&mut row, "destination_peer", &upstream.destination_peer);
    set(&mut row, "sameness_group", &upstream.sameness_group);
    set(&mut row, "failover", upstream.failover.iter().map(target).collect::<Vec<_>>());
    set(&mut row, "local_bind_address", &upstream.local_bind_address);
    set(&mut row, "local_bind_port", (upstream.local_bind_port > 0).then_some(upstream.local_bind_port));
    set(&mut row, "local_bind_socket_path", &upstream.local_bind_socket_path);
    set(&mut row, "local_bind_socket_mode", upstream.local_bind_socket_mode);
    set(&mut row, "allowed_uids", &upstream.allowed_uids);
    Value::Object(row)
}

fn target(target: &Target) -> Value {
    let mut row = Map::new();
    set(&mut row, "name", &target.name);
    set(&mut row, "peer", &target.peer);
    Value::Object(row)
}

fn intention(row: &mut Map<String, Value>, rule: &IntentionSource) {
    // Permissions take the action's place in a declaration.
    if rule.permissions.is_empty() {
        set(row, "action", rule.action);
    } else {
        set(row, "permissions", &rule.permissions);
    }
    set(row, "description", &rule.description);
}

fn duration(milliseconds: u64) -> String {
    if milliseconds.is_multiple_of(1000) {
        format!("{}s", milliseconds / 1000)
    } else {
        format!("{milliseconds}ms")
    }
}

/// Sets an attribute, unless it says nothing. Our words serialise without fail; one that did not would be left out.
fn set(attributes: &mut Map<String, Value>, name: &str, value: impl Serialize) {
    let value = serde_json::to_value(value).unwrap_or_default();
    let says_nothing = match &value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    if !says_nothing {
        attributes.insert(name.to_owned(), value);
    }
}

/// Sets an attribute that is false where nothing is said.
fn set_if(attributes: &mut Map<String, Value>, name: &str, value: bool) {
    if value {
        attributes.insert(name.to_owned(), Value::Bool(true));
    }
}

fn push(attributes: &mut Map<String, Value>, name: &str, row: Value) {
    if let Value::Array(rows) = attributes.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
        rows.push(row);
    }
}

/// A value in HCL: one line, or for a list or an object of any size a line for each element, between brackets.
pub(crate) fn lines(value: &Value) -> Vec<String> {
    match value {
        Value::Array(_) | Value::Object(_) => {
            let (open, close) = brackets(value);
            let elements = elements(value);
            if let [only] = &elements[..] {
                let space = if open == "{" { " " } else { "" };
                return vec![format!("{open}{space}{only}{space}{close}")];
            }
            let mut lines = vec![open.to_owned()];
            lines.extend(elements.into_iter().map(|element| format!("  {element},")));
            lines.push(close.to_owned());
            lines
        }
        scalar => vec![inline(scalar)],
    }
}

/// `[` and `]`, or `{` and `}`.
pub(crate) fn brackets(value: &Value) -> (&'static str, &'static str) {
    if value.is_object() { ("{", "}") } else { ("[", "]") }
}

/// The elements of a list, or the fields of an object, each on one line without its comma.
pub(crate) fn elements(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().map(inline).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| format!("{} = {}", inline_key(key), inline(value))).collect()
        }
        scalar => vec![inline(scalar)],
    }
}

/// A value on one line. hcl-rs escapes what a template would take for its own and some of what a terminal would.
pub(crate) fn inline(value: &Value) -> String {
    let mut formatter = Formatter::builder().compact(true).prefer_ident_keys(true).build_vec();
    hcl::to_expression(value)
        .and_then(|expression| expression.format_string(&mut formatter))
        // Only a number beyond 64 bits or an odd key could fail, and the schema has neither; JSON is close enough then.
        .map_or_else(|_| value.to_string(), visible::in_hcl)
}

/// A key as HCL wants it: bare if it is an identifier, else quoted.
fn inline_key(key: &str) -> String {
    let bare = key.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { key.to_owned() } else { inline(&Value::String(key.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::service_intentions::Action;

    #[test]
    fn a_record_reads_as_its_declaration() {
        let key = "service/backend".parse().unwrap();
        let service = Service {
            port: Some(9090),
            checks: vec![Check::new(Probe::Tcp("127.0.0.1:9090".to_owned()), 10_000, 1_500)],
            meta: BTreeMap::from([
                ("a".to_owned(), "${x}".to_owned()),
                ("b c".to_owned(), "\u{1b}[1m\u{9b}\u{202e}".to_owned()),
            ]),
            ..Service::default()
        };
        assert_eq!(
            hcl(&key, &Record::Service(service)),
            r#"service "backend" {
  port   = 9090
  meta   = {
    a = "$${x}",
    "b c" = "\u001b[1m\u009b\u202e",
  }
  checks = [{ tcp = "127.0.0.1:9090", interval = "10s", timeout = "1500ms" }]
}
"#
        );
    }

    #[test]
    fn a_part_reads_as_the_entry_that_holds_it() {
        let key = "service_intentions/backend/west/frontend".parse().unwrap();
        let rule =
            IntentionSource { action: Action::Allow, description: String::new(), permissions: Vec::new() };
        assert_eq!(
            hcl(&key, &Record::ServiceIntentions(rule)),
            "service_intentions \"backend\" {\n  sources = [{ name = \"frontend\", peer = \"west\", action = \"allow\" }]\n}\n"
        );
    }
}
