//! Whether somebody vouches for a certificate that is not known yet: the authority in `client.ca` or, where there is no
//! such file, those that the system trusts. As with lxc, `client.ca` takes the place of the system's.
//!
//! This decides one thing: whether the person at the terminal is asked to compare a fingerprint. What is pinned
//! afterwards is looked at by its hash alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::FirstContact;
use crate::web;
use crate::wire::printable;

/// Those who can vouch.
#[derive(Debug)]
pub struct Authorities {
    store: Arc<RootCertStore>,
    /// `client.ca`, if it is that; with the end of the last of its certificates.
    file: Option<(PathBuf, Timestamp)>,
}

/// Why a file does not name an authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    #[error("{} does not hold a certificate in PEM that can be read to its end", .0.display())]
    Malformed(PathBuf),
    #[error("{} holds a certificate that is no authority's (basicConstraints does not say CA:TRUE)", .0.display())]
    NoAuthority(PathBuf),
}

/// Why nobody vouches.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// What most certificates of clusters are: their own. Only worth a word where an authority was named.
    #[error("it is not signed by {0}")]
    Unknown(String),
    #[error("it says that {0} signed it, but another key did: two authorities have one name")]
    OtherKey(String),
    #[error("it is signed by {by}, but expired at {end:.0}")]
    Expired { by: String, end: Timestamp },
    #[error("it is signed by {by}, but is valid only from {begin:.0} on, and the clock here says {now:.0}")]
    NotYet { by: String, begin: Timestamp, now: Timestamp },
    #[error("it is signed by {by}, but for {names}, not for {host}")]
    OtherName { by: String, names: String, host: String },
    #[error("{} expired at {end:.0} and vouches for nothing", path.display())]
    AuthorityExpired { path: PathBuf, end: Timestamp },
    #[error("{by} does not vouch for it: {reason}")]
    Other { by: String, reason: String },
}

impl Authorities {
    /// The authorities in `pem`, the content of the file at `path`.
    pub fn in_file(path: &Path, pem: &[u8]) -> Result<Self, AuthorityError> {
        let malformed = || AuthorityError::Malformed(path.to_owned());
        let (mut store, mut last) = (RootCertStore::empty(), None);
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| malformed())?;
            let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|_| malformed())?;
            if !parsed.is_ca() {
                return Err(AuthorityError::NoAuthority(path.to_owned()));
            }
            let end = Timestamp::from_second(parsed.validity().not_after.timestamp()).ok();
            last = last.max(end.or(Some(Timestamp::MAX)));
            store.add(certificate.clone()).map_err(|_| malformed())?;
        }
        let end = last.ok_or_else(malformed)?;
        Ok(Self { store: Arc::new(store), file: Some((path.to_owned(), end)) })
    }

    /// Those that the system trusts (`SSL_CERT_FILE` is honoured); nobody, where it names none.
    pub fn of_the_system() -> Self {
        Self { store: web::roots(), file: None }
    }

    /// Whether a doubt is worth telling: with the system's authorities, certificates of clusters are not among theirs.
    pub fn are_named(&self) -> bool {
        self.file.is_some()
    }

    /// Whether one of them vouches that `shown` is the certificate of `host`, at `now`.
    pub fn judge(&self, shown: &FirstContact, host: &str, now: Timestamp) -> Result<(), Doubt> {
        let by = match &self.file {
            Some((path, end)) if *end < now => {
                return Err(Doubt::AuthorityExpired { path: path.clone(), end: *end });
            }
            Some((path, _)) => path.display().to_string(),
            None => "an authority that this system trusts".to_owned(),
        };
        let other = |reason: String| Doubt::Other { by: by.clone(), reason };
        let name = ServerName::try_from(host).map_err(|_| other(format!("{host:?} is no name")))?;
        if self.store.is_empty() {
            return Err(Doubt::Unknown(by));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(self.store.clone(), provider)
            .build()
            .map_err(|error| other(error.to_string()))?;
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let judged = verifier.verify_server_cert(&shown.certificate, &shown.intermediates, &name, &[], at);
        let Err(error) = judged else { return Ok(()) };
        Err(match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => Doubt::Unknown(by),
            Error::InvalidCertificate(CertificateError::BadSignature) => Doubt::OtherKey(by),
            Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => Doubt::Expired { by, end: validity(shown).1 },
            Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => Doubt::NotYet { by, begin: validity(shown).0, now },
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Doubt::OtherName { by, names: names(shown), host: host.to_owned() },
            error => other(printable(&error.to_string())),
        })
    }
}

fn validity(shown: &FirstContact) -> (Timestamp, Timestamp) {
    let parsed = x509_parser::parse_x509_certificate(&shown.certificate).ok();
    let second = |seconds: i64| Timestamp::from_second(seconds).ok();
    let times = parsed.and_then(|(_, certificate)| {
        let validity = certificate.validity();
        Some((second(validity.not_before.timestamp())?, second(validity.not_after.timestamp())?))
    });
    times.unwrap_or((Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH))
}

