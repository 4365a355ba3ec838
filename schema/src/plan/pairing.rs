//! Which clusters exchange a trust token in one run, and which side mints it.
//!
//! Pure, and the same whatever the order of arguments, so that a run that was cut off is repeated, not varied.
//! A link pairs with the link that points back from the manifest whose cluster it names. Which side mints matters little
//! where both are new; where only one side lacks trust it mints, because trust that has carried data is never given up
//! for a token, whereas redeeming one from the same peer only confirms it.

use crate::kind::cluster_link::{ClusterLink, LinkType, TokenSource};
use crate::name::LinkName;
use crate::plan::{Desired, Live, Plan};
use crate::record::{Record, RecordKey};

/// One manifest and the cluster it is applied to.
#[derive(Debug)]
pub struct Site<'a> {
    desired: &'a Desired,
    live: &'a Live,
    plan: &'a Plan,
    /// The declared links that rest on trust made by a token: all but the public ones.
    links: Vec<(&'a LinkName, &'a ClusterLink)>,
}

/// One side of an exchange: a link of the site with this index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    pub site: usize,
    pub link: LinkName,
}

/// How the trust of a link comes to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// Both sides are in this run: `mint` issues a token bound to the other's certificate, `redeem` redeems it.
    Paired { mint: End, redeem: End },
    /// The other side minted a token, which is found here.
    Redeem { end: End, from: TokenSource },
    /// A token is minted and handed to a person.
    Mint { end: End },
    /// A public link: the declared certificate is pinned once it was seen at the declared address.
    Pin { end: End },
}

/// A link whose trust cannot be made as it is declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairingError {
    #[error("cluster_link {:?} leads to its own cluster", .0.link.as_str())]
    OwnCluster(End),
    #[error("cluster_link {:?} is the calling side of a unidirectional link and has no token", .0.link.as_str())]
    NoToken(End),
    #[error("cluster_link {:?} and cluster_link {:?}, its other side, are of different types", .0.link.as_str(), .1.link.as_str())]
    TypesDiffer(End, End),
    #[error("cluster_link {:?} and cluster_link {:?}, its other side, both have auth_groups", .0.link.as_str(), .1.link.as_str())]
    BothCalled(End, End),
    #[error("neither cluster_link {:?} nor cluster_link {:?}, its other side, has auth_groups", .0.link.as_str(), .1.link.as_str())]
    NeitherCalled(End, End),
}

impl PairingError {
    /// The link to point at.
    pub fn end(&self) -> &End {
        match self {
            Self::OwnCluster(end)
            | Self::NoToken(end)
            | Self::TypesDiffer(end, _)
            | Self::BothCalled(end, _)
            | Self::NeitherCalled(end, _) => end,
        }
    }

    /// What to do about it.
    pub fn detail(&self) -> &'static str {
        match self {
            Self::OwnCluster(_) => "A link joins two clusters. Set `cluster` to the remote of the other one.",
            Self::NoToken(_) => {
                "The side that is called, which has auth_groups, makes the token. Apply both sides in one command, or \
                 bring its token here with token_file or token_env."
            }
            Self::TypesDiffer(..) => "Both sides of a link are of one type.",
            Self::BothCalled(..) => {
                "One side of a unidirectional link calls, and only what it may do is said: on the other side, by \
                 auth_groups there."
            }
            Self::NeitherCalled(..) => {
                "The side of a unidirectional link that is called says by auth_groups what the caller may do."
            }
        }
    }

    /// A word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OwnCluster(_) => "link-to-itself",
            Self::NoToken(_) => "no-token",
            Self::TypesDiffer(..) | Self::BothCalled(..) | Self::NeitherCalled(..) => "link-sides",
        }
    }
}

