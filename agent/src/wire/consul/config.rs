//! Config entries as `/v1/config` gives and takes them.

use std::collections::BTreeMap;

use schema::access::precedence;
use schema::kind::Kind;
use schema::kind::entry::Entry as Rest;
use schema::kind::exported_services::Consumer;
use schema::kind::sameness_group::SamenessGroup as Group;
use schema::kind::service_defaults::ServiceDefaults as Defaults;
use schema::kind::service_intentions::{Action, IntentionSource};
use schema::origin::Origin;
use schema::record::{Record, RecordKey, ServiceMatch};
use serde::{Deserialize, Serialize};

use super::intention::{Jwt, Permission};

type Meta = BTreeMap<String, String>;

/// An entry of one of the kinds that are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ConfigEntry {
    ExportedServices(ExportedServices),
    ServiceIntentions(ServiceIntentions),
    SamenessGroup(SamenessGroup),
    ServiceDefaults(ServiceDefaults),
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExportedServices {
    pub kind: String,
    pub name: String,
    pub services: Vec<ExportedService>,
    #[serde(skip_serializing_if = "Meta::is_empty")]
    pub meta: Meta,
    #[serde(flatten)]
    pub stamp: Stamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExportedService {
    pub name: String,
    pub consumers: Vec<ServiceConsumer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceConsumer {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sameness_group: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceIntentions {
    pub kind: String,
    pub name: String,
    pub sources: Vec<Source>,
    #[serde(rename = "JWT", skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    #[serde(skip_serializing_if = "Meta::is_empty")]
    pub meta: Meta,
    #[serde(flatten)]
    pub stamp: Stamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Source {
    pub name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub action: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Permission>,
    pub precedence: u8,
    #[serde(rename = "Type")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sameness_group: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SamenessGroup {
    pub kind: String,
    pub name: String,
    pub default_for_failover: bool,
    pub include_local: bool,
    pub members: Vec<Member>,
    #[serde(skip_serializing_if = "Meta::is_empty")]
    pub meta: Meta,
    #[serde(flatten)]
    pub stamp: Stamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Member {
    pub peer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceDefaults {
    pub kind: String,
    pub name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub protocol: &'static str,
    #[serde(skip_serializing_if = "Meta::is_empty")]
    pub meta: Meta,
    #[serde(flatten)]
    pub stamp: Stamp,
}

/// What every entry ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Stamp {
    /// Of the content, without this. Beyond what a JSON number of other languages holds exactly.
    #[serde(skip_serializing_if = "is_zero")]
    pub hash: u64,
    pub create_index: u64,
    pub modify_index: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(hash: &u64) -> bool {
    *hash == 0
}

/// A row of `/v1/exported-services`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ResolvedService {
    pub service: String,
    pub consumers: ExportedConsumers,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExportedConsumers {
    pub peers: Vec<String>,
}

/// When an entry was made and last changed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Revisions {
    pub created: u64,
    pub modified: u64,
}

impl ConfigEntry {
    /// The entry of a kind and a name that these records make up; `None` for a kind that is no config entry's.
    pub fn of<'a>(
        kind: Kind,
        name: &str,
        parts: impl Iterator<Item = (&'a RecordKey, &'a Record)>,
        revisions: Revisions,
    ) -> Option<Self> {
        let name = name.to_owned();
        let mut entry = match kind {
            Kind::ExportedServices => Self::ExportedServices(exported_services(name, parts)),
            Kind::ServiceIntentions => Self::ServiceIntentions(service_intentions(name, parts)),
            Kind::SamenessGroup => Self::SamenessGroup(sameness_group(name, parts)),
            Kind::ServiceDefaults => Self::ServiceDefaults(service_defaults(name, parts)),
            _ => return None,
        };
        let hash = entry.content_hash();
        let Revisions { created, modified } = revisions;
        *entry.stamp_mut() = Stamp { hash, create_index: created, modify_index: modified };
        Some(entry)
    }

    /// The same as a client sends it: without what the server fills in.
    #[must_use]
    pub fn unstamped(mut self) -> Self {
        *self.stamp_mut() = Stamp::default();
        self
    }

    fn stamp_mut(&mut self) -> &mut Stamp {
        match self {
            Self::ExportedServices(entry) => &mut entry.stamp,
            Self::ServiceIntentions(entry) => &mut entry.stamp,
            Self::SamenessGroup(entry) => &mut entry.stamp,
            Self::ServiceDefaults(entry) => &mut entry.stamp,
        }
    }

    fn content_hash(&self) -> u64 {
        let content = serde_json::to_vec(self).unwrap_or_default();
        let mut first = [0; 8];
        first.copy_from_slice(&blake3::hash(&content).as_bytes()[..8]);
        u64::from_le_bytes(first)
    }
}

fn exported_services<'a>(
    name: String,
    parts: impl Iterator<Item = (&'a RecordKey, &'a Record)>,
) -> ExportedServices {
    let mut entry =
        ExportedServices { kind: "exported-services".to_owned(), name, ..ExportedServices::default() };
    for part in arranged(parts) {
        match part {
            (RecordKey::Export(service), Record::ExportedServices(export)) => {
                let consumers = export.consumers.iter().map(|consumer| match consumer {
                    Consumer::Peer(link) => {
                        ServiceConsumer { peer: link.to_string(), ..ServiceConsumer::default() }
                    }
                    Consumer::Group(group) => {
                        ServiceConsumer { sameness_group: group.to_string(), ..ServiceConsumer::default() }
                    }
                });
                let consumers = consumers.collect();
                entry.services.push(ExportedService { name: service.to_string(), consumers });
            }
            (_, Record::ExportEntry(rest)) => entry.meta.clone_from(&rest.meta),
            _ => {}
        }
    }
    entry
}

fn service_intentions<'a>(
    name: String,
    parts: impl Iterator<Item = (&'a RecordKey, &'a Record)>,
) -> ServiceIntentions {
    let mut entry =
        ServiceIntentions { kind: "service-intentions".to_owned(), name, ..ServiceIntentions::default() };
    for part in arranged(parts) {
        match part {
            (RecordKey::Intention { destination, origin, source: name }, Record::ServiceIntentions(rule)) => {
                entry.sources.push(source(precedence(destination, name), origin, name, rule));
            }
            (_, Record::IntentionEntry(Rest { meta, jwt, .. })) => {
                entry.meta.clone_from(meta);
                entry.jwt = (!jwt.is_empty()).then(|| jwt.into());
            }
            _ => {}
        }
    }
    entry
}

/// The parts in the order in which they are shown.
fn arranged<'a>(
    parts: impl Iterator<Item = (&'a RecordKey, &'a Record)>,
) -> Vec<(&'a RecordKey, &'a Record)> {
    let mut parts: Vec<_> = parts.collect();
    let rest = parts.iter().find_map(|(_, record)| match record {
        Record::ExportEntry(rest) | Record::IntentionEntry(rest) => Some(rest),
        _ => None,
    });
    rest.unwrap_or(&Rest::default()).arrange(&mut parts, |(key, _)| *key);
    parts
}

fn source(precedence: u8, origin: &Origin, name: &ServiceMatch, rule: &IntentionSource) -> Source {
    let (peer, sameness_group) = named(origin);
    Source {
        name: name.to_string(),
        action: action_of(rule),
        permissions: rule.permissions.iter().map(Permission::from).collect(),
        precedence,
        kind: "consul",
        description: rule.description.clone(),
        peer,
        sameness_group,
    }
}

/// `Peer` and `SamenessGroup` of an origin; `*` as a peer means any, which is ours.
pub(super) fn named(origin: &Origin) -> (String, String) {
    match origin {
        Origin::Local => (String::new(), String::new()),
        Origin::Peer(peer) => (peer.to_string(), String::new()),
        Origin::AnyPeer => ("*".to_owned(), String::new()),
        Origin::Group(group) => (String::new(), group.to_string()),
    }
}

/// The `Action` of a source: none where permissions take its place.
pub(super) fn action_of(rule: &IntentionSource) -> &'static str {
    match rule.action {
        _ if !rule.permissions.is_empty() => "",
        Action::Allow => "allow",
        Action::Deny => "deny",
    }
}

