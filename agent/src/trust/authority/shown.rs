//! What there is to say of a certificate, a key or a revocation list, and of the CA beside it.

use std::net::IpAddr;

use jiff::Timestamp;
use rcgen::PublicKeyData as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

use super::revocation::{self, RevocationError, Revocations};
use super::serial::Serial;
use super::subject::{Role, Subject, parts};
use super::{AuthorityError, is_issued_by, parsed, validity};
use crate::trust::certificate::fingerprint;

/// The CA that something is looked at with: its certificate, and its list if it has one.
#[derive(Debug, Default)]
pub struct Beside {
    pub authority: Option<CertificateDer<'static>>,
    pub revocations: Option<Revocations>,
}

/// A certificate.
#[derive(Debug, Serialize)]
pub struct ShownCertificate {
    /// `authority`, `control`, `node` or `user`; nothing for a certificate that is no CA's of ours.
    pub role: Option<&'static str>,
    /// The CA's, node's or user's name.
    pub name: Option<String>,
    pub cluster: Option<String>,
    pub subject: String,
    pub issuer: String,
    pub serial: String,
    pub fingerprint: String,
    pub algorithm: String,
    pub names: Vec<String>,
    pub usages: Vec<&'static str>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// Whether the CA beside it signed it; nothing if there is none.
    pub signed_by_ca: Option<bool>,
    pub revoked: Option<ShownRevoked>,
    pub problems: Vec<String>,
}

/// A private key; nothing of it that is secret.
#[derive(Debug, Serialize)]
pub struct ShownKey {
    pub algorithm: String,
    /// SHA-256 of the public key, as `openssl pkey -pubout -outform DER | sha256sum` has it.
    pub public_key: String,
    pub mode: String,
    pub problems: Vec<String>,
}

/// A revocation list.
#[derive(Debug, Serialize)]
pub struct ShownList {
    pub issuer: String,
    pub number: String,
    pub this_update: Option<Timestamp>,
    pub next_update: Option<Timestamp>,
    pub signed_by_ca: Option<bool>,
    pub revoked: Vec<ShownRevoked>,
    pub problems: Vec<String>,
}

/// An entry of a list.
#[derive(Debug, Clone, Serialize)]
pub struct ShownRevoked {
    pub serial: String,
    pub at: Timestamp,
    pub reason: String,
}

impl ShownRevoked {
    fn of(revoked: &revocation::Revoked) -> Self {
        Self { serial: revoked.serial.to_string(), at: revoked.at, reason: revoked.reason.to_string() }
    }
}

impl ShownCertificate {
    pub fn of(der: &[u8], beside: &Beside, now: Timestamp) -> Result<Self, AuthorityError> {
        let read = parsed(der)?;
        let valid = validity(&read)?;
        let is_authority = read.is_ca();
        let (role, name) = role_and_name(&read, is_authority);
        let serial = Serial::of(read.raw_serial());
        let authority = beside.authority.as_deref().map(parsed).transpose()?;
        let signed_by_ca = authority.as_ref().map(|authority| is_issued_by(&read, authority));
        // A list says nothing of what another CA issued under the same number.
        let revoked = beside.revocations.as_ref().filter(|_| signed_by_ca == Some(true) && !is_authority);
        let revoked = revoked.and_then(|list| list.find(&serial)).map(ShownRevoked::of);

        let mut problems = Vec::new();
        if read.version() != X509Version::V3 {
            problems.push(
                "it is of X.509 version 1, which OpenSSL and rustls do not take; `comity ca renew` makes it anew"
                    .to_owned(),
            );
        }
        if now < valid.from {
            problems.push(format!(
                "it is valid from {}, and it is {now:.0} now: is this machine's clock right?",
                valid.from
            ));
        }
        if now > valid.until {
            problems.push(format!("it expired at {}; `comity ca renew` makes it anew", valid.until));
        }
        if let Some(revoked) = &revoked {
            problems.push(format!("it was revoked at {} ({})", revoked.at, revoked.reason));
        }
        if signed_by_ca == Some(false) {
            problems.push("the CA beside it did not sign it".to_owned());
        }
        if signed_by_ca == Some(true) && !is_authority {
            problems.extend(Subject::of(read.subject()).err().map(|fault| fault.to_string()));
        }
        let ours = signed_by_ca == Some(true) || is_authority;
        Ok(Self {
            role,
            name,
            cluster: parts(read.subject()).ok().filter(|_| ours).map(|(_, cluster)| cluster.to_string()),
            subject: read.subject().to_string(),
            issuer: read.issuer().to_string(),
            serial: serial.to_string(),
            fingerprint: fingerprint(der).to_string(),
            algorithm: algorithm(read.public_key()),
            names: names(&read),
            usages: usages(&read),
            not_before: valid.from,
            not_after: valid.until,
            signed_by_ca,
            revoked,
            problems,
        })
    }
}

