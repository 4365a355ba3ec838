//! Where an upstream leads: its destinations in order, and which of them a connection tries first.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use schema::access::{Groups, Source};
use schema::kind::service::Upstream;
use schema::name::{LinkName, ServiceName};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Mesh;
use super::admission::Request;
use super::grant::Wish;
use super::traffic::{Counters, Pair};
use crate::catalog::Freshness;
use crate::wire::service::{TargetRow, TargetState};
use crate::wire::traffic::Way;

/// How long a target that failed is tried after the others: each new connection shall not pay for it again.
const SHUNNED: Duration = Duration::from_secs(3);

/// One place that an upstream leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub service: ServiceName,
    /// The link to go over; `None` for a service of this cluster.
    pub peer: Option<LinkName>,
}

/// What an upstream's declaration comes to. Two that are equal lead alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Course {
    /// The service that the upstream is declared by: whoever connects speaks as it.
    pub owner: ServiceName,
    /// In the order in which they are tried. Empty where a group is named that is not declared.
    pub destinations: Vec<Destination>,
    /// Who may connect; empty for everybody who can.
    pub allowed_uids: Vec<u32>,
}

impl Course {
    /// The upstream's own destination, then those that it falls back to; or its group's members: this cluster first,
    /// if it is one. None twice.
    pub(super) fn of(owner: &ServiceName, upstream: &Upstream, groups: &Groups) -> Self {
        let own = &upstream.destination_name;
        let to = |peer: Option<LinkName>| Destination { service: own.clone(), peer };
        let all: Vec<Destination> = match &upstream.sameness_group {
            Some(name) => groups.get(name).map_or_else(Vec::new, |group| {
                let here = group.include_local.then(|| to(None));
                here.into_iter().chain(group.members.iter().cloned().map(Some).map(to)).collect()
            }),
            None => std::iter::once(to(upstream.destination_peer.clone()))
                .chain(upstream.failover.iter().map(|target| Destination {
                    service: target.name.as_ref().unwrap_or(own).clone(),
                    peer: target.peer.clone(),
                }))
                .collect(),
        };
        let mut destinations: Vec<Destination> = Vec::new();
        for destination in all {
            if !destinations.contains(&destination) {
                destinations.push(destination);
            }
        }
        Self { owner: owner.clone(), destinations, allowed_uids: upstream.allowed_uids.clone() }
    }
}

/// An upstream's way, with what was learned of it.
#[derive(Debug)]
pub(super) struct Route {
    pub course: Course,
    /// As in the course.
    pub targets: Vec<Target>,
    /// Cancelled when the upstream leads elsewhere or is gone, and when the agent cuts off what is left.
    pub cut: CancellationToken,
    began: Instant,
}

/// One destination of a route.
#[derive(Debug)]
pub(super) struct Target {
    /// What a connection there asks of this cluster's intentions, if it is a service of this cluster.
    pub wish: Wish,
    pub peer: Option<LinkName>,
    /// Until when it is tried after the others, in milliseconds since the route began.
    shunned: AtomicU64,
    counters: OnceLock<Arc<Counters>>,
}

/// How a target looks before it is tried, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outlook {
    Good,
    /// It failed a moment ago.
    Failed,
    /// The peer says that none of its instances is well.
    Unwell,
    /// There is no connection to the peer.
    Down,
    /// The peer does not offer the service: it will deny it.
    NotOffered,
}

impl Outlook {
    /// Of the one that is tried first.
    fn first(self) -> TargetState {
        match self {
            Outlook::Good => TargetState::InUse,
            Outlook::Failed | Outlook::Unwell | Outlook::Down | Outlook::NotOffered => self.later(),
        }
    }

    /// Of the others.
    fn later(self) -> TargetState {
        match self {
            Outlook::Good => TargetState::Ready,
            Outlook::Failed => TargetState::Failed,
            Outlook::Unwell => TargetState::Unwell,
            Outlook::Down => TargetState::Down,
            Outlook::NotOffered => TargetState::NotOffered,
        }
    }
}

impl Route {
    pub(super) fn new(course: Course, cut: CancellationToken) -> Self {
        let target = |destination: &Destination| Target {
            wish: Wish {
                request: Request {
                    source: Source { peer: None, service: course.owner.clone() },
                    destination: destination.service.clone(),
                },
                peer: None,
                way: Way::Upstream,
            },
            peer: destination.peer.clone(),
            shunned: AtomicU64::new(0),
            counters: OnceLock::new(),
        };
        Self { targets: course.destinations.iter().map(target).collect(), course, cut, began: Instant::now() }
    }

    /// The targets in the order in which a connection tries them, with how they look.
    pub(super) fn order(&self, mesh: &Mesh) -> Vec<(usize, Outlook)> {
        // With one target there is nothing to choose, and what it looks like is found out by trying.
        if let [_] = self.targets[..] {
            return vec![(0, Outlook::Good)];
        }
        let looks: Vec<Outlook> = self.targets.iter().map(|target| self.outlook(mesh, target)).collect();
        order(&looks)
    }

