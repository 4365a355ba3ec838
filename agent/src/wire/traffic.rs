//! What passed between services: a row for each pair, as `GET /control/v1/status` tells it.

use std::collections::BTreeMap;

use schema::name::{LinkName, ServiceName};
use schema::record::RecordKey;
use serde::{Deserialize, Serialize};

/// What passed between one source and one destination since the agent started, under one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficRow {
    /// `None`: sources beyond the number that is kept apart, all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ServiceName>,
    /// The link that the source is behind; `None` for a service of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_peer: Option<LinkName>,
    /// `None`: destinations beyond the number that is kept apart, all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<ServiceName>,
    /// The link that the destination is behind; `None` for a service of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_peer: Option<LinkName>,
    pub way: Way,
    /// The intention that decided. There is none where the peer decides, or where no intention matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RecordKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precedence: Option<u8>,
    /// Connections made.
    pub connections: u64,
    /// Those of them that are open.
    pub open: u64,
    /// Those of them that were cut because what allowed them ended.
    #[serde(default)]
    pub cut: u64,
    /// Connections refused, here or by the peer.
    pub denied: u64,
    /// The same by why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub denied_because: BTreeMap<Denial, u64>,
    /// Connections that were allowed and never made.
    pub failed: u64,
    /// The same by why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed_because: BTreeMap<Cause, u64>,
    /// Bytes from source to destination.
    pub sent: u64,
    /// Bytes from destination to source.
    pub received: u64,
    /// From the moment that a connection arrived until it was carried.
    #[serde(default)]
    pub set_up: Latency,
}

/// How a connection came to this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// From an app of this cluster, by an upstream of its service.
    Upstream,
    /// From a linked agent.
    Link,
    /// From an app that speaks for itself, by its leaf certificate.
    Leaf,
}

/// Why a connection was not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    /// An intention denies it.
    Rule,
    /// No intention matches.
    NoRule,
    /// The intention that matches has HTTP permissions or asks for a JWT.
    Permissions,
    /// The destination is not exported to the link.
    NotExported,
    /// There is no such destination.
    NotDeclared,
    /// The destination only calls others.
    NoPort,
    /// Who calls is of no link.
    NoLink,
    /// The peer says so; its log says why.
    Peer,
    /// The local user may not use the upstream.
    User,
    /// The leaf certificate is not good.
    Leaf,
}

/// Why a connection that was allowed was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// No instance passes its checks.
    NoInstance,
    /// No instance took the connection.
    Connect,
    /// There is no connection to the peer.
    LinkDown,
    /// As many are open as may be.
    TooMany,
    /// The peer could not make it; its log says why.
    Peer,
    /// Who called went away before it was made.
    Gone,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::Upstream, Way::Link, Way::Leaf];

    pub fn as_str(self) -> &'static str {
        match self {
            Way::Upstream => "upstream",
            Way::Link => "link",
            Way::Leaf => "leaf",
        }
    }
}

impl Denial {
    /// Every one, in the order of their discriminants.
    pub const ALL: [Denial; 10] = [
        Denial::Rule,
        Denial::NoRule,
        Denial::Permissions,
        Denial::NotExported,
        Denial::NotDeclared,
        Denial::NoPort,
        Denial::NoLink,
        Denial::Peer,
        Denial::User,
        Denial::Leaf,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Denial::Rule => "rule",
            Denial::NoRule => "no_rule",
            Denial::Permissions => "permissions",
            Denial::NotExported => "not_exported",
            Denial::NotDeclared => "not_declared",
            Denial::NoPort => "no_port",
            Denial::NoLink => "no_link",
            Denial::Peer => "peer",
            Denial::User => "user",
            Denial::Leaf => "leaf",
        }
    }
}

impl Cause {
    /// Every one, in the order of their discriminants.
    pub const ALL: [Cause; 6] =
        [Cause::NoInstance, Cause::Connect, Cause::LinkDown, Cause::TooMany, Cause::Peer, Cause::Gone];

    pub fn as_str(self) -> &'static str {
        match self {
            Cause::NoInstance => "no_instance",
            Cause::Connect => "connect",
            Cause::LinkDown => "link_down",
            Cause::TooMany => "too_many",
            Cause::Peer => "peer",
            Cause::Gone => "gone",
        }
    }
}

