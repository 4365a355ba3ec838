//! Who speaks for itself: a service, known by the certificate that it shows.
//!
//! The certificate's own name says of which trust domain it is, and that domain's roots alone are asked to vouch for it:
//! this cluster's, or those that the bundle of one link brought. So a root of one peer vouches for no service of another,
//! and none but ours for one of this cluster.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use schema::name::{LinkName, ServiceName};
use tokio::sync::watch;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::bundle::{Bundles, PeerBundles};
use super::spiffe::{ServiceId, SpiffeError, SpiffeId};
use super::{MeshAuthority, Roots};
use crate::trust::certificate;
use crate::trust::identity::Identities;

/// id-kp-clientAuth, by RFC 5280, as it stands in DER.
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// A service that has shown who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// The link whose peer vouches for it; `None` for a service of this cluster.
    pub peer: Option<LinkName>,
    pub service: ServiceName,
    /// From when on nobody vouches for it: the end of its certificate, or of the root that signed it.
    pub ends: Timestamp,
}

/// A certificate that is not taken, and whose it says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    pub claims: Option<Box<ServiceId>>,
    pub why: LeafError,
}

/// Why a certificate is not taken for a service's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    #[error("it showed no certificate")]
    Missing,
    #[error("its certificate cannot be read")]
    Unreadable,
    #[error("its certificate has {0} URIs, where a service's has one")]
    Names(usize),
    #[error("its certificate's name: {0}")]
    Name(#[from] SpiffeError),
    #[error("its certificate's name is of no service")]
    NoService,
    #[error(
        "its certificate's name is not written as services' are, spiffe://DOMAIN/ns/default/dc/CLUSTER/svc/NAME"
    )]
    Form,
    #[error("its certificate is of this cluster's trust domain and names another cluster")]
    OtherCluster,
    #[error("its certificate's trust domain is neither this cluster's nor that of a linked one")]
    UnknownDomain,
    #[error("its certificate is of the peer of {0}, and there is no such link any more")]
    NoLink(LinkName),
    #[error("its certificate is not valid before {begins}: check the clocks of both machines")]
    NotYet { begins: Timestamp },
    #[error("its certificate expired at {ended}")]
    Expired { ended: Timestamp },
    #[error("its certificate is not for clients (its extended key usage leaves clientAuth out)")]
    Usage,
    #[error("its certificate is an authority's own")]
    Authority,
    #[error("none of the roots of its trust domain vouches for its certificate")]
    NotSigned,
    #[error("its certificate cannot be checked: {0}")]
    Other(String),
}

/// Knows whose certificates are to be taken.
#[derive(Clone)]
pub struct Judge {
    pub authority: Arc<MeshAuthority>,
    pub bundles: Arc<PeerBundles>,
    pub identities: Arc<Identities>,
}

/// Tells when whoever was vouched for has to be asked about again.
pub struct Vouching {
    roots: watch::Receiver<Arc<Roots>>,
    bundles: watch::Receiver<Arc<Bundles>>,
    identities: watch::Receiver<u64>,
}

impl Judge {
    /// Who shows `leaf`, as of `now`.
    pub fn speaker(&self, leaf: &CertificateDer<'_>, now: Timestamp) -> Result<Speaker, Unfit> {
        let nameless = |why| Unfit { claims: None, why };
        let (_, read) =
            x509_parser::parse_x509_certificate(leaf).map_err(|_| nameless(LeafError::Unreadable))?;
        let id = named(&read).map_err(nameless)?;
        let unfit = |why| Unfit { claims: Some(Box::new(id.clone())), why };
        let service = id.service.parse().map_err(|_| unfit(LeafError::Form))?;
        let (peer, roots) = self.roots_of(&id).map_err(unfit)?;
        let mut why = LeafError::NotSigned;
        for root in roots.iter().filter(|root| root.begins <= now && now < root.ends) {
            match signed(leaf, &root.der, now) {
                Ok(()) => {
                    let end = read.validity().not_after.timestamp();
                    let end = Timestamp::from_second(end).map_err(|_| unfit(LeafError::Unreadable))?;
                    return Ok(Speaker { peer, service, ends: end.min(root.ends) });
                }
                Err(LeafError::NotSigned) => {}
                Err(other) => why = other,
            }
        }
        Err(unfit(why))
    }

    /// To be asked for before a certificate is judged: what changes from then on is seen.
    pub fn vouching(&self) -> Vouching {
        Vouching {
            roots: self.authority.subscribe(),
            bundles: self.bundles.subscribe(),
            identities: self.identities.changed(),
        }
    }

