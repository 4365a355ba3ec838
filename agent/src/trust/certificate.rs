//! Key pairs with a self-signed certificate: the cluster's own, and a client's.
//!
//! Each is ECDSA P-384, X.509 v3, with a DNS SAN and both extended key usages, valid from ten minutes ago for ten
//! years. Others know it by the SHA-256 of its DER. Every file is made for its owner alone before a byte is in it and
//! put in place by link, never over a file that is there. A new pair is first placed whole, as `STEM.new`, and then
//! laid out in its two files: whoever finds `STEM.new` goes on from there, so neither a crash nor a second starter
//! leaves a half pair or replaces the identity that peers have pinned.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

use super::Fingerprint;

pub mod admission;
pub mod next;

/// Largest certificate or key file that is read.
const MAX_FILE: u64 = 64 * 1024;

/// A certificate and its private key.
pub struct KeyPair {
    pub certificate: CertificateDer<'static>,
    pub fingerprint: Fingerprint,
    /// The certificate alone, PEM.
    pub pem: String,
    /// What stands between the certificate and a root, nearest first; shown with it.
    pub chain: Vec<CertificateDer<'static>>,
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
    #[error("{} is no certificate that a server may show: it is for {used} (extendedKeyUsage), not for serverAuth; --server-cert takes the agent's, as `comity ca create-control-certificate` makes it", path.display())]
    NotForServers { path: PathBuf, used: &'static str },
    #[error("--server-cert ({}) and --server-key ({}) are swapped: the first is a private key, the second a certificate", certificate.display(), key.display())]
    Swapped { certificate: PathBuf, key: PathBuf },
    #[error("the cluster's next certificate, {expected}, is not in {} any more", dir.display())]
    NotPrepared { dir: PathBuf, expected: Fingerprint },
    #[error("this agent keeps its key in memory only, so there is no other to follow it")]
    InMemory,
    #[error("a certificate could not be made: {0}")]
    Generate(#[from] rcgen::Error),
    #[error("this key cannot be used for TLS: {0}")]
    Unusable(#[from] rustls::Error),
}

impl KeyPair {
    /// The pair `DIR/STEM.crt` and `DIR/STEM.key`, made on first use. `sans` are DNS names or IP addresses; the
    /// common name is added where none of them is a DNS name.
    pub fn load_or_create(
        dir: &Path,
        stem: &str,
        common_name: &str,
        sans: &[String],
    ) -> Result<Arc<Self>, CertificateError> {
        let files = Files {
            certificate: dir.join(format!("{stem}.crt")),
            key: dir.join(format!("{stem}.key")),
            new: dir.join(format!("{stem}.new")),
        };
        if exists(&files.new)? {
            files.lay_out()?;
        }
        match (exists(&files.certificate)?, exists(&files.key)?) {
            (true, true) => {}
            (true, false) => {
                return Err(CertificateError::Half { there: files.certificate, missing: files.key });
            }
            (false, true) => {
                return Err(CertificateError::Half { there: files.key, missing: files.certificate });
            }
            (false, false) => {
                let pair = Self::generate(common_name, sans)?;
                let both = format!("{}{}", pair.key_pem(), pair.pem);
                place(&files.new, 0o600, both.as_bytes())?;
                files.lay_out()?;
            }
        }
        Self::load(&files.certificate, &files.key).map(Arc::new)
    }

    /// The pair in these two files. Certificates after the first are its chain.
    pub fn load(certificate_path: &Path, key_path: &Path) -> Result<Self, CertificateError> {
        let malformed =
            |path: &Path, expected| CertificateError::Malformed { path: path.to_owned(), expected };
        let key = PrivateKeyDer::from_pem_slice(&read(key_path, true)?)
            .map_err(|_| malformed(key_path, "private key"))?;
        let mut certificates = CertificateDer::pem_slice_iter(&read(certificate_path, false)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| malformed(certificate_path, "certificate"))?;
        let readable = |der: &CertificateDer<'_>| x509_parser::parse_x509_certificate(der).is_ok();
        if certificates.is_empty() || !certificates.iter().all(readable) {
            return Err(malformed(certificate_path, "certificate"));
        }
        let certificate = certificates.remove(0);
        let pair = Self { chain: certificates, ..Self::new(certificate, key) };
        match pair.certified()?.keys_match() {
            Ok(()) => Ok(pair),
            Err(_) => Err(CertificateError::Mismatch {
                certificate: certificate_path.to_owned(),
                key: key_path.to_owned(),
            }),
        }
    }

    /// A pair in memory only.
    pub fn generate(common_name: &str, sans: &[String]) -> Result<Self, CertificateError> {
        let now = OffsetDateTime::now_utc();
        Self::generate_valid(common_name, sans, now - Duration::minutes(10), now + Duration::days(3650))
    }

    pub(crate) fn generate_valid(
        common_name: &str,
        sans: &[String],
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<Self, CertificateError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?;
        let mut params = CertificateParams::new(sans)?;
        if !params.subject_alt_names.iter().any(|san| matches!(san, SanType::DnsName(_))) {
            // First, because lxc takes the first DNS name of a pinned certificate as the server's name.
            params.subject_alt_names.insert(0, SanType::DnsName(common_name.try_into()?));
        }
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Comity");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = not_before;
        params.not_after = not_after;
        let certificate = params.self_signed(&key)?;
        let key =
            PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Ok(Self::new(certificate.der().clone(), key))
    }

    /// A pair of what was issued for `key`, leaf first.
    pub fn of_chain(
        mut chain: Vec<CertificateDer<'static>>,
        key: &rcgen::KeyPair,
    ) -> Result<Self, CertificateError> {
        if chain.is_empty() {
            return Err(rcgen::Error::CouldNotParseCertificate.into());
        }
        let certificate = chain.remove(0);
        let key =
            PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Ok(Self { chain, ..Self::new(certificate, key) })
    }

    fn new(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Self {
        let fingerprint = fingerprint(&certificate);
        let pem = armour("CERTIFICATE", &certificate);
        Self { certificate, fingerprint, pem, chain: Vec::new(), key }
    }

    /// The private key, for a TLS configuration.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// The pair as rustls signs with it.
    pub fn certified(&self) -> Result<CertifiedKey, CertificateError> {
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&self.key)?;
        let shown = std::iter::once(&self.certificate).chain(&self.chain);
        Ok(CertifiedKey::new(shown.cloned().collect(), signer))
    }

    /// The certificate and its chain, PEM.
    pub fn chain_pem(&self) -> String {
        std::iter::once(&self.certificate).chain(&self.chain).map(|der| armour("CERTIFICATE", der)).collect()
    }

    fn key_pem(&self) -> String {
        let label = match self.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        armour(label, self.key.secret_der())
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.fingerprint)
    }
}

/// SHA-256 of a certificate's DER.
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    use sha2::Digest as _;
    Fingerprint(sha2::Sha256::digest(der).into())
}

/// A certificate's DER from its PEM.
pub fn from_pem(pem: &str) -> Option<CertificateDer<'static>> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    x509_parser::parse_x509_certificate(&der).ok()?;
    Some(der)
}

