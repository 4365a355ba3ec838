//! What is counted of connections, for each pair of services and the rule that decided, and what the log says of
//! those that were not made.
//!
//! A connection looks its counters up once, or has them from whoever keeps its permit; after that all is atomics.
//! Names of sources are a peer's word, so the rows are bounded for each link: pairs beyond the bound share a row for
//! each destination and rule, and beyond that one row for the link, so that sums stay true.

mod histogram;
mod notices;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Display};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use schema::access::{Reason, Source};
use schema::name::{LinkName, ServiceName};
use schema::record::RecordKey;
use tokio_util::sync::CancellationToken;

use super::admission::Refused;
use super::relay::Meter;
use crate::wire::traffic::{Cause, Denial, TrafficRow, Way};
use histogram::Histogram;
use notices::{Fate, Known, Notices};

/// Rows that one link, or the apps of this cluster that speak for themselves, may have.
const MAX_ROWS: usize = 1024;

/// Rows of pairs beyond [`MAX_ROWS`], which name the destination and the rule alone.
const MAX_FOLDED: usize = 1024;

/// Rows of this cluster's upstreams. All their names were declared here, so this is not for an attacker but for a mistake.
const MAX_UPSTREAMS: usize = 16_384;

/// Who calls whom, by which way, and under which rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pair {
    pub source: Source,
    pub destination: ServiceName,
    /// The link that the destination is behind.
    pub destination_peer: Option<LinkName>,
    pub way: Way,
    /// The intention that decided, where one of this cluster did.
    pub rule: Option<Rule>,
}

/// An intention that decided.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rule {
    pub key: RecordKey,
    pub precedence: u8,
}

impl Pair {
    /// An app of this cluster calls by an upstream, to `destination` behind `peer` or here.
    pub(super) fn upstream(owner: ServiceName, destination: ServiceName, peer: Option<LinkName>) -> Self {
        let source = Source { peer: None, service: owner };
        Self { source, destination, destination_peer: peer, way: Way::Upstream, rule: None }
    }

    /// A linked agent opened a stream.
    pub(super) fn of_peer(source: Source, destination: ServiceName) -> Self {
        Self { source, destination, destination_peer: None, way: Way::Link, rule: None }
    }

    /// An app speaks for itself.
    pub(super) fn of_leaf(source: Source, destination: ServiceName) -> Self {
        Self { source, destination, destination_peer: None, way: Way::Leaf, rule: None }
    }

    /// The same with what the decision rests on.
    #[must_use]
    pub(super) fn under(mut self, reason: &Reason) -> Self {
        self.rule = match reason {
            Reason::Rule { rule, precedence } | Reason::Permissions { rule, precedence } => {
                Some(Rule { key: rule.clone(), precedence: *precedence })
            }
            Reason::NoRule => None,
        };
        self
    }

    /// The link at the other end.
    fn peer(&self) -> Option<&LinkName> {
        self.source.peer.as_ref().or(self.destination_peer.as_ref())
    }

    fn shown_destination(&self) -> Shown<'_> {
        Shown(self)
    }
}

/// A pair's destination with the link that it is behind.
struct Shown<'a>(&'a Pair);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.destination_peer {
            Some(peer) => write!(f, "{}@{peer}", self.0.destination),
            None => self.0.destination.fmt(f),
        }
    }
}

impl From<&Reason> for Denial {
    fn from(reason: &Reason) -> Self {
        match reason {
            Reason::Rule { .. } => Denial::Rule,
            Reason::Permissions { .. } => Denial::Permissions,
            Reason::NoRule => Denial::NoRule,
        }
    }
}

/// A row's name: a pair, or what is left of it where there were too many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    source: Option<ServiceName>,
    source_peer: Option<LinkName>,
    destination: Option<ServiceName>,
    destination_peer: Option<LinkName>,
    way: Way,
    rule: Option<Rule>,
}

impl Key {
    fn of(pair: &Pair) -> Self {
        Self {
            source: Some(pair.source.service.clone()),
            source_peer: pair.source.peer.clone(),
            destination: Some(pair.destination.clone()),
            destination_peer: pair.destination_peer.clone(),
            way: pair.way,
            rule: pair.rule.clone(),
        }
    }

    /// Without the source: destinations that a rule decided on are declared here.
    fn folded(self) -> Self {
        Self { source: None, ..self }
    }

    /// The link alone.
    fn rest(self) -> Self {
        Self { source: None, destination: None, rule: None, ..self }
    }
}

