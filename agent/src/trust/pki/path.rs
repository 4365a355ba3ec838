//! From a certificate that somebody shows to the authority that answers for it.
//!
//! This is where signatures are checked, so it is done once for each connection. What comes of it holds for as long as
//! the connection does, but for two things that are looked at for each request: the time, and what has been revoked.

use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage,
    RequiredEkuNotFoundContext,
};
use x509_parser::certificate::X509Certificate;

use super::authority::{Authority, Limits};
use super::crl::Serial;
use super::role::{Role, RoleError};

/// Most certificates that are taken from a client besides its own.
const MAX_INTERMEDIATES: usize = 8;
/// id-kp-clientAuth and anyExtendedKeyUsage, by RFC 5280, as they stand in DER.
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
const ANY_PURPOSE: &[u8] = &[0x55, 0x1d, 0x25, 0];
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
    #[error(
        "an authority between it and one that is known here may not sign clients (its extended key usage leaves clientAuth out)"
    )]
    UsageBetween,
    #[error(
        "the authority {0}, which is between it and one that is known here, may not sign certificates (its key usage leaves keyCertSign out)"
    )]
    SignsBetween(String),
    #[error("the authority {0} may not sign clients (its extended key usage leaves clientAuth out)")]
    AuthorityUsage(String),
    #[error(
        "there are more authorities between it and {name} than that one allows (its path length is {most})"
    )]
    Length { name: String, most: u32 },
    #[error(
        "an authority between it and one that is known here allows fewer authorities below itself than there are (by its path length)"
    )]
    LengthBetween,
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
        .verify_for_usage(known.all, anchors, between, time, ForClients, None, None)
        .map_err(|error| match no_way(&error, now) {
            NoWay::Usage if is_for_clients(leaf) => NoWay::UsageBetween,
            other => other,
        })?;
    // A leaf's has to be clientAuth itself, where an authority may as well be for anything.
    if !is_for_clients(leaf) {
        return Err(NoWay::Usage);
    }
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
    let mut steps = 0;
    let (mut number, mut direct) = (Serial::new(read.raw_serial()), true);
    // From the leaf up: the last one is the authority's own.
    for step in found.intermediate_certificates() {
        let der = step.der();
        let (_, read) = x509_parser::parse_x509_certificate(&der).map_err(|_| unreadable())?;
        narrow(read.validity())?;
        // webpki looks at the other limits of an intermediate, but not at this one.
        if !Limits::of(&read).ok_or_else(unreadable)?.signs {
            return Err(NoWay::SignsBetween(common_name(&read)));
        }
        steps += 1;
        (number, direct) = (Serial::new(read.raw_serial()), false);
    }
    // Of an authority itself, it looks at the key and names alone. One that may not sign at all is refused at the start.
    let known_as = || authority.name.clone();
    if !authority.limits.clients {
        return Err(NoWay::AuthorityUsage(known_as()));
    }
    if let Some(most) = authority.limits.path.filter(|most| steps > *most) {
        return Err(NoWay::Length { name: known_as(), most });
    }
    let name = common_name(&read);
    let role = authority.scope.roles.filter(|_| direct).map(|cluster| Role::of(read.subject(), cluster));
    Ok(Way { authority: at, name, serial: number, role, begins, ends })
}

fn common_name(read: &X509Certificate<'_>) -> String {
    let name = read.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.unwrap_or_default().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

/// What webpki is to ask of each extended key usage on a way: clientAuth or, as it does not by itself, any.
struct ForClients;

impl ExtendedKeyUsageValidator for ForClients {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut is_limited = false;
        for purpose in purposes {
            let purpose = purpose?;
            if [CLIENT_AUTH, ANY_PURPOSE].iter().any(|fitting| purpose == KeyPurposeId::new(fitting)) {
                return Ok(());
            }
            is_limited = true;
        }
        let required = KeyUsage::client_auth();
        let context = RequiredEkuNotFoundContext { required, present: Vec::new() };
        if is_limited { Err(webpki::Error::RequiredEkuNotFoundContext(context)) } else { Ok(()) }
    }
}

fn is_for_clients(leaf: &CertificateDer<'_>) -> bool {
    let Ok((_, read)) = x509_parser::parse_x509_certificate(leaf) else { return false };
    read.extended_key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.client_auth))
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
        webpki::Error::PathLenConstraintViolated => NoWay::LengthBetween,
        webpki::Error::UnsupportedCertVersion => NoWay::Version,
        other => NoWay::Other(other.to_string()),
    }
}

fn second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
