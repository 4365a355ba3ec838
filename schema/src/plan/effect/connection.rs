//! The pairs of services whose answer changes: from here, by the intentions alone; from a peer, by these and by what is
//! exported to it.
//!
//! Only pairs that a change can decide are looked at. A changed rule with an exact source and destination decides its own
//! pair. Where one with a `*` decides a pair, it decides the pair of patterns in the same way, so that this pair stands
//! for all but those that have rules, or exports, of their own; these are looked at each.

use std::collections::{BTreeMap, BTreeSet};

use super::Connection;
use crate::access::{Caller, Groups, Intentions, Verdict, decide_match};
use crate::kind::exported_services::{Consumer, Export};
use crate::name::LinkName;
use crate::origin::Origin;
use crate::plan::{Live, Plan};
use crate::record::{Record, RecordKey, ServiceMatch};

/// The changed pairs.
pub fn connections(live: &Live, plan: &Plan) -> BTreeSet<Connection> {
    let touched: Vec<&RecordKey> =
        plan.changes.iter().map(|change| &change.key).filter(|key| decides(key)).collect();
    if touched.is_empty() {
        return BTreeSet::new();
    }
    let before = State::of(live.records.iter().map(|(key, live)| (key, &live.record)));
    let mut after = before.clone();
    for change in plan.changes.iter().filter(|change| decides(&change.key)) {
        after.put(&change.key, change.after.as_ref());
    }
    let touched = Touched::by(&touched, [&before, &after]);
    let mut found = Found { before: &before, after: &after, pairs: BTreeSet::new() };
    for (destination, origin, source) in &touched.rules {
        if origin.may_be_here() {
            found.look_all(Caller::Here, destination, source);
        }
    }
    let peers: BTreeSet<&LinkName> = [&before, &after].into_iter().flat_map(State::consumers).collect();
    for peer in peers {
        let caller = Caller::Peer(peer);
        let origins: BTreeSet<Origin> =
            [&before, &after].into_iter().flat_map(|state| caller.origins(state.groups())).collect();
        for (destination, _, source) in touched.rules.iter().filter(|(_, origin, _)| origins.contains(origin))
        {
            found.look_all(caller, destination, source);
            if *destination == ServiceMatch::Any {
                for exported in [&before, &after].into_iter().flat_map(|state| state.named_exports(peer)) {
                    found.look_all(caller, exported, source);
                }
            }
        }
        for service in &touched.exports {
            if ![&before, &after].into_iter().any(|state| state.lists(service, peer)) {
                continue;
            }
            found.look_all(caller, service, &ServiceMatch::Any);
            if *service == ServiceMatch::Any {
                let named: Vec<ServiceMatch> =
                    [&before, &after].into_iter().flat_map(|state| state.intentions.destinations()).collect();
                for destination in &named {
                    found.look_all(caller, destination, &ServiceMatch::Any);
                }
            }
        }
    }
    found.pairs
}

/// Whether the record has a say in who may connect.
fn decides(key: &RecordKey) -> bool {
    matches!(
        key,
        RecordKey::Export(_)
            | RecordKey::Intention { .. }
            | RecordKey::IntentionEntry(_)
            | RecordKey::SamenessGroup(_)
    )
}

impl Origin {
    /// Whether a source of this cluster can be meant.
    fn may_be_here(&self) -> bool {
        matches!(self, Origin::Local | Origin::Group(_))
    }
}

/// What decides, before or after.
#[derive(Clone, Default)]
struct State<'a> {
    intentions: Intentions,
    exports: BTreeMap<&'a ServiceMatch, &'a Export>,
}

impl<'a> State<'a> {
    fn of(records: impl Iterator<Item = (&'a RecordKey, &'a Record)>) -> Self {
        let mut state = Self::default();
        for (key, record) in records {
            state.put(key, Some(record));
        }
        state
    }

    fn put(&mut self, key: &'a RecordKey, record: Option<&'a Record>) {
        match (key, record) {
            (RecordKey::Export(service), Some(Record::ExportedServices(export))) => {
                self.exports.insert(service, export);
            }
            (RecordKey::Export(service), _) => _ = self.exports.remove(service),
            _ => self.intentions.put(key, record),
        }
    }

    fn groups(&self) -> &Groups {
        self.intentions.groups()
    }

    /// Every peer that anything is exported to.
    fn consumers(&self) -> impl Iterator<Item = &LinkName> {
        self.exports.values().flat_map(|export| &export.consumers).flat_map(|consumer| match consumer {
            Consumer::Peer(peer) => std::slice::from_ref(peer),
            Consumer::Group(group) => self.groups().get(group).map_or(&[][..], |group| &group.members),
        })
    }

