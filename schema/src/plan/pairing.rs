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
    /// The declared links that rest on trust made by a token.
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
}

/// A link that leads to the cluster it is declared on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cluster_link {:?} leads to its own cluster", .0.link.as_str())]
pub struct OwnCluster(pub End);

/// What is to be exchanged for all `sites`, in order of site and link.
pub fn exchanges(sites: &[Site<'_>]) -> Result<Vec<Exchange>, OwnCluster> {
    let mut exchanges = Vec::new();
    if sites.iter().all(|site| site.plan.exchanges.is_empty()) {
        return Ok(exchanges);
    }
    for (index, site) in sites.iter().enumerate() {
        for &(name, link) in &site.links {
            let end = End { site: index, link: name.clone() };
            if site.names(link.leads_to(name)) && !sites.iter().any(|other| other.is_peer(site, name, link)) {
                return Err(OwnCluster(end));
            }
            match sites.iter().enumerate().find_map(|(at, other)| counterpart(site, name, link, at, other)) {
                // Each pair is met from both sides; the first to be met speaks for it.
                Some(peer) if peer < end => {}
                Some(peer) => exchanges.extend(pair(sites, end, peer)),
                None => exchanges.extend(alone(site, end)),
            }
        }
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

fn pair(sites: &[Site<'_>], one: End, other: End) -> Option<Exchange> {
    let lacks = |end: &End| sites[end.site].lacks_trust(&end.link);
    let called = |end: &End| sites[end.site].called(&end.link);
    let label = |end: &End| (sites[end.site].label(), &sites[end.site].live.fingerprint);
    let one_mints = match (lacks(&one), lacks(&other)) {
        (false, false) => return None,
        (true, false) => true,
        (false, true) => false,
        // Of a one-way link, the side that is called mints, as LXD has it; else the first by name.
        (true, true) => match (called(&one), called(&other)) {
            (true, false) => true,
            (false, true) => false,
            _ => label(&one) <= label(&other),
        },
    };
    let (mint, redeem) = if one_mints { (one, other) } else { (other, one) };
    Some(Exchange::Paired { mint, redeem })
}

fn alone(site: &Site<'_>, end: End) -> Option<Exchange> {
    if !site.lacks_trust(&end.link) {
        return None;
    }
    Some(match site.desired.token_sources.get(&end.link) {
        Some(from) => Exchange::Redeem { from: from.clone(), end },
        None => Exchange::Mint { end },
    })
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

    /// Whether `link` is a one-way link over which this side is called: it grants something.
    fn called(&self, link: &LinkName) -> bool {
        self.links.iter().any(|(name, declared)| {
            *name == link && declared.kind == LinkType::Unidirectional && !declared.auth_groups.is_empty()
        })
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
        assert_eq!(exchanges(&sites(&owned)), Err(OwnCluster(end(0, "home"))));
    }
}