/// A certificate's PEM.
pub fn to_pem(der: &CertificateDer<'_>) -> String {
    armour("CERTIFICATE", der)
}

/// A certificate that is used outside its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Validity {
    #[error("The provided certificate is not valid yet: check the clocks of both machines")]
    NotYet,
    #[error("The provided certificate is expired")]
    Expired,
    #[error("The provided certificate could not be read")]
    Unreadable,
}

/// Whether a certificate is within its time.
pub fn check_validity(der: &[u8], now: jiff::Timestamp) -> Result<(), Validity> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| Validity::Unreadable)?;
    let validity = certificate.validity();
    if now.as_second() < validity.not_before.timestamp() {
        return Err(Validity::NotYet);
    }
    if now.as_second() > validity.not_after.timestamp() { Err(Validity::Expired) } else { Ok(()) }
}

/// The last second of a certificate's time.
pub fn expires_at(der: &[u8]) -> Option<jiff::Timestamp> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    jiff::Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    new: PathBuf,
}

impl Files {
    /// Makes the two files of what `STEM.new` holds, and takes it away once both are there.
    fn lay_out(&self) -> Result<(), CertificateError> {
        let both = match read(&self.new, true) {
            // Another starter was quicker with the same pair.
            Err(CertificateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            other => other?,
        };
        let malformed = |expected| CertificateError::Malformed { path: self.new.clone(), expected };
        let key = PrivateKeyDer::from_pem_slice(&both).map_err(|_| malformed("private key"))?;
        let certificate = CertificateDer::from_pem_slice(&both).map_err(|_| malformed("certificate"))?;
        let pair = KeyPair::new(certificate, key);
        place(&self.key, 0o600, pair.key_pem().as_bytes())?;
        place(&self.certificate, 0o644, pair.pem.as_bytes())?;
        match fs::remove_file(&self.new) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(failed(&self.new, "removed", source))
            }
            _ => Ok(()),
        }
    }
}

