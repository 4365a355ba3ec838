//! An upstream: a local port or unix socket through which a service reaches another, and where it leads when that is
//! not to be had.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::is_socket_path;
use crate::diagnostic::{Diagnostic, Severity};
use crate::document::{Span, Value};
use crate::kind::Decoded;
use crate::kind::fields::{Fields, Place, Text};
use crate::name::{LinkName, SamenessGroupName, ServiceName};
use crate::record::RecordKey;

/// Most targets that an upstream falls back to.
pub const MAX_FAILOVER: usize = 16;
/// Most users that may be named.
pub const MAX_UIDS: usize = 64;

/// A local port or unix socket through which the service reaches another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    pub destination_name: ServiceName,
    /// The link to go over; `None` means a service of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_peer: Option<LinkName>,
    /// Where connections go that the destination cannot serve: the first of these that can, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failover: Vec<Target>,
    /// A group whose members are tried in its order instead: this cluster first, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sameness_group: Option<SamenessGroupName>,
    /// Loopback address to listen on; empty means 127.0.0.1.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub local_bind_address: String,
    /// 0 where it listens on a socket instead.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub local_bind_port: u16,
    /// The unix socket to listen on; empty where it listens on a port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub local_bind_socket_path: String,
    /// The socket's permission bits; `None` means 0600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_bind_socket_mode: Option<SocketMode>,
    /// Users of this machine that may connect; empty means everybody who can. Sorted, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_uids: Vec<u32>,
}

/// Where an upstream may lead instead. At least one of the two is given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// `None` means the upstream's own destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ServiceName>,
    /// `None` means this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<LinkName>,
}

/// Permission bits of a unix socket, written as octal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SocketMode(u32);

impl SocketMode {
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for SocketMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| (1..=0o777).contains(bits));
        bits.map(Self).ok_or("a socket's mode is octal permission bits such as \"0660\"")
    }
}

