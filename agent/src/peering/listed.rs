//! Links as Consul's users see them: peerings, with an id and the revisions of what they are made of, those that are just
//! being deleted among them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use schema::name::LinkName;
use schema::plan::LinkState;
use schema::record::{Record, RecordKey};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::half::{Half, Remote};
use super::ledger::{self, Held};
use super::{Peering, PeeringError, StreamReport, status};
use crate::store::value::{self, Declared};
use crate::store::{self, Revision, keys};
use crate::wire::cluster_link::LinkReport;

/// How long a deletion is shown as one at most: what was imported is withdrawn long before.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(10);

/// A peering.
#[derive(Debug, Clone)]
pub struct Listed {
    pub report: LinkReport,
    pub id: Uuid,
    /// What the peer said of itself, if this side redeemed its token.
    pub remote: Option<Remote>,
    /// The peer's certificate, PEM.
    pub certificate_pem: Option<String>,
    /// What the peer's cluster calls itself, if that is known.
    pub cluster: Option<String>,
    pub stream: StreamReport,
    pub created: Revision,
    pub modified: Revision,
    pub deleted_at: Option<Timestamp>,
}

/// A deletion that is under way, shown until this is dropped.
pub struct Deletion {
    peering: Arc<Peering>,
    link: LinkName,
    /// Cancelled once the link's keeper has withdrawn what was imported; `None` if it has none.
    withdrawn: Option<CancellationToken>,
}

impl Deletion {
    /// Waits until nothing of the link is left here.
    pub async fn withdrawn(self) {
        if let Some(withdrawn) = &self.withdrawn {
            // Shown for a little too short a time is no harm.
            let _ = tokio::time::timeout(WITHDRAWN_WITHIN, withdrawn.cancelled()).await;
        }
    }
}

impl Drop for Deletion {
    fn drop(&mut self) {
        self.peering.deleting().remove(&self.link);
        self.peering.statuses.touch();
    }
}

impl Peering {
    /// The number of this moment: rises with every change of what `listed` shows, over restarts as well.
    pub fn index(&self) -> u64 {
        let view = self.parts.catalog.view().revision.0;
        self.statuses.index().saturating_add(view)
    }

    /// Every peering, by name.
    pub async fn listed(&self) -> Result<Vec<Listed>, PeeringError> {
        let snapshot = self.parts.store.range(&format!("{}cluster_link/", keys::DECLARED)).await?;
        let (_, mut halves) = ledger::all(&*self.parts.store).await?;
        let mut listed: BTreeMap<LinkName, Listed> = BTreeMap::new();
        for entry in &snapshot.entries {
            if let Some(RecordKey::ClusterLink(link)) = keys::declared_record(&entry.key) {
                let held = halves.remove(&link).unwrap_or_default();
                if let Some(one) = self.list(&link, entry, &held)? {
                    listed.insert(link, one);
                }
            }
        }
        listed.extend(self.deleting().iter().map(|(link, one)| (link.clone(), one.clone())));
        Ok(listed.into_values().collect())
    }

    /// One peering; `None` if there is none of that name.
    pub async fn listed_one(&self, link: &LinkName) -> Result<Option<Listed>, PeeringError> {
        if let Some(deleting) = self.deleting().get(link) {
            return Ok(Some(deleting.clone()));
        }
        let key = keys::declared(&RecordKey::ClusterLink(link.clone()));
        let Some(entry) = self.parts.store.get(&key).await? else { return Ok(None) };
        self.list(link, &entry, &ledger::read(&*self.parts.store, link).await?)
    }

    fn list(
        &self,
        link: &LinkName,
        entry: &store::Entry,
        held: &Held,
    ) -> Result<Option<Listed>, PeeringError> {
        let parts = &self.parts;
        let Record::ClusterLink(declared) = value::decode::<Declared>(entry)?.record else { return Ok(None) };
        let mut stream = self.stream(link);
        if !matches!(held.half, Half::Established(_)) {
            // Whatever the list of exports says, nobody is there who is offered it.
            stream.exported.clear();
        }
        let status = (self.statuses.get(link), stream.times);
        let report = status::report(link, Some(&declared), &held.half, status, Timestamp::now());
        let remote = match &held.half {
            Half::Established(established) => established.remote.clone(),
            Half::Redeeming(redeeming) => redeeming.remote.clone(),
            _ => None,
        };
        Ok(Some(Listed {
            id: self.id_of(link, entry.create_revision),
            cluster: parts
                .imports
                .view()
                .get(link)
                .map(|imported| imported.cluster.to_string())
                .or_else(|| remote.as_ref().map(|remote| remote.cluster.clone())),
            remote,
            certificate_pem: held.half.peer().map(|peer| peer.certificate_pem.clone()),
            stream,
            created: entry.create_revision,
            modified: entry.modify_revision.max(held.revision),
            deleted_at: None,
            report,
        }))
    }

    /// What programs call a peering: the same for as long as it is there under its name, and another's never.
    pub fn id_of(&self, link: &LinkName, created: Revision) -> Uuid {
        let mut hash = Sha256::new();
        hash.update(b"comity peering\0");
        hash.update(self.parts.mesh_ca.roots().domain.as_str());
        hash.update(format!("\0{link}\0{created}"));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// Shows a peering as being deleted from now on. `None` where it is that already, or is not there.
    pub async fn begin_deletion(
        self: &Arc<Self>,
        link: &LinkName,
        now: Timestamp,
    ) -> Result<Option<Deletion>, PeeringError> {
        let Some(mut listed) = self.listed_one(link).await?.filter(|listed| listed.deleted_at.is_none())
        else {
            return Ok(None);
        };
        listed.deleted_at = Some(now);
        listed.report.state = LinkState::Deleting;
        let withdrawn = self.keepers.ended(link);
        match self.deleting().entry(link.clone()) {
            Entry::Occupied(_) => return Ok(None),
            Entry::Vacant(place) => place.insert(listed),
        };
        self.statuses.touch();
        Ok(Some(Deletion { peering: Arc::clone(self), link: link.clone(), withdrawn }))
    }

    /// Whether a peering of this name is just being deleted.
    pub fn is_being_deleted(&self, link: &LinkName) -> bool {
        self.deleting().contains_key(link)
    }

    fn deleting(&self) -> MutexGuard<'_, BTreeMap<LinkName, Listed>> {
        // The map is whole between statements, so a panic elsewhere leaves nothing half done.
        self.deleting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
