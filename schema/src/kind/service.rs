//! `service "NAME" {}`: a service of this cluster, its health checks, and the upstreams it calls.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Place, Text};
use super::{Declaration, Decoded, Kind, meta};
use crate::diagnostic::{Faults, Severity};
use crate::name::{LinkName, ServiceName};
use crate::record::{Record, RecordKey};

/// A service instance on the agent's machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Service {
    /// Where the instance listens; `None` for a service that only calls others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// IP address or host name of the instance; empty means 127.0.0.1.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Sorted by destination peer and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Upstream>,
}

/// A health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    #[serde(flatten)]
    pub probe: Probe,
    /// Time between probes, milliseconds.
    pub interval_ms: u64,
    /// Time after which a probe has failed, milliseconds.
    pub timeout_ms: u64,
}

/// How health is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// `host:port` that must accept a connection.
    Tcp(String),
    /// `http://host:port/path` that must answer 2xx.
    Http(String),
}

/// A local port through which the service reaches another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    pub destination_name: ServiceName,
    /// The link to go over; `None` means a service of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_peer: Option<LinkName>,
    /// Loopback address to listen on; empty means 127.0.0.1.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub local_bind_address: String,
    pub local_bind_port: u16,
}

/// Shortest and longest (exclusive) time of a check, milliseconds.
const CHECK_TIMES: std::ops::Range<u64> = 100..86_400_001;
/// How often a check runs, if it does not say; Consul's default for a time-out.
const CHECK_INTERVAL_MS: u64 = 10_000;
const LOOPBACK: &str = "127.0.0.1";

/// Decodes one block.
pub fn decode(declaration: &Declaration<'_>, faults: &mut Faults) -> Decoded {
    let root = Place::Root(declaration.form);
    let mut decoded = Decoded::default();
    let name: Option<ServiceName> = declaration.parse_name(Kind::Service, faults);
    let mut fields = declaration.fields(&root, faults);
    let mut service = Service {
        port: fields.port("port"),
        address: address(&mut fields, "address").unwrap_or_default(),
        tags: fields.texts("tags").into_iter().map(|tag| tag.text.to_owned()).collect(),
        meta: meta::decode(&mut fields, "meta"),
        ..Service::default()
    };
    for (index, table, span) in fields.tables("checks") {
        let place = Place::Item(&root, "checks", index);
        service.checks.extend(decode_check(Fields::new(table, span, place, &mut *fields.faults)));
    }
    for (index, table, span) in fields.tables("upstreams") {
        let place = Place::Item(&root, "upstreams", index);
        let Some((upstream, peer)) = decode_upstream(Fields::new(table, span, place, &mut *fields.faults))
        else {
            continue;
        };
        if let (Some(name), Some(link), Some(peer)) = (&name, &upstream.destination_peer, peer) {
            let from = Some(RecordKey::Service(name.clone()));
            decoded.mention(from, RecordKey::ClusterLink(link.clone()), peer.span, Severity::Error);
        }
        service.upstreams.push(upstream);
    }
    fields.finish();
    normalise(&mut service);
    if let Some(name) = name {
        decoded.record(RecordKey::Service(name), Record::Service(service), declaration.header);
    }
    decoded
}

/// Puts what has no order into one, and leaves out what is the default.
pub fn normalise(service: &mut Service) {
    service.tags.sort();
    service.tags.dedup();
    service.checks.sort_by(|a, b| {
        let key = |check: &Check| match &check.probe {
            Probe::Tcp(target) => (0, target.clone(), check.interval_ms, check.timeout_ms),
            Probe::Http(url) => (1, url.clone(), check.interval_ms, check.timeout_ms),
        };
        key(a).cmp(&key(b))
    });
    service.checks.dedup();
    service.upstreams.sort_by(|a, b| {
        let key = |up: &Upstream| {
            (
                up.destination_peer.clone(),
                up.destination_name.clone(),
                up.local_bind_port,
                up.local_bind_address.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    service.upstreams.dedup();
    for address in
        service.upstreams.iter_mut().map(|up| &mut up.local_bind_address).chain([&mut service.address])
    {
        if address == LOOPBACK {
            address.clear();
        }
    }
}

/// An IP address or a host name; not the address that means all of them.
fn address(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<String> {
    let text = fields.text(name)?;
    let unspecified = text.text.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    if unspecified || !is_host(text.text) {
        let summary =
            format!("{} is an IP address or a host name that can be connected to", fields.place.field(name));
        fields.fault("bad-value", summary, text.span);
        return None;
    }
    Some(text.text.to_owned())
}

fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && text.split('.').all(label))
}

fn decode_check(mut fields: Fields<'_, '_>) -> Option<Check> {
    let tcp = fields.text("tcp");
    let http = fields.text("http");
    let interval = fields.duration_ms("interval", CHECK_TIMES).unwrap_or(CHECK_INTERVAL_MS);
    let timeout = fields.duration_ms("timeout", CHECK_TIMES).unwrap_or(interval.min(CHECK_INTERVAL_MS));
    let probe = match (tcp, http) {
        (Some(target), None) if split_target(target.text).is_some() => {
            Some(Probe::Tcp(target.text.to_owned()))
        }
        (Some(target), None) => {
            let summary = format!("{} is HOST:PORT", fields.place.field("tcp"));
            fields.fault("bad-value", summary, target.span);
            None
        }
        (None, Some(url)) if is_url(url.text) => Some(Probe::Http(url.text.to_owned())),
        (None, Some(url)) => {
            let summary =
                format!("{} is a URL such as \"http://127.0.0.1:9090/health\"", fields.place.field("http"));
            fields.fault("bad-value", summary, url.span);
            None
        }
        (None, None) => {
            fields.missing("tcp");
            None
        }
        (Some(_), Some(http)) => {
            fields.fault("bad-value", "a check has either tcp or http, not both", http.span);
            None
        }
    };
    fields.finish();
    Some(Check { probe: probe?, interval_ms: interval, timeout_ms: timeout })
}

fn split_target(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    is_host(bare).then_some((bare, port))
}

/// Plain HTTP only: a check asks a service on its own machine.
fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://") else { return false };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    (is_host(host) || split_target(host).is_some())
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn decode_upstream<'a>(mut fields: Fields<'a, '_>) -> Option<(Upstream, Option<Text<'a>>)> {
    let destination = fields.required_text("destination_name");
    let destination_name = destination.and_then(|text| fields.parse_name("destination_name", text));
    let peer = fields.text("destination_peer");
    let destination_peer = peer.map(|text| fields.parse_name("destination_peer", text));
    let local_bind_address = fields.text("local_bind_address").map(|text| {
        if !text.text.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
            let summary = format!("{} is a loopback address", fields.place.field("local_bind_address"));
            fields.fault("bad-value", summary, text.span);
        }
        text.text.to_owned()
    });
    let local_bind_port = fields.required_port("local_bind_port");
    fields.finish();
    let upstream = Upstream {
        destination_name: destination_name?,
        destination_peer: match destination_peer {
            Some(parsed) => Some(parsed?),
            None => None,
        },
        local_bind_address: local_bind_address.unwrap_or_default(),
        local_bind_port: local_bind_port?,
    };
    Some((upstream, peer))
}
