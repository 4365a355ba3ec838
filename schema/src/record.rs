//! A record: the unit that is owned, guarded and planned. Most declarations are one record; an export list is one
//! for each service and a destination's intentions are one for each source.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::kind::auth_group::AuthGroup;
use crate::kind::cluster_link::ClusterLink;
use crate::kind::entry::Entry;
use crate::kind::exported_services::Export;
use crate::kind::sameness_group::SamenessGroup;
use crate::kind::service::Service;
use crate::kind::service_defaults::ServiceDefaults;
use crate::kind::service_intentions::IntentionSource;
use crate::kind::transfer::Transfer;
use crate::kind::volume::Volume;
use crate::name::{
    GroupName, InstanceId, LinkName, ManifestName, NameError, PoolName, SamenessGroupName, ServiceName,
    TransferName, VolumeName,
};
use crate::origin::Origin;

/// A service name, or `*` for every service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ServiceMatch {
    Any,
    Named(ServiceName),
}

impl fmt::Display for ServiceMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceMatch::Any => f.pad("*"),
            ServiceMatch::Named(name) => name.fmt(f),
        }
    }
}

impl FromStr for ServiceMatch {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "*" { Ok(Self::Any) } else { text.parse().map(Self::Named) }
    }
}

impl TryFrom<String> for ServiceMatch {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ServiceMatch> for String {
    fn from(name: ServiceMatch) -> String {
        name.to_string()
    }
}

/// Names one record. Its text form (`service_intentions/backend/west/frontend`) is the key in the store and the API;
/// an intention source of this cluster has `@` where a peer's would be named, which no name can be ([`Origin`]).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RecordKey {
    AuthGroup(GroupName),
    ClusterLink(LinkName),
    SamenessGroup(SamenessGroupName),
    ServiceDefaults(ServiceName),
    /// The instance of a service whose id is the service's name.
    Service(ServiceName),
    /// An instance that has an id of its own. Made by [`RecordKey::instance`], so that no instance has two keys.
    Instance {
        service: ServiceName,
        id: InstanceId,
    },
    /// What the export list has besides its services.
    ExportEntry,
    Export(ServiceMatch),
    /// What the intentions of a destination have besides their sources.
    IntentionEntry(ServiceMatch),
    Intention {
        destination: ServiceMatch,
        origin: Origin,
        source: ServiceMatch,
    },
    Volume {
        pool: PoolName,
        volume: VolumeName,
    },
    Transfer(TransferName),
}

/// A text that is not a record key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a record key: expected KIND/NAME, such as service/backend")]
pub struct RecordKeyError;

impl RecordKey {
    /// The key of an instance.
    pub fn instance(service: ServiceName, id: InstanceId) -> Self {
        if id.as_str() == service.as_str() { Self::Service(service) } else { Self::Instance { service, id } }
    }

    /// The service that this is an instance of, and the instance's id.
    pub fn as_instance(&self) -> Option<(&ServiceName, InstanceId)> {
        match self {
            RecordKey::Service(name) => Some((name, name.into())),
            RecordKey::Instance { service, id } => Some((service, id.clone())),
            _ => None,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            RecordKey::AuthGroup(_) => Kind::AuthGroup,
            RecordKey::ClusterLink(_) => Kind::ClusterLink,
            RecordKey::SamenessGroup(_) => Kind::SamenessGroup,
            RecordKey::ServiceDefaults(_) => Kind::ServiceDefaults,
            RecordKey::Service(_) | RecordKey::Instance { .. } => Kind::Service,
            RecordKey::ExportEntry | RecordKey::Export(_) => Kind::ExportedServices,
            RecordKey::IntentionEntry(_) | RecordKey::Intention { .. } => Kind::ServiceIntentions,
            RecordKey::Volume { .. } => Kind::Volume,
            RecordKey::Transfer(_) => Kind::Transfer,
        }
    }

    /// The name of the entry that the record is part of: `backend` for a source of backend's intentions.
    pub fn entry_name(&self) -> String {
        match self {
            RecordKey::AuthGroup(name) => name.to_string(),
            RecordKey::ClusterLink(name) => name.to_string(),
            RecordKey::SamenessGroup(name) => name.to_string(),
            RecordKey::ServiceDefaults(name) | RecordKey::Service(name) => name.to_string(),
            RecordKey::Instance { service, id } => format!("{service}/{id}"),
            RecordKey::ExportEntry | RecordKey::Export(_) => "default".to_owned(),
            RecordKey::IntentionEntry(destination) | RecordKey::Intention { destination, .. } => {
                destination.to_string()
            }
            RecordKey::Volume { pool, volume } => format!("{pool}/{volume}"),
            RecordKey::Transfer(name) => name.to_string(),
        }
    }