fn failed(path: &Path, doing: &'static str, source: io::Error) -> CertificateError {
    CertificateError::Io { path: path.to_owned(), doing, source }
}

fn exists(path: &Path) -> Result<bool, CertificateError> {
    path.try_exists().map_err(|source| failed(path, "looked up", source))
}

/// Writes a file beside `path` and links it there: whole or not at all, and never over another.
pub(super) fn place(path: &Path, mode: u32, content: &[u8]) -> Result<(), CertificateError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let attempt = || -> io::Result<()> {
        let temporary = dir.join(format!(".{}.tmp", uuid::Uuid::new_v4()));
        let written = (|| {
            let mut file = File::options().write(true).create_new(true).mode(mode).open(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            match fs::hard_link(&temporary, path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        })();
        fs::remove_file(&temporary).ok();
        written?;
        File::open(dir)?.sync_all()
    };
    attempt().map_err(|source| failed(path, "written", source))
}

pub(super) fn read(path: &Path, secret: bool) -> Result<Vec<u8>, CertificateError> {
    let file = File::open(path).map_err(|source| failed(path, "opened", source))?;
    let metadata = file.metadata().map_err(|source| failed(path, "read", source))?;
    let mode = metadata.permissions().mode() & 0o777;
    if secret && mode & 0o077 != 0 {
        return Err(CertificateError::Exposed { path: path.to_owned(), mode });
    }
    let mut content = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut content).map_err(|source| failed(path, "read", source))?;
    Ok(content)
}

/// PEM: base64 in lines of 64 between two marks.
fn armour(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|&byte| char::from(byte)));
        pem.push('\n');
    }
    for part in ["-----END ", label, "-----\n"] {
        pem.push_str(part);
    }
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(dir: &Path) -> Result<Arc<KeyPair>, CertificateError> {
        KeyPair::load_or_create(dir, "cluster", "east", &["127.0.0.1".to_owned()])
    }

    #[test]
    fn a_pair_is_made_once_with_what_others_ask_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let pair = create(dir.path()).unwrap();
        assert_eq!(create(dir.path()).unwrap().fingerprint, pair.fingerprint);
        let mode = fs::metadata(dir.path().join("cluster.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left behind");

        let (_, parsed) = x509_parser::parse_x509_certificate(&pair.certificate).unwrap();
        assert_eq!(parsed.version(), x509_parser::x509::X509Version::V3);
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && usage.server_auth);
        let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert!(matches!(names[0], x509_parser::extensions::GeneralName::DNSName("east")), "{names:?}");
        let now = jiff::Timestamp::now();
        assert_eq!(check_validity(&pair.certificate, now), Ok(()));
        assert_eq!(
            check_validity(&pair.certificate, now - jiff::SignedDuration::from_hours(1)),
            Err(Validity::NotYet)
        );
        assert_eq!(from_pem(&pair.pem).unwrap(), pair.certificate);
    }

    #[test]
    fn a_first_start_that_was_cut_short_goes_on_with_the_same_pair() {
        let dir = tempfile::tempdir().unwrap();
        let pair = create(dir.path()).unwrap();
        let both = format!("{}{}", pair.key_pem(), pair.pem);
        for lost in [&["cluster.crt"][..], &["cluster.crt", "cluster.key"]] {
            place(&dir.path().join("cluster.new"), 0o600, both.as_bytes()).unwrap();
            for name in lost {
                fs::remove_file(dir.path().join(name)).unwrap();
            }
            assert_eq!(create(dir.path()).unwrap().fingerprint, pair.fingerprint);
        }
    }

    #[test]
    fn what_does_not_fit_is_said_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (crt, key) = (dir.path().join("cluster.crt"), dir.path().join("cluster.key"));
        create(dir.path()).unwrap();

        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let message = create(dir.path()).unwrap_err().to_string();
        assert!(message.contains("mode 640") && message.contains("chmod 600"), "{message}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

        let certificate = fs::read(&crt).unwrap();
        fs::write(&crt, KeyPair::generate("other", &[]).unwrap().pem).unwrap();
        assert!(matches!(create(dir.path()), Err(CertificateError::Mismatch { .. })));
        fs::write(&crt, &certificate[..certificate.len() / 2]).unwrap();
        assert!(matches!(create(dir.path()), Err(CertificateError::Malformed { .. })));
        fs::remove_file(&crt).unwrap();
        assert!(matches!(create(dir.path()), Err(CertificateError::Half { .. })));
    }
}
