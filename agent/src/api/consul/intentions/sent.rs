//! An intention as clients send it, and the record that it comes to. What it says is checked as a config entry of one
//! source is, so both say the same of the same fault.

use std::collections::BTreeMap;
use std::sync::Arc;

use schema::config::entry;
use schema::document::Syntax;
use schema::origin::Origin;
use schema::record::{Record, RecordKey};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::named;
use crate::api::consul::answer::ConsulError;

/// What is wrong with a description that is longer than Consul takes.
const MAX_DESCRIPTION: usize = 512;

/// Consul's body. What only a server fills in is taken and passed over.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename = "structs.Intention", rename_all = "PascalCase", default)]
pub struct SentIntention {
    #[serde(rename = "ID")]
    pub id: String,
    description: String,
    #[serde(rename = "SourceNS")]
    source_ns: String,
    source_name: String,
    #[serde(rename = "DestinationNS")]
    destination_ns: String,
    destination_name: String,
    source_partition: String,
    destination_partition: String,
    source_peer: String,
    source_sameness_group: String,
    source_type: String,
    action: String,
    permissions: Option<Vec<Value>>,
    #[serde(rename = "JWT")]
    jwt: Option<Value>,
    pub meta: Option<BTreeMap<String, String>>,
    #[serde(rename = "DefaultAddr")]
    _default_addr: Value,
    #[serde(rename = "DefaultPort")]
    _default_port: Value,
    #[serde(rename = "Precedence")]
    _precedence: Value,
    #[serde(rename = "CreatedAt")]
    _created_at: Value,
    #[serde(rename = "UpdatedAt")]
    _updated_at: Value,
    #[serde(rename = "Hash")]
    _hash: Value,
    #[serde(rename = "CreateIndex")]
    _create_index: Value,
    #[serde(rename = "ModifyIndex")]
    _modify_index: Value,
}

impl SentIntention {
    /// The intention that the body names, where the URL does not.
    pub fn key(&self) -> Result<RecordKey, ConsulError> {
        let mut faults = Vec::new();
        for (what, tenant, name) in [
            ("Source", &self.source_ns, &self.source_name),
            ("Destination", &self.destination_ns, &self.destination_name),
        ] {
            end_faults(what, tenant, name, &mut faults);
        }
        for (what, partition) in
            [("Source", &self.source_partition), ("Destination", &self.destination_partition)]
        {
            if !matches!(partition.as_str(), "" | "default") {
                faults.push(format!("{what}Partition: Partitions are a Consul Enterprise feature"));
            }
        }
        if self.description.len() > MAX_DESCRIPTION {
            faults.push(format!("Description exceeds maximum length {MAX_DESCRIPTION}"));
        }
        if !matches!(self.source_type.as_str(), "" | "consul") {
            faults.push("SourceType must be set to 'consul'".to_owned());
        }
        // The command sends what it makes of `peer:west/web`: a namespace of that name.
        let (peer, group) = (self.peer(), &self.source_sameness_group);
        if !peer.is_empty() && !group.is_empty() {
            faults.push("SourceSamenessGroup: cannot set SamenessGroup and Peer at the same time".to_owned());
        }
        match &faults[..] {
            [] => {}
            [one] => return Err(ConsulError::refused(one)),
            many => {
                let list: String = many.iter().flat_map(|fault| ["\t* ", fault, "\n"]).collect();
                return Err(ConsulError::refused(format!("{} errors occurred:\n{list}\n", many.len())));
            }
        }
        let source = match (peer, group.as_str()) {
            ("", "") => self.source_name.clone(),
            ("", group) => format!("sameness-group:{group}/{}", self.source_name),
            (peer, _) => format!("peer:{peer}/{}", self.source_name),
        };
        let (origin, source) = named::source(&source)?;
        let destination = named::destination(&self.destination_name)?;
        Ok(RecordKey::Intention { destination, origin, source })
    }

    fn peer(&self) -> &str {
        match self.source_ns.strip_prefix("peer:") {
            Some(peer) if self.source_peer.is_empty() => peer,
            _ => &self.source_peer,
        }
    }

    /// What it says of the intention under `key`.
    pub fn record(&self, key: &RecordKey) -> Result<Record, ConsulError> {
        let RecordKey::Intention { destination, origin, source } = key else {
            return Err(ConsulError::refused("this names no intention"));
        };
        if self.jwt.as_ref().is_some_and(|jwt| !matches!(jwt, Value::Null)) {
            let message =
                "JWT belongs to all sources of a destination: write its service-intentions config entry";
            return Err(ConsulError::refused(message));
        }
        let mut row = Map::new();
        row.insert("Name".to_owned(), json!(source.to_string()));
        match origin {
            Origin::Local => {}
            Origin::Peer(peer) => drop(row.insert("Peer".to_owned(), json!(peer.to_string()))),
            Origin::AnyPeer => drop(row.insert("Peer".to_owned(), json!("*"))),
            Origin::Group(group) => drop(row.insert("SamenessGroup".to_owned(), json!(group.to_string()))),
        }
        row.insert("Action".to_owned(), json!(self.action));
        row.insert("Description".to_owned(), json!(self.description));
        row.insert("Type".to_owned(), json!(self.source_type));
        if let Some(permissions) = &self.permissions {
            row.insert("Permissions".to_owned(), json!(permissions));
        }
        let entry =
            json!({ "Kind": "service-intentions", "Name": destination.to_string(), "Sources": [row] });
        let read = entry::entries(&Arc::from("body"), entry.to_string().as_bytes(), Syntax::Json);
        let faults: Vec<_> =
            read.faults.into_iter().chain(read.entries.iter().flat_map(|read| read.faults.clone())).collect();
        if let Some((_, text)) = entry::told(&faults) {
            return Err(ConsulError::refused(text));
        }
        let mut records = read.entries.into_iter().flat_map(|read| read.entry.records);
        let found = records.find(|(found, _)| found == key).map(|(_, record)| record);
        found.ok_or_else(|| ConsulError::refused("this names no intention"))
    }
}

/// What is wrong with one end, in Consul's words.
fn end_faults(what: &str, namespace: &str, name: &str, faults: &mut Vec<String>) {
    if name.is_empty() {
        faults.push(format!("{what}Name must be set"));
    }
    if namespace.contains('*') && namespace != "*" {
        faults.push(format!("{what}NS: wildcard character '*' cannot be used with partial values"));
    } else if namespace == "*" && name != "*" {
        faults.push(format!("{what}Name: exact value cannot follow wildcard namespace"));
    } else if !matches!(namespace, "" | "default" | "*")
        && (what != "Source" || !namespace.starts_with("peer:"))
    {
        faults.push(format!("{what}NS: Namespaces are a Consul Enterprise feature"));
    }
    if name.contains('*') && name != "*" {
        faults.push(format!("{what}Name: wildcard character '*' cannot be used with partial values"));
    }
}
