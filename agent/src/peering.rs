//! The life of cluster links: making trust with a one-time token, keeping one connection to each peer, telling each
//! other what is exported, and ending it.
//!
//! Everything follows the store. Whoever commits a change of `/link/…` (this module for exchanges, `apply` for
//! removals) need tell nobody: one task watches the prefix and starts, restarts or ends what each half asks for.

mod dial_back;
mod exchange;
mod export;
mod farewell;
mod follow;
pub mod half;
mod import;
mod inbox;
mod issue;
mod keeper;
mod ledger;
mod listed;
mod offers;
mod outbox;
mod public;
mod refusal;
mod repin;
pub mod rotation;
mod rows;
mod seal;
mod status;
mod waiting;

pub use dial_back::Way;
pub use exchange::{Again, Redemption};
pub use half::{DialBack, Remote};
pub use issue::{ActivateRequest, Minted};
pub use listed::{Deletion, Listed};
pub use public::{Member, MemberStatus};
pub use refusal::PeeringError;
pub use waiting::Waiting;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use jiff::Timestamp;
use schema::name::{ClusterName, LinkName, ServiceName};
use schema::plan::LiveLink;
use tokio::sync::{Notify, Semaphore, watch};

use crate::audit::Audit;
use crate::catalog::{Catalog, Imports};
use crate::health::Health;
use crate::settings::{Addresses, Settings};
use crate::store::{Guard, Store, Txn, keys};
use crate::task::Tasks;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::trust::identity::Identities;
use crate::trust::mesh::{MeshAuthority, PeerBundles};
use crate::tunnel::{Incoming, Router, Session, Sessions};
use crate::wire::cluster_link::{LinkReport, StreamTimes};
use crate::wire::link::{Refusal, StreamHeader};
use half::Half;

/// What a `Peering` works with.
pub struct PeeringParts {
    pub store: Arc<dyn Store>,
    /// The cluster's key pair, whichever is current.
    pub identity: Arc<ClusterIdentity>,
    pub identities: Arc<Identities>,
    pub sessions: Arc<Sessions>,
    pub catalog: Arc<Catalog>,
    pub imports: Arc<Imports>,
    /// Whose trust bundle peers are told, and where theirs are kept.
    pub mesh_ca: Arc<MeshAuthority>,
    pub bundles: Arc<PeerBundles>,
    pub health: Arc<Health>,
    /// Where peers reach this agent, `host:port`; empty while it does not listen.
    pub addresses: Arc<Addresses>,
    pub settings: Arc<Settings>,
    pub audit: Arc<Audit>,
    pub cluster: ClusterName,
    pub tasks: Tasks,
}

/// What the streams over a link have carried, and when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamReport {
    pub times: StreamTimes,
    /// What the peer last said that it offers, and what it is offered. By name.
    pub imported: Vec<ServiceName>,
    pub exported: Vec<ServiceName>,
}

/// The links of this cluster.
pub struct Peering {
    parts: PeeringParts,
    statuses: status::Statuses,
    exports: export::Exports,
    keepers: follow::Keepers,
    strangers: Semaphore,
    /// Proofs of succession that are being checked.
    checks: Semaphore,
    /// Wakes the task that renews our own certificate.
    rotating: Notify,
    /// Links that are just being deleted, as they were.
    deleting: Mutex<BTreeMap<LinkName, Listed>>,
}

