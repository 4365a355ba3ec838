//! Standing permits, shared by the connections that they let through.
//!
//! A permit is not asked for once: a connection goes on only for as long as it would be let in again. Ten thousand of
//! them must not all wake and decide when a line of the catalog changes, so connections of one pair share one
//! [`Grant`], and one task judges each grant again when the catalog or the identities have changed. A grant that falls
//! fires once for all that hold it. One that nobody holds is forgotten: what is kept is never more than what is open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::MeshParts;
use super::admission::{Admitted, Refused, Request, admit, link_of};
use super::traffic::{Counters, Pair, Traffic};
use crate::catalog::{Catalog, CatalogView, Instances};
use crate::store::Revision;
use crate::trust::Fingerprint;
use crate::trust::identity::Identities;
use crate::wire::traffic::Way;

/// Grants that are judged before others get a turn.
const CHUNK: usize = 256;
/// A pass over all grants rests this many times as long as it took, so that a catalog that changes all the time takes
/// no more than a part of a core; but never so long that a change acts late.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_millis(300);

/// What a connection is let in for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wish {
    pub request: Request,
    /// The certificate that the source's link is known by, where the connection came over its session: the permit ends
    /// with it.
    pub peer: Option<Fingerprint>,
    /// For what is counted alone.
    pub way: Way,
}

impl Wish {
    /// What is counted of it, before it is known which rule decides.
    pub(super) fn pair(&self) -> Pair {
        Pair {
            source: self.request.source.clone(),
            destination: self.request.destination.clone(),
            destination_peer: None,
            way: self.way,
            rule: None,
        }
    }
}

/// A permit that holds until it falls.
pub(super) struct Grant {
    wish: Wish,
    ledger: Arc<Ledger>,
    judged: Mutex<Judged>,
    why: OnceLock<Refused>,
    cut: CancellationToken,
}

#[derive(Debug)]
struct Judged {
    seen: Seen,
    instances: Arc<Instances>,
    /// Those of the rule that allows it.
    counters: Arc<Counters>,
}

/// What a judgement rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    catalog: Revision,
    identities: u64,
}

impl Grant {
    /// The instances that the connection may go to.
    pub(super) fn instances(&self) -> Arc<Instances> {
        self.judged().instances.clone()
    }

    /// What is counted of connections under the rule that allows them, as of now.
    pub(super) fn counters(&self) -> Arc<Counters> {
        self.judged().counters.clone()
    }

    /// Cancelled when the permit falls, and when the agent cuts off what is left.
    pub(super) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Why it fell; `None` while it holds.
    pub(super) fn why(&self) -> Option<&Refused> {
        self.why.get()
    }

    /// Whether it holds in `view`.
    fn judge(&self, view: &CatalogView, seen: Seen) -> Result<(), Refused> {
        if let Some(why) = self.why.get() {
            return Err(why.clone());
        }
        if self.judged().seen == seen {
            return Ok(());
        }
        match self.ledger.decide(view, &self.wish) {
            Ok(admitted) => {
                *self.judged() = self.ledger.judged(seen, &self.wish, admitted);
                Ok(())
            }
            Err(why) => {
                // Whoever is first says why.
                let _ = self.why.set(why.clone());
                self.cut.cancel();
                Err(why)
            }
        }
    }

    fn judged(&self) -> MutexGuard<'_, Judged> {
        // Whole after every statement, so a panic elsewhere cannot have torn it.
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut grants = self.ledger.lock();
        // The place may be that of a later grant already.
        if grants.get(&self.wish).is_some_and(|known| std::ptr::eq(known.as_ptr(), self)) {
            grants.remove(&self.wish);
        }
    }
}

/// The grants that are held.
pub(super) struct Grants {
    ledger: Arc<Ledger>,
}

