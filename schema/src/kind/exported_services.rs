//! `exported_services "default" {}`: which services a peer is offered (Consul: exported-services config entry).
//!
//! Each service of the list is a record of its own, so that two manifests can own different ones.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::fields::{Fields, Form, Place, Text};
use super::{Declaration, Decoded, meta, tenancy};
use crate::diagnostic::{Diagnostic, Faults, Severity};
use crate::document::Span;
use crate::name::{LinkName, NameError, SamenessGroupName};
use crate::record::{Record, RecordKey, ServiceMatch};

/// One service's row of the export list; the service is in the record's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Export {
    /// Who is offered the service. Sorted, without duplicates, never empty.
    pub consumers: Vec<Consumer>,
}

/// Who is offered a service. As text, `west` or `@GROUP`: no name begins with `@`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Consumer {
    Peer(LinkName),
    /// Every peer of a sameness group.
    Group(SamenessGroupName),
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Consumer::Peer(link) => link.fmt(f),
            Consumer::Group(group) => write!(f, "@{group}"),
        }
    }
}

impl FromStr for Consumer {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix('@') {
            Some(group) => group.parse().map(Consumer::Group),
            None => text.parse().map(Consumer::Peer),
        }
    }
}

impl TryFrom<String> for Consumer {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Consumer> for String {
    fn from(consumer: Consumer) -> String {
        consumer.to_string()
    }
}

impl From<LinkName> for Consumer {
    fn from(link: LinkName) -> Self {
        Consumer::Peer(link)
    }
}

/// Decodes one block or config entry.
pub fn decode(declaration: &Declaration<'_>, faults: &mut Faults) -> Decoded {
    let root = Place::Root(declaration.form);
    if declaration.name.text != "default" {
        let summary = "exported-services Name must be \"default\"";
        let at = faults.at(declaration.name.span);
        let mut fault = Diagnostic::error("bad-name", summary, Some(at));
        if crate::diagnostic::secret::looks_secret(declaration.name.text) {
            fault = fault.hiding_source();
        }
        faults.push(fault);
    }
    let mut fields = declaration.fields(&root, faults);
    tenancy::partition(&mut fields);
    let entry = Entry { meta: meta::decode(&mut fields, "meta"), ..Entry::default() };
    let mut rows: BTreeMap<ServiceMatch, Row> = BTreeMap::new();
    for (index, table, span) in fields.tables("services") {
        let place = Place::Item(&root, "services", index);
        let Some((service, consumers)) = decode_row(Fields::new(table, span, place, &mut *fields.faults))
        else {
            continue;
        };
        // Rows of one service are united, as Consul's resolved view does.
        rows.entry(service)
            .or_insert_with(|| Row { span, consumers: Vec::new() })
            .consumers
            .extend(consumers);
    }
    fields.finish();
    // Consul takes a peer that is not there yet; a block that names one is a mistake.
    let severity = if declaration.form == Form::Entry { Severity::Warning } else { Severity::Error };
    let mut decoded = Decoded::default();
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(_, row)| row.span.start);
    for (service, mut row) in rows {
        let key = RecordKey::Export(service);
        row.consumers.sort_by(|a, b| a.0.cmp(&b.0));
        row.consumers.dedup_by(|a, b| a.0 == b.0);
        for (consumer, span) in &row.consumers {
            let mentioned = match consumer {
                Consumer::Peer(link) => RecordKey::ClusterLink(link.clone()),
                Consumer::Group(group) => RecordKey::SamenessGroup(group.clone()),
            };
            decoded.mention(Some(key.clone()), mentioned, *span, severity);
        }
        let consumers: Vec<Consumer> = row.consumers.into_iter().map(|(consumer, _)| consumer).collect();
        // A row that no peer consumes exports nothing.
        if !consumers.is_empty() {
            decoded.record(key, Record::ExportedServices(Export { consumers }), row.span);
        }
    }
    // An entry of no services is one all the same, as Consul reads it back.
    if !entry.is_empty() || (decoded.records.is_empty() && declaration.form == Form::Entry) {
        decoded.record(RecordKey::ExportEntry, Record::ExportEntry(entry), declaration.header);
    }
    decoded
}

struct Row {
    span: Span,
    consumers: Vec<(Consumer, Span)>,
}

fn decode_row(mut fields: Fields<'_, '_>) -> Option<(ServiceMatch, Vec<(Consumer, Span)>)> {
    let path = fields.place.path();
    let name = fields.text("name").filter(|name| !name.text.is_empty());
    tenancy::namespace(&mut fields);
    let before = fields.faults.len();
    let consumer_tables = fields.tables("consumers");
    if consumer_tables.is_empty() && fields.faults.len() == before {
        fields.missing_with("consumers", format!("{path}: must have at least one consumer"));
    }
    let mut consumers = Vec::new();
    let at = fields.place;
    for (index, table, span) in consumer_tables {
        let place = Place::Item(&at, "consumers", index);
        consumers.extend(decode_consumer(Fields::new(table, span, place, &mut *fields.faults), span));
    }
    let Some(name) = name else {
        fields.missing_with("name", format!("{path}: service name cannot be empty"));
        fields.finish();
        return None;
    };
    let service = fields.parse_name("name", name);
    fields.finish();
    Some((service?, consumers))
}

fn decode_consumer(mut fields: Fields<'_, '_>, span: Span) -> Option<(Consumer, Span)> {
    let path = fields.place.path();
    let filled = |text: &Text<'_>| !text.text.is_empty();
    let peer = fields.text_alias("peer", "peer_name").filter(filled);
    let partition = fields.text("partition").filter(filled);
    let group = fields.text("sameness_group").filter(filled);
    let named = [peer.is_some(), partition.is_some(), group.is_some()];
    if named.into_iter().filter(|named| *named).count() > 1 {
        let summary = format!("{path}: must define at most one of Peer, Partition, or SamenessGroup");
        fields.fault("bad-value", summary, span);
    } else if let Some(partition) = partition {
        if partition.text == "*" {
            let summary = format!("{path}: exporting to all partitions (wildcard) is not supported");
            fields.fault("bad-value", summary, partition.span);
        } else {
            tenancy::check(&mut fields, "partition", partition);
        }
    }
    let consumer = match (peer, group) {
        (Some(peer), _) if peer.text == "*" => {
            let summary = format!("{path}: exporting to all peers (wildcard) is not supported");
            fields.fault("bad-value", summary, peer.span);
            None
        }
        (Some(peer), _) => fields.parse_name("peer", peer).map(|link| (Consumer::Peer(link), peer.span)),
        (None, Some(group)) => fields
            .parse_name::<SamenessGroupName>("sameness_group", group)
            .map(|name| (Consumer::Group(name), group.span)),
        (None, None) => None,
    };
    fields.finish();
    consumer
}