/// The names that a certificate is for.
fn names(shown: &FirstContact) -> String {
    use x509_parser::extensions::GeneralName;
    const MOST: usize = 8;
    let parsed = x509_parser::parse_x509_certificate(&shown.certificate).ok();
    let found: Vec<String> = parsed
        .as_ref()
        .and_then(|(_, certificate)| certificate.subject_alternative_name().ok().flatten())
        .map(|san| {
            let names = san.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(printable(name)),
                GeneralName::IPAddress(bytes) => match *bytes {
                    [a, b, c, d] => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
                    bytes => Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
                },
                _ => None,
            });
            names.take(MOST).collect()
        })
        .unwrap_or_default();
    if found.is_empty() { "no name".to_owned() } else { found.join(", ") }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::trust::certificate::fingerprint;

    fn time_of(now: Timestamp) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(now.as_second()).unwrap()
    }

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    fn authority(name: &str, now: Timestamp, days: i64) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = time_of(now) - Duration::days(400);
        params.not_after = time_of(now) + Duration::days(days);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    impl Authority {
        fn shown(&self, name: &str, begin: OffsetDateTime, end: OffsetDateTime) -> FirstContact {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.not_before, params.not_after) = (begin, end);
            let certificate =
                params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone();
            FirstContact { fingerprint: fingerprint(&certificate), certificate, intermediates: Vec::new() }
        }
    }

    #[test]
    fn client_ca_vouches_for_what_it_signed_for_this_host_at_this_time() {
        let now = Timestamp::constant(1_800_000_000, 0);
        let (hour, day) = (Duration::hours(1), Duration::days(1));
        let begin = time_of(now);
        let (ours, theirs) = (authority("ours", now, 100), authority("theirs", now, 100));
        let path = Path::new("client.ca");
        let both = format!("{}{}", theirs.pem, ours.pem);
        let known = Authorities::in_file(path, both.as_bytes()).unwrap();
        assert!(known.are_named());
        let good = ours.shown("127.0.0.1", begin - day, begin + day);
        assert_eq!(known.judge(&good, "127.0.0.1", now), Ok(()));
        assert_eq!(
            known.judge(&good, "east.example", now).unwrap_err().to_string(),
            "it is signed by client.ca, but for 127.0.0.1, not for east.example"
        );
        let old = ours.shown("east.example", begin - day, begin - hour);
        let expired = known.judge(&old, "east.example", now).unwrap_err();
        assert_eq!(expired.to_string(), "it is signed by client.ca, but expired at 2027-01-15T07:00:00Z");
        let young = ours.shown("east.example", begin + hour, begin + day);
        assert_eq!(
            known.judge(&young, "east.example", now).unwrap_err().to_string(),
            "it is signed by client.ca, but is valid only from 2027-01-15T09:00:00Z on, and the clock here says 2027-01-15T08:00:00Z"
        );
        let only_theirs = Authorities::in_file(path, theirs.pem.as_bytes()).unwrap();
        assert_eq!(only_theirs.judge(&good, "127.0.0.1", now), Err(Doubt::Unknown("client.ca".to_owned())));
        let namesake = authority("ours", now, 100);
        let namesake = Authorities::in_file(path, namesake.pem.as_bytes()).unwrap();
        assert_eq!(namesake.judge(&good, "127.0.0.1", now), Err(Doubt::OtherKey("client.ca".to_owned())));
        assert!(matches!(known.judge(&good, "no name", now), Err(Doubt::Other { .. })));

        let gone = authority("gone", now, -1);
        let late = Authorities::in_file(path, gone.pem.as_bytes()).unwrap();
        let shown = gone.shown("127.0.0.1", begin - day, begin + day);
        assert!(matches!(late.judge(&shown, "127.0.0.1", now), Err(Doubt::AuthorityExpired { .. })));
    }

    #[test]
    fn a_file_that_is_no_authority_is_refused() {
        let now = Timestamp::constant(1_800_000_000, 0);
        let path = Path::new("client.ca");
        let ca = authority("ours", now, 100);
        let malformed = AuthorityError::Malformed(path.to_owned());
        for pem in [
            "",
            "garbled",
            &ca.pem[..ca.pem.len() / 2],
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert_eq!(Authorities::in_file(path, pem.as_bytes()).unwrap_err(), malformed, "{pem}");
        }
        let leaf = crate::trust::certificate::KeyPair::generate("east", &[]).unwrap();
        let error = Authorities::in_file(path, leaf.pem.as_bytes()).unwrap_err();
        assert_eq!(error, AuthorityError::NoAuthority(path.to_owned()));
    }
}
