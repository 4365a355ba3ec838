//! A listener for one caller: what it shows is settled by then, and whoever made it says whether the caller's certificate
//! is taken.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::provider;

/// Looks at a caller's certificate, and says what is wrong with it. That its key is the caller's is checked besides.
pub type Judge = Box<dyn Fn(&CertificateDer<'_>) -> Result<(), CertificateError> + Send + Sync>;

pub(super) struct JudgedClient(pub(super) Judge);

impl fmt::Debug for JudgedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JudgedClient")
    }
}

impl ClientCertVerifier for JudgedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        (self.0)(end_entity).map_err(Error::InvalidCertificate)?;
        Ok(ClientCertVerified::assertion())
    }

    tls13_signatures!();
}

#[derive(Debug)]
pub(super) struct Only(pub(super) Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}