impl TryFrom<String> for SocketMode {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SocketMode> for String {
    fn from(mode: SocketMode) -> Self {
        mode.to_string()
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// For serde, which passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

impl Upstream {
    /// One that listens on 127.0.0.1 and leads to one place.
    pub fn to(
        destination_name: ServiceName,
        destination_peer: Option<LinkName>,
        local_bind_port: u16,
    ) -> Self {
        Self {
            destination_name,
            destination_peer,
            failover: Vec::new(),
            sameness_group: None,
            local_bind_address: String::new(),
            local_bind_port,
            local_bind_socket_path: String::new(),
            local_bind_socket_mode: None,
            allowed_uids: Vec::new(),
        }
    }

    /// The links that it names.
    pub fn links(&self) -> impl Iterator<Item = &LinkName> {
        self.destination_peer.iter().chain(self.failover.iter().filter_map(|target| target.peer.as_ref()))
    }

    /// What is wrong with it, for what did not come through a file.
    pub(super) fn validate(&self) -> Result<(), &'static str> {
        let address = &self.local_bind_address;
        if !address.is_empty() && !address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
            return Err("an upstream listens on a loopback address only");
        }
        if (self.local_bind_port == 0) == self.local_bind_socket_path.is_empty() {
            return Err("an upstream listens on a port or on a unix socket");
        }
        if !self.local_bind_socket_path.is_empty() {
            if !is_socket_path(&self.local_bind_socket_path) {
                return Err("an upstream's socket path is an absolute path of at most 107 bytes");
            }
            if !address.is_empty() {
                return Err("an upstream that listens on a unix socket has no address");
            }
        }
        if self.local_bind_socket_mode.is_some() && self.local_bind_socket_path.is_empty() {
            return Err("an upstream that listens on a port has no socket mode");
        }
        if self.sameness_group.is_some() && (self.destination_peer.is_some() || !self.failover.is_empty()) {
            return Err("an upstream to a sameness group names no peer and no failover: the group does");
        }
        if self.failover.len() > MAX_FAILOVER || self.allowed_uids.len() > MAX_UIDS {
            return Err("an upstream has at most 16 targets to fall back to and names at most 64 users");
        }
        let nowhere = |target: &Target| target.name.is_none() && target.peer.is_none();
        if self.failover.iter().any(nowhere) {
            return Err("a target names a service or a peer");
        }
        if !self.allowed_uids.is_sorted_by(|a, b| a < b) {
            return Err("an upstream's users are sorted and named once");
        }
        Ok(())
    }
}

/// What an upstream names that has to be declared, and where.
pub(super) type Mentions = Vec<(RecordKey, Span)>;

/// Notes what `upstream` of `by` names.
pub(super) fn mention(decoded: &mut Decoded, by: &RecordKey, mentions: Mentions) {
    for (target, at) in mentions {
        decoded.mention(Some(by.clone()), target, at, Severity::Error);
    }
}

pub(super) fn decode(mut fields: Fields<'_, '_>) -> Option<(Upstream, Mentions)> {
    let mut mentions = Vec::new();
    let destination = fields.required_text("destination_name");
    let destination_name = destination.and_then(|text| fields.parse_name("destination_name", text));
    let peer = fields.text("destination_peer");
    let destination_peer = peer.map(|text| link(&mut fields, "destination_peer", text, &mut mentions));
    let group = fields.text("sameness_group");
    let sameness_group = group.map(|text| {
        let name: Option<SamenessGroupName> = fields.parse_name("sameness_group", text);
        mentions.extend(name.clone().map(|name| (RecordKey::SamenessGroup(name), text.span)));
        name
    });
    let failover_at = fields.span("failover");
    let failover = decode_failover(&mut fields, &mut mentions);
    if let Some(group) = group
        && let Some(other) = peer.map(|peer| peer.span).or(failover_at)
    {
        let summary = format!(
            "{} names peers already: destination_peer and failover do not go with it",
            fields.place.field("sameness_group")
        );
        let fault = Diagnostic::error("bad-value", summary, Some(fields.faults.at(group.span)))
            .related(fields.faults.at(other), "this is the other");
        fields.faults.push(fault);
    }
    let local_bind_address = fields.text("local_bind_address").map(|text| {
        if !text.text.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
            let summary = format!("{} is a loopback address", fields.place.field("local_bind_address"));
            fields.fault("bad-value", summary, text.span);
        }
        text.text.to_owned()
    });
    let path = fields.text("local_bind_socket_path");
    if let Some(path) = path.filter(|path| !is_socket_path(path.text)) {
        let summary = format!(
            "{} is an absolute path of at most 107 bytes",
            fields.place.field("local_bind_socket_path")
        );
        fields.fault("bad-value", summary, path.span);
    }
    let local_bind_socket_mode = mode(&mut fields, path.is_some());
    let in_place_of = fields.span("local_bind_port").is_some() || local_bind_address.is_some();
    let local_bind_port = match path {
        Some(_) => fields.port("local_bind_port"),
        None => fields.required_port("local_bind_port"),
    };
    if let Some(path) = path.filter(|_| in_place_of) {
        let summary = format!(
            "{} stands in place of a port and an address: give one of them",
            fields.place.field("local_bind_socket_path")
        );
        fields.fault("bad-value", summary, path.span);
    }
    let allowed_uids = uids(&mut fields);
    if let (Some(failover), Some(own)) = (&failover, &destination_name) {
        let peer = destination_peer.as_ref().and_then(Option::as_ref);
        let itself = |target: &&Target| {
            target.name.as_ref().is_none_or(|name| name == own) && target.peer.as_ref() == peer
        };
        if let Some(span) = failover.iter().find(itself).and(failover_at) {
            let summary = format!(
                "{} names the upstream's own destination, which is tried first anyhow",
                fields.place.field("failover")
            );
            fields.fault("duplicate-name", summary, span);
        }
    }
    fields.finish();
    let upstream = Upstream {
        destination_name: destination_name?,
        destination_peer: match destination_peer {
            Some(parsed) => Some(parsed?),
            None => None,
        },
        failover: failover?,
        sameness_group: match sameness_group {
            Some(parsed) => Some(parsed?),
            None => None,
        },
        local_bind_address: local_bind_address.unwrap_or_default(),
        local_bind_port: match path {
            Some(_) => 0,
            None => local_bind_port?,
        },
        local_bind_socket_path: path.map(|path| path.text.to_owned()).unwrap_or_default(),
        local_bind_socket_mode,
        allowed_uids,
    };
    Some((upstream, mentions))
}

