//! Who gains or loses access by a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::access::{Caller, Intentions, Verdict, decide_match};
use crate::kind::Kind;
use crate::kind::auth_group::entitlements::ADMINS;
use crate::kind::auth_group::{ADMINS_PERMISSIONS, Permission};
use crate::name::{GroupName, LinkName};
use crate::origin::Origin;
use crate::plan::{Live, Plan};
use crate::record::{Record, RecordKey, ServiceMatch};

/// One thing that a plan changes about who may do what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// A peer may do more or less over its link.
    Permission { link: LinkName, change: Change, permission: Permission },
    /// The answer for a pair of services changes.
    Connection(Connection),
}

/// A pair of services and its new answer; `*` stands for every service that no rule names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Connection {
    pub destination: ServiceMatch,
    /// The peer that the source is behind, `*` for every peer that no rule names; absent for a source of this cluster.
    #[serde(rename = "peer", default, skip_serializing_if = "is_local")]
    pub origin: Origin,
    pub source: ServiceMatch,
    pub becomes: Verdict,
}

fn is_local(origin: &Origin) -> bool {
    *origin == Origin::Local
}

/// Whether a right comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Gains,
    Loses,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Permission { link, change, permission } => {
                let change = match change {
                    Change::Gains => "gains",
                    Change::Loses => "loses",
                };
                write!(f, "peer {link} {change} {} on {}", permission.entitlement, permission.entity_type)?;
                let place = [&permission.entity, &permission.project, &permission.pool];
                let words = ["", "in project ", "in pool "];
                for (word, name) in words.into_iter().zip(place) {
                    if let Some(name) = name {
                        write!(f, " {word}{name}")?;
                    }
                }
                Ok(())
            }
            Effect::Connection(connection) => connection.fmt(f),
        }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)?;
        if self.origin != Origin::Local {
            write!(f, "@{}", self.origin)?;
        }
        let becomes = match self.becomes {
            Verdict::Allowed => "allowed",
            Verdict::Denied => "denied",
        };
        write!(f, " → {} becomes {becomes}", self.destination)
    }
}

/// Who gains or loses access by `plan`: peers by link, then pairs of services by destination.
pub fn effects(live: &Live, plan: &Plan) -> Vec<Effect> {
    let mut effects = permissions(live, plan);
    effects.extend(connections(live, plan).into_iter().map(Effect::Connection));
    effects
}

/// What each peer may do, by the groups of its link, before and after.
fn permissions(live: &Live, plan: &Plan) -> Vec<Effect> {
    let changed: BTreeMap<&RecordKey, Option<&Record>> = plan
        .changes
        .iter()
        .filter(|change| matches!(change.key.kind(), Kind::AuthGroup | Kind::ClusterLink))
        .map(|change| (&change.key, change.after.as_ref()))
        .collect();
    if changed.is_empty() {
        return Vec::new();
    }
    let before = |key: &RecordKey| live.records.get(key).map(|live| &live.record);
    let after = |key: &RecordKey| changed.get(key).copied().unwrap_or_else(|| before(key));
    let links: BTreeSet<&LinkName> = live
        .records
        .keys()
        .chain(changed.keys().copied())
        .filter_map(|key| match key {
            RecordKey::ClusterLink(link) => Some(link),
            _ => None,
        })
        .collect();
    let mut effects = Vec::new();
    for link in links {
        let (had, has) = (granted(link, before), granted(link, after));
        let effect = |change, permission: &&Permission| Effect::Permission {
            link: link.clone(),
            change,
            permission: (*permission).clone(),
        };
        effects.extend(has.difference(&had).map(|permission| effect(Change::Gains, permission)));
        effects.extend(had.difference(&has).map(|permission| effect(Change::Loses, permission)));
    }
    effects
}

/// What the peer of `link` may do, where `record` says what is declared.
fn granted<'r>(
    link: &LinkName,
    record: impl Fn(&RecordKey) -> Option<&'r Record>,
) -> BTreeSet<&'r Permission> {
    let Some(Record::ClusterLink(link)) = record(&RecordKey::ClusterLink(link.clone())) else {
        return BTreeSet::new();
    };
    let permissions = |group: &GroupName| match record(&RecordKey::AuthGroup(group.clone())) {
        Some(Record::AuthGroup(group)) => Some(&group.permissions),
        _ if group.as_str() == ADMINS => Some(&*ADMINS_PERMISSIONS),
        _ => None,
    };
    link.auth_groups.iter().filter_map(permissions).flatten().collect()
}