    /// Whether the list offers just this, a service or `*`, to `peer`.
    fn lists(&self, service: &ServiceMatch, peer: &LinkName) -> bool {
        self.exports.get(service).is_some_and(|export| {
            export.consumers.iter().any(|consumer| match consumer {
                Consumer::Peer(named) => named == peer,
                Consumer::Group(group) => self.groups().has(group, peer),
            })
        })
    }

    /// The services that the list offers to `peer` by their names.
    fn named_exports(&self, peer: &LinkName) -> impl Iterator<Item = &'a ServiceMatch> {
        self.exports
            .keys()
            .copied()
            .filter(|service| **service != ServiceMatch::Any)
            .filter(move |service| self.lists(service, peer))
    }

    fn verdict(&self, caller: Caller<'_>, source: &ServiceMatch, destination: &ServiceMatch) -> Verdict {
        if let Caller::Peer(peer) = caller
            && !self.lists(destination, peer)
            && !self.lists(&ServiceMatch::Any, peer)
        {
            return Verdict::Denied;
        }
        decide_match(caller, source, destination, &self.intentions).verdict
    }
}

/// What a plan touches of what decides.
#[derive(Default)]
struct Touched {
    rules: BTreeSet<(ServiceMatch, Origin, ServiceMatch)>,
    exports: BTreeSet<ServiceMatch>,
}

impl Touched {
    fn by(changed: &[&RecordKey], states: [&State<'_>; 2]) -> Self {
        let mut touched = Self::default();
        for key in changed {
            match key {
                RecordKey::Export(service) => _ = touched.exports.insert(service.clone()),
                RecordKey::Intention { destination, origin, source } => {
                    touched.rules.insert((destination.clone(), origin.clone(), source.clone()));
                }
                RecordKey::IntentionEntry(destination) => {
                    for state in states {
                        touched.rules_of(&state.intentions, destination, |_| true);
                    }
                }
                RecordKey::SamenessGroup(name) => {
                    let group = Origin::Group(name.clone());
                    let consumer = Consumer::Group(name.clone());
                    for state in states {
                        for destination in state.intentions.destinations() {
                            touched.rules_of(&state.intentions, &destination, |origin| *origin == group);
                        }
                        let exports = state.exports.iter();
                        let named = exports.filter(|(_, export)| export.consumers.contains(&consumer));
                        touched.exports.extend(named.map(|(service, _)| (*service).clone()));
                    }
                }
                _ => {}
            }
        }
        touched
    }

    fn rules_of(
        &mut self,
        intentions: &Intentions,
        destination: &ServiceMatch,
        wanted: impl Fn(&Origin) -> bool,
    ) {
        let sources = intentions.sources_of(destination).filter(|(origin, _)| wanted(origin));
        self.rules.extend(sources.map(|(origin, source)| (destination.clone(), origin.clone(), source)));
    }
}

/// The pairs found so far.
struct Found<'s, 'a> {
    before: &'s State<'a>,
    after: &'s State<'a>,
    pairs: BTreeSet<Connection>,
}

impl Found<'_, '_> {
    /// Looks at a pair; where any source is meant, also at those that a rule names for this or for every destination.
    fn look_all(&mut self, caller: Caller<'_>, destination: &ServiceMatch, source: &ServiceMatch) {
        self.look(caller, destination, source);
        if *source != ServiceMatch::Any {
            return;
        }
        for state in [self.before, self.after] {
            let own: Vec<Origin> = caller.origins(state.groups()).collect();
            let patterns = [Some(destination), Some(&ServiceMatch::Any).filter(|any| *any != destination)];
            for pattern in patterns.into_iter().flatten() {
                for (_, name) in
                    state.intentions.sources_of(pattern).filter(|(origin, _)| own.contains(origin))
                {
                    self.look(caller, destination, &name);
                }
            }
        }
    }

    fn look(&mut self, caller: Caller<'_>, destination: &ServiceMatch, source: &ServiceMatch) {
        let becomes = self.after.verdict(caller, source, destination);
        if self.before.verdict(caller, source, destination) != becomes {
            let peer = match caller {
                Caller::Here => None,
                Caller::Peer(peer) => Some(peer.clone()),
            };
            let (destination, source) = (destination.clone(), source.clone());
            self.pairs.insert(Connection { destination, peer, source, becomes });
        }
    }
}