fn link(
    fields: &mut Fields<'_, '_>,
    name: &'static str,
    text: Text<'_>,
    mentions: &mut Mentions,
) -> Option<LinkName> {
    let link: Option<LinkName> = fields.parse_name(name, text);
    mentions.extend(link.clone().map(|link| (RecordKey::ClusterLink(link), text.span)));
    link
}

/// `None` when one of them is faulty.
fn decode_failover(fields: &mut Fields<'_, '_>, mentions: &mut Mentions) -> Option<Vec<Target>> {
    let mut targets: Vec<Target> = Vec::new();
    let mut whole = true;
    let tables = fields.tables("failover");
    let within = fields.place;
    for (index, table, span) in tables {
        if index == MAX_FAILOVER {
            fields.fault(
                "too-large",
                format!("an upstream has at most {MAX_FAILOVER} targets to fall back to"),
                span,
            );
        }
        let place = Place::Item(&within, "failover", index);
        let mut own = Fields::new(table, span, place, &mut *fields.faults);
        let name = own.text("name").map(|text| own.parse_name("name", text));
        let peer = own.text("peer").map(|text| link(&mut own, "peer", text, mentions));
        if name.is_none() && peer.is_none() {
            own.missing_with("peer", format!("{} names neither a service nor a peer", place.path()));
        }
        own.finish();
        let faulty = matches!(name, Some(None)) || matches!(peer, Some(None));
        let target = Target { name: name.flatten(), peer: peer.flatten() };
        if faulty || target == (Target { name: None, peer: None }) {
            whole = false;
            continue;
        }
        if targets.contains(&target) {
            fields.fault("duplicate-name", format!("{} was named before", place.path()), span);
        }
        targets.push(target);
    }
    whole.then_some(targets)
}

/// Octal text, as Consul has it.
fn mode(fields: &mut Fields<'_, '_>, on_socket: bool) -> Option<SocketMode> {
    let text = fields.text("local_bind_socket_mode")?;
    if !on_socket {
        let summary = format!(
            "{} is for a unix socket: it goes with local_bind_socket_path",
            fields.place.field("local_bind_socket_mode")
        );
        fields.fault("bad-value", summary, text.span);
        return None;
    }
    let mode = text.text.parse().ok();
    if mode.is_none() {
        let summary = format!(
            "{} is octal permission bits such as \"0660\"",
            fields.place.field("local_bind_socket_mode")
        );
        fields.fault("bad-value", summary, text.span);
    }
    mode
}

fn uids(fields: &mut Fields<'_, '_>) -> Vec<u32> {
    let Some(node) = fields.take("allowed_uids") else { return Vec::new() };
    let Value::List(items) = &node.value else {
        fields.wrong_type("allowed_uids", "a list of user ids", node);
        return Vec::new();
    };
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let uid = match &item.value {
            // The highest means nobody to the kernel.
            Value::Integer(uid) => u32::try_from(*uid).ok().filter(|uid| *uid != u32::MAX),
            Value::Faulty => continue,
            _ => None,
        };
        let Some(uid) = uid else {
            let summary =
                format!("{}[{index}] is a user id: a whole number", fields.place.field("allowed_uids"));
            fields.fault("bad-value", summary, item.span);
            continue;
        };
        found.push(uid);
    }
    if found.len() > MAX_UIDS {
        fields.fault("too-large", format!("an upstream names at most {MAX_UIDS} users"), node.span);
    }
    if found.is_empty() && items.is_empty() {
        // An empty list reads as "nobody" and would mean "everybody".
        let summary = format!(
            "{} names nobody: leave it out to let everybody connect",
            fields.place.field("allowed_uids")
        );
        fields.fault("bad-value", summary, node.span);
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// So that no declaration's order makes a difference.
pub(super) fn order(upstreams: &mut Vec<Upstream>) {
    let key = |up: &Upstream| {
        (
            up.destination_peer.clone(),
            up.destination_name.clone(),
            up.local_bind_port,
            up.local_bind_address.clone(),
            up.local_bind_socket_path.clone(),
        )
    };
    upstreams.sort_by_key(key);
    upstreams.dedup();
}