/// The pairs of services whose answer changes.
///
/// Only pairs that a changed rule can decide are looked at. A changed rule with an exact source and destination decides
/// its own pair. Where one with a `*` decides a pair, it decides the pair of patterns in the same way, so that this pair
/// stands for all, with one exception: when `* -> destination` comes or goes, a source that has a rule for all
/// destinations falls back to that one.
fn connections(live: &Live, plan: &Plan) -> BTreeSet<Connection> {
    let touched: Vec<_> = plan.changes.iter().filter(|change| decides(&change.key)).collect();
    if touched.is_empty() {
        return BTreeSet::new();
    }
    let before = Intentions::from_records(live.records.iter().map(|(key, live)| (key, &live.record)));
    let mut after = before.clone();
    for change in &touched {
        after.put(&change.key, change.after.as_ref());
    }
    let mut rules: BTreeSet<(ServiceMatch, Origin, ServiceMatch)> = BTreeSet::new();
    for change in touched {
        match &change.key {
            RecordKey::Intention { destination, origin, source } => {
                rules.insert((destination.clone(), origin.clone(), source.clone()));
            }
            RecordKey::IntentionEntry(destination) => {
                for state in [&before, &after] {
                    let sources = state.sources_of(destination);
                    rules.extend(
                        sources.map(|(origin, source)| (destination.clone(), origin.clone(), source)),
                    );
                }
            }
            RecordKey::SamenessGroup(group) => {
                let group = Origin::Group(group.clone());
                for state in [&before, &after] {
                    for destination in state.destinations() {
                        let sources = state.sources_of(&destination).filter(|(origin, _)| **origin == group);
                        rules.extend(
                            sources.map(|(origin, source)| (destination.clone(), origin.clone(), source)),
                        );
                    }
                }
            }
            _ => {}
        }
    }
    let mut effects = BTreeSet::new();
    for (destination, origin, source) in &rules {
        for caller in callers(origin, destination, &before, &after) {
            let mut look = |source: &ServiceMatch| {
                let verdict = |rules| decide_match(&caller, source, destination, rules).verdict;
                let becomes = verdict(&after);
                if verdict(&before) != becomes {
                    let origin = match caller {
                        Caller::Here => Origin::Local,
                        Caller::Peer(peer) => Origin::Peer(peer.clone()),
                        Caller::SomePeer => Origin::AnyPeer,
                    };
                    let (destination, source) = (destination.clone(), source.clone());
                    effects.insert(Connection { destination, origin, source, becomes });
                }
            };
            look(source);
            if *source == ServiceMatch::Any && *destination != ServiceMatch::Any {
                for rules in [&before, &after] {
                    let own: Vec<Origin> = caller.origins(rules.groups()).collect();
                    for (_, name) in
                        rules.sources_of(&ServiceMatch::Any).filter(|(origin, _)| own.contains(origin))
                    {
                        look(&name);
                    }
                }
            }
        }
    }
    effects
}

/// Whether the record has a say in who may connect.
fn decides(key: &RecordKey) -> bool {
    matches!(key, RecordKey::Intention { .. } | RecordKey::IntentionEntry(_) | RecordKey::SamenessGroup(_))
}

/// Whom a rule of `origin` may decide about. A rule for any peer decides about the peers that no rule names as about
/// one another, so one stands for all of these; those that are named are looked at each.
fn callers<'a>(
    origin: &'a Origin,
    destination: &ServiceMatch,
    before: &'a Intentions,
    after: &'a Intentions,
) -> BTreeSet<Caller<'a>> {
    let states = [before, after];
    match origin {
        Origin::Local => BTreeSet::from([Caller::Here]),
        Origin::Peer(peer) => BTreeSet::from([Caller::Peer(peer)]),
        Origin::Group(group) => {
            let groups = states.into_iter().filter_map(|state| state.groups().get(group));
            groups
                .flat_map(|group| {
                    let local = group.include_local.then_some(Caller::Here);
                    group.members.iter().map(Caller::Peer).chain(local)
                })
                .collect()
        }
        Origin::AnyPeer => {
            let mut callers = BTreeSet::from([Caller::SomePeer]);
            for state in states {
                for pattern in [destination, &ServiceMatch::Any] {
                    for (origin, _) in state.sources_of(pattern) {
                        match origin {
                            Origin::Peer(peer) => _ = callers.insert(Caller::Peer(peer)),
                            Origin::Group(group) => {
                                let members = state.groups().get(group).map(|group| &group.members);
                                callers.extend(members.into_iter().flatten().map(Caller::Peer));
                            }
                            Origin::Local | Origin::AnyPeer => {}
                        }
                    }
                }
            }
            callers
        }
    }
}

#[cfg(test)]
mod tests;
