//! `service "NAME" {}`: an instance of a service of this cluster, its health checks, and the upstreams it calls. A
//! service with several instances has a block for each, and each but one an `id`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Place};
use super::{Declaration, Decoded, Kind, meta};
use crate::diagnostic::secret::quoted;
use crate::diagnostic::{Diagnostic, Faults};
use crate::name::{InstanceId, ServiceName};
use crate::record::{Record, RecordKey};

mod check;
mod upstream;

pub use check::{Check, HttpRequest, Initial, Probe, Thresholds};
pub use upstream::{MAX_FAILOVER, MAX_UIDS, SocketMode, Target, Upstream};

/// One instance of a service; which one is in the record's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Service {
    /// Where the instance listens; `None` for a service that only calls others, or listens on a socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// IP address or host name of the instance; empty means 127.0.0.1.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// The unix socket that the instance listens on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// Sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// Other addresses of the instance, by where they are good (`lan`, `wan`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    #[serde(default, skip_serializing_if = "Weights::is_default")]
    pub weights: Weights,
    /// Whether others may change its tags (Consul; kept and shown).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enable_tag_override: bool,
    /// Whether the instance speaks mutual TLS with leaf certificates itself (Consul: `Connect.Native`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub connect_native: bool,
    /// How the instance is told who calls; `None` means that it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// In their order, which their ids depend on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Sorted by destination peer and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Upstream>,
}

/// An address with its port; 0 for none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct TaggedAddress {
    pub address: String,
    #[serde(default)]
    pub port: u16,
}

/// How much of the calls an instance shall have while it passes, and while it warns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    pub passing: u16,
    pub warning: u16,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

impl Weights {
    /// For serde, which passes a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The protocol by which an instance is told who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// HAProxy's PROXY protocol, version 2: a binary header before the connection's first byte.
    V2,
}

const LOOPBACK: &str = "127.0.0.1";
/// Most checks of one instance.
pub const MAX_CHECKS: usize = 64;
const MAX_SOCKET_PATH: usize = 107;

/// Decodes one block.
pub fn decode(declaration: &Declaration<'_>, faults: &mut Faults) -> Decoded {
    let root = Place::Root(declaration.form);
    let mut decoded = Decoded::default();
    let name: Option<ServiceName> = declaration.parse_name(Kind::Service, faults);
    let mut fields = declaration.fields(&root, faults);
    let id: Option<InstanceId> = fields.name("id");
    // One whose id is faulty is not taken for the one that needs none.
    let names_none = fields.span("id").is_none();
    let key = name.and_then(|name| {
        let id = id.or_else(|| names_none.then(|| (&name).into()))?;
        Some(RecordKey::instance(name, id))
    });
    let mut service = Service {
        port: fields.port("port"),
        address: address(&mut fields, "address").unwrap_or_default(),
        socket_path: socket_path(&mut fields),
        tags: fields.texts("tags").into_iter().map(|tag| tag.text.to_owned()).collect(),
        meta: meta::decode(&mut fields, "meta"),
        tagged_addresses: tagged_addresses(&mut fields),
        weights: weights(&mut fields),
        enable_tag_override: fields.boolean("enable_tag_override").unwrap_or_default(),
        connect_native: connect_native(&mut fields),
        proxy_protocol: fields.word("proxy_protocol", &[("v2", ProxyProtocol::V2)]),
        ..Service::default()
    };
    decode_checks(&mut service, &root, &mut fields);
    for (index, table, span) in fields.tables("upstreams") {
        let place = Place::Item(&root, "upstreams", index);
        let Some((upstream, mentions)) =
            upstream::decode(Fields::new(table, span, place, &mut *fields.faults))
        else {
            continue;
        };
        if let Some(key) = &key {
            upstream::mention(&mut decoded, key, mentions);
        }
        service.upstreams.push(upstream);
    }
    fields.finish();
    normalise(&mut service);
    if let Some(key) = key {
        decoded.record(key, Record::Service(service), declaration.header);
    }
    decoded
}