/// One row of atomics.
#[derive(Debug, Default)]
struct Row {
    connections: AtomicU64,
    open: AtomicU64,
    cut: AtomicU64,
    denied: [AtomicU64; Denial::ALL.len()],
    failed: [AtomicU64; Cause::ALL.len()],
    sent: AtomicU64,
    received: AtomicU64,
    set_up: Histogram,
}

/// The counters of one pair.
#[derive(Debug)]
pub(super) struct Counters {
    pair: Pair,
    row: Arc<Row>,
    known: Known,
    notices: Arc<Notices>,
}

/// A connection that is open, for the gauge.
#[derive(Debug)]
pub(super) struct Open(Arc<Row>);

/// Counts the bytes that pass a socket.
#[derive(Debug)]
pub(super) struct Passing {
    row: Arc<Row>,
    of_app: bool,
}

impl Meter for Passing {
    fn taken(&self, bytes: u64) {
        let counter = if self.of_app { &self.row.sent } else { &self.row.received };
        counter.fetch_add(bytes, Relaxed);
    }

    fn given(&self, bytes: u64) {
        let counter = if self.of_app { &self.row.received } else { &self.row.sent };
        counter.fetch_add(bytes, Relaxed);
    }
}

impl Counters {
    /// Counts what passes the app's socket.
    pub(super) fn of_app(&self) -> Passing {
        Passing { row: self.row.clone(), of_app: true }
    }

    /// Counts what passes the instance's socket.
    pub(super) fn of_instance(&self) -> Passing {
        Passing { row: self.row.clone(), of_app: false }
    }

    /// Bytes from source to destination.
    pub(super) fn sent(&self) -> &AtomicU64 {
        &self.row.sent
    }

    /// Bytes from destination to source.
    #[cfg(test)]
    pub(super) fn received(&self) -> &AtomicU64 {
        &self.row.received
    }

    /// A connection is carried, `set_up` after it arrived. It is open until what is returned is dropped.
    pub(super) fn carried(&self, set_up: Duration) -> Open {
        self.row.connections.fetch_add(1, Relaxed);
        self.row.open.fetch_add(1, Relaxed);
        self.row.set_up.observe(set_up);
        let Pair { source, rule, way, .. } = &self.pair;
        tracing::debug!(
            %source, destination = %self.pair.shown_destination(), way = way.as_str(),
            rule = rule.as_ref().map(|rule| tracing::field::display(&rule.key)), "connection allowed"
        );
        Open(self.row.clone())
    }

    /// Counts a connection that is not allowed, and tells the log.
    pub(super) fn denied(&self, denial: Denial, reason: &dyn Display) {
        self.row.denied[denial as usize].fetch_add(1, Relaxed);
        self.notices.tell(&self.pair, self.known, Fate::Denied(denial), reason);
    }

    /// Counts a connection that was allowed and is not made, and tells the log.
    pub(super) fn failed(&self, cause: Cause, reason: &dyn Display) {
        self.row.failed[cause as usize].fetch_add(1, Relaxed);
        self.notices.tell(&self.pair, self.known, Fate::Failed(cause), reason);
    }

    /// Counts an open connection whose permit has fallen, and tells the log.
    pub(super) fn cut(&self, reason: &dyn Display) {
        self.row.cut.fetch_add(1, Relaxed);
        self.notices.tell(&self.pair, self.known, Fate::Cut, reason);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// The counters of every pair that was seen.
#[derive(Debug)]
pub(super) struct Traffic {
    rows: RwLock<Rows>,
    notices: Arc<Notices>,
    begun: Instant,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { rows: RwLock::default(), notices: Arc::default(), begun: Instant::now() }
    }
}

#[derive(Debug, Default)]
struct Rows {
    by_key: HashMap<Key, Arc<Row>>,
    /// How many rows each way and link has.
    taken: HashMap<(Way, Option<LinkName>), usize>,
}

impl Rows {
    fn take(&mut self, key: Key, peer: Option<&LinkName>) -> Arc<Row> {
        let taken = self.taken.entry((key.way, peer.cloned())).or_default();
        let room = if key.way == Way::Upstream { MAX_UPSTREAMS } else { MAX_ROWS };
        let mut row = |key: Key, room: usize| match self.by_key.entry(key) {
            Entry::Occupied(known) => Some(known.get().clone()),
            Entry::Vacant(place) if *taken < room => {
                *taken += 1;
                Some(place.insert(Arc::default()).clone())
            }
            Entry::Vacant(_) => None,
        };
        row(key.clone(), room)
            .or_else(|| row(key.clone().folded(), room + MAX_FOLDED))
            .or_else(|| row(key.folded().rest(), usize::MAX))
            .unwrap_or_default()
    }
}

impl Traffic {
    /// The counters of `pair`.
    pub(super) fn of(&self, pair: Pair) -> Arc<Counters> {
        let key = Key::of(&pair);
        let known = self.rows.read().unwrap_or_else(PoisonError::into_inner).by_key.get(&key).cloned();
        let row = known.unwrap_or_else(|| {
            self.rows.write().unwrap_or_else(PoisonError::into_inner).take(key, pair.peer())
        });
        Arc::new(Counters { pair, row, known: Known::Yes, notices: self.notices.clone() })
    }

