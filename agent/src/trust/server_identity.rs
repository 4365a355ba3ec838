//! What clients are shown: a certificate of its own where there is one (from a PKI, by ACME), else the cluster's.
//!
//! Links pin `cluster.crt` and are shown it whatever is here, so that a renewal breaks none of them. Nothing keeps a
//! copy: each handshake asks for the pair of that moment.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::Fingerprint;
use super::authority::file::{self, Kind};
use super::certificate::{CertificateError, KeyPair, next};
use super::cluster_identity::ClusterIdentity;

/// What the files of the pair in the data folder are called, but for their endings.
pub const STEM: &str = "server";

/// The pair that clients are shown.
pub struct ServerIdentity {
    cluster: Arc<ClusterIdentity>,
    own: watch::Sender<Option<Own>>,
    /// Where `install` writes; a pair that is only in memory cannot be replaced.
    dir: Option<PathBuf>,
    /// Whether the pair was named when the agent was started.
    given: bool,
}

#[derive(Clone)]
struct Own {
    pair: Arc<KeyPair>,
    certified: Arc<CertifiedKey>,
}

/// Where the pair comes from that clients are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It is the cluster's own.
    Cluster,
    /// `server.crt` and `server.key` of the data folder.
    Folder,
    /// Files that were named when the agent was started.
    Given,
}

/// Two files that hold a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl PairFiles {
    /// The pair, if it is one that clients can be shown: they would refuse another, each in words of its own.
    fn load(&self) -> Result<KeyPair, CertificateError> {
        let (certificate, key) = (self.certificate.clone(), self.key.clone());
        if holds(&certificate, Kind::Key) && holds(&key, Kind::Certificate) {
            return Err(CertificateError::Swapped { certificate, key });
        }
        let pair = KeyPair::load(&certificate, &key)?;
        match other_use(&pair.certificate) {
            Some(used) => Err(CertificateError::NotForServers { path: certificate, used }),
            None => Ok(pair),
        }
    }
}

/// Whether a file holds this and nothing else.
fn holds(path: &Path, kind: Kind) -> bool {
    let items = file::read(path, kind).map(|(items, _)| items).unwrap_or_default();
    !items.is_empty() && items.iter().all(|item| item.kind() == kind)
}

/// What a certificate is for, if it says so and no server is among it.
fn other_use(der: &[u8]) -> Option<&'static str> {
    let (_, read) = x509_parser::parse_x509_certificate(der).ok()?;
    let usage = read.extended_key_usage().ok().flatten()?.value;
    match usage {
        usage if usage.server_auth || usage.any => None,
        usage if usage.client_auth => Some("clientAuth"),
        _ => Some("something else"),
    }
}

/// Why the pair was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("this agent was started with --server-cert, which goes before any other certificate")]
    Given,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Own {
    fn of(pair: Arc<KeyPair>) -> Result<Self, CertificateError> {
        Ok(Self { certified: Arc::new(pair.certified()?), pair })
    }
}

impl ServerIdentity {
    /// The pair in the files of `given`, else `server.crt` and `server.key` in `dir`, else the cluster's. A change that
    /// was cut short is ended.
    pub fn open(
        dir: &Path,
        given: Option<&PairFiles>,
        cluster: Arc<ClusterIdentity>,
    ) -> Result<Arc<Self>, CertificateError> {
        next::recover(dir, STEM)?;
        let own = match given {
            Some(files) => Some(files.load()?),
            None => next::current(dir, STEM)?,
        };
        let own = watch::Sender::new(own.map(Arc::new).map(Own::of).transpose()?);
        Ok(Arc::new(Self { cluster, own, dir: Some(dir.to_owned()), given: given.is_some() }))
    }

    /// One that shows the cluster's pair and cannot be given another.
    pub fn of_cluster(cluster: Arc<ClusterIdentity>) -> Arc<Self> {
        Arc::new(Self { cluster, own: watch::Sender::new(None), dir: None, given: false })
    }

    /// The cluster's own pair, which links pin.
    pub fn cluster(&self) -> &Arc<ClusterIdentity> {
        &self.cluster
    }

    /// The pair that clients are shown, where it is not the cluster's.
    pub fn own(&self) -> Option<Arc<KeyPair>> {
        self.own.borrow().as_ref().map(|own| own.pair.clone())
    }

    /// The pair that clients are shown now. To be asked for again the next time, not kept.
    pub fn current(&self) -> Arc<KeyPair> {
        self.own().unwrap_or_else(|| self.cluster.current())
    }

