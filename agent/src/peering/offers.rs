//! Which service is offered to which link, and what changed since when: without I/O, one for all peers.
//!
//! A change is looked at once, whatever the number of peers. What is kept is who consumes each service, a digest of
//! what was last told of it, and a bounded log of names that changed; the rows themselves are made from the catalog
//! when they are sent. So a peer needs no more than a position in the log, and one that comes back goes on from there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use schema::name::{LinkName, ServiceName};

/// The links that are offered a service.
pub type Consumers = BTreeSet<LinkName>;

/// Changes that are remembered. Whoever is further behind gets a snapshot.
const REMEMBERED: usize = 16 * 1024;
/// Most sets of consumers that are looked through for an equal one. Services are mostly exported alike, and a set of
/// fifty links for each of a thousand services would be more than everything else here.
const ALIKE: usize = 32;

/// Everything that is offered.
#[derive(Debug, Default)]
pub struct Offers {
    rows: BTreeMap<ServiceName, Row>,
    log: VecDeque<Change>,
    /// Of the newest change.
    sequence: u64,
    alike: VecDeque<Arc<Consumers>>,
    /// How many services each link is offered; none where that is none.
    counts: BTreeMap<LinkName, usize>,
    remembered: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    consumers: Arc<Consumers>,
    digest: u64,
}

#[derive(Debug)]
struct Change {
    name: ServiceName,
    /// Who was offered the service before, where somebody is not any more.
    before: Option<Arc<Consumers>>,
}

/// Changes that one link is to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Since {
    pub changed: BTreeSet<ServiceName>,
    pub removed: BTreeSet<ServiceName>,
    /// Once these are told, the link knows everything up to here.
    pub sequence: u64,
}

impl Offers {
    /// Of the newest change; 0 where nothing ever was.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What is offered of `name` from now on: who consumes it, and a digest of what these are told.
    pub fn set(&mut self, name: &ServiceName, now: Option<(Consumers, u64)>) {
        let before = self.rows.get(name);
        let Some((consumers, digest)) = now.filter(|(consumers, _)| !consumers.is_empty()) else {
            if let Some(before) = self.rows.remove(name) {
                self.count_out(&before.consumers);
                self.note(name, Some(before.consumers));
            }
            return;
        };
        if before.is_some_and(|before| before.digest == digest && *before.consumers == consumers) {
            return;
        }
        let before = before.map(|before| Arc::clone(&before.consumers));
        let lost = before.clone().filter(|before| !before.is_subset(&consumers));
        let consumers = self.alike(consumers);
        if before.as_ref() != Some(&consumers) {
            for link in &*consumers {
                *self.counts.entry(link.clone()).or_default() += 1;
            }
            if let Some(before) = &before {
                self.count_out(before);
            }
        }
        self.rows.insert(name.clone(), Row { consumers, digest });
        self.note(name, lost);
    }