fn sameness_group<'a>(
    name: String,
    mut parts: impl Iterator<Item = (&'a RecordKey, &'a Record)>,
) -> SamenessGroup {
    let group = parts.find_map(|(_, record)| match record {
        Record::SamenessGroup(group) => Some(group.clone()),
        _ => None,
    });
    let Group { members, include_local, default_for_failover, meta } = group.unwrap_or_default();
    SamenessGroup {
        kind: "sameness-group".to_owned(),
        name,
        default_for_failover,
        include_local,
        members: members.iter().map(|peer| Member { peer: peer.to_string() }).collect(),
        meta,
        stamp: Stamp::default(),
    }
}

fn service_defaults<'a>(
    name: String,
    mut parts: impl Iterator<Item = (&'a RecordKey, &'a Record)>,
) -> ServiceDefaults {
    let defaults = parts.find_map(|(_, record)| match record {
        Record::ServiceDefaults(defaults) => Some(defaults.clone()),
        _ => None,
    });
    let Defaults { protocol, meta } = defaults.unwrap_or_default();
    ServiceDefaults {
        kind: "service-defaults".to_owned(),
        name,
        protocol: protocol.map_or("", |protocol| protocol.as_str()),
        meta,
        stamp: Stamp::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schema::config::entry;
    use schema::document::Syntax;

    use super::*;

    #[test]
    fn what_is_read_says_what_was_written() {
        for text in [
            r#"{"Kind":"exported-services","Name":"default","Services":[{"Name":"*","Consumers":[{"Peer":"east"},{"SamenessGroup":"all"}]}],"Meta":{"a":"b"}"#,
            r#"{"Kind":"exported-services","Name":"default","Services":[]"#,
            r#"{"Kind":"service-intentions","Name":"web","Sources":[{"Name":"api","Permissions":[{"Action":"allow","HTTP":{"PathPrefix":"/x","Header":[{"Name":"h","Exact":"v","IgnoreCase":true}],"Methods":["GET"]},"JWT":{"Providers":[{"Name":"p","VerifyClaims":[{"Path":["a"],"Value":"b"}]}]}}],"Precedence":9,"Type":"consul","Peer":"east"},{"Name":"*","Action":"deny","Precedence":8,"Type":"consul","Description":"d"},{"Name":"*","Action":"allow","Precedence":8,"Type":"consul","Peer":"*"}],"JWT":{"Providers":[{"Name":"p"}]},"Meta":{"t":"a"}"#,
            r#"{"Kind":"sameness-group","Name":"all","DefaultForFailover":true,"IncludeLocal":true,"Members":[{"Peer":"b"},{"Peer":"a"}]"#,
            r#"{"Kind":"service-defaults","Name":"web","Protocol":"http2""#,
        ] {
            let sent = format!("{text},\"Hash\":5,\"CreateIndex\":3,\"ModifyIndex\":4}}");
            let read = entry::entries(&Arc::from("entry"), sent.as_bytes(), Syntax::Json);
            assert!(read.faults.is_empty() && read.entries[0].faults.is_empty(), "{read:?}");
            let entry::Entry { kind, name, records } = &read.entries[0].entry;
            let revisions = Revisions { created: 3, modified: 4 };
            let entry = ConfigEntry::of(*kind, name, records.iter(), revisions).unwrap();
            let shown = serde_json::to_string(&entry).unwrap();
            let (content, stamp) = shown.split_once(",\"Hash\":").unwrap();
            assert_eq!(content, text);
            assert!(stamp.ends_with(",\"CreateIndex\":3,\"ModifyIndex\":4}"), "{stamp}");
            let bare = serde_json::to_string(&entry.unstamped()).unwrap();
            assert_eq!(bare, format!("{text},\"CreateIndex\":0,\"ModifyIndex\":0}}"));
        }
    }
}