    /// The roots that vouch for names of this domain, and the link that they came by.
    fn roots_of(&self, id: &ServiceId) -> Result<(Option<LinkName>, Vec<Anchor>), LeafError> {
        let own = self.authority.roots();
        if id.domain == own.domain {
            if id.datacenter != self.authority.cluster().as_str() {
                return Err(LeafError::OtherCluster);
            }
            let anchor = |root: &Arc<super::Root>| Anchor {
                der: root.der.clone(),
                begins: root.not_before,
                ends: root.ends.map_or(root.not_after, |ends| ends.min(root.not_after)),
            };
            return Ok((None, own.all.iter().map(anchor).collect()));
        }
        let (link, bundle) = self.bundles.of_domain(&id.domain).ok_or(LeafError::UnknownDomain)?;
        // The bundle goes with the link, a moment later.
        if !self.identities.is_linked(&link) {
            return Err(LeafError::NoLink(link));
        }
        Ok((Some(link), bundle.roots.iter().filter_map(|pem| anchor(pem)).collect()))
    }
}

impl Vouching {
    /// Waits until the certificate of `speaker` is not vouched for any more, and tells why.
    pub async fn ended(&mut self, judge: &Judge, leaf: &CertificateDer<'_>, speaker: &Speaker) -> LeafError {
        let mut ends = speaker.ends;
        loop {
            let left = ends.duration_since(Timestamp::now());
            tokio::select! {
                () = tokio::time::sleep(Duration::try_from(left).unwrap_or_default()) => {}
                // Senders live as long as the agent does.
                _ = self.roots.changed() => {}
                _ = self.bundles.changed() => {}
                _ = self.identities.changed() => {}
            }
            match judge.speaker(leaf, Timestamp::now()) {
                Ok(again) if again.peer == speaker.peer => ends = again.ends,
                Ok(_) => return LeafError::UnknownDomain,
                Err(unfit) => return unfit.why,
            }
        }
    }
}

/// A root, and the time in which it vouches.
struct Anchor {
    der: CertificateDer<'static>,
    begins: Timestamp,
    ends: Timestamp,
}

/// A root of a peer. The path's own check leaves a root's time out.
fn anchor(pem: &str) -> Option<Anchor> {
    let der = certificate::from_pem(pem)?;
    let (_, read) = x509_parser::parse_x509_certificate(&der).ok()?;
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    let (begins, ends) = (at(read.validity().not_before)?, at(read.validity().not_after)?);
    Some(Anchor { der, begins, ends })
}

/// The service that a certificate names: by its one URI, which has to be written as ours are, to the letter.
fn named(read: &X509Certificate<'_>) -> Result<ServiceId, LeafError> {
    let names = read.subject_alternative_name().map_err(|_| LeafError::Unreadable)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    let [uri] = uris.as_slice() else { return Err(LeafError::Names(uris.len())) };
    let id: SpiffeId = uri.parse()?;
    let written = id.to_string();
    match id {
        SpiffeId::Service(id) if id.is_default() && written == *uri => Ok(id),
        SpiffeId::Service(_) => Err(LeafError::Form),
        SpiffeId::Other(_) => Err(LeafError::NoService),
    }
}

/// Whether `root` itself has signed `leaf`, for a client, for now. Nothing may stand between the two.
fn signed(leaf: &CertificateDer<'_>, root: &CertificateDer<'_>, now: Timestamp) -> Result<(), LeafError> {
    let at = |time: UnixTime| {
        let second = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
    };
    let fault = |error: webpki::Error| match error {
        webpki::Error::CertNotValidYet { not_before, .. } => LeafError::NotYet { begins: at(not_before) },
        webpki::Error::CertExpired { not_after, .. } => LeafError::Expired { ended: at(not_after) },
        webpki::Error::RequiredEkuNotFoundContext(_) => LeafError::Usage,
        webpki::Error::CaUsedAsEndEntity => LeafError::Authority,
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => LeafError::NotSigned,
        webpki::Error::BadDer | webpki::Error::MalformedExtensions => LeafError::Unreadable,
        other => LeafError::Other(format!("{other:?}")),
    };
    let certificate = EndEntityCert::try_from(leaf).map_err(fault)?;
    let anchor = webpki::anchor_from_trusted_cert(root).map_err(|_| LeafError::NotSigned)?;
    let known = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap_or(0)));
    let usage = KeyUsage::required(CLIENT_AUTH);
    certificate.verify_for_usage(known.all, &[anchor], &[], time, usage, None, None).map_err(fault)?;
    Ok(())
}

#[cfg(test)]
mod tests;
