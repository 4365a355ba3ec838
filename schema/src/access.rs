//! Who may reach what: intentions, their precedence, and an explanation of each decision.
//!
//! The rule that decides is the most exact one (Consul's numbers): exact destination and source 9, exact destination 8,
//! exact source 6, neither 5. The destination's exactness dominates. A source of a peer and one of this cluster are
//! never the same, whatever their names: `*` stands for every service of this cluster, or of one peer. Where no rule
//! matches, the connection is denied.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kind::service_intentions::{Action, IntentionSource};
use crate::name::{LinkName, ServiceName};
use crate::record::{Record, RecordKey, ServiceMatch};

mod explain;

pub use explain::{Explanation, explain};

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
    /// This intention has HTTP permissions, which are not enforced yet, so nothing of it is allowed.
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

/// Every intention of a cluster, laid out so that a decision is at most four lookups and copies nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intentions {
    by_destination: BTreeMap<ServiceName, Rules>,
    any_destination: Rules,
}

/// The sources of one destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rules {
    local: Side,
    peers: BTreeMap<LinkName, Side>,
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
    fn side(&self, peer: Option<&LinkName>) -> Option<&Side> {
        match peer {
            None => Some(&self.local),
            Some(peer) => self.peers.get(peer),
        }
    }

    fn is_empty(&self) -> bool {
        self.local.is_empty() && self.peers.is_empty()
    }
}

impl Intentions {
    /// The intentions among `records`; other kinds are passed over.
    pub fn from_records<'a>(records: impl IntoIterator<Item = (&'a RecordKey, &'a Record)>) -> Self {
        let mut intentions = Self::default();
        for (key, record) in records {
            if let Record::ServiceIntentions(source) = record {
                intentions.insert(key, source.clone());
            }
        }
        intentions
    }

    /// Adds or replaces the intention that `key` names; a key of another kind is passed over.
    pub fn insert(&mut self, key: &RecordKey, rule: IntentionSource) {
        let RecordKey::Intention { destination, peer, source } = key else { return };
        let rules = match destination {
            ServiceMatch::Any => &mut self.any_destination,
            ServiceMatch::Named(name) => self.by_destination.entry(name.clone()).or_default(),
        };
        let side = match peer {
            None => &mut rules.local,
            Some(peer) => rules.peers.entry(peer.clone()).or_default(),
        };
        match source {
            ServiceMatch::Any => side.any = Some(rule),
            ServiceMatch::Named(name) => {
                side.named.insert(name.clone(), rule);
            }
        }
    }

    /// Removes the intention that `key` names, if it is there.
    pub fn remove(&mut self, key: &RecordKey) {
        let RecordKey::Intention { destination, peer, source } = key else { return };
        let rules = match destination {
            ServiceMatch::Any => Some(&mut self.any_destination),
            ServiceMatch::Named(name) => self.by_destination.get_mut(name),
        };
        let Some(rules) = rules else { return };
        let side = match peer {
            None => Some(&mut rules.local),
            Some(peer) => rules.peers.get_mut(peer),
        };
        let Some(side) = side else { return };
        match source {
            ServiceMatch::Any => side.any = None,
            ServiceMatch::Named(name) => {
                side.named.remove(name);
            }
        }
        if side.is_empty()
            && let Some(peer) = peer
        {
            rules.peers.remove(peer);
        }
        if rules.is_empty()
            && let ServiceMatch::Named(name) = destination
        {
            self.by_destination.remove(name);
        }
    }

    /// The sources that have a rule of their own for every destination.
    pub(crate) fn sources_for_any(&self, peer: Option<&LinkName>) -> impl Iterator<Item = &ServiceName> {
        self.any_destination.side(peer).into_iter().flat_map(|side| side.named.keys())
    }

    fn rules(&self, destination: &ServiceMatch) -> Option<&Rules> {
        match destination {
            ServiceMatch::Any => Some(&self.any_destination),
            ServiceMatch::Named(name) => self.by_destination.get(name),
        }
    }

    fn get(
        &self,
        destination: &ServiceMatch,
        peer: Option<&LinkName>,
        source: &ServiceMatch,
    ) -> Option<&IntentionSource> {
        self.rules(destination)?.side(peer)?.get(source)
    }
}

/// Whether `source` may connect to `destination`.
pub fn decide(source: &Source, destination: &ServiceName, intentions: &Intentions) -> Decision {
    decide_match(
        source.peer.as_ref(),
        &ServiceMatch::Named(source.service.clone()),
        &ServiceMatch::Named(destination.clone()),
        intentions,
    )
}

/// The same for patterns: `*` stands for a service that no rule names.
pub(crate) fn decide_match(
    peer: Option<&LinkName>,
    source: &ServiceMatch,
    destination: &ServiceMatch,
    intentions: &Intentions,
) -> Decision {
    match matching(peer, source, destination, intentions).next() {
        None => Decision { verdict: Verdict::Denied, reason: Reason::NoRule },
        Some(matched) => matched.decision(),
    }
}

/// A rule that matches, as the lookup found it.
pub(crate) struct Matched<'a> {
    pub destination: &'a ServiceMatch,
    pub peer: Option<&'a LinkName>,
    pub source: &'a ServiceMatch,
    pub rule: &'a IntentionSource,
}

impl Matched<'_> {
    fn key(&self) -> RecordKey {
        RecordKey::Intention {
            destination: self.destination.clone(),
            peer: self.peer.cloned(),
            source: self.source.clone(),
        }
    }

    fn decision(&self) -> Decision {
        let (rule, precedence) = (self.key(), precedence(self.destination, self.source));
        if self.rule.has_permissions {
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
    peer: Option<&'a LinkName>,
    source: &'a ServiceMatch,
    destination: &'a ServiceMatch,
    intentions: &'a Intentions,
) -> impl Iterator<Item = Matched<'a>> {
    // Most exact first; a pattern that is `*` itself would only find the same rule twice.
    let destinations = [Some(destination), Some(&ServiceMatch::Any).filter(|any| *any != destination)];
    let sources = [Some(source), Some(&ServiceMatch::Any).filter(|any| *any != source)];
    destinations.into_iter().flatten().flat_map(move |destination| {
        sources.into_iter().flatten().filter_map(move |source| {
            let rule = intentions.get(destination, peer, source)?;
            Some(Matched { destination, peer, source, rule })
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