/// Puts what has no order into one, and leaves out what is the default.
pub fn normalise(service: &mut Service) {
    service.tags.sort();
    service.tags.dedup();
    service.checks.iter_mut().for_each(Check::normalise);
    for address in
        service.upstreams.iter_mut().map(|up| &mut up.local_bind_address).chain([&mut service.address])
    {
        if address == LOOPBACK {
            address.clear();
        }
    }
    upstream::order(&mut service.upstreams);
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

fn decode_checks(service: &mut Service, root: &Place<'_>, fields: &mut Fields<'_, '_>) {
    let mut ids = BTreeMap::new();
    for (index, table, span) in fields.tables("checks") {
        if index == MAX_CHECKS {
            fields.fault("too-large", format!("a service has at most {MAX_CHECKS} checks"), span);
        }
        let place = Place::Item(root, "checks", index);
        let Some(check) = check::decode(Fields::new(table, span, place, &mut *fields.faults)) else {
            continue;
        };
        if !check.id.is_empty()
            && let Some(first) = ids.insert(check.id.clone(), span)
        {
            let summary = format!("two checks have the id {}", quoted(&check.id));
            let fault = Diagnostic::error("duplicate-name", summary, Some(fields.faults.at(span)))
                .related(fields.faults.at(first), "first given here");
            fields.faults.push(fault);
        }
        service.checks.push(check);
    }
}

fn socket_path(fields: &mut Fields<'_, '_>) -> String {
    let Some(text) = fields.text("socket_path") else { return String::new() };
    if !is_socket_path(text.text) {
        let summary = format!(
            "{} is an absolute path of at most {MAX_SOCKET_PATH} bytes",
            fields.place.field("socket_path")
        );
        fields.fault("bad-value", summary, text.span);
    }
    text.text.to_owned()
}

fn is_socket_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= MAX_SOCKET_PATH && !text.contains(char::is_control)
}

fn tagged_addresses(fields: &mut Fields<'_, '_>) -> BTreeMap<String, TaggedAddress> {
    let mut found = BTreeMap::new();
    let Some((table, _)) = fields.table("tagged_addresses") else { return found };
    let within = fields.place;
    let outer = Place::Field(&within, "tagged_addresses");
    for (key, node) in &table.0 {
        let crate::document::Value::Table(inner) = &node.value else {
            if node.value != crate::document::Value::Faulty {
                let summary = format!("tagged_addresses {} is an object", quoted(&key.text));
                fields.fault("wrong-type", summary, node.span);
            }
            continue;
        };
        let mut own = Fields::new(inner, node.span, outer, &mut *fields.faults);
        let address = address(&mut own, "address");
        let port = own.port("port").unwrap_or_default();
        if address.is_none() && own.span("address").is_none() {
            own.missing("address");
        }
        own.finish();
        found.extend(address.map(|address| (key.text.clone(), TaggedAddress { address, port })));
    }
    found
}

fn weights(fields: &mut Fields<'_, '_>) -> Weights {
    let Some((table, span)) = fields.table("weights") else { return Weights::default() };
    let within = fields.place;
    let mut own = Fields::new(table, span, Place::Field(&within, "weights"), &mut *fields.faults);
    let number = |count: Option<u32>| count.map_or(1, |count| u16::try_from(count).unwrap_or(u16::MAX));
    let weights = Weights {
        passing: number(own.count("passing", u32::from(u16::MAX))),
        warning: number(own.count("warning", u32::from(u16::MAX))),
    };
    if weights.passing == 0 {
        own.fault("bad-value", "weights.passing must be greater than 0", span);
    }
    own.finish();
    weights
}

/// `connect = { native = true }`, in Consul's words.
fn connect_native(fields: &mut Fields<'_, '_>) -> bool {
    let Some((table, span)) = fields.table("connect") else { return false };
    let within = fields.place;
    let mut own = Fields::new(table, span, Place::Field(&within, "connect"), &mut *fields.faults);
    let native = own.boolean("native").unwrap_or_default();
    own.finish();
    native
}

/// What is wrong with a normalised instance: for what did not come through [`decode`].
pub fn validate(service: &Service) -> Result<(), &'static str> {
    let host = |address: &str| {
        is_host(address) && !address.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    };
    if !service.address.is_empty() && !host(&service.address) {
        return Err("its address is an IP address or a host name that can be connected to");
    }
    if !service.socket_path.is_empty() && !is_socket_path(&service.socket_path) {
        return Err("its socket path is an absolute path of at most 107 bytes");
    }
    if !service.tagged_addresses.values().all(|tagged| host(&tagged.address)) {
        return Err("a tagged address is an IP address or a host name that can be connected to");
    }
    if service.weights.passing == 0 {
        return Err("its weight while it passes is at least 1");
    }
    if service.port == Some(0) {
        return Err("its port is from 1 to 65535");
    }
    if service.checks.len() > MAX_CHECKS {
        return Err("an instance has at most 64 checks");
    }
    for (index, check) in service.checks.iter().enumerate() {
        check.validate()?;
        if !check.id.is_empty() && service.checks[..index].iter().any(|other| other.id == check.id) {
            return Err("two of its checks have one id");
        }
    }
    service.upstreams.iter().try_for_each(Upstream::validate)
}

fn split_target(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    is_host(bare).then_some((bare, port))
}