struct Ledger {
    catalog: Arc<Catalog>,
    identities: Arc<Identities>,
    generation: watch::Receiver<u64>,
    traffic: Arc<Traffic>,
    cutting: CancellationToken,
    /// Never held while a grant may be dropped: that takes it.
    grants: Mutex<HashMap<Wish, Weak<Grant>>>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, HashMap<Wish, Weak<Grant>>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest view, and what to call it. The generation is read first: what it stands for is in the identities by
    /// then, so a judgement is never taken for newer than it is.
    fn now(&self) -> (Arc<CatalogView>, Seen) {
        let identities = *self.generation.borrow();
        let view = self.catalog.view();
        let seen = Seen { catalog: view.revision, identities };
        (view, seen)
    }

    fn judged(&self, seen: Seen, wish: &Wish, admitted: Admitted) -> Judged {
        let counters = self.traffic.of(wish.pair().under(&admitted.reason));
        Judged { seen, instances: admitted.instances, counters }
    }

    fn decide(&self, view: &CatalogView, wish: &Wish) -> Result<Admitted, Refused> {
        if let Some(peer) = wish.peer
            && link_of(&self.identities, peer) != wish.request.source.peer
        {
            return Err(Refused::NoLink);
        }
        admit(view, &wish.request)
    }
}

impl Grants {
    pub(super) fn new(parts: &MeshParts, traffic: Arc<Traffic>) -> Self {
        let ledger = Ledger {
            catalog: parts.catalog.clone(),
            identities: parts.identities.clone(),
            generation: parts.identities.changed(),
            traffic,
            cutting: parts.tasks.cutting(),
            grants: Mutex::default(),
        };
        Self { ledger: Arc::new(ledger) }
    }

    /// Decides as of now. A permit that others hold already costs one lookup.
    pub(super) fn ask(&self, wish: &Wish) -> Result<Arc<Grant>, Refused> {
        let held = self.ledger.lock().get(wish).and_then(Weak::upgrade);
        if let Some(held) = held
            && !held.cut.is_cancelled()
        {
            let (view, seen) = self.ledger.now();
            return held.judge(&view, seen).map(|()| held);
        }
        let mut grants = self.ledger.lock();
        // Read with the ledger locked: a view that is newer than this one has its judge still to come, who will find
        // the grant. So nothing that changes between the decision and the opening is missed.
        let (view, seen) = self.ledger.now();
        let admitted = self.ledger.decide(&view, wish)?;
        let grant = Arc::new(Grant {
            wish: wish.clone(),
            ledger: self.ledger.clone(),
            judged: Mutex::new(self.ledger.judged(seen, wish, admitted)),
            why: OnceLock::new(),
            cut: self.ledger.cutting.child_token(),
        });
        grants.insert(wish.clone(), Arc::downgrade(&grant));
        Ok(grant)
    }

    /// Judges what is held again whenever something has changed, until the agent cuts off what is left.
    pub(super) async fn run(&self) {
        let mut catalog = self.ledger.catalog.subscribe();
        let mut identities = self.ledger.identities.changed();
        let cutting = self.ledger.cutting.clone();
        let judging = async {
            loop {
                // A sender that is gone changes nothing any more.
                let gone = tokio::select! {
                    changed = catalog.changed() => changed.is_err(),
                    changed = identities.changed() => changed.is_err(),
                };
                if gone {
                    return std::future::pending::<()>().await;
                }
                let started = Instant::now();
                identities.mark_unchanged();
                catalog.mark_unchanged();
                self.judge_all().await;
                tokio::time::sleep((started.elapsed() * REST).min(LONGEST_REST)).await;
            }
        };
        cutting.run_until_cancelled(judging).await;
    }

    async fn judge_all(&self) {
        let held: Vec<Arc<Grant>> = self.ledger.lock().values().filter_map(Weak::upgrade).collect();
        for chunk in held.chunks(CHUNK) {
            let (view, seen) = self.ledger.now();
            for grant in chunk {
                // What becomes of it is told by the connections that hold it.
                let _ = grant.judge(&view, seen);
            }
            tokio::task::yield_now().await;
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.ledger.lock().len()
    }
}
