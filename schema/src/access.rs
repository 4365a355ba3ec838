//! Who may reach what: intentions, their precedence, and an explanation of each decision.
//!
//! The rule that decides is the most exact one (Consul's numbers): exact destination and source 9, exact destination 8,
//! exact source 6, neither 5. The destination's exactness dominates. A source of a peer and one of this cluster are
//! never the same, whatever their names: `*` stands for every service of this cluster, or of one peer. Among rules of
//! equal precedence, one that names the peer goes before one that names a sameness group, and that before one for any
//! peer. Where no rule matches, the connection is denied.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kind::service_intentions::{Action, IntentionSource};
use crate::name::{LinkName, ServiceName};
use crate::origin::Origin;
use crate::record::{Record, RecordKey, ServiceMatch};

mod explain;
mod groups;

pub use explain::{Explanation, Listed, explain, rules_for};
pub use groups::Groups;

/// Who wants to connect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// The link it comes over; `None` for a service of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<LinkName>,
    pub service: ServiceName,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.peer {
            Some(peer) => write!(f, "{}@{peer}", self.service),
            None => self.service.fmt(f),
        }
    }
}

/// Whether a connection may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Allowed,
    Denied,
}

/// A verdict and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub verdict: Verdict,
    pub reason: Reason,
}

/// What a decision rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "snake_case")]
pub enum Reason {
    /// This intention says so.
    Rule { rule: RecordKey, precedence: u8 },
    /// This intention has HTTP permissions, or its entry asks for JWTs: neither is enforced yet, so nothing of it is
    /// allowed.
    Permissions { rule: RecordKey, precedence: u8 },
    /// No intention matches.
    NoRule,
}

impl Reason {
    pub fn rule(&self) -> Option<&RecordKey> {
        match self {
            Reason::Rule { rule, .. } | Reason::Permissions { rule, .. } => Some(rule),
            Reason::NoRule => None,
        }
    }
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allowed
    }
}

/// Every intention of a cluster, laid out so that a decision is a few lookups and copies nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intentions {
    by_destination: BTreeMap<ServiceName, Rules>,
    any_destination: Rules,
    groups: Arc<Groups>,
}

/// The sources of one destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rules {
    sides: BTreeMap<Origin, Side>,
    /// The entry asks every source for a token, which nothing can check yet.
    needs_jwt: bool,
}

/// The sources of one destination that come from one side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Side {
    named: BTreeMap<ServiceName, IntentionSource>,
    any: Option<IntentionSource>,
}

impl Side {
    fn get(&self, source: &ServiceMatch) -> Option<&IntentionSource> {
        match source {
            ServiceMatch::Any => self.any.as_ref(),
            ServiceMatch::Named(name) => self.named.get(name),
        }
    }

    fn is_empty(&self) -> bool {
        self.any.is_none() && self.named.is_empty()
    }
}

impl Rules {
    fn is_empty(&self) -> bool {
        self.sides.is_empty() && !self.needs_jwt
    }
}