/// What is to be exchanged for all `sites`, in order of site and link.
pub fn exchanges(sites: &[Site<'_>]) -> Result<Vec<Exchange>, PairingError> {
    let mut exchanges = Vec::new();
    if sites.iter().all(|site| site.plan.exchanges.is_empty()) {
        return Ok(exchanges);
    }
    for (index, site) in sites.iter().enumerate() {
        for &(name, link) in &site.links {
            let end = End { site: index, link: name.clone() };
            if site.names(link.leads_to(name)) && !sites.iter().any(|other| other.is_peer(site, name, link)) {
                return Err(PairingError::OwnCluster(end));
            }
            match sites.iter().enumerate().find_map(|(at, other)| counterpart(site, name, link, at, other)) {
                // Each pair is met from both sides; the first to be met speaks for it.
                Some(peer) if peer < end => {}
                Some(peer) => exchanges.extend(pair(sites, end, peer)?),
                None => exchanges.extend(alone(site, end)?),
            }
        }
        let public = site.plan.exchanges.iter().filter(|link| site.link(link).is_none());
        exchanges.extend(public.map(|link| Exchange::Pin { end: End { site: index, link: link.clone() } }));
    }
    Ok(exchanges)
}

/// The link of `other`, the site at `at`, that points back.
fn counterpart(
    site: &Site<'_>,
    name: &LinkName,
    link: &ClusterLink,
    at: usize,
    other: &Site<'_>,
) -> Option<End> {
    if !other.is_peer(site, name, link) {
        return None;
    }
    let (back, _) = other.links.iter().find(|(back, theirs)| site.is_peer(other, back, theirs))?;
    Some(End { site: at, link: (*back).clone() })
}

fn pair(sites: &[Site<'_>], one: End, other: End) -> Result<Option<Exchange>, PairingError> {
    let lacks = |end: &End| sites[end.site].lacks_trust(&end.link);
    let link = |end: &End| sites[end.site].link(&end.link);
    let label = |end: &End| (sites[end.site].label(), &sites[end.site].live.fingerprint);
    if !lacks(&one) && !lacks(&other) {
        return Ok(None);
    }
    let kind = |end: &End| link(end).map(|link| link.kind);
    if kind(&one) != kind(&other) {
        return Err(PairingError::TypesDiffer(one, other));
    }
    let called = |end: &End| link(end).is_some_and(ClusterLink::is_called);
    let one_mints = if kind(&one) == Some(LinkType::Unidirectional) {
        // The side that is called mints, as LXD has it.
        match (called(&one), called(&other)) {
            (true, false) => true,
            (false, true) => false,
            (true, true) => return Err(PairingError::BothCalled(one, other)),
            (false, false) => return Err(PairingError::NeitherCalled(one, other)),
        }
    } else {
        match (lacks(&one), lacks(&other)) {
            (true, false) => true,
            (false, true) => false,
            _ => label(&one) <= label(&other),
        }
    };
    let (mint, redeem) = if one_mints { (one, other) } else { (other, one) };
    Ok(Some(Exchange::Paired { mint, redeem }))
}

fn alone(site: &Site<'_>, end: End) -> Result<Option<Exchange>, PairingError> {
    if !site.lacks_trust(&end.link) {
        return Ok(None);
    }
    Ok(Some(match site.desired.token_sources.get(&end.link) {
        Some(from) => Exchange::Redeem { from: from.clone(), end },
        None => match site.link(&end.link) {
            Some(link) if link.kind == LinkType::Unidirectional && !link.is_called() => {
                return Err(PairingError::NoToken(end));
            }
            _ => Exchange::Mint { end },
        },
    }))
}

impl<'a> Site<'a> {
    /// `plan` is what `desired` asks of `live`.
    pub fn new(desired: &'a Desired, live: &'a Live, plan: &'a Plan) -> Self {
        let links = desired.records.iter().filter_map(|(key, declared)| match (key, &declared.record) {
            (RecordKey::ClusterLink(name), Record::ClusterLink(link)) if link.kind != LinkType::Public => {
                Some((name, link))
            }
            _ => None,
        });
        Self { desired, live, plan, links: links.collect() }
    }

    fn lacks_trust(&self, link: &LinkName) -> bool {
        self.plan.exchanges.contains(link)
    }

    /// How the person who wrote the manifest calls the cluster.
    fn label(&self) -> &'a str {
        self.desired.manifest.cluster.as_ref().map_or(self.live.cluster.as_str(), |remote| remote.as_str())
    }

    fn names(&self, cluster: &str) -> bool {
        self.label() == cluster || self.live.cluster.as_str() == cluster
    }

    /// Whether this is the cluster that `link`, declared on `from`, leads to.
    fn is_peer(&self, from: &Site<'_>, name: &LinkName, link: &ClusterLink) -> bool {
        self.live.fingerprint != from.live.fingerprint && self.names(link.leads_to(name))
    }

    /// A declared link that rests on a token.
    fn link(&self, name: &LinkName) -> Option<&'a ClusterLink> {
        self.links.iter().find(|(link, _)| *link == name).map(|(_, link)| *link)
    }
}