    fn outlook(&self, mesh: &Mesh, target: &Target) -> Outlook {
        let shunned = target.shunned.load(Relaxed) > self.elapsed(Duration::ZERO);
        let now = if shunned { Outlook::Failed } else { Outlook::Good };
        let Some(link) = &target.peer else { return now };
        if mesh.parts.sessions.get(link).is_none() {
            return Outlook::Down;
        }
        let imports = mesh.parts.imports.view();
        // What is only remembered of a link that has just come back says nothing.
        let Some(offers) = imports.get(link).filter(|offers| offers.freshness == Freshness::Current) else {
            return now;
        };
        match offers.services.get(target.service()) {
            None => Outlook::NotOffered,
            Some(service) if service.healthy() == 0 => Outlook::Unwell,
            Some(_) => now,
        }
    }

    /// How each target looks to the next connection; nothing where there is only one.
    pub(super) fn rows(&self, mesh: &Mesh) -> Vec<TargetRow> {
        if self.targets.len() < 2 {
            return Vec::new();
        }
        let order = self.order(mesh);
        let row = |(at, target): (usize, &Target)| {
            let place = order.iter().position(|(known, _)| *known == at);
            let outlook = place.map_or(Outlook::Down, |place| order[place].1);
            TargetRow {
                destination: target.service().clone(),
                peer: target.peer.clone(),
                state: if place == Some(0) { outlook.first() } else { outlook.later() },
            }
        };
        self.targets.iter().enumerate().map(row).collect()
    }

    /// Has the target tried after the others for a moment.
    pub(super) fn shun(&self, at: usize) {
        self.targets[at].shunned.store(self.elapsed(SHUNNED), Relaxed);
    }

    fn elapsed(&self, later: Duration) -> u64 {
        u64::try_from((self.began.elapsed() + later).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Target {
    pub(super) fn service(&self) -> &ServiceName {
        &self.wish.request.destination
    }

    /// What is counted of connections there, before any rule of ours: looked up once for all of them.
    pub(super) fn counters(&self, mesh: &Mesh) -> &Arc<Counters> {
        self.counters.get_or_init(|| {
            let Request { source, destination } = &self.wish.request;
            mesh.traffic.of(Pair::upstream(source.service.clone(), destination.clone(), self.peer.clone()))
        })
    }
}

/// The best first; among those that look alike, as declared.
fn order(looks: &[Outlook]) -> Vec<(usize, Outlook)> {
    let mut order: Vec<_> = looks.iter().copied().enumerate().collect();
    order.sort_by_key(|(_, look)| *look);
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::kind::sameness_group::SamenessGroup;
    use schema::kind::service::Target as Declared;

    use super::*;

    fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
        text.parse().unwrap()
    }

    fn peers(course: &Course) -> Vec<String> {
        let show = |to: &Destination| match &to.peer {
            Some(peer) => format!("{}@{peer}", to.service),
            None => to.service.to_string(),
        };
        course.destinations.iter().map(show).collect()
    }

    #[test]
    fn an_upstream_leads_to_its_destination_and_then_to_what_it_falls_back_to_each_once() {
        let mut upstream = Upstream::to(name("db"), Some(name("east")), 1);
        let target = |name: Option<&str>, peer: Option<&str>| Declared {
            name: name.map(|text| text.parse().unwrap()),
            peer: peer.map(|text| text.parse().unwrap()),
        };
        upstream.failover = vec![
            target(None, Some("west")),
            target(Some("db"), Some("east")),
            target(Some("db"), None),
            target(Some("db-copy"), Some("west")),
        ];
        let course = Course::of(&name("shop"), &upstream, &Groups::default());
        assert_eq!(peers(&course), ["db@east", "db@west", "db", "db-copy@west"]);
    }

    #[test]
    fn a_group_is_its_members_in_its_order_this_cluster_first() {
        let mut upstream = Upstream::to(name("db"), None, 1);
        upstream.sameness_group = Some(name("coast"));
        let mut groups = Groups::default();
        assert!(Course::of(&name("shop"), &upstream, &groups).destinations.is_empty());
        let mut group = SamenessGroup { members: vec![name("west"), name("east")], ..Default::default() };
        groups.set(&name("coast"), Some(&group));
        assert_eq!(peers(&Course::of(&name("shop"), &upstream, &groups)), ["db@west", "db@east"]);
        group.include_local = true;
        groups.set(&name("coast"), Some(&group));
        assert_eq!(peers(&Course::of(&name("shop"), &upstream, &groups)), ["db", "db@west", "db@east"]);
    }

    proptest! {
        #[test]
        fn every_target_is_tried_once_the_better_first_and_else_as_declared(
            looks in prop::collection::vec(
                prop::sample::select(vec![
                    Outlook::Good,
                    Outlook::Failed,
                    Outlook::Unwell,
                    Outlook::Down,
                    Outlook::NotOffered,
                ]),
                0..20,
            )
        ) {
            let ordered = order(&looks);
            let mut places: Vec<usize> = ordered.iter().map(|(at, _)| *at).collect();
            prop_assert!(ordered.iter().all(|(at, look)| looks[*at] == *look));
            prop_assert!(ordered.is_sorted_by(|a, b| (a.1, a.0) < (b.1, b.0)));
            places.sort_unstable();
            prop_assert_eq!(places, (0..looks.len()).collect::<Vec<_>>());
        }
    }
}