impl Intentions {
    /// The intentions and sameness groups among `records`; other kinds are passed over.
    pub fn from_records<'a>(records: impl IntoIterator<Item = (&'a RecordKey, &'a Record)>) -> Self {
        let mut intentions = Self::default();
        for (key, record) in records {
            intentions.put(key, Some(record));
        }
        intentions
    }

    /// Takes in what `key` says now; `None` for a record that is gone. Kinds that decide nothing are passed over.
    pub fn put(&mut self, key: &RecordKey, record: Option<&Record>) {
        match (key, record) {
            (RecordKey::Intention { .. }, Some(Record::ServiceIntentions(rule))) => {
                self.insert(key, rule.clone());
            }
            (RecordKey::Intention { .. }, _) => self.remove(key),
            (RecordKey::IntentionEntry(destination), Some(Record::IntentionEntry(entry))) => {
                self.need_jwt(destination, !entry.jwt.is_empty());
            }
            (RecordKey::IntentionEntry(destination), _) => self.need_jwt(destination, false),
            (RecordKey::SamenessGroup(name), record) => {
                let group = match record {
                    Some(Record::SamenessGroup(group)) => Some(group),
                    _ => None,
                };
                let mut groups = (*self.groups).clone();
                groups.set(name, group);
                self.set_groups(Arc::new(groups));
            }
            _ => {}
        }
    }

    /// The sameness groups that sources may name.
    pub fn set_groups(&mut self, groups: Arc<Groups>) {
        self.groups = groups;
    }

    pub fn groups(&self) -> &Arc<Groups> {
        &self.groups
    }

    /// Adds or replaces the intention that `key` names; a key of another kind is passed over.
    pub fn insert(&mut self, key: &RecordKey, rule: IntentionSource) {
        let RecordKey::Intention { destination, origin, source } = key else { return };
        let side = self.rules_mut(destination).sides.entry(origin.clone()).or_default();
        match source {
            ServiceMatch::Any => side.any = Some(rule),
            ServiceMatch::Named(name) => {
                side.named.insert(name.clone(), rule);
            }
        }
    }

    /// Removes the intention that `key` names, if it is there.
    pub fn remove(&mut self, key: &RecordKey) {
        let RecordKey::Intention { destination, origin, source } = key else { return };
        let rules = self.rules_mut(destination);
        if let Some(side) = rules.sides.get_mut(origin) {
            match source {
                ServiceMatch::Any => side.any = None,
                ServiceMatch::Named(name) => {
                    side.named.remove(name);
                }
            }
            if side.is_empty() {
                rules.sides.remove(origin);
            }
        }
        self.sweep(destination);
    }

    fn need_jwt(&mut self, destination: &ServiceMatch, needs: bool) {
        self.rules_mut(destination).needs_jwt = needs;
        self.sweep(destination);
    }

    fn rules_mut(&mut self, destination: &ServiceMatch) -> &mut Rules {
        match destination {
            ServiceMatch::Any => &mut self.any_destination,
            ServiceMatch::Named(name) => self.by_destination.entry(name.clone()).or_default(),
        }
    }

    /// Forgets a destination of which nothing is left, so that equal content is equal.
    fn sweep(&mut self, destination: &ServiceMatch) {
        if let ServiceMatch::Named(name) = destination
            && self.by_destination.get(name).is_some_and(Rules::is_empty)
        {
            self.by_destination.remove(name);
        }
    }

    /// Every rule of `destination`: whose source it is, and its name.
    pub(crate) fn sources_of(
        &self,
        destination: &ServiceMatch,
    ) -> impl Iterator<Item = (&Origin, ServiceMatch)> {
        self.rules(destination).into_iter().flat_map(|rules| &rules.sides).flat_map(|(origin, side)| {
            let any = side.any.iter().map(|_| ServiceMatch::Any);
            let named = side.named.keys().cloned().map(ServiceMatch::Named);
            any.chain(named).map(move |source| (origin, source))
        })
    }

    /// The destinations that have rules of their own.
    pub(crate) fn destinations(&self) -> impl Iterator<Item = ServiceMatch> {
        let any = (!self.any_destination.is_empty()).then_some(ServiceMatch::Any);
        any.into_iter().chain(self.by_destination.keys().cloned().map(ServiceMatch::Named))
    }

    fn rules(&self, destination: &ServiceMatch) -> Option<&Rules> {
        match destination {
            ServiceMatch::Any => Some(&self.any_destination),
            ServiceMatch::Named(name) => self.by_destination.get(name),
        }
    }
}

/// Whether `source` may connect to `destination`.
pub fn decide(source: &Source, destination: &ServiceName, intentions: &Intentions) -> Decision {
    decide_match(
        Caller::of(source.peer.as_ref()),
        &ServiceMatch::Named(source.service.clone()),
        &ServiceMatch::Named(destination.clone()),
        intentions,
    )
}

