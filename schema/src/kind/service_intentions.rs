//! `service_intentions "DESTINATION" {}`: who may connect to a service (Consul: service-intentions config entry).
//!
//! Each source is a record of its own, so that teams can own different sources of one destination.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::fields::{Fields, Form, Place, Text, bad_name};
use super::{Declaration, Decoded, meta, tenancy};
use crate::diagnostic::{Diagnostic, Faults, Severity};
use crate::document::Span;
use crate::name::SamenessGroupName;
use crate::origin::Origin;
use crate::record::{Record, RecordKey, ServiceMatch};

pub mod permission;

pub use permission::Permission;

/// One source's row; destination, origin and source name are in the record's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentionSource {
    /// `Deny` where there are permissions, which take the action's place.
    pub action: Action,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// HTTP permissions: where there are any, the source is denied until they can be enforced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Permission>,
}

/// What an intention says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Allow,
    #[default]
    Deny,
}

impl Action {
    pub fn from_word(word: &str) -> Option<Action> {
        match word {
            "allow" => Some(Action::Allow),
            "deny" => Some(Action::Deny),
            _ => None,
        }
    }
}

const MAX_DESCRIPTION: usize = 512;
const ACTIONS: [&str; 2] = ["allow", "deny"];

/// Decodes one block or config entry.
pub fn decode(declaration: &Declaration<'_>, faults: &mut Faults) -> Decoded {
    let root = Place::Root(declaration.form);
    let destination = destination(declaration, faults);
    let mut fields = declaration.fields(&root, faults);
    tenancy::namespace(&mut fields);
    tenancy::partition(&mut fields);
    let meta = meta::decode(&mut fields, "meta");
    let entry = Entry { meta, jwt: permission::jwt(&mut fields), ..Entry::default() };
    let before = fields.faults.len();
    let tables = fields.tables("sources");
    if tables.is_empty() && fields.faults.len() == before {
        fields.missing_with("sources", "At least one source is required".to_owned());
    }
    // Consul takes a peer that is not there yet; a block that names one is a mistake.
    let severity = if declaration.form == Form::Entry { Severity::Warning } else { Severity::Error };
    let mut decoded = Decoded::default();
    if let Some(destination) = destination.clone().filter(|_| !entry.is_empty()) {
        decoded.record(
            RecordKey::IntentionEntry(destination),
            Record::IntentionEntry(entry),
            declaration.header,
        );
    }
    let mut known: BTreeMap<(Origin, ServiceMatch), Span> = BTreeMap::new();
    for (index, table, span) in tables {
        let place = Place::Item(&root, "sources", index);
        let wild = destination == Some(ServiceMatch::Any);
        let Some(source) = decode_source(Fields::new(table, span, place, &mut *fields.faults), wild) else {
            continue;
        };
        if let Some(first) = known.insert((source.origin.clone(), source.name.clone()), span) {
            let origin = match &source.origin {
                Origin::Local => String::new(),
                Origin::Peer(peer) => format!("peer(\"{peer}\") "),
                Origin::Group(group) => format!("sameness-group(\"{group}\") "),
                Origin::AnyPeer => "peer(\"*\") ".to_owned(),
            };
            let summary = format!("{} defines {origin}\"{}\" more than once", place.path(), source.name);
            let fault = Diagnostic::error("duplicate-name", summary, Some(fields.faults.at(span)))
                .related(fields.faults.at(first), "first defined here");
            fields.faults.push(fault);
            continue;
        }
        let Some(destination) = destination.clone() else { continue };
        let mentioned = match &source.origin {
            Origin::Peer(link) => Some(RecordKey::ClusterLink(link.clone())),
            Origin::Group(group) => Some(RecordKey::SamenessGroup(group.clone())),
            Origin::Local | Origin::AnyPeer => None,
        };
        let key = RecordKey::Intention { destination, origin: source.origin, source: source.name };
        if let (Some(mentioned), Some(at)) = (mentioned, source.origin_span) {
            decoded.mention(Some(key.clone()), mentioned, at, severity);
        }
        decoded.record(key, Record::ServiceIntentions(source.record), span);
    }
    fields.finish();
    decoded
}

fn destination(declaration: &Declaration<'_>, faults: &mut Faults) -> Option<ServiceMatch> {
    let name = declaration.name;
    let field = Place::Root(declaration.form).field("name");
    if name.text.is_empty() {
        faults.error("missing-key", format!("{field} is required"), name.span);
        return None;
    }
    service_match(&field, name, faults)
}

/// A service's name or `*`, in Consul's words.
fn service_match(field: &str, name: Text<'_>, faults: &mut Faults) -> Option<ServiceMatch> {
    if name.text != "*" && name.text.contains('*') && !crate::diagnostic::secret::looks_secret(name.text) {
        let summary = format!("{field}: wildcard character '*' cannot be used with partial values");
        faults.error("bad-name", summary, name.span);
        return None;
    }
    name.text.parse().map_err(|error| bad_name(faults, field, name, &error)).ok()
}

