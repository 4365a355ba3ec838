//! Live state as schema types.
//!
//! There is no state file: what is live is read from the store, a range for the records and one for the manifests.
//! The two may be a commit apart. That is harmless: a plan guards on each record's own revision, not on the whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use schema::kind::Kind;
use schema::name::{ClusterName, GroupName, LinkName, ManifestName};
use schema::plan::{Live, LiveLink, LiveManifest};
use schema::record::{LiveRecord, RecordKey};
use serde::{Deserialize, Serialize};

use crate::peering::Peering;
use crate::store::value::{self, Declared, ValueError};
use crate::store::{Entry, Snapshot, Store, StoreError, Txn, keys};
use crate::trust::IdentityId;
use crate::trust::cluster_identity::ClusterIdentity;

pub mod entry;
mod stream;

pub use stream::Reading;

/// The trust of links, as far as observing and applying need it: `peering`, or a stand-in in tests.
pub trait LinkTrust: Send + Sync + 'static {
    /// What a plan needs to know of every link.
    fn live_links(&self) -> BoxFuture<'_, Result<BTreeMap<LinkName, LiveLink>, String>>;
    /// What deletes a link's trust, for the commit that deletes its declaration.
    fn removal<'a>(&'a self, link: &'a LinkName) -> BoxFuture<'a, Result<Txn, String>>;
    /// What moves a link's trust to another name, for the commit that moves its declaration.
    fn renaming<'a>(&'a self, from: &'a LinkName, to: &'a LinkName) -> BoxFuture<'a, Result<Txn, String>>;
}

impl LinkTrust for Peering {
    fn live_links(&self) -> BoxFuture<'_, Result<BTreeMap<LinkName, LiveLink>, String>> {
        Box::pin(async { Peering::live_links(self).await.map_err(|error| error.to_string()) })
    }

    fn removal<'a>(&'a self, link: &'a LinkName) -> BoxFuture<'a, Result<Txn, String>> {
        Box::pin(async move { Peering::removal(self, link).await.map_err(|error| error.to_string()) })
    }

    fn renaming<'a>(&'a self, from: &'a LinkName, to: &'a LinkName) -> BoxFuture<'a, Result<Txn, String>> {
        Box::pin(async move { Peering::renaming(self, from, to).await.map_err(|error| error.to_string()) })
    }
}

/// What a `/manifest/` key holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRecord {
    pub declared: schema::kind::manifest::Manifest,
    pub bound_to: Binding,
}

/// Who a manifest belongs to: whoever first applied it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// The administrator of the agent's machine, over the unix socket or by a watched folder.
    Local,
    Client {
        #[serde(alias = "fingerprint")]
        id: IdentityId,
        name: String,
    },
    Link {
        link: LinkName,
    },
}

impl std::fmt::Display for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Binding::Local => f.write_str("the agent's own administrator"),
            Binding::Client { name, .. } => write!(f, "client {name}"),
            Binding::Link { link } => write!(f, "link {link}"),
        }
    }
}

/// Why live state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error("the store holds a key that names no record: {0}")]
    Key(String),
    #[error("the state of the links could not be read: {0}")]
    Links(String),
}

/// Reads live state.
#[derive(Clone)]
pub struct Observe {
    store: Arc<dyn Store>,
    links: Arc<dyn LinkTrust>,
    cluster: ClusterName,
    identity: Arc<ClusterIdentity>,
}

impl Observe {
    pub fn new(
        store: Arc<dyn Store>,
        links: Arc<dyn LinkTrust>,
        cluster: ClusterName,
        identity: Arc<ClusterIdentity>,
    ) -> Self {
        Self { store, links, cluster, identity }
    }

    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// One config entry.
    pub async fn entry(&self, key: &entry::EntryKey) -> Result<entry::LiveEntry, ObserveError> {
        entry::entry(&*self.store, key).await
    }

    /// Every config entry of a kind.
    pub async fn entries(&self, kind: Kind) -> Result<entry::LiveEntries, ObserveError> {
        entry::entries(&*self.store, kind).await
    }

    /// Everything, decoded.
    pub async fn live(&self) -> Result<Live, ObserveError> {
        self.read().await?.decode()
    }

    /// Everything, as it lies in the store: to be sent on without all of it being decoded at once.
    pub async fn read(&self) -> Result<Reading, ObserveError> {
        let links = self.links.live_links().await.map_err(ObserveError::Links)?;
        let manifests = manifests(&self.store.range(keys::MANIFEST).await?)?;
        let Snapshot { revision, entries } = self.store.range(keys::DECLARED).await?;
        Ok(Reading {
            cluster: self.cluster.clone(),
            fingerprint: self.identity.fingerprint().to_string(),
            epoch: self.store.epoch().to_owned(),
            revision: revision.0,
            entries,
            manifests,
            links,
        })
    }
}

/// A `/declared/` entry as a live record.
pub fn record(entry: &Entry) -> Result<(RecordKey, LiveRecord), ObserveError> {
    let key = keys::declared_record(&entry.key).ok_or_else(|| ObserveError::Key(entry.key.clone()))?;
    let Declared { owner, file, record } = value::decode(entry)?;
    Ok((key, LiveRecord { owner, file, modify_revision: entry.modify_revision.0, record }))
}

fn manifests(snapshot: &Snapshot) -> Result<BTreeMap<ManifestName, LiveManifest>, ObserveError> {
    snapshot
        .entries
        .iter()
        .map(|entry| {
            let name: ManifestName =
                keys::last_part(&entry.key).parse().map_err(|_| ObserveError::Key(entry.key.clone()))?;
            let ManifestRecord { declared, bound_to } = value::decode(entry)?;
            let owners: Vec<GroupName> = declared.owners;
            let live = LiveManifest {
                modify_revision: entry.modify_revision.0,
                bound_to: bound_to.to_string(),
                owners,
            };
            Ok((name, live))
        })
        .collect()
}
