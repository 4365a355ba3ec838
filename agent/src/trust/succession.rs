//! The numbered succession of a cluster's certificates: each is signed for by the key of the one before it.
//!
//! A succession says: *certificate `from` is followed, as number `number`, by this one; take it until `deadline`*. It
//! is signed by the key of `from`, over an encoding that leaves nothing to interpretation: a domain that no other
//! signature of ours begins with, then fields of fixed width, then the certificate's DER with its length. A TLS
//! handshake signs other things (RFC 8446, 4.4.3: 64 spaces come first), so neither can be taken for the other.
//!
//! A chain carries the first predecessor's certificate with it. That needs no trust: whoever verifies has its hash.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::Fingerprint;
use super::certificate::{
    self, CertificateError, KeyPair, Validity, check_validity, expires_at, fingerprint, from_pem,
};

/// What the signed text begins with.
const DOMAIN: &[u8] = b"comity cluster certificate succession, version 1\0";
/// Most successions in a chain.
pub const MAX_STEPS: usize = 16;
/// Largest certificate in PEM, bytes: a cluster certificate of ours has some 900.
pub const MAX_PEM: usize = 8 * 1024;
/// Largest signature in base64, bytes: that of an RSA key of 8192 bits.
const MAX_SIGNATURE: usize = 1368;
/// What a cluster key may sign with, best first: ours are P-384, others an administrator's own.
const SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
];

/// One step: the next certificate, signed for by the key of the one before.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Succession {
    /// The first certificate of a cluster has number 0; its successor is 1.
    pub number: u64,
    /// SHA-256 of the certificate that is followed.
    pub from: Fingerprint,
    /// The next certificate, PEM.
    pub certificate: String,
    /// Until when somebody who was away may take it.
    pub deadline: Timestamp,
    /// TLS's number for how it is signed.
    scheme: u16,
    /// Base64.
    signature: String,
}

/// Successions without a gap, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// The certificate that the first step follows, PEM.
    pub certificate: String,
    pub steps: Vec<Succession>,
}

/// One step whose signature was found to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    pub number: u64,
    pub from: Fingerprint,
    pub to: Fingerprint,
    /// The certificate of `to`.
    pub certificate: CertificateDer<'static>,
    pub deadline: Timestamp,
    /// Why it is not to be followed now, genuine as it is.
    pub stale: Option<Stale>,
}

/// Why a genuine succession is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    #[error("the time to take certificate {to} ended at {deadline:.0}")]
    Late { to: Fingerprint, deadline: Timestamp },
    #[error("certificate {of} cannot vouch or be vouched for: {why}")]
    OutOfTime { of: Fingerprint, why: Validity },
}

/// Why a chain proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    #[error("the proof has no step, or more than {MAX_STEPS}")]
    Length,
    #[error("the proof holds something that is larger than allowed")]
    Large,
    #[error("the proof holds something that is no certificate")]
    Certificate,
    #[error("the proof's steps do not follow each other")]
    Gap,
    #[error("the proof is not signed by the key of certificate {0}")]
    Signature(Fingerprint),
}

/// Why a succession could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("the cluster's key cannot sign a succession: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the cluster's key is of a kind that cannot sign a succession")]
    Kind,
    #[error("the cluster's certificate has run out: nothing that it vouches for would be taken")]
    Expired,
}

impl Succession {
    /// Signs for `next` with the key of `current`. It ends with the time of `current`, if that comes first.
    pub fn sign(
        number: u64,
        current: &KeyPair,
        next: &CertificateDer<'_>,
        deadline: Timestamp,
        now: Timestamp,
    ) -> Result<Self, SignError> {
        check_validity(&current.certificate, now).map_err(|_| SignError::Expired)?;
        let deadline = expires_at(&current.certificate).map_or(deadline, |end| deadline.min(end));
        let certified = current.certified()?;
        let signer = certified.key.choose_scheme(&SCHEMES).ok_or(SignError::Kind)?;
        let scheme = u16::from(signer.scheme());
        let text = signed_text(scheme, number, &current.fingerprint, deadline, next);
        Ok(Self {
            number,
            from: current.fingerprint,
            certificate: certificate::to_pem(next),
            deadline,
            scheme,
            signature: STANDARD.encode(signer.sign(&text)?),
        })
    }

    /// The hash of the next certificate, if it is one.
    pub fn to(&self) -> Option<Fingerprint> {
        from_pem(&self.certificate).map(|der| fingerprint(&der))
    }