    /// `KIND.NAME`, as plans and messages name the entry.
    pub fn address(&self) -> String {
        format!("{}.{}", self.kind(), self.entry_name())
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind(), self.entry_name())?;
        match self {
            RecordKey::Export(service) => write!(f, "/{service}"),
            RecordKey::Intention { origin, source, .. } => write!(f, "/{origin}/{source}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for RecordKey {
    type Err = RecordKeyError;
    fn from_str(text: &str) -> Result<Self, RecordKeyError> {
        fn name<T: FromStr>(text: &str) -> Result<T, RecordKeyError> {
            text.parse().map_err(|_| RecordKeyError)
        }
        let parts: Vec<&str> = text.split('/').collect();
        Ok(match parts[..] {
            ["auth_group", group] => RecordKey::AuthGroup(name(group)?),
            ["cluster_link", link] => RecordKey::ClusterLink(name(link)?),
            ["sameness_group", group] => RecordKey::SamenessGroup(name(group)?),
            ["service_defaults", service] => RecordKey::ServiceDefaults(name(service)?),
            ["service", service] => RecordKey::Service(name(service)?),
            // One key for each instance: an id that says nothing new is not written.
            ["service", service, id] if id != service => {
                RecordKey::Instance { service: name(service)?, id: name(id)? }
            }
            ["exported_services", "default"] => RecordKey::ExportEntry,
            ["exported_services", "default", service] => RecordKey::Export(name(service)?),
            ["service_intentions", destination] => RecordKey::IntentionEntry(name(destination)?),
            ["service_intentions", destination, origin, source] => RecordKey::Intention {
                destination: name(destination)?,
                origin: name(origin)?,
                source: name(source)?,
            },
            ["volume", pool, volume] => RecordKey::Volume { pool: name(pool)?, volume: name(volume)? },
            ["transfer", transfer] => RecordKey::Transfer(name(transfer)?),
            _ => return Err(RecordKeyError),
        })
    }
}

impl TryFrom<String> for RecordKey {
    type Error = RecordKeyError;
    fn try_from(text: String) -> Result<Self, RecordKeyError> {
        text.parse()
    }
}

impl From<RecordKey> for String {
    fn from(key: RecordKey) -> String {
        key.to_string()
    }
}

/// What a record says, normalised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    AuthGroup(AuthGroup),
    ClusterLink(ClusterLink),
    SamenessGroup(SamenessGroup),
    ServiceDefaults(ServiceDefaults),
    Service(Service),
    ExportedServices(Export),
    ServiceIntentions(IntentionSource),
    ExportEntry(Entry),
    IntentionEntry(Entry),
    Volume(Volume),
    Transfer(Transfer),
}

impl Record {
    /// Whether a record of this content can be under `key`.
    pub fn fits(&self, key: &RecordKey) -> bool {
        let is_entry = matches!(self, Record::ExportEntry(_) | Record::IntentionEntry(_));
        let names_entry = matches!(key, RecordKey::ExportEntry | RecordKey::IntentionEntry(_));
        self.kind() == key.kind() && is_entry == names_entry
    }

    pub fn kind(&self) -> Kind {
        match self {
            Record::AuthGroup(_) => Kind::AuthGroup,
            Record::ClusterLink(_) => Kind::ClusterLink,
            Record::SamenessGroup(_) => Kind::SamenessGroup,
            Record::ServiceDefaults(_) => Kind::ServiceDefaults,
            Record::Service(_) => Kind::Service,
            Record::ExportedServices(_) | Record::ExportEntry(_) => Kind::ExportedServices,
            Record::ServiceIntentions(_) | Record::IntentionEntry(_) => Kind::ServiceIntentions,
            Record::Volume(_) => Kind::Volume,
            Record::Transfer(_) => Kind::Transfer,
        }
    }
}

/// A record as a cluster holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveRecord {
    /// The manifest that declared it; `None` for what was made by hand or through a compat surface.
    pub owner: Option<ManifestName>,
    /// The file that declared it, as its apply named it when the record last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Store revision of its last change: what a plan guards on.
    pub modify_revision: u64,
    pub record: Record,
}

/// Every declared record of a cluster, by key.
pub type LiveRecords = BTreeMap<RecordKey, LiveRecord>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_text_form() {
        for text in [
            "auth_group/clusters",
            "cluster_link/west",
            "service/backend",
            "service/backend/backend-2",
            "exported_services/default/*",
            "service_intentions/backend/west/frontend",
            "service_intentions/*/@/*",
            "service_intentions/backend/*/*",
            "service_intentions/backend/@both/frontend",
            "service_intentions/backend",
            "exported_services/default",
            "sameness_group/both",
            "service_defaults/backend",
            "volume/default/orders",
            "transfer/orders-to-west",
        ] {
            assert_eq!(text.parse::<RecordKey>().unwrap().to_string(), text);
        }
        assert!("service_intentions/backend/west".parse::<RecordKey>().is_err());
        assert!("service/a/b/c".parse::<RecordKey>().is_err());
        assert!("service/a/a".parse::<RecordKey>().is_err());
        let one = RecordKey::instance("a".parse().unwrap(), "a".parse().unwrap());
        assert_eq!(one, RecordKey::Service("a".parse().unwrap()));
    }
}
