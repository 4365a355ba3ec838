//! `exported_services "default" {}`: which services a peer is offered (Consul: exported-services config entry).
//!
//! Each service of the list is a record of its own, so that two manifests can own different ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Form, Place, Text};
use super::{Declaration, Decoded, meta, tenancy};
use crate::diagnostic::{Diagnostic, Faults, Severity};
use crate::document::Span;
use crate::name::LinkName;
use crate::record::{Record, RecordKey, ServiceMatch};

/// One service's row of the export list; the service is in the record's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Export {
    /// The links that are offered the service. Sorted, without duplicates, never empty.
    pub consumers: Vec<LinkName>,
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
    meta::decode(&mut fields, "meta");
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
    for (service, mut row) in rows {
        let key = RecordKey::Export(service);
        row.consumers.sort_by(|a, b| a.0.cmp(&b.0));
        row.consumers.dedup_by(|a, b| a.0 == b.0);
        for (link, span) in &row.consumers {
            decoded.mention(Some(key.clone()), RecordKey::ClusterLink(link.clone()), *span, severity);
        }
        let consumers: Vec<LinkName> = row.consumers.into_iter().map(|(link, _)| link).collect();
        // A row that no peer consumes exports nothing.
        if !consumers.is_empty() {
            decoded.record(key, Record::ExportedServices(Export { consumers }), row.span);
        }
    }
    decoded
}

struct Row {
    span: Span,
    consumers: Vec<(LinkName, Span)>,
}

fn decode_row(mut fields: Fields<'_, '_>) -> Option<(ServiceMatch, Vec<(LinkName, Span)>)> {
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

fn decode_consumer(mut fields: Fields<'_, '_>, span: Span) -> Option<(LinkName, Span)> {
    let path = fields.place.path();
    let filled = |text: &Text<'_>| !text.text.is_empty();
    let peer = fields.text_alias("peer", "peer_name").filter(filled);
    let partition = fields.text("partition").filter(filled);
    let group = fields.text("sameness_group").filter(filled);
    if let Some(group) = group {
        let summary = format!("{path}: sameness-groups are an enterprise-only feature");
        fields.fault("not-taken", summary, group.span);
    } else if peer.is_some() && partition.is_some() {
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
    let link = match peer {
        Some(peer) if peer.text == "*" => {
            let summary = format!("{path}: exporting to all peers (wildcard) is not supported");
            fields.fault("bad-value", summary, peer.span);
            None
        }
        Some(peer) => fields.parse_name("peer", peer).map(|link| (link, peer.span)),
        None => None,
    };
    fields.finish();
    link
}
