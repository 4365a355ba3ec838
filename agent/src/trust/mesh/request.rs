//! A certificate signing request, as somebody who keeps his key sends one.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

/// Longest request: one with an RSA key of 4096 bits and many names has 4 KiB.
pub const MAX_REQUEST: usize = 16 * 1024;
/// The sizes of RSA keys that are signed for: what is smaller is weak, what is larger takes long to check.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Why nothing was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the signing request is longer than {MAX_REQUEST} bytes")]
    TooLong,
    #[error("this is no certificate signing request in PEM (-----BEGIN CERTIFICATE REQUEST-----)")]
    Malformed,
    #[error("the signing request is not signed with the key that it is for")]
    Unproven,
    #[error("an RSA key must have 2048 to 4096 bits, this one has {0}")]
    Rsa(usize),
    #[error("only keys for ECDSA (P-256, P-384), Ed25519 and RSA are signed for")]
    Unsupported,
}

/// The key that a request proves to hold.
pub fn key(pem: &str) -> Result<SubjectPublicKeyInfo, RequestError> {
    if pem.len() > MAX_REQUEST {
        return Err(RequestError::TooLong);
    }
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| RequestError::Malformed)?;
    if !matches!(block.label.as_str(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
        return Err(RequestError::Malformed);
    }
    let Ok((&[], request)) = X509CertificationRequest::from_der(&block.contents) else {
        return Err(RequestError::Malformed);
    };
    let key = &request.certification_request_info.subject_pki;
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) if !RSA_BITS.contains(&rsa.key_size()) => {
            return Err(RequestError::Rsa(rsa.key_size()));
        }
        Ok(PublicKey::RSA(_) | PublicKey::EC(_) | PublicKey::Unknown(_)) => {}
        _ => return Err(RequestError::Unsupported),
    }
    // What may be signed for is what can be signed with: this knows the curves and Ed25519.
    let known = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| RequestError::Unsupported)?;
    request.verify_signature().map_err(|_| RequestError::Unproven)?;
    Ok(known)
}