    /// Whether the key of `predecessor` has signed this.
    fn prove(&self, predecessor: &CertificateDer<'_>, now: Timestamp) -> Result<Proven, ChainFault> {
        if self.certificate.len() > MAX_PEM || self.signature.len() > MAX_SIGNATURE {
            return Err(ChainFault::Large);
        }
        if fingerprint(predecessor) != self.from {
            return Err(ChainFault::Gap);
        }
        let certificate = from_pem(&self.certificate).ok_or(ChainFault::Certificate)?;
        let to = fingerprint(&certificate);
        if to == self.from {
            return Err(ChainFault::Gap);
        }
        let text = signed_text(self.scheme, self.number, &self.from, self.deadline, &certificate);
        let signature = STANDARD.decode(&self.signature).map_err(|_| ChainFault::Signature(self.from))?;
        if !verifies(predecessor, self.scheme, &text, &signature) {
            return Err(ChainFault::Signature(self.from));
        }
        let in_time = |of, der: &[u8]| check_validity(der, now).err().map(|why| Stale::OutOfTime { of, why });
        let stale = (now > self.deadline)
            .then_some(Stale::Late { to, deadline: self.deadline })
            .or_else(|| in_time(to, &certificate))
            .or_else(|| in_time(self.from, predecessor));
        Ok(Proven { number: self.number, from: self.from, to, certificate, deadline: self.deadline, stale })
    }
}

impl Chain {
    /// Every step, proven by the one before. That the first is to be believed is for the caller to know, by
    /// [`Proven::from`].
    pub fn prove(&self, now: Timestamp) -> Result<Vec<Proven>, ChainFault> {
        if self.steps.is_empty() || self.steps.len() > MAX_STEPS {
            return Err(ChainFault::Length);
        }
        if self.certificate.len() > MAX_PEM {
            return Err(ChainFault::Large);
        }
        let mut predecessor = from_pem(&self.certificate).ok_or(ChainFault::Certificate)?;
        let mut proven: Vec<Proven> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            if proven.last().is_some_and(|last| last.number.checked_add(1) != Some(step.number)) {
                return Err(ChainFault::Gap);
            }
            let next = step.prove(&predecessor, now)?;
            predecessor = next.certificate.clone();
            proven.push(next);
        }
        Ok(proven)
    }

    /// The part that begins with the certificate `from`; `None` if no step follows it.
    pub fn since(&self, from: &Fingerprint) -> Option<Chain> {
        let at = self.steps.iter().position(|step| step.from == *from)?;
        let certificate = match at.checked_sub(1) {
            None => self.certificate.clone(),
            Some(before) => self.steps[before].certificate.clone(),
        };
        Some(Chain { certificate, steps: self.steps[at..].to_vec() })
    }
}

/// The certificates are long and tell nothing to a reader.
impl fmt::Debug for Succession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Succession({} from {} by {})", self.number, self.from, self.deadline)
    }
}

fn signed_text(
    scheme: u16,
    number: u64,
    from: &Fingerprint,
    deadline: Timestamp,
    next: &CertificateDer<'_>,
) -> Vec<u8> {
    let length = u64::try_from(next.len()).unwrap_or(u64::MAX);
    [
        DOMAIN,
        &scheme.to_be_bytes(),
        &number.to_be_bytes(),
        &from.0,
        &deadline.as_nanosecond().to_be_bytes(),
        &length.to_be_bytes(),
        next,
    ]
    .concat()
}

fn verifies(signer: &CertificateDer<'_>, scheme: u16, text: &[u8], signature: &[u8]) -> bool {
    use x509_parser::asn1_rs::{Any, FromDer as _};

    let scheme = SignatureScheme::from(scheme);
    if !SCHEMES.contains(&scheme) {
        return false;
    }
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(signer) else { return false };
    let key = parsed.public_key();
    // What an algorithm is asked for by: the content of the key's AlgorithmIdentifier.
    let Ok((_, outer)) = Any::from_der(key.raw) else { return false };
    let Ok((_, kind)) = Any::from_der(outer.data) else { return false };
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    algorithms.mapping.iter().filter(|(known, _)| *known == scheme).flat_map(|(_, found)| found.iter()).any(
        |algorithm| {
            algorithm.public_key_alg_id().as_ref() == kind.data
                && algorithm.verify_signature(&key.subject_public_key.data, text, signature).is_ok()
        },
    )
}

#[cfg(test)]
pub(crate) mod tests;