    /// Counts a connection that is refused here, under the rule that decided, and tells the log.
    pub(super) fn refused(&self, pair: Pair, refused: &Refused) {
        let pair = match refused {
            Refused::Intention(reason) => pair.under(reason),
            Refused::NoLink | Refused::NotDeclared | Refused::NotExported | Refused::NoPort => pair,
        };
        self.of(pair).denied(refused.into(), refused);
    }

    /// Counts a stream of a session that belongs to no link, and tells the log. Nothing that it says names a row.
    pub(super) fn stranger(&self, source: &ServiceName, destination: &ServiceName, reason: &dyn Display) {
        let source = Source { peer: None, service: source.clone() };
        let pair = Pair::of_peer(source, destination.clone());
        let key = Key::of(&pair).rest();
        let row = self.rows.write().unwrap_or_else(PoisonError::into_inner).take(key, None);
        Counters { pair, row, known: Known::No, notices: self.notices.clone() }
            .denied(Denial::NoLink, reason);
    }

    /// Counts a caller that did not prove who it is, or asked for nothing that there is, and tells the log. Nothing that
    /// it says names a row.
    pub(super) fn unproven(
        &self,
        claims: Option<ServiceName>,
        destination: Option<ServiceName>,
        denial: Denial,
        reason: &dyn Display,
    ) {
        let (Some(source), Some(destination)) = (claims.or_else(unnamed), destination.or_else(unnamed))
        else {
            return;
        };
        let pair = Pair::of_leaf(Source { peer: None, service: source }, destination);
        let key = Key::of(&pair).rest();
        let row = self.rows.write().unwrap_or_else(PoisonError::into_inner).take(key, None);
        Counters { pair, row, known: Known::No, notices: self.notices.clone() }.denied(denial, reason);
    }

    /// Sums up in the log what was not told at once, until the end.
    pub(super) async fn tell(&self, ending: CancellationToken) {
        self.notices.run(ending).await;
    }

    /// For how long it has been counted.
    pub(super) fn age_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn rows(&self) -> Vec<TrafficRow> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let mut shown: Vec<TrafficRow> = rows.by_key.iter().map(|(key, row)| show(key, row)).collect();
        drop(rows);
        shown.sort_by(|a, b| {
            let name = |row: &TrafficRow| {
                (
                    row.source.clone(),
                    row.source_peer.clone(),
                    row.destination.clone(),
                    row.destination_peer.clone(),
                    row.way,
                    row.rule.clone(),
                )
            };
            name(a).cmp(&name(b))
        });
        shown
    }
}

/// What stands in the log where nobody gave a name.
fn unnamed() -> Option<ServiceName> {
    "unnamed".parse().ok()
}

fn show(key: &Key, row: &Row) -> TrafficRow {
    fn by_why<T: Copy + Ord>(all: &[T], counts: &[AtomicU64]) -> std::collections::BTreeMap<T, u64> {
        let counts = counts.iter().map(|count| count.load(Relaxed));
        all.iter().copied().zip(counts).filter(|(_, count)| *count > 0).collect()
    }
    let denied_because = by_why(&Denial::ALL, &row.denied);
    let failed_because = by_why(&Cause::ALL, &row.failed);
    // Read before the number of connections, so that no more are open than were made.
    let open = row.open.load(Relaxed);
    TrafficRow {
        source: key.source.clone(),
        source_peer: key.source_peer.clone(),
        destination: key.destination.clone(),
        destination_peer: key.destination_peer.clone(),
        way: key.way,
        rule: key.rule.as_ref().map(|rule| rule.key.clone()),
        precedence: key.rule.as_ref().map(|rule| rule.precedence),
        connections: row.connections.load(Relaxed),
        open,
        cut: row.cut.load(Relaxed),
        denied: denied_because.values().sum(),
        denied_because,
        failed: failed_because.values().sum(),
        failed_because,
        sent: row.sent.load(Relaxed),
        received: row.received.load(Relaxed),
        set_up: row.set_up.read(),
    }
}

#[cfg(test)]
mod tests;
