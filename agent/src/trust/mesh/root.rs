//! A root of the mesh CA: its certificate in the store, its key in a file for its owner alone.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::MeshError;
use super::spiffe::{SpiffeId, TrustDomain};
use crate::trust::Fingerprint;
use crate::trust::certificate::{self, CertificateError};

/// How long a root is valid.
const VALID_FOR: Duration = Duration::days(3650);
/// How far the beginning lies in the past, for machines whose clocks are behind.
const BACKDATED: Duration = Duration::minutes(10);

/// What the store holds of the CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshRecord {
    pub domain: TrustDomain,
    /// Oldest first.
    pub roots: Vec<RootRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRecord {
    pub certificate_pem: String,
    /// From when on it signs.
    pub active_from: Timestamp,
    /// When the last that it signed has ended, once another has followed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Timestamp>,
}

impl RootRecord {
    pub fn beginning(root: &Made, active_from: Timestamp) -> Self {
        Self { certificate_pem: root.pem.clone(), active_from, ends: None }
    }
}

/// A root, and what signs for it where its key is here.
pub struct Root {
    pub der: CertificateDer<'static>,
    pub pem: String,
    pub fingerprint: Fingerprint,
    pub serial: u64,
    /// The certificate's own id of its key, as colons part it.
    pub key_id: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub active_from: Timestamp,
    pub ends: Option<Timestamp>,
    signer: Option<Arc<Issuer<'static, rcgen::KeyPair>>>,
}

/// A root that was made just now, its key on disk.
pub struct Made {
    pub pem: String,
    fingerprint: Fingerprint,
}

impl Root {
    /// What is stored, and its key from `dir` if it is there. `position` is for messages.
    pub fn read(dir: &Path, stored: RootRecord, position: usize) -> Result<Self, MeshError> {
        let damaged = || MeshError::Damaged(position);
        let der = certificate::from_pem(&stored.certificate_pem).ok_or_else(damaged)?;
        let (_, read) = x509_parser::parse_x509_certificate(&der).map_err(|_| damaged())?;
        let at = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|_| damaged())
        };
        let (not_before, not_after) = (at(read.validity().not_before)?, at(read.validity().not_after)?);
        let serial = read.raw_serial().iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        let key_id = read
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(colons(id.0)),
                _ => None,
            })
            .unwrap_or_default();
        let fingerprint = certificate::fingerprint(&der);
        let signer = match signer(&key_path(dir, &fingerprint), &der) {
            Ok(signer) => signer,
            // The agent serves its links without it.
            Err(error) => {
                tracing::error!(%error, "a root of the mesh CA cannot sign");
                None
            }
        };
        Ok(Self {
            pem: stored.certificate_pem,
            fingerprint,
            serial,
            key_id,
            not_before,
            not_after,
            active_from: stored.active_from,
            ends: stored.ends,
            signer: signer.map(Arc::new),
            der,
        })
    }

    pub fn can_sign(&self) -> bool {
        self.signer.is_some()
    }

    /// Consul's way to name a root: twenty bytes parted by colons. (Its are SHA-1's, these SHA-256's first.)
    pub fn id(&self) -> String {
        colons(&self.fingerprint.0[..20])
    }

    pub(super) fn signer(&self) -> Result<&Issuer<'static, rcgen::KeyPair>, MeshError> {
        self.signer.as_deref().ok_or(MeshError::NoKey)
    }
}

/// The key is never shown.
impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Root({})", self.fingerprint)
    }
}

/// `0a:1b:…`
pub fn colons(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

/// A time as certificates have it.
pub fn stamp(now: Timestamp) -> Result<OffsetDateTime, MeshError> {
    OffsetDateTime::from_unix_timestamp(now.as_second()).map_err(|_| MeshError::Clock)
}

pub fn make_folder(dir: &Path) -> Result<(), MeshError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| MeshError::Io { path: dir.to_owned(), doing: "made", source })
}

/// Makes a root for `domain`: its key is on disk when this returns.
pub fn create(dir: &Path, domain: &TrustDomain, now: Timestamp) -> Result<Made, MeshError> {
    let key = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(serial().to_be_bytes().to_vec()));
    params.not_before = stamp(now)? - BACKDATED;
    params.not_after = stamp(now)?.checked_add(VALID_FOR).ok_or(MeshError::Clock)?;
    params.distinguished_name = DistinguishedName::new();
    let name = format!("Comity mesh CA {}", &domain.cluster_id()[..8.min(domain.cluster_id().len())]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(SpiffeId::Other(domain.clone()).to_string().try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::Sha256;
    params.use_authority_key_identifier_extension = true;
    let certificate = params.self_signed(&key)?;
    let made = Made {
        pem: certificate::to_pem(certificate.der()),
        fingerprint: certificate::fingerprint(certificate.der()),
    };
    certificate::place(&key_path(dir, &made.fingerprint), 0o600, key.serialize_pem().as_bytes())?;
    Ok(made)
}

/// Forgets the key of a root that was not taken into the store.
pub fn discard(dir: &Path, root: &Made) {
    remove(&key_path(dir, &root.fingerprint));
}

/// Forgets the keys of roots that are no more.
pub fn sweep(dir: &Path, roots: &[Arc<Root>]) {
    let Ok(files) = fs::read_dir(dir) else { return };
    for file in files.filter_map(Result::ok) {
        let name = file.file_name();
        let fingerprint: Option<Fingerprint> =
            name.to_str().and_then(|name| name.strip_suffix(".key")).and_then(|name| name.parse().ok());
        if fingerprint.is_some_and(|found| !roots.iter().any(|root| root.fingerprint == found)) {
            remove(&file.path());
        }
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "an old key of the mesh CA could not be removed");
        }
        _ => {}
    }
}

fn key_path(dir: &Path, fingerprint: &Fingerprint) -> PathBuf {
    dir.join(format!("{fingerprint}.key"))
}

/// Consul's clients read a root's number as one of 64 bits; these have 62 random ones.
fn serial() -> u64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    (high & 0x3fff_ffff_ffff_ffff) | 0x4000_0000_0000_0000
}

fn signer(
    path: &Path,
    der: &CertificateDer<'static>,
) -> Result<Option<Issuer<'static, rcgen::KeyPair>>, MeshError> {
    let text = match certificate::read(path, true) {
        Err(CertificateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        other => other?,
    };
    let malformed = || CertificateError::Malformed { path: path.to_owned(), expected: "private key" };
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| malformed())?;
    let key = rcgen::KeyPair::try_from(&key).map_err(|_| malformed())?;
    Ok(Some(Issuer::from_ca_cert_der(der, key)?))
}
