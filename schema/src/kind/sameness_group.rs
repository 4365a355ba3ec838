//! `sameness_group "NAME" {}`: peers that are treated alike (Consul: sameness-group config entry).

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Form, Place, Text};
use super::{Declaration, Decoded, Kind, meta, tenancy};
use crate::diagnostic::{Faults, Severity};
use crate::document::Span;
use crate::name::LinkName;
use crate::record::{Record, RecordKey};

/// A set of peers that one export or one intention can name at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct SamenessGroup {
    /// In the order of the file, which Consul's failover follows. Each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<LinkName>,
    /// Whether this cluster is a member: always meant by Consul's member `Partition = "default"`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub include_local: bool,
    /// Consul's `DefaultForFailover`: kept and shown; there is no failover yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default_for_failover: bool,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub meta: std::collections::BTreeMap<String, String>,
}

/// Decodes one block or config entry.
pub fn decode(declaration: &Declaration<'_>, faults: &mut Faults) -> Decoded {
    let root = Place::Root(declaration.form);
    let name = declaration.parse_name(Kind::SamenessGroup, faults);
    let mut fields = declaration.fields(&root, faults);
    tenancy::partition(&mut fields);
    let mut group = SamenessGroup { meta: meta::decode(&mut fields, "meta"), ..SamenessGroup::default() };
    group.include_local = fields.boolean("include_local").unwrap_or_default();
    group.default_for_failover = fields.boolean("default_for_failover").unwrap_or_default();
    let mut members: Vec<(LinkName, Span)> = Vec::new();
    for (index, table, span) in fields.tables("members") {
        let place = Place::Item(&root, "members", index);
        match decode_member(Fields::new(table, span, place, &mut *fields.faults), span) {
            Some(Member::Local) => group.include_local = true,
            Some(Member::Peer(peer, at)) if members.iter().any(|(known, _)| *known == peer) => {
                let summary = format!("{} names peer \"{peer}\" a second time", place.path());
                fields.fault("duplicate-name", summary, at);
            }
            Some(Member::Peer(peer, at)) => members.push((peer, at)),
            None => {}
        }
    }
    fields.finish();
    let mut decoded = Decoded::default();
    if let Some(name) = name {
        let key = RecordKey::SamenessGroup(name);
        // Consul takes a peer that is not there yet; a block that names one is a mistake.
        let severity = if declaration.form == Form::Entry { Severity::Warning } else { Severity::Error };
        for (link, at) in &members {
            decoded.mention(Some(key.clone()), RecordKey::ClusterLink(link.clone()), *at, severity);
        }
        group.members = members.into_iter().map(|(link, _)| link).collect();
        decoded.record(key, Record::SamenessGroup(group), declaration.header);
    }
    decoded
}

enum Member {
    Local,
    Peer(LinkName, Span),
}

fn decode_member(mut fields: Fields<'_, '_>, span: Span) -> Option<Member> {
    let path = fields.place.path();
    let filled = |text: &Text<'_>| !text.text.is_empty();
    let peer = fields.text("peer").filter(filled);
    let partition =
        if fields.place.form() == Form::Entry { fields.text("partition").filter(filled) } else { None };
    let member = match (peer, partition) {
        (Some(_), Some(_)) => {
            fields.fault("bad-value", format!("{path}: a member is either a Peer or a Partition"), span);
            None
        }
        (Some(peer), None) if peer.text == "*" => {
            fields.fault("bad-value", format!("{path}: cannot use wildcard '*' in peer"), peer.span);
            None
        }
        (Some(peer), None) => fields.parse_name("peer", peer).map(|link| Member::Peer(link, peer.span)),
        (None, Some(partition)) => {
            tenancy::check(&mut fields, "partition", partition);
            Some(Member::Local)
        }
        (None, None) => {
            fields.missing("peer");
            None
        }
    };
    fields.finish();
    member
}
