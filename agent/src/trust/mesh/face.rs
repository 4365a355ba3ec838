//! What this agent shows to those who speak for themselves: a certificate of the service that they ask for.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use schema::name::{LinkName, ServiceName};

use super::leaf::{Holder, Leaf};
use super::{MAX_LEAVES, MeshAuthority, MeshError, server_name};
use crate::trust::Fingerprint;

/// Whom the agent stands for. To be made of what there is, and not of what somebody asked for: each has a certificate
/// made for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Face {
    /// One of this cluster's services: its own certificate.
    Here(ServiceName),
    /// A service across a link, whose certificate is not this cluster's to give: the agent's own.
    Across(ServiceName, LinkName),
}

/// A certificate that is shown until half of its life has passed or another root signs.
pub(super) struct Shown {
    certified: Arc<CertifiedKey>,
    renewed_at: Timestamp,
    root: Fingerprint,
}

impl MeshAuthority {
    /// The certificate to show, made if need be. It is for nobody but this agent: others ask for theirs with a permit.
    pub fn face(&self, face: &Face, now: Timestamp) -> Result<Arc<CertifiedKey>, MeshError> {
        let roots = self.roots();
        let active = roots.active(now).ok_or(MeshError::NoKey)?;
        let mut kept = self.lock();
        if let Some(shown) = kept.faces.get(face)
            && shown.root == active.fingerprint
            && now < shown.renewed_at
        {
            return Ok(Arc::clone(&shown.certified));
        }
        let (uri, service, host) = match face {
            Face::Here(service) => {
                let host = server_name::of_service(service, &self.cluster, &roots.domain);
                (self.id_of(service).to_string(), service, host)
            }
            Face::Across(service, link) => {
                let uri = format!("spiffe://{0}/agent/client/dc/{1}/id/{1}", roots.domain, self.cluster);
                (uri, service, server_name::of_service_across(service, link, &roots.domain))
            }
        };
        let leaf = active.issue(uri, service, Some(&host), Holder::NewKey, now)?;
        self.issued.fetch_add(1, Relaxed);
        let certified = Arc::new(certified(&leaf)?);
        let shown =
            Shown { certified: Arc::clone(&certified), renewed_at: leaf.renewed_at(), root: leaf.root };
        kept.faces.retain(|_, shown| now < shown.renewed_at);
        if kept.faces.len() >= MAX_LEAVES {
            // Each can be made anew: nothing is lost but work.
            kept.faces.clear();
        }
        kept.faces.insert(face.clone(), shown);
        tracing::debug!(%service, serial = %leaf.serial, "a certificate to show was made");
        Ok(certified)
    }
}

fn certified(leaf: &Leaf) -> Result<CertifiedKey, MeshError> {
    let key = leaf.key.as_ref().ok_or(MeshError::NoKey)?;
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| MeshError::NoKey)?;
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|_| MeshError::NoKey)?;
    let der =
        CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).map_err(|_| MeshError::NoKey)?;
    Ok(CertifiedKey::new(vec![der], signer))
}
