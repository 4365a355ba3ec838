//! Counters for each pair of services.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use schema::access::Source;
use schema::name::{LinkName, ServiceName};

use crate::wire::service::TrafficRow;

/// Pairs that are counted. Names of sources are a peer's word, so there must be a bound; pairs beyond it pass
/// uncounted.
const MAX_PAIRS: usize = 4096;

/// Who calls whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    pub source: Source,
    pub destination: ServiceName,
    /// The link that the destination is behind.
    pub destination_peer: Option<LinkName>,
}

/// What passed between a pair. Written without a lock.
#[derive(Debug, Default)]
pub(super) struct Counters {
    connections: AtomicU64,
    open: AtomicU64,
    denied: AtomicU64,
    failed: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// A connection that is open, for the gauge.
#[derive(Debug)]
pub(super) struct Open(Arc<Counters>);

impl Counters {
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.connections.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        Open(self.clone())
    }

    pub(super) fn denied(&self) {
        self.denied.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// The counters of every pair that was seen.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pairs: Mutex<BTreeMap<Pair, Arc<Counters>>>,
}

impl Traffic {
    /// The counters of `pair`: one lock for each connection, none for its bytes.
    pub(super) fn of(&self, pair: Pair) -> Arc<Counters> {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        if pairs.len() >= MAX_PAIRS && !pairs.contains_key(&pair) {
            return Arc::default();
        }
        pairs.entry(pair).or_default().clone()
    }

    pub(super) fn rows(&self) -> Vec<TrafficRow> {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs
            .iter()
            .map(|(pair, counters)| TrafficRow {
                source: pair.source.service.clone(),
                source_peer: pair.source.peer.clone(),
                destination: pair.destination.clone(),
                destination_peer: pair.destination_peer.clone(),
                connections: counters.connections.load(Relaxed),
                open: counters.open.load(Relaxed),
                denied: counters.denied.load(Relaxed),
                failed: counters.failed.load(Relaxed),
                sent: counters.sent.load(Relaxed),
                received: counters.received.load(Relaxed),
            })
            .collect()
    }
}