impl Peering {
    pub fn new(parts: PeeringParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            statuses: status::Statuses::default(),
            exports: export::Exports::default(),
            keepers: follow::Keepers::default(),
            strangers: Semaphore::new(farewell::STRANGERS),
            checks: Semaphore::new(repin::CHECKS),
            rotating: Notify::new(),
            deleting: Mutex::default(),
        })
    }

    /// Reads the links and keeps them until the tasks end. `router` serves what arrives on sessions dialled here.
    pub async fn run(self: &Arc<Self>, router: Arc<dyn Router>) -> Result<(), PeeringError> {
        let (revision, links) = ledger::all(&*self.parts.store).await?;
        // Before the first link: a peer that connects at once must not be told that nothing is exported.
        self.note_exports();
        self.parts.tasks.spawn("exports", Arc::clone(self).follow_exports());
        self.settle(&router, &links);
        self.resume_farewells(&router).await?;
        for (link, held) in links {
            if let Half::Redeeming(redeeming) = held.half {
                self.resume(link, redeeming);
            }
        }
        self.parts.tasks.spawn("rotation", Arc::clone(self).run_rotations());
        self.parts.tasks.spawn("links", Arc::clone(self).follow(router, revision));
        Ok(())
    }

    /// Rises whenever the state of a link may have changed.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.statuses.subscribe()
    }

    /// What a plan needs to know of every link, declared or left over.
    pub async fn live_links(&self) -> Result<BTreeMap<LinkName, LiveLink>, PeeringError> {
        Ok(self
            .reports()
            .await?
            .into_iter()
            .map(|report| (report.name.clone(), status::live(report)))
            .collect())
    }

    /// The truth about every link.
    pub async fn reports(&self) -> Result<Vec<LinkReport>, PeeringError> {
        let now = Timestamp::now();
        let declared = ledger::all_declared(&*self.parts.store).await?;
        let (_, mut halves) = ledger::all(&*self.parts.store).await?;
        for link in declared.keys() {
            halves.entry(link.clone()).or_default();
        }
        Ok(halves
            .into_iter()
            .map(|(link, held)| {
                let status = (self.statuses.get(&link), self.statuses.stream(&link));
                status::report(&link, declared.get(&link), &held.half, status, now)
            })
            .collect())
    }

    pub async fn report(&self, link: &LinkName) -> Result<LinkReport, PeeringError> {
        let (declared, _) = ledger::declared(&*self.parts.store, link).await?;
        let held = ledger::read(&*self.parts.store, link).await?;
        let status = (self.statuses.get(link), self.statuses.stream(link));
        Ok(status::report(link, Some(&declared), &held.half, status, Timestamp::now()))
    }

    /// What the streams over a link have carried, and when.
    pub fn stream(&self, link: &LinkName) -> StreamReport {
        let imports = self.parts.imports.view();
        let imported = imports.get(link).map(|imported| imported.services.sorted()).unwrap_or_default();
        StreamReport {
            times: self.statuses.stream(link),
            imported: imported.into_iter().map(|(name, _)| name.clone()).collect(),
            exported: self.exports.offers().offered(link, None, usize::MAX),
        }
    }

    /// What deletes a link's trust: to be put into the very commit that deletes its declaration. The rest (telling
    /// the peer, cutting the connection, withdrawing what was imported) follows from the commit by itself. Where its
    /// guard fails the link was active meanwhile: ask again.
    pub async fn removal(&self, link: &LinkName) -> Result<Txn, PeeringError> {
        let held = ledger::read(&*self.parts.store, link).await?;
        if held.revision.0 == 0 {
            let guard = Guard { key: keys::link(link), modify_revision: held.revision };
            return Ok(Txn { guards: vec![guard], ops: Vec::new() });
        }
        Ok(ledger::remove(link, &held, Timestamp::now()))
    }

    /// Serves a stream of peering's own kinds (all but [`StreamHeader::Service`] and [`StreamHeader::Api`]) to its end.
    pub fn serve(self: &Arc<Self>, session: &Session, incoming: Incoming) -> BoxFuture<'static, ()> {
        let (peering, session) = (Arc::clone(self), session.clone());
        match incoming.header {
            StreamHeader::Sync { .. } => Box::pin(peering.export(session, incoming)),
            StreamHeader::Farewell => Box::pin(peering.note_farewell(session, incoming)),
            StreamHeader::Succession => Box::pin(peering.note_succession(session, incoming)),
            StreamHeader::Compromised => Box::pin(peering.note_compromise(session, incoming)),
            StreamHeader::Service { .. } | StreamHeader::Api => {
                Box::pin(incoming.refuse(Refusal::Malformed, "not a stream of the link itself"))
            }
        }
    }

    /// What moves a link's trust to another name: to be put into the very commit that moves its declaration. The
    /// connection is made anew at once, under the new name.
    pub async fn renaming(&self, from: &LinkName, to: &LinkName) -> Result<Txn, PeeringError> {
        let held = ledger::read(&*self.parts.store, from).await?;
        Ok(ledger::rename(from, to, &held))
    }

    fn is_active(&self, link: &LinkName) -> bool {
        self.statuses.get(link).connection == status::Connection::Up
    }
}

#[cfg(test)]
mod tests;
