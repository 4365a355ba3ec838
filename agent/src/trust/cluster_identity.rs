//! The cluster's own key pair, as whoever shows it or dials with it asks for it: the one of this moment.
//!
//! `comity link rotate` replaces it while the agent runs. Nothing keeps a copy: each handshake, either way, takes the
//! pair that is current then. What is under way goes on with the one it began with.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::Fingerprint;
use super::certificate::{CertificateError, KeyPair, next};

/// What the files of the pair are called, but for their endings.
const STEM: &str = "cluster";

/// Who this cluster is: one pair at a time, replaced by rotation only.
pub struct ClusterIdentity {
    current: watch::Sender<Current>,
    /// Certificates that were ours, and until when they may be taken for the current one.
    predecessors: RwLock<Vec<(Fingerprint, Timestamp)>>,
    /// Where the pairs lie; none that is only in memory can be replaced.
    dir: Option<PathBuf>,
}

#[derive(Clone)]
struct Current {
    pair: Arc<KeyPair>,
    certified: Arc<CertifiedKey>,
}

impl Current {
    fn of(pair: Arc<KeyPair>) -> Result<Self, CertificateError> {
        Ok(Self { certified: Arc::new(pair.certified()?), pair })
    }
}

impl ClusterIdentity {
    /// Fails if TLS cannot use the key.
    pub fn new(pair: Arc<KeyPair>) -> Result<Arc<Self>, CertificateError> {
        Self::with(pair, None)
    }

    /// The pair `cluster.crt` and `cluster.key` in `dir`, made on first use. A change that was cut short is ended.
    pub fn open(dir: &Path, common_name: &str) -> Result<Arc<Self>, CertificateError> {
        next::recover(dir, STEM)?;
        let pair = KeyPair::load_or_create(dir, STEM, common_name, &[common_name.to_owned()])?;
        Self::with(pair, Some(dir.to_owned()))
    }

    fn with(pair: Arc<KeyPair>, dir: Option<PathBuf>) -> Result<Arc<Self>, CertificateError> {
        let current = watch::Sender::new(Current::of(pair)?);
        Ok(Arc::new(Self { current, predecessors: RwLock::default(), dir }))
    }

    /// Whether `fingerprint` names this cluster: its certificate, or one before it while its successor may be taken.
    /// Only for what names the cluster, such as a token: nothing but the current certificate is shown, or signs.
    pub fn is_ours(&self, fingerprint: &Fingerprint, now: Timestamp) -> bool {
        let known = self.predecessors.read().unwrap_or_else(PoisonError::into_inner);
        self.fingerprint() == *fingerprint
            || known.iter().any(|(known, until)| known == fingerprint && now <= *until)
    }

    /// From now on these are the certificates that were ours.
    pub fn follows(&self, predecessors: Vec<(Fingerprint, Timestamp)>) {
        *self.predecessors.write().unwrap_or_else(PoisonError::into_inner) = predecessors;
    }

    /// The pair that may follow, made if there is none yet and written for its owner alone. Nobody is shown it.
    pub fn prepare(&self, common_name: &str) -> Result<Arc<KeyPair>, CertificateError> {
        next::prepare(self.dir()?, STEM, common_name)
    }

    /// Forgets the pair that was prepared.
    pub fn discard(&self) -> Result<(), CertificateError> {
        next::discard(self.dir()?, STEM)
    }

    /// Makes the prepared pair the current one, on disk and then for everybody, if it is the one with this
    /// certificate. The old key is gone after this.
    pub fn install(&self, expected: &Fingerprint) -> Result<(), CertificateError> {
        let dir = self.dir()?;
        match next::prepared(dir, STEM)? {
            Some(pair) if pair.fingerprint == *expected => {
                let current = Current::of(Arc::new(pair))?;
                next::install(dir, STEM)?;
                self.current.send_replace(current);
                Ok(())
            }
            _ => Err(CertificateError::NotPrepared { dir: dir.to_owned(), expected: *expected }),
        }
    }

    /// That the pair with this certificate is there to be installed.
    pub fn require_prepared(&self, expected: &Fingerprint) -> Result<(), CertificateError> {
        let dir = self.dir()?;
        match next::prepared(dir, STEM)? {
            Some(pair) if pair.fingerprint == *expected => Ok(()),
            _ => Err(CertificateError::NotPrepared { dir: dir.to_owned(), expected: *expected }),
        }
    }

    fn dir(&self) -> Result<&Path, CertificateError> {
        self.dir.as_deref().ok_or(CertificateError::InMemory)
    }

    #[cfg(test)]
    pub fn scratch() -> Arc<Self> {
        Self::new(Arc::new(KeyPair::generate("scratch", &[]).unwrap())).unwrap()
    }

    /// The pair to use now. To be asked for again the next time, not kept.
    pub fn current(&self) -> Arc<KeyPair> {
        self.current.borrow().pair.clone()
    }

    /// The fingerprint of the certificate that is shown now.
    pub fn fingerprint(&self) -> Fingerprint {
        self.current.borrow().pair.fingerprint
    }

    /// Resolves whenever another pair has become the current one.
    pub fn changed(&self) -> Changed {
        Changed(self.current.subscribe())
    }
}

/// Tells of each switch to another pair.
pub struct Changed(watch::Receiver<Current>);

impl Changed {
    /// Waits for the next switch; for ever, once the identity is gone.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for ClusterIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterIdentity({})", self.fingerprint())
    }
}

/// What a listener shows: asked for at each handshake.
impl ResolvesServerCert for ClusterIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.borrow().certified.clone())
    }
}