    fn count_out(&mut self, consumers: &Consumers) {
        for link in consumers {
            if let Some(count) = self.counts.get_mut(link) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(link);
                }
            }
        }
    }

    fn note(&mut self, name: &ServiceName, before: Option<Arc<Consumers>>) {
        self.sequence += 1;
        self.log.push_back(Change { name: name.clone(), before });
        if self.log.len() > self.remembered.unwrap_or(REMEMBERED) {
            self.log.pop_front();
        }
    }

    /// The same set as one that is kept already, if there is one.
    fn alike(&mut self, consumers: Consumers) -> Arc<Consumers> {
        if let Some(known) = self.alike.iter().find(|known| ***known == consumers) {
            return Arc::clone(known);
        }
        let new = Arc::new(consumers);
        self.alike.push_front(Arc::clone(&new));
        self.alike.truncate(ALIKE);
        new
    }

    /// Whether anybody is offered the service.
    pub fn offers(&self, name: &ServiceName) -> bool {
        self.rows.contains_key(name)
    }

    /// Whether `link` is offered the service.
    pub fn is_offered(&self, name: &ServiceName, link: &LinkName) -> bool {
        self.rows.get(name).is_some_and(|row| row.consumers.contains(link))
    }

    /// At most so many services that `link` is offered, by name, from after one of them.
    pub fn offered(&self, link: &LinkName, after: Option<&ServiceName>, most: usize) -> Vec<ServiceName> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.rows
            .range::<ServiceName, _>((from, Bound::Unbounded))
            .filter(|(_, row)| row.consumers.contains(link))
            .map(|(name, _)| name.clone())
            .take(most)
            .collect()
    }

    /// How many services `link` is offered.
    pub fn count(&self, link: &LinkName) -> usize {
        self.counts.get(link).copied().unwrap_or_default()
    }

    /// Whether everything that changed since is remembered.
    pub fn remembers(&self, sequence: u64) -> bool {
        sequence <= self.sequence && self.sequence - sequence <= self.log.len() as u64
    }

    /// What `link` is to be told of the next changes after `sequence`, at most so many of them; `None` if they are
    /// not remembered. A link hears of a withdrawal only if it was offered the service.
    pub fn since(&self, link: &LinkName, sequence: u64, most: usize) -> Option<Since> {
        if !self.remembers(sequence) {
            return None;
        }
        let behind = usize::try_from(self.sequence - sequence).ok()?;
        let take = behind.min(most);
        let mut since = Since { sequence: sequence + take as u64, ..Since::default() };
        for change in self.log.range(self.log.len() - behind..).take(take) {
            if self.is_offered(&change.name, link) {
                since.changed.insert(change.name.clone());
            } else if change.before.as_ref().is_some_and(|before| before.contains(link)) {
                since.removed.insert(change.name.clone());
            }
        }
        Some(since)
    }

    /// One that remembers less, to be tried with little.
    #[cfg(test)]
    pub fn remembering(changes: usize) -> Self {
        Self { remembered: Some(changes), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
        text.parse().unwrap()
    }

    #[allow(clippy::unnecessary_wraps)] // as `set` takes it
    fn to(links: &[&str], digest: u64) -> Option<(Consumers, u64)> {
        Some((links.iter().map(|link| name(link)).collect(), digest))
    }

    fn texts<'a>(names: impl IntoIterator<Item = &'a ServiceName>) -> Vec<&'a str> {
        names.into_iter().map(ServiceName::as_str).collect()
    }

    #[test]
    fn a_link_hears_of_its_own_services_and_of_withdrawals_from_itself() {
        let (east, west) = (name::<LinkName>("east"), name::<LinkName>("west"));
        let mut offers = Offers::default();
        offers.set(&name("a"), to(&["east", "west"], 1));
        offers.set(&name("b"), to(&["west"], 1));
        let begun = offers.sequence();
        offers.set(&name("b"), to(&["west"], 1));
        assert_eq!(offers.sequence(), begun);
        offers.set(&name("a"), to(&["west"], 1));
        offers.set(&name("b"), to(&["west"], 2));
        offers.set(&name("c"), to(&["west"], 2));
        offers.set(&name("c"), None);

        let told = offers.since(&east, begun, 100).unwrap();
        assert_eq!((texts(&told.changed), texts(&told.removed)), (vec![], vec!["a"]));
        let told = offers.since(&west, begun, 100).unwrap();
        assert_eq!((texts(&told.changed), texts(&told.removed)), (vec!["a", "b"], vec!["c"]));
        assert_eq!(told.sequence, offers.sequence());
        // In small steps: as far as one has come, one knows everything.
        let first = offers.since(&west, begun, 1).unwrap();
        assert_eq!((texts(&first.changed), first.sequence), (vec!["a"], begun + 1));
        assert_eq!(offers.since(&west, offers.sequence() + 1, 1), None);
        assert_eq!((offers.count(&west), texts(&offers.offered(&west, Some(&name("a")), 9))), (2, vec!["b"]));
        assert_eq!((offers.count(&east), offers.counts.len()), (0, 1));
    }

    #[test]
    fn what_is_forgotten_is_said_to_be() {
        let east = name::<LinkName>("east");
        let mut offers = Offers::remembering(2);
        for digest in 0..5 {
            offers.set(&name("a"), to(&["east"], digest));
        }
        assert_eq!(offers.since(&east, 2, 10), None);
        assert_eq!(texts(&offers.since(&east, 3, 10).unwrap().changed), ["a"]);
        assert!(offers.remembers(5) && !offers.remembers(6));
    }

    #[test]
    fn equal_consumers_are_kept_once() {
        let mut offers = Offers::default();
        for service in ["a", "b", "c"] {
            offers.set(&name(service), to(&["east", "west"], 1));
        }
        let rows: Vec<_> = offers.rows.values().map(|row| Arc::as_ptr(&row.consumers)).collect();
        assert!(rows.iter().all(|row| *row == rows[0]));
    }
}