/// Which cluster calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Caller<'a> {
    /// This one.
    Here,
    Peer(&'a LinkName),
}

impl<'a> Caller<'a> {
    pub fn of(peer: Option<&'a LinkName>) -> Self {
        peer.map_or(Caller::Here, Caller::Peer)
    }

    /// What a rule may call it, the most exact first: among rules that name the services equally well, the one that
    /// names the peer decides, before one that names a group of peers, before one for any peer.
    pub fn origins(self, groups: &Groups) -> impl Iterator<Item = Origin> {
        let (own, peer, any) = match self {
            Caller::Here => (Origin::Local, None, None),
            Caller::Peer(peer) => (Origin::Peer(peer.clone()), Some(peer), Some(Origin::AnyPeer)),
        };
        std::iter::once(own).chain(groups.of(peer).iter().cloned().map(Origin::Group)).chain(any)
    }
}

/// The same for patterns: `*` stands for a service that no rule names.
pub(crate) fn decide_match(
    caller: Caller<'_>,
    source: &ServiceMatch,
    destination: &ServiceMatch,
    intentions: &Intentions,
) -> Decision {
    let origins: Vec<Origin> = caller.origins(&intentions.groups).collect();
    match matching(&origins, source, destination, intentions).next() {
        None => Decision { verdict: Verdict::Denied, reason: Reason::NoRule },
        Some(matched) => matched.decision(),
    }
}

/// A rule that matches, as the lookup found it.
pub(crate) struct Matched<'a> {
    pub destination: &'a ServiceMatch,
    pub origin: &'a Origin,
    pub source: &'a ServiceMatch,
    pub rule: &'a IntentionSource,
    needs_jwt: bool,
}

impl Matched<'_> {
    fn key(&self) -> RecordKey {
        RecordKey::Intention {
            destination: self.destination.clone(),
            origin: self.origin.clone(),
            source: self.source.clone(),
        }
    }

    fn decision(&self) -> Decision {
        let (rule, precedence) = (self.key(), precedence(self.destination, self.source));
        if self.needs_jwt || !self.rule.permissions.is_empty() {
            return Decision { verdict: Verdict::Denied, reason: Reason::Permissions { rule, precedence } };
        }
        let verdict = match self.rule.action {
            Action::Allow => Verdict::Allowed,
            Action::Deny => Verdict::Denied,
        };
        Decision { verdict, reason: Reason::Rule { rule, precedence } }
    }
}

/// The rules that match, the deciding one first.
pub(crate) fn matching<'a>(
    origins: &'a [Origin],
    source: &'a ServiceMatch,
    destination: &'a ServiceMatch,
    intentions: &'a Intentions,
) -> impl Iterator<Item = Matched<'a>> {
    // Most exact first; a pattern that is `*` itself would only find the same rule twice.
    let destinations = [Some(destination), Some(&ServiceMatch::Any).filter(|any| *any != destination)];
    let sources = [Some(source), Some(&ServiceMatch::Any).filter(|any| *any != source)];
    destinations.into_iter().flatten().flat_map(move |destination| {
        let rules = intentions.rules(destination);
        sources.into_iter().flatten().flat_map(move |source| {
            origins.iter().filter_map(move |origin| {
                let rules = rules?;
                let rule = rules.sides.get(origin)?.get(source)?;
                Some(Matched { destination, origin, source, rule, needs_jwt: rules.needs_jwt })
            })
        })
    })
}

/// Consul's precedence of a rule with this destination and source; larger wins.
pub fn precedence(destination: &ServiceMatch, source: &ServiceMatch) -> u8 {
    match (destination, source) {
        (ServiceMatch::Named(_), ServiceMatch::Named(_)) => 9,
        (ServiceMatch::Named(_), ServiceMatch::Any) => 8,
        (ServiceMatch::Any, ServiceMatch::Named(_)) => 6,
        (ServiceMatch::Any, ServiceMatch::Any) => 5,
    }
}

#[cfg(test)]
mod tests;
