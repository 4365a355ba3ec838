//! Who signs certificates: what `server.ca` and the cluster's own authority are read into. Both are read at the start
//! and stay what they are; what an authority has revoked is another matter.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::OFlags;
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use uuid::Uuid;
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::X509Version;

use super::super::Fingerprint;
use super::super::certificate::fingerprint;
use super::crl::Serial;
use super::role;

/// Largest file of authorities.
const MAX_AUTHORITIES: u64 = 1 << 20;

/// What an authority's word is good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope {
    /// Clients, by `server.ca`.
    pub clients: Option<FromServerCa>,
    /// The roles of a cluster, by `--cluster-ca`.
    pub roles: Option<Uuid>,
}

/// That an authority is in `server.ca`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FromServerCa;

/// Somebody who signs certificates.
#[derive(Debug, Clone)]
pub struct Authority {
    /// Its subject, as people write it.
    pub name: String,
    pub fingerprint: Fingerprint,
    pub scope: Scope,
    pub anchor: TrustAnchor<'static>,
    pub begins: Timestamp,
    pub ends: Timestamp,
    /// Whether it may sign revocation lists.
    pub signs_lists: bool,
    /// What its certificates, all of them, let it sign.
    pub limits: Limits,
    /// All that are known of its key: renewed ones, and ones by several others.
    pub certificates: Vec<Own>,
}

/// A certificate of an authority's.
#[derive(Debug, Clone)]
pub struct Own {
    pub serial: Serial,
    /// Which other authority has signed it, where one has.
    pub above: Option<usize>,
    der: CertificateDer<'static>,
}

/// What a certificate says of those that its key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most authorities between it and a certificate that is nobody's authority.
    pub path: Option<u32>,
    /// Whether it may sign certificates at all.
    pub signs: bool,
    /// Whether those that it signs may be clients'.
    pub clients: bool,
}

impl Limits {
    /// `None` of a certificate whose extensions cannot be read, which is not to say that it has none.
    pub fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let usage = certificate.key_usage().ok()?;
        let extended = certificate.extended_key_usage().ok()?;
        Some(Self {
            path: certificate.basic_constraints().ok()?.and_then(|basic| basic.value.path_len_constraint),
            signs: usage.is_none_or(|usage| usage.value.key_cert_sign()),
            clients: extended.is_none_or(|extended| extended.value.client_auth || extended.value.any),
        })
    }

    /// What both allow.
    fn and(self, other: Self) -> Self {
        let path = match (self.path, other.path) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self { path, signs: self.signs && other.signs, clients: self.clients && other.clients }
    }
}

/// Why a file of authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{} could not be read: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is larger than {most} bytes, so it is not what it should be", path.display())]
    TooLarge { path: PathBuf, most: u64 },
    #[error(
        "{} holds a private key. An authority's key stays with its administrator and is never on an agent: take it out of \
         the file, and if others may have read it, make a new authority",
        .0.display()
    )]
    PrivateKey(PathBuf),
    #[error("{} holds no certificate in PEM: put in the certificate of the authority that signs clients", .0.display())]
    Empty(PathBuf),
    #[error("{} is cut short or damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "{}: the certificate {subject:?} is no authority's (basic constraints say no CA:TRUE, or key usage leaves keyCertSign out): put in the certificate of who \
         signed it",
        path.display()
    )]
    Leaf { path: PathBuf, subject: String },
    #[error("{}: the certificate {subject:?} is of X.509 version 1; an authority's has to be of version 3", path.display())]
    Version { path: PathBuf, subject: String },
    #[error("{}: the certificate {subject:?} is no cluster's authority: its organizational unit is not one UUID. `comity ca initialize NAME` makes one", path.display())]
    NoCluster { path: PathBuf, subject: String },
}

/// Which file of authorities it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    ServerCa,
    ClusterCa,
}

/// Adds what `path` holds to `authorities`. One that is known already gets the wider scope.
pub fn read(path: &Path, source: Source, authorities: &mut Vec<Authority>) -> Result<(), AuthorityError> {
    let text = contents(path, MAX_AUTHORITIES)?;
    if text.windows(b"PRIVATE KEY-----".len()).any(|part| part == b"PRIVATE KEY-----") {
        return Err(AuthorityError::PrivateKey(path.to_owned()));
    }
    let damaged = |reason: String| AuthorityError::Damaged { path: path.to_owned(), reason };
    let mut found = 0;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&text) {
        let (kind, der) = section.map_err(|error| damaged(pem_fault(&error)))?;
        if kind != SectionKind::Certificate {
            continue;
        }
        found += 1;
        let authority = authority(path, source, &der.into())?;
        let same = |known: &&mut Authority| {
            known.anchor.subject == authority.anchor.subject
                && known.anchor.subject_public_key_info == authority.anchor.subject_public_key_info
        };
        match authorities.iter_mut().find(same) {
            // The same key under a renewed certificate. Which one is meant by what it signed cannot be told, so what
            // is revoked of one, or forbidden by one, is of all.
            Some(known) => {
                known.limits = known.limits.and(authority.limits);
                known.certificates.extend(authority.certificates);
                known.scope.clients = known.scope.clients.or(authority.scope.clients);
                known.scope.roles = known.scope.roles.or(authority.scope.roles);
                (known.begins, known.ends) =
                    (known.begins.min(authority.begins), known.ends.max(authority.ends));
            }
            None => authorities.push(authority),
        }
    }
    if found == 0 { Err(AuthorityError::Empty(path.to_owned())) } else { Ok(()) }
}

