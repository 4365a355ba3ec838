//! From a certificate that somebody shows to the authority that answers for it.
//!
//! This is where signatures are checked, so it is done once for each connection. What comes of it holds for as long as
//! the connection does, but for two things that are looked at for each request: the time, and what has been revoked.

use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::authority::Authority;
use super::crl::Serial;
use super::role::{Role, RoleError};

/// Most certificates that are taken from a client besides its own.
const MAX_INTERMEDIATES: usize = 8;
/// Longest common name that is repeated.
const MAX_NAME: usize = 64;

/// A way from a certificate to an authority, every signature on it checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The authority at its end, as an index.
    pub authority: usize,
    /// The certificate's common name.
    pub name: String,
    /// What is looked for among what the authority has revoked: the number of the certificate that it signed itself.
    pub serial: Serial,
    /// What it is for, where the authority is a cluster's own and has signed it itself.
    pub role: Option<Result<Role, RoleError>>,
    /// The time in which all of it is valid.
    pub begins: Timestamp,
    pub ends: Timestamp,
}

/// Why no authority answers for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    #[error("no authority here has signed it")]
    Unknown,
    #[error(
        "it, or a certificate between it and the authority, is not valid before {begins}, and it is {now} here: check the clocks of both machines"
    )]
    NotYet { begins: Timestamp, now: Timestamp },
    #[error("it, or a certificate between it and the authority, expired at {ended}, and it is {now} here")]
    Expired { ended: Timestamp, now: Timestamp },
    #[error("the certificate of the authority {name} expired at {ended}: nothing that it signed is trusted")]
    AuthorityExpired { name: String, ended: Timestamp },
    #[error(
        "the certificate of the authority {name} is not valid before {begins}: check the clock of this machine"
    )]
    AuthorityNotYet { name: String, begins: Timestamp },
    #[error("it is not for clients (its extended key usage leaves clientAuth out)")]
    Usage,
    #[error("it is of X.509 version 1, which TLS has no use for: have it issued as version 3")]
    Version,
    #[error("the way from it to an authority cannot be checked: {0}")]
    Other(String),
}

/// Looks for the way from `leaf`, over some of `between`, to one of `authorities`.
pub fn find(
    authorities: &[Authority],
    anchors: &[TrustAnchor<'static>],
    leaf: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<Way, NoWay> {
    let certificate = EndEntityCert::try_from(leaf).map_err(|error| no_way(&error, now))?;
    let known = aws_lc_rs::default_provider().signature_verification_algorithms;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap_or(0)));
    let between = &between[..between.len().min(MAX_INTERMEDIATES)];
    let found = certificate
        .verify_for_usage(known.all, anchors, between, time, KeyUsage::client_auth(), None, None)
        .map_err(|error| no_way(&error, now))?;
    let end = found.anchor();
    let same = |anchor: &TrustAnchor<'_>| {
        anchor.subject == end.subject && anchor.subject_public_key_info == end.subject_public_key_info
    };
    let at = anchors.iter().position(same).ok_or(NoWay::Unknown)?;
    let authority = &authorities[at];

    let unreadable = || NoWay::Other("a certificate cannot be read".to_owned());
    let (_, read) = x509_parser::parse_x509_certificate(leaf).map_err(|_| unreadable())?;
    let (mut begins, mut ends) = (authority.begins, authority.ends);
    let mut narrow = |validity: &x509_parser::certificate::Validity| {
        let at = |second| Timestamp::from_second(second).map_err(|_| unreadable());
        begins = begins.max(at(validity.not_before.timestamp())?);
        ends = ends.min(at(validity.not_after.timestamp())?);
        Ok::<_, NoWay>(())
    };
    narrow(read.validity())?;
    let (mut number, mut direct) = (Serial::new(read.raw_serial()), true);
    // From the leaf up: the last one is the authority's own.
    for step in found.intermediate_certificates() {
        let der = step.der();
        let (_, read) = x509_parser::parse_x509_certificate(&der).map_err(|_| unreadable())?;
        narrow(read.validity())?;
        (number, direct) = (Serial::new(read.raw_serial()), false);
    }
    let name = read.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let name = name.unwrap_or_default().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    let role = authority.scope.roles.filter(|_| direct).map(|cluster| Role::of(read.subject(), cluster));
    Ok(Way { authority: at, name, serial: number, role, begins, ends })
}

impl Way {
    /// Whether all of it is valid at `now`.
    pub fn check(&self, authority: &Authority, now: Timestamp) -> Result<(), NoWay> {
        // An authority's own time is nothing that webpki looks at.
        if now > authority.ends {
            return Err(NoWay::AuthorityExpired { name: authority.name.clone(), ended: authority.ends });
        }
        if now < authority.begins {
            return Err(NoWay::AuthorityNotYet { name: authority.name.clone(), begins: authority.begins });
        }
        if now > self.ends {
            return Err(NoWay::Expired { ended: self.ends, now: second(now) });
        }
        if now < self.begins {
            return Err(NoWay::NotYet { begins: self.begins, now: second(now) });
        }
        Ok(())
    }
}

fn no_way(error: &webpki::Error, now: Timestamp) -> NoWay {
    let at = |time: UnixTime| {
        i64::try_from(time.as_secs()).ok().and_then(|second| Timestamp::from_second(second).ok())
    };
    match error {
        // The second: a name that an authority has, under a key that it has not.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => NoWay::Unknown,
        webpki::Error::CertNotValidYet { not_before, .. } => {
            NoWay::NotYet { begins: at(*not_before).unwrap_or(Timestamp::MAX), now: second(now) }
        }
        webpki::Error::CertExpired { not_after, .. } => {
            NoWay::Expired { ended: at(*not_after).unwrap_or(Timestamp::MIN), now: second(now) }
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => NoWay::Usage,
        webpki::Error::UnsupportedCertVersion => NoWay::Version,
        other => NoWay::Other(other.to_string()),
    }
}

fn second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