/// Upper bounds of the histogram's buckets, in microseconds; what is above the last has a bucket of its own.
pub const BOUNDS: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000,
];

/// How long something took, each time that it was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub sum_us: u64,
    /// How many took up to so many microseconds and more than the next lower bound. Those above the highest bound
    /// are in `count` alone, and bounds that none fell under are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub up_to_us: BTreeMap<u64, u64>,
}

impl Latency {
    pub fn add(&mut self, other: &Latency) {
        self.count = self.count.saturating_add(other.count);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        for (bound, count) in &other.up_to_us {
            let known = self.up_to_us.entry(*bound).or_default();
            *known = known.saturating_add(*count);
        }
    }

    /// What was added since `before`. An agent that has started anew since has begun at nothing.
    #[must_use]
    pub fn since(&self, before: &Latency) -> Latency {
        if before.count > self.count {
            return self.clone();
        }
        let left = |bound: &u64, count: &u64| {
            count.saturating_sub(before.up_to_us.get(bound).copied().unwrap_or_default())
        };
        Latency {
            count: self.count - before.count,
            sum_us: self.sum_us.saturating_sub(before.sum_us),
            up_to_us: self
                .up_to_us
                .iter()
                .map(|(bound, count)| (*bound, left(bound, count)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }

    /// The time in microseconds within which `share` (0 to 1) of them were done, as near as the buckets tell: evenly
    /// spread within one. Above the highest bound it is that bound. `None` where nothing was done.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let wanted = share.clamp(0.0, 1.0) * self.count as f64;
        let mut below = 0.0;
        for (bound, count) in &self.up_to_us {
            let count = *count as f64;
            if below + count >= wanted && count > 0.0 {
                let lower = BOUNDS.iter().rev().find(|lower| *lower < bound).copied().unwrap_or(0);
                let within = ((wanted - below) / count).max(0.0);
                return Some(lower + ((bound - lower) as f64 * within) as u64);
            }
            below += count;
        }
        BOUNDS.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(above: u64, buckets: &[(u64, u64)]) -> Latency {
        let up_to_us: BTreeMap<u64, u64> = buckets.iter().copied().collect();
        Latency { count: above + up_to_us.values().sum::<u64>(), sum_us: 0, up_to_us }
    }

    #[test]
    fn a_quantile_is_as_near_as_the_buckets_tell() {
        assert_eq!(Latency::default().quantile_us(0.5), None);
        let some = latency(1, &[(100, 50), (1_000, 49)]);
        assert_eq!(some.quantile_us(0.5), Some(100));
        assert_eq!(some.quantile_us(0.25), Some(50));
        assert_eq!(some.quantile_us(0.99), Some(1_000));
        assert_eq!(some.quantile_us(1.0), Some(5_000_000), "above the last bound nothing nearer is known");
        assert_eq!(latency(0, &[(1_000, 2)]).quantile_us(0.5), Some(750), "half way from 500 to 1,000");
    }

    #[test]
    fn what_came_since_is_the_difference_unless_the_agent_began_anew() {
        let before = latency(0, &[(100, 5), (250, 1)]);
        let after = latency(2, &[(100, 5), (250, 4)]);
        assert_eq!(after.since(&before), latency(2, &[(250, 3)]));
        assert_eq!(before.since(&after), before, "a count that falls is another run's");
        let mut sum = before.clone();
        sum.add(&after.since(&before));
        assert_eq!(sum, after);
    }

    #[test]
    fn the_lists_are_in_the_order_in_which_they_are_counted() {
        assert!(Denial::ALL.iter().enumerate().all(|(at, one)| *one as usize == at));
        assert!(Cause::ALL.iter().enumerate().all(|(at, one)| *one as usize == at));
        for one in Denial::ALL {
            assert_eq!(serde_json::to_value(one).unwrap(), one.as_str());
        }
        for one in Cause::ALL {
            assert_eq!(serde_json::to_value(one).unwrap(), one.as_str());
        }
        for one in Way::ALL {
            assert_eq!(serde_json::to_value(one).unwrap(), one.as_str());
        }
    }
}
