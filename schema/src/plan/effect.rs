//! Who gains or loses access by a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::access::Verdict;
use crate::kind::Kind;
use crate::kind::auth_group::entitlements::ADMINS;
use crate::kind::auth_group::{ADMINS_PERMISSIONS, Permission};
use crate::name::{GroupName, LinkName};
use crate::plan::{Live, Plan};
use crate::record::{Record, RecordKey, ServiceMatch};

mod connection;

use connection::connections;

/// One thing that a plan changes about who may do what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// A peer may do more or less over its link.
    Permission { link: LinkName, change: Change, permission: Permission },
    /// The answer for a pair of services changes.
    Connection(Connection),
}

/// A pair of services that can be connected from now on, or cannot any more; `*` stands for every service that no rule
/// names. A service behind a peer reaches what an intention allows and what is exported to that peer: both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Connection {
    pub destination: ServiceMatch,
    /// The peer that the source is behind; absent for a source of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<LinkName>,
    pub source: ServiceMatch,
    pub becomes: Verdict,
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
        f.write_str(match self.becomes {
            Verdict::Allowed => "granted: ",
            Verdict::Denied => "withdrawn: ",
        })?;
        self.source.fmt(f)?;
        if let Some(peer) = &self.peer {
            write!(f, "@{peer}")?;
        }
        write!(f, " → {}", self.destination)
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

#[cfg(test)]
mod tests;
