//! The trust bundles of linked clusters, as their streams brought them: in memory only. They tell which peer a service's
//! certificate is of, so none may claim a trust domain that is another's.

use std::collections::BTreeMap;
use std::sync::Arc;

use schema::name::LinkName;
use tokio::sync::watch;

use super::spiffe::TrustDomain;
use crate::trust::certificate;
use crate::wire::bundle::{MAX_ROOT, MAX_ROOTS, TrustBundle};

/// Why a peer's bundle is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("the trust bundle's domain is not one")]
    Domain,
    #[error("a trust bundle has 1 to {MAX_ROOTS} roots, this one has {0}")]
    Count(usize),
    #[error("root {0} of the trust bundle is no CA's certificate")]
    Root(usize),
    #[error("the peer claims this cluster's own trust domain")]
    Ours,
    #[error("the peer claims the trust domain of link {0}")]
    Taken(LinkName),
}

/// What each peer's stream has told.
#[derive(Debug, Default)]
pub struct PeerBundles {
    bundles: watch::Sender<Arc<Bundles>>,
}

/// By link.
pub type Bundles = BTreeMap<LinkName, Arc<TrustBundle>>;

impl PeerBundles {
    /// Takes what the peer of `link` tells; `own` is this cluster's domain. False if it is known already.
    pub fn learn(
        &self,
        link: &LinkName,
        bundle: TrustBundle,
        own: &TrustDomain,
    ) -> Result<bool, BundleError> {
        let domain = check(&bundle)?;
        if domain == *own {
            return Err(BundleError::Ours);
        }
        let mut result = Ok(false);
        self.bundles.send_if_modified(|bundles| {
            let claimed = bundles
                .iter()
                .find(|(other, known)| *other != link && known.trust_domain == bundle.trust_domain);
            if let Some((other, _)) = claimed {
                result = Err(BundleError::Taken(other.clone()));
                return false;
            }
            let is_new = bundles.get(link).is_none_or(|known| **known != bundle);
            if is_new {
                Arc::make_mut(bundles).insert(link.clone(), Arc::new(bundle));
                result = Ok(true);
            }
            is_new
        });
        result
    }

    /// The link is gone: so is what its peer told.
    pub fn forget(&self, link: &LinkName) {
        self.bundles.send_if_modified(|bundles| {
            bundles.contains_key(link) && Arc::make_mut(bundles).remove(link).is_some()
        });
    }

    pub fn of(&self, link: &LinkName) -> Option<Arc<TrustBundle>> {
        self.bundles.borrow().get(link).cloned()
    }

    /// The link whose peer gives names within `domain`.
    pub fn link_of(&self, domain: &TrustDomain) -> Option<LinkName> {
        self.of_domain(domain).map(|(link, _)| link)
    }

    /// The same, with what vouches for those names.
    pub fn of_domain(&self, domain: &TrustDomain) -> Option<(LinkName, Arc<TrustBundle>)> {
        let bundles = self.bundles.borrow();
        let (link, known) = bundles.iter().find(|(_, known)| known.trust_domain == domain.as_str())?;
        Some((link.clone(), Arc::clone(known)))
    }

    /// All of them, told anew with each change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Bundles>> {
        self.bundles.subscribe()
    }
}

fn check(bundle: &TrustBundle) -> Result<TrustDomain, BundleError> {
    let domain = bundle.trust_domain.parse().map_err(|_| BundleError::Domain)?;
    if !(1..=MAX_ROOTS).contains(&bundle.roots.len()) {
        return Err(BundleError::Count(bundle.roots.len()));
    }
    for (position, pem) in bundle.roots.iter().enumerate() {
        let fault = || BundleError::Root(position);
        let der = Some(pem).filter(|pem| pem.len() <= MAX_ROOT).and_then(|pem| certificate::from_pem(pem));
        let der = der.ok_or_else(fault)?;
        let (_, read) = x509_parser::parse_x509_certificate(&der).map_err(|_| fault())?;
        if !read.is_ca() {
            return Err(fault());
        }
    }
    Ok(domain)
}
