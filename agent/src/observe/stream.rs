//! Live state on its way out: decoded record by record, so that a large cluster's state is never in memory twice.

use std::collections::BTreeMap;

use schema::name::{ClusterName, LinkName, ManifestName};
use schema::plan::{Live, LiveLink, LiveManifest};
use serde::ser::{Error as _, SerializeMap};
use serde::{Serialize, Serializer};

use super::{ObserveError, record};
use crate::store::Entry;

/// Live state as read. Serialises to what [`Live`] deserialises from.
#[derive(Debug, Clone, Serialize)]
pub struct Reading {
    pub cluster: ClusterName,
    pub fingerprint: String,
    pub epoch: String,
    pub revision: u64,
    /// The entries of the declared records.
    #[serde(rename = "records", serialize_with = "records")]
    pub entries: Vec<Entry>,
    pub manifests: BTreeMap<ManifestName, LiveManifest>,
    pub links: BTreeMap<LinkName, LiveLink>,
}

impl Reading {
    pub fn decode(self) -> Result<Live, ObserveError> {
        Ok(Live {
            cluster: self.cluster,
            fingerprint: self.fingerprint,
            epoch: self.epoch,
            revision: self.revision,
            records: self.entries.iter().map(record).collect::<Result<_, _>>()?,
            manifests: self.manifests,
            links: self.links,
        })
    }
}

fn records<S: Serializer>(entries: &[Entry], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(entries.len()))?;
    for entry in entries {
        let (key, record) = record(entry).map_err(S::Error::custom)?;
        map.serialize_entry(&key, &record)?;
    }
    map.end()
}