impl ClusterLink {
    /// The cluster at the other end, as the declaring manifest calls it.
    pub fn leads_to<'a>(&'a self, name: &'a LinkName) -> &'a str {
        self.cluster.as_ref().map_or(name.as_str(), |remote| remote.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{desired, live};
    use crate::plan::{Data, LinkState, LiveLink, plan};

    struct Owned {
        desired: Desired,
        live: Live,
        plan: Plan,
    }

    /// A cluster with declared links, `(name, cluster)` each, of which `trusted` are made already.
    fn owned(cluster: &str, links: &[(&str, Option<&str>)], trusted: &[&str]) -> Owned {
        let mut desired = desired(
            "shop",
            links.iter().map(|(name, to)| {
                let link =
                    ClusterLink { cluster: to.map(|to| to.parse().unwrap()), ..ClusterLink::default() };
                (RecordKey::ClusterLink(name.parse().unwrap()), Record::ClusterLink(link))
            }),
        );
        desired.manifest.cluster = Some(cluster.parse().unwrap());
        let mut live = live([]);
        live.cluster = cluster.parse().unwrap();
        live.fingerprint = format!("{cluster:0<64}");
        for name in trusted {
            let link = LiveLink {
                kind: LinkType::Bidirectional,
                state: LinkState::Active,
                peer_fingerprint: None,
                addresses: Vec::new(),
                reason: None,
            };
            live.links.insert(name.parse().unwrap(), link);
        }
        let plan = plan(&desired, &live, Data::Keep).unwrap();
        Owned { desired, live, plan }
    }

    fn sites(owned: &[Owned]) -> Vec<Site<'_>> {
        owned.iter().map(|Owned { desired, live, plan }| Site::new(desired, live, plan)).collect()
    }

    fn end(site: usize, link: &str) -> End {
        End { site, link: link.parse().unwrap() }
    }

    #[test]
    fn two_new_halves_pair_and_the_first_by_name_mints_whatever_the_order() {
        let owned = [owned("west", &[("east", None)], &[]), owned("east", &[("west", None)], &[])];
        assert_eq!(
            exchanges(&sites(&owned)),
            Ok(vec![Exchange::Paired { mint: end(1, "west"), redeem: end(0, "east") }])
        );
    }

    #[test]
    fn names_need_not_match() {
        let owned =
            [owned("east", &[("far", Some("west"))], &[]), owned("west", &[("home", Some("east"))], &[])];
        assert_eq!(
            exchanges(&sites(&owned)),
            Ok(vec![Exchange::Paired { mint: end(0, "far"), redeem: end(1, "home") }])
        );
    }

    #[test]
    fn the_side_that_lacks_trust_mints() {
        let owned = [owned("east", &[("west", None)], &["west"]), owned("west", &[("east", None)], &[])];
        assert_eq!(
            exchanges(&sites(&owned)),
            Ok(vec![Exchange::Paired { mint: end(1, "east"), redeem: end(0, "west") }])
        );
        let made = [owned_made("east", "west"), owned_made("west", "east")];
        assert_eq!(exchanges(&sites(&made)), Ok(vec![]));
    }

    fn owned_made(cluster: &str, link: &str) -> Owned {
        owned(cluster, &[(link, None)], &[link])
    }

    #[test]
    fn one_side_alone_redeems_what_it_is_given_or_mints() {
        let mut given = owned("east", &[("south", None), ("west", None)], &[]);
        let from = TokenSource::Environment("TOKEN".to_owned());
        given.desired.token_sources.insert("west".parse().unwrap(), from.clone());
        // A peer that declares no link back does not pair.
        let owned = [given, owned("south", &[], &[])];
        assert_eq!(
            exchanges(&sites(&owned)),
            Ok(vec![Exchange::Mint { end: end(0, "south") }, Exchange::Redeem { end: end(0, "west"), from }])
        );
    }

    #[test]
    fn a_link_to_its_own_cluster_is_a_fault() {
        let owned = [owned("east", &[("home", Some("east"))], &[])];
        assert_eq!(exchanges(&sites(&owned)), Err(PairingError::OwnCluster(end(0, "home"))));
    }

    /// A cluster with one unidirectional link; with a group it is the side that is called.
    fn one_way(cluster: &str, link: &str, groups: &[&str]) -> Owned {
        let mut owned = owned(cluster, &[(link, None)], &[]);
        for declared in owned.desired.records.values_mut() {
            let Record::ClusterLink(link) = &mut declared.record else { panic!() };
            link.kind = LinkType::Unidirectional;
            link.auth_groups = groups.iter().map(|group| group.parse().unwrap()).collect();
        }
        owned
    }

    #[test]
    fn the_side_of_a_one_way_link_that_has_groups_mints() {
        let owned = [one_way("east", "west", &[]), one_way("west", "east", &["g"])];
        assert_eq!(
            exchanges(&sites(&owned)),
            Ok(vec![Exchange::Paired { mint: end(1, "east"), redeem: end(0, "west") }])
        );
        let alone = [one_way("east", "west", &[])];
        assert_eq!(exchanges(&sites(&alone)), Err(PairingError::NoToken(end(0, "west"))));
        let called = [one_way("east", "west", &["g"])];
        assert_eq!(exchanges(&sites(&called)), Ok(vec![Exchange::Mint { end: end(0, "west") }]));
    }

    #[test]
    fn the_sides_of_a_one_way_link_must_fit() {
        let fault = |owned: &[Owned]| exchanges(&sites(owned)).unwrap_err();
        let (one, other) = (end(0, "west"), end(1, "east"));
        assert_eq!(
            fault(&[one_way("east", "west", &["g"]), one_way("west", "east", &["g"])]),
            PairingError::BothCalled(one.clone(), other.clone())
        );
        assert_eq!(
            fault(&[one_way("east", "west", &[]), one_way("west", "east", &[])]),
            PairingError::NeitherCalled(one.clone(), other.clone())
        );
        assert_eq!(
            fault(&[one_way("east", "west", &[]), owned("west", &[("east", None)], &[])]),
            PairingError::TypesDiffer(one, other)
        );
    }

    #[test]
    fn a_public_link_is_pinned_until_it_pins_what_is_declared() {
        let pinned = |peer: Option<&str>| {
            let mut owned = owned("east", &[("images", None)], &[]);
            for declared in owned.desired.records.values_mut() {
                let Record::ClusterLink(link) = &mut declared.record else { panic!() };
                link.kind = LinkType::Public;
                link.address = Some("10.0.0.1:8443".to_owned());
                link.fingerprint = Some("a".repeat(64));
            }
            if let Some(peer) = peer {
                let link = LiveLink {
                    kind: LinkType::Public,
                    state: LinkState::Active,
                    peer_fingerprint: Some(peer.repeat(64)),
                    addresses: vec!["10.0.0.1:8443".to_owned()],
                    reason: None,
                };
                owned.live.links.insert("images".parse().unwrap(), link);
            }
            owned.plan = plan(&owned.desired, &owned.live, Data::Keep).unwrap();
            exchanges(&sites(&[owned]))
        };
        let pin = Ok(vec![Exchange::Pin { end: end(0, "images") }]);
        assert_eq!(pinned(None), pin);
        assert_eq!(pinned(Some("b")), pin);
        assert_eq!(pinned(Some("a")), Ok(vec![]));
    }
}