struct Source {
    name: ServiceMatch,
    origin: Origin,
    origin_span: Option<Span>,
    record: IntentionSource,
}

fn decode_source(mut fields: Fields<'_, '_>, wild_destination: bool) -> Option<Source> {
    let filled = |text: &Text<'_>| !text.text.is_empty();
    let name = fields.text("name").filter(filled);
    if name.is_none() {
        fields.missing_with("name", format!("{} is required", fields.place.field("name")));
    }
    let name_field = fields.place.field("name");
    let name = name.and_then(|name| service_match(&name_field, name, fields.faults));
    let (origin, origin_span) = decode_origin(&mut fields);
    tenancy::namespace(&mut fields);
    tenancy::partition(&mut fields);
    let description = fields.text("description");
    if let Some(text) = description.filter(|text| text.text.len() > MAX_DESCRIPTION) {
        let field = fields.place.field("description");
        fields.fault("too-large", format!("{field} exceeds maximum length {MAX_DESCRIPTION}"), text.span);
    }
    legacy(&mut fields);
    let (action, permissions) = decode_action(&mut fields, wild_destination);
    if let Some(kind) = fields.text("type").filter(filled).filter(|kind| kind.text != "consul") {
        let summary = format!("{} must be set to 'consul'", fields.place.field("type"));
        fields.fault("bad-value", summary, kind.span);
    }
    // What a read gives back and a write recomputes.
    fields.take("precedence");
    fields.finish();
    let description = description.map(|text| text.text.to_owned()).unwrap_or_default();
    Some(Source {
        name: name?,
        origin: origin?,
        origin_span,
        record: IntentionSource { action: action?, description, permissions },
    })
}

/// Where the source is. `*` for a peer means each of them: Consul has no word for it, and its users ask for one.
fn decode_origin(fields: &mut Fields<'_, '_>) -> (Option<Origin>, Option<Span>) {
    let filled = |text: &Text<'_>| !text.text.is_empty();
    let peer = fields.text("peer").filter(filled);
    let group = fields.text("sameness_group").filter(filled);
    let span = peer.or(group).map(|text| text.span);
    let origin = match (peer, group) {
        (Some(_), Some(group)) => {
            let field = fields.place.field("sameness_group");
            let summary = format!("{field}: cannot set SamenessGroup and Peer at the same time");
            fields.fault("bad-value", summary, group.span);
            None
        }
        (Some(peer), None) if peer.text == "*" => Some(Origin::AnyPeer),
        (Some(peer), None) => fields.parse_name("peer", peer).map(Origin::Peer),
        (None, Some(group)) if group.text == "*" => {
            let field = fields.place.field("sameness_group");
            let summary = format!("{field}: cannot use wildcard '*' in sameness group");
            fields.fault("bad-value", summary, group.span);
            None
        }
        (None, Some(group)) => {
            fields.parse_name::<SamenessGroupName>("sameness_group", group).map(Origin::Group)
        }
        (None, None) => Some(Origin::Local),
    };
    (origin, span)
}

/// An action, or permissions instead of one: those deny until they can be enforced.
fn decode_action(fields: &mut Fields<'_, '_>, wild_destination: bool) -> (Option<Action>, Vec<Permission>) {
    let action = fields.text("action").filter(|text| !text.text.is_empty());
    let (permissions, span) = permission::permissions(fields);
    if let Some(span) = span {
        if let Some(action) = action {
            let summary =
                format!("{} must be omitted if Permissions are specified", fields.place.field("action"));
            fields.fault("bad-value", summary, action.span);
        }
        let field = fields.place.field("permissions");
        if wild_destination {
            let summary = format!("{field} cannot be specified on intentions with wildcarded destinations");
            fields.fault("bad-value", summary, span);
        }
        let at = fields.faults.at(span);
        fields.faults.push(
            Diagnostic::warning("not-enforced", format!("{field} are not enforced yet"), Some(at))
                .detail("Until they are, this source is denied."),
        );
        return (Some(Action::Deny), permissions);
    }
    let known = action.and_then(|text| Action::from_word(text.text));
    if known.is_none() {
        let field = fields.place.field("action");
        let near =
            action.map(|text| crate::diagnostic::nearest::suggestion(text.text, ACTIONS)).unwrap_or_default();
        fields.missing_with("action", format!("{field} must be set to 'allow' or 'deny'{near}"));
    }
    (known, permissions)
}

/// What entries made through Consul's old intention API carry: dropped, as Consul does, but for `LegacyMeta`.
fn legacy(fields: &mut Fields<'_, '_>) {
    if fields.place.form() == Form::Block {
        return;
    }
    for name in ["legacy_id", "legacy_create_time", "legacy_update_time"] {
        fields.take(name);
    }
    if let Some(node) = fields.take("legacy_meta") {
        let summary = format!("{} must be omitted", fields.place.field("legacy_meta"));
        fields.fault("bad-value", summary, node.span);
    }
}