    /// The fingerprint of what clients are shown now.
    pub fn fingerprint(&self) -> Fingerprint {
        self.current().fingerprint
    }

    pub fn source(&self) -> Source {
        match (self.given, self.own.borrow().is_some()) {
            (true, _) => Source::Given,
            (false, true) => Source::Folder,
            (false, false) => Source::Cluster,
        }
    }

    /// Tells of each pair that is installed.
    pub fn changed(&self) -> watch::Receiver<impl Clone + use<>> {
        self.own.subscribe()
    }

    /// Writes `pair` to `server.crt` and `server.key`, and shows it from then on. If that fails, what was shown is
    /// still shown, and is found again at the next start.
    pub fn install(&self, pair: impl Into<Arc<KeyPair>>) -> Result<(), InstallError> {
        if self.given {
            return Err(InstallError::Given);
        }
        let dir = self.dir.as_deref().ok_or(CertificateError::InMemory)?;
        let own = Own::of(pair.into())?;
        // An earlier change may have failed between its two renames.
        next::recover(dir, STEM)?;
        next::put(dir, STEM, &own.pair)?;
        next::install(dir, STEM)?;
        self.own.send_replace(Some(own));
        Ok(())
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerIdentity({})", self.fingerprint())
    }
}

/// What a listener shows to clients: asked for at each handshake.
impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let own = self.own.borrow().as_ref().map(|own| own.certified.clone());
        own.or_else(|| self.cluster.resolve(hello))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

    use super::*;

    #[test]
    fn what_is_installed_is_shown_and_found_again_and_what_is_given_goes_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let cluster = ClusterIdentity::scratch();
        let server = ServerIdentity::open(dir, None, cluster.clone()).unwrap();
        assert_eq!((server.fingerprint(), server.source()), (cluster.fingerprint(), Source::Cluster));

        for _ in 0..2 {
            let pair = KeyPair::generate("east.example", &[]).unwrap();
            let fingerprint = pair.fingerprint;
            server.install(pair).unwrap();
            assert_eq!((server.fingerprint(), server.source()), (fingerprint, Source::Folder));
            let again = ServerIdentity::open(dir, None, cluster.clone()).unwrap();
            assert_eq!(again.fingerprint(), fingerprint);
        }
        let mode = fs::metadata(dir.join("server.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir).unwrap().count(), 2, "nothing else is left behind");

        let elsewhere = tempfile::tempdir().unwrap();
        let given = KeyPair::load_or_create(elsewhere.path(), "control-service", "control", &[]).unwrap();
        let at = |name: &str| elsewhere.path().join(name);
        let files = PairFiles { certificate: at("control-service.crt"), key: at("control-service.key") };
        let server = ServerIdentity::open(dir, Some(&files), cluster).unwrap();
        assert_eq!((server.fingerprint(), server.source()), (given.fingerprint, Source::Given));
        let other = KeyPair::generate("other", &[]).unwrap();
        assert!(matches!(server.install(other), Err(InstallError::Given)));
    }

    #[test]
    fn a_pair_that_is_swapped_or_for_clients_is_refused_in_words_that_name_the_flags() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        KeyPair::load_or_create(folder.path(), "control", "control", &[]).unwrap();
        let files = PairFiles { certificate: at("control.key"), key: at("control.crt") };
        let swapped = files.load().unwrap_err().to_string();
        assert!(
            swapped.contains("--server-cert (") && swapped.ends_with("the second a certificate"),
            "{swapped}"
        );

        let key = rcgen::KeyPair::generate().unwrap();
        let made = |usages: Vec<rcgen::ExtendedKeyUsagePurpose>| {
            let mut params = rcgen::CertificateParams::default();
            params.extended_key_usages = usages;
            params.self_signed(&key).unwrap()
        };
        fs::write(at("user.key"), key.serialize_pem()).unwrap();
        fs::set_permissions(at("user.key"), fs::Permissions::from_mode(0o600)).unwrap();
        let files = PairFiles { certificate: at("user.crt"), key: at("user.key") };
        for (usages, is_good) in
            [(vec![ClientAuth], false), (vec![ClientAuth, ServerAuth], true), (vec![], true)]
        {
            fs::write(at("user.crt"), made(usages.clone()).pem()).unwrap();
            let loaded = files.load();
            assert_eq!(loaded.is_ok(), is_good, "{usages:?}");
            if let Err(error) = loaded {
                assert!(error.to_string().contains("it is for clientAuth"), "{error}");
            }
        }
    }
}