/// Notes of each authority's certificates which of the others has signed them.
pub fn connect(authorities: &mut [Authority]) {
    // An authority is one name and one key, so a certificate is of one at most.
    let signer = |own: usize, certificate: &Own| {
        let (_, certificate) = x509_parser::parse_x509_certificate(&certificate.der).ok()?;
        authorities.iter().enumerate().position(|(other, above)| {
            let Some(above) = above.certificates.first().filter(|_| other != own) else { return false };
            x509_parser::parse_x509_certificate(&above.der).is_ok_and(|(_, above)| {
                above.subject().as_raw() == certificate.issuer().as_raw()
                    && certificate.verify_signature(Some(above.public_key())).is_ok()
            })
        })
    };
    let all = authorities.iter().enumerate();
    let above: Vec<Vec<Option<usize>>> = all
        .map(|(own, authority)| authority.certificates.iter().map(|one| signer(own, one)).collect())
        .collect();
    for (authority, above) in authorities.iter_mut().zip(above) {
        authority.certificates.iter_mut().zip(above).for_each(|(one, above)| one.above = above);
    }
}

fn authority(
    path: &Path,
    source: Source,
    der: &CertificateDer<'static>,
) -> Result<Authority, AuthorityError> {
    let (path, damaged) =
        (path.to_owned(), |reason: String| AuthorityError::Damaged { path: path.to_owned(), reason });
    let unreadable = || damaged("a certificate in it cannot be read".to_owned());
    let (rest, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| unreadable())?;
    if !rest.is_empty() {
        return Err(unreadable());
    }
    let subject = name(&certificate);
    if certificate.version() != X509Version::V3 {
        return Err(AuthorityError::Version { path, subject });
    }
    let usage = certificate.key_usage().map_err(|_| unreadable())?;
    let limits = Limits::of(&certificate).ok_or_else(unreadable)?;
    if !certificate.is_ca() || !limits.signs {
        return Err(AuthorityError::Leaf { path, subject });
    }
    let scope = match source {
        Source::ServerCa => Scope { clients: Some(FromServerCa), roles: None },
        Source::ClusterCa => match role::unit(certificate.subject()) {
            Ok(cluster) => Scope { clients: None, roles: Some(cluster) },
            Err(_) => return Err(AuthorityError::NoCluster { path, subject }),
        },
    };
    let anchor = webpki::anchor_from_trusted_cert(der).map_err(|error| damaged(error.to_string()))?;
    let at = |second| Timestamp::from_second(second).map_err(|_| unreadable());
    Ok(Authority {
        name: subject,
        fingerprint: fingerprint(der),
        scope,
        begins: at(certificate.validity().not_before.timestamp())?,
        ends: at(certificate.validity().not_after.timestamp())?,
        signs_lists: usage.is_none_or(|usage| usage.value.crl_sign()),
        limits,
        certificates: vec![Own {
            serial: Serial::new(certificate.raw_serial()),
            above: None,
            der: der.clone(),
        }],
        anchor: anchor.to_owned(),
    })
}

/// A subject as people know it: its common name where it has one.
fn name(certificate: &X509Certificate<'_>) -> String {
    let subject = certificate.subject();
    let common = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
    let text = common.map_or_else(|| subject.to_string(), str::to_owned);
    text.chars().filter(|c| !c.is_control()).take(128).collect()
}

/// What is wrong with a PEM, without repeating any of it.
pub fn pem_fault(error: &rustls_pki_types::pem::Error) -> String {
    match error {
        rustls_pki_types::pem::Error::MissingSectionEnd { .. } => "a section in it has no end",
        rustls_pki_types::pem::Error::Base64Decode(_) => "a section in it is not base64",
        _ => "it is not PEM",
    }
    .to_owned()
}

/// A regular file of at most `most` bytes. `NotFound` is said of a name that is not there, and of nothing else.
pub fn contents(path: &Path, most: u64) -> Result<Vec<u8>, AuthorityError> {
    let failed = |source| AuthorityError::Io { path: path.to_owned(), source };
    // NONBLOCK, so that a FIFO of that name does not make us wait for a writer.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let opened = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let file = opened.map_err(|error| {
        let is_there = || fs::symlink_metadata(path).is_ok();
        if error.kind() == io::ErrorKind::NotFound && is_there() {
            return failed(io::Error::other("it is a link to something that is not there"));
        }
        failed(error)
    })?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= most) {
        Ok(bytes)
    } else {
        Err(AuthorityError::TooLarge { path: path.to_owned(), most })
    }
}
