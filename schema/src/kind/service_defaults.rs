//! `service_defaults "SERVICE" {}`: what holds for all instances of a service (Consul: service-defaults config entry).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Form, Place};
use super::{Declaration, Decoded, Kind, meta, tenancy};
use crate::diagnostic::nearest::suggestion;
use crate::diagnostic::{Diagnostic, Faults};
use crate::record::{Record, RecordKey};

/// The protocol that a service speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ServiceDefaults {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

/// Consul's words for what a service speaks. Where nothing is said, it is TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    Tcp,
    Http,
    Http2,
    Grpc,
}

impl Protocol {
    const ALL: [Protocol; 4] = [Protocol::Tcp, Protocol::Http, Protocol::Http2, Protocol::Grpc];

    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Http => "http",
            Protocol::Http2 => "http2",
            Protocol::Grpc => "grpc",
        }
    }

    /// Whether requests can be told apart in it, so that HTTP permissions mean something.
    pub fn is_http_like(self) -> bool {
        self != Protocol::Tcp
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What else Consul's entry has: known by name, so that it is refused for what it is.
const NOT_TAKEN: [&str; 16] = [
    "mode",
    "transparent_proxy",
    "mutual_tls_mode",
    "mesh_gateway",
    "expose",
    "external_sni",
    "upstream_config",
    "destination",
    "max_inbound_connections",
    "local_connect_timeout_ms",
    "local_request_timeout_ms",
    "balance_inbound_connections",
    "rate_limits",
    "envoy_extensions",
    "access_logs",
    "failover_policy",
];

/// Decodes one block or config entry.
pub fn decode(declaration: &Declaration<'_>, faults: &mut Faults) -> Decoded {
    let root = Place::Root(declaration.form);
    let field = root.field("name");
    let name = match declaration.name.text {
        "" => {
            faults.error("missing-key", format!("{field} is required"), declaration.name.span);
            None
        }
        "*" => {
            let summary = "service-defaults name must be the name of a service, and not a wildcard";
            faults.error("bad-name", summary, declaration.name.span);
            None
        }
        _ => declaration.parse_name(Kind::ServiceDefaults, faults),
    };
    let mut fields = declaration.fields(&root, faults);
    tenancy::namespace(&mut fields);
    tenancy::partition(&mut fields);
    let meta = meta::decode(&mut fields, "meta");
    let protocol = protocol(&mut fields);
    if declaration.form == Form::Entry {
        for name in NOT_TAKEN {
            not_taken(&mut fields, name);
        }
    }
    fields.finish();
    let mut decoded = Decoded::default();
    if let Some(name) = name {
        let record = Record::ServiceDefaults(ServiceDefaults { protocol, meta });
        decoded.record(RecordKey::ServiceDefaults(name), record, declaration.header);
    }
    decoded
}

fn protocol(fields: &mut Fields<'_, '_>) -> Option<Protocol> {
    let text = fields.text("protocol").filter(|text| !text.text.is_empty())?;
    let found = Protocol::ALL.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(text.text));
    if found.is_none() {
        let near = suggestion(text.text, Protocol::ALL.map(Protocol::as_str));
        let shown = if crate::diagnostic::secret::looks_secret(text.text) { "…" } else { text.text };
        let at = fields.faults.at(text.span);
        let summary = format!("invalid value for protocol: {shown}{near}");
        let words = Protocol::ALL.map(Protocol::as_str).join(", ");
        fields
            .faults
            .push(Diagnostic::error("bad-value", summary, Some(at)).detail(format!("It is one of {words}.")));
    }
    found
}

/// Empty values are what Consul's own tools send of what was not set.
fn not_taken(fields: &mut Fields<'_, '_>, name: &'static str) {
    use crate::document::Value;
    let Some(node) = fields.take(name) else { return };
    let says_nothing = match &node.value {
        Value::Null | Value::Faulty => true,
        Value::String(text) => matches!(text.as_str(), "" | "0" | "false"),
        Value::Bool(value) => !value,
        Value::Integer(number) => *number == 0,
        Value::Float(_) => false,
        Value::List(items) => items.is_empty(),
        Value::Table(table) => table.0.is_empty(),
    };
    if !says_nothing {
        let summary = format!("{} of service-defaults is not taken", fields.place.field(name));
        let at = fields.faults.at(node.span);
        fields.faults.push(
            Diagnostic::error("not-taken", summary, Some(at))
                .detail("Of this kind, Protocol and Meta are taken; nothing here would act on the rest."),
        );
    }
}