fn role_and_name(read: &X509Certificate<'_>, is_authority: bool) -> (Option<&'static str>, Option<String>) {
    if is_authority {
        return (Some("authority"), parts(read.subject()).ok().map(|(name, _)| name.to_owned()));
    }
    let Ok(Subject { role, .. }) = Subject::of(read.subject()) else { return (None, None) };
    let name = match &role {
        Role::Control => None,
        Role::Node(node) => Some(node.to_string()),
        Role::User(user) => Some(user.to_string()),
    };
    (Some(role.word()), name)
}

impl ShownKey {
    pub fn of(key: &PrivateKeyDer<'_>, mode: u32) -> Result<Self, AuthorityError> {
        use sha2::Digest as _;
        let key = rcgen::KeyPair::try_from(key).map_err(|_| AuthorityError::Key)?;
        let public = key.subject_public_key_info();
        let digest = crate::trust::Fingerprint(sha2::Sha256::digest(&public).into());
        let (_, read) = SubjectPublicKeyInfo::from_der(&public).map_err(|_| AuthorityError::Key)?;
        let exposed = mode & 0o077 != 0;
        let problems = exposed.then(|| "it may be read by others: chmod 600".to_owned());
        Ok(Self {
            algorithm: algorithm(&read),
            public_key: digest.to_string(),
            mode: format!("{mode:03o}"),
            problems: problems.into_iter().collect(),
        })
    }
}

impl ShownList {
    pub fn of(der: &[u8], beside: &Beside, now: Timestamp) -> Result<Self, RevocationError> {
        let list = Revocations::read(der)?;
        let issuer = x509_parser::parse_x509_crl(der).map(|(_, list)| list.issuer().to_string());
        let signed_by_ca =
            beside.authority.as_deref().map(|own| revocation::is_signed_by(der, own)).transpose()?;
        let mut problems = Vec::new();
        let until = list.signed().and_then(|signed| signed.until);
        match until {
            Some(until) if now > until => problems.push(format!(
                "it speaks until {until} only, and agents refuse one that is older; `comity ca crl` signs it anew"
            )),
            None => problems.push("it does not say until when it speaks".to_owned()),
            Some(_) => {}
        }
        if signed_by_ca == Some(false) {
            problems.push("the CA beside it did not sign it".to_owned());
        }
        Ok(Self {
            issuer: issuer.map_err(|_| RevocationError::Unreadable)?,
            number: list.number(),
            this_update: list.signed().map(|signed| signed.at),
            next_update: until,
            signed_by_ca,
            revoked: list.entries().iter().map(ShownRevoked::of).collect(),
            problems,
        })
    }
}

/// The kind of a public key and how long it is.
fn algorithm(key: &SubjectPublicKeyInfo<'_>) -> String {
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => format!("RSA {}", rsa.key_size()),
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", point.key_size()),
        _ => key.algorithm.algorithm.to_string(),
    }
}

/// The names and addresses of a certificate's SAN, each with its kind.
fn names(read: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = read.subject_alternative_name() else { return Vec::new() };
    let one = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::RFC822Name(name) => format!("email:{name}"),
        GeneralName::IPAddress(bytes) => match address(bytes) {
            Some(address) => format!("IP:{address}"),
            None => "IP:(malformed)".to_owned(),
        },
        _ => "(of another kind)".to_owned(),
    };
    names.value.general_names.iter().map(one).collect()
}

/// An address as a SAN holds it.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn usages(read: &X509Certificate<'_>) -> Vec<&'static str> {
    let extended = read.extended_key_usage().ok().flatten();
    let plain = read.key_usage().ok().flatten();
    let all = [
        ("serverAuth", extended.as_ref().is_some_and(|usage| usage.value.server_auth)),
        ("clientAuth", extended.as_ref().is_some_and(|usage| usage.value.client_auth)),
        ("keyCertSign", plain.as_ref().is_some_and(|usage| usage.value.key_cert_sign())),
        ("cRLSign", plain.as_ref().is_some_and(|usage| usage.value.crl_sign())),
    ];
    all.into_iter().filter_map(|(name, has)| has.then_some(name)).collect()
}
