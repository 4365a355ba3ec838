//! The mesh CA: it gives services their certificates, by which they are known within this cluster and, through its
//! trust bundle, at the peers that it is linked with.
//!
//! Its root keys lie in the data folder, for their owner alone; the roots themselves and the trust domain are a record of
//! the store. A service's certificate (a leaf) lives for three days and is made anew at half of that, by whoever asks; so
//! nothing has to be revoked. A new root is in the bundle for a while before it signs, and an old one stays there until
//! the last leaf that it signed has ended.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use schema::name::{ClusterName, ServiceName};
use tokio::sync::watch;

use super::certificate::CertificateError;
use super::{Permission, Who};
use crate::store::value::ValueError;
use crate::store::{CommitError, Guard, Op, Revision, Store, StoreError, Txn, keys, value};
use crate::wire::bundle::TrustBundle;

mod bundle;
mod face;
mod leaf;
mod request;
mod root;
mod rotation;
pub mod server_name;
mod speaker;
mod spiffe;

pub use bundle::{BundleError, PeerBundles};
pub use face::Face;
pub use leaf::{LEAF_LIFE, Leaf};
pub use request::RequestError;
pub use root::Root;
pub use rotation::Before;
pub use speaker::{Judge, LeafError, Speaker, Unfit, Vouching};
pub use spiffe::{ServiceId, SpiffeError, SpiffeId, TrustDomain};

use root::{MeshRecord, RootRecord};

/// Most leaves that are kept for being asked for again.
const MAX_LEAVES: usize = 4096;
/// Tries of a commit that others get in the way of.
const TRIES: usize = 8;

/// Why the mesh CA could not be read, or gave no certificate.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    #[error("a service's certificate is given to nobody over a cluster link")]
    OverLink,
    #[error("the mesh CA has no key to sign with: it is made anew within a minute")]
    NoKey,
    #[error("{} could not be {doing}: {source}", path.display())]
    Io { path: PathBuf, doing: &'static str, source: std::io::Error },
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("a certificate could not be made: {0}")]
    Generate(#[from] rcgen::Error),
    #[error("the machine's clock cannot be right: certificates cannot have this time")]
    Clock,
    #[error("the root {0} in the store could not be read")]
    Damaged(usize),
    #[error("a new root was announced already: it signs from {0} on")]
    Announced(Timestamp),
    #[error("others keep changing the mesh CA; try again")]
    Contended,
    #[error(transparent)]
    Key(#[from] CertificateError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// The roots as of one moment.
#[derive(Debug)]
pub struct Roots {
    pub domain: TrustDomain,
    /// Oldest first.
    pub all: Vec<Arc<Root>>,
    /// When they first and last changed.
    pub created: Revision,
    pub modified: Revision,
}

impl Roots {
    /// The root that signs at `now`: the newest that has begun and whose key is here.
    pub fn active(&self, now: Timestamp) -> Option<&Arc<Root>> {
        self.all.iter().rev().find(|root| root.active_from <= now && root.can_sign())
    }

    /// What peers are told.
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle {
            trust_domain: self.domain.to_string(),
            roots: self.all.iter().map(|root| root.pem.clone()).collect(),
        }
    }
}

/// The mesh CA of this cluster.
pub struct MeshAuthority {
    store: Arc<dyn Store>,
    dir: PathBuf,
    cluster: ClusterName,
    roots: watch::Sender<Arc<Roots>>,
    kept: Mutex<Kept>,
    /// Certificates issued since the start.
    issued: AtomicU64,
}

/// Leaves that were given out, by service and by who asked.
#[derive(Default)]
struct Kept {
    leaves: HashMap<(ServiceName, String), Arc<Leaf>>,
    /// What the agent itself shows.
    faces: HashMap<Face, face::Shown>,
    /// The last index that a leaf was given.
    index: u64,
}

impl MeshAuthority {
    /// The CA whose keys lie in `dir`, made if there is none yet. Where the key of the root that signs is gone, another
    /// root follows it at once.
    pub async fn open(
        store: Arc<dyn Store>,
        dir: &Path,
        cluster: ClusterName,
        now: Timestamp,
    ) -> Result<Arc<Self>, MeshError> {
        root::make_folder(dir)?;
        for _ in 0..TRIES {
            if let Some(roots) = read(&*store, dir).await? {
                let authority = Arc::new(Self {
                    store,
                    dir: dir.to_owned(),
                    cluster,
                    roots: watch::Sender::new(Arc::new(roots)),
                    kept: Mutex::default(),
                    issued: AtomicU64::new(0),
                });
                if authority.roots().active(now).is_none() {
                    tracing::warn!(folder = %dir.display(), "the key of the mesh CA is gone; another root follows");
                    authority.follow_with(now, now).await?;
                }
                return Ok(authority);
            }
            let domain = TrustDomain::random();
            let root = root::create(dir, &domain, now)?;
            let record = MeshRecord { domain, roots: vec![RootRecord::beginning(&root, now)] };
            match write(&*store, Revision(0), &record).await {
                Ok(_) => tracing::info!(domain = %record.domain, "the mesh CA was made"),
                Err(CommitError::Conflict(_)) => root::discard(dir, &root),
                Err(error) => return Err(error.into()),
            }
        }
        Err(MeshError::Contended)
    }

    #[cfg(test)]
    pub async fn scratch(store: Arc<dyn Store>) -> Arc<Self> {
        // The folder may go: what is read is kept.
        let folder = tempfile::tempdir().unwrap();
        let cluster = "scratch".parse().unwrap();
        Self::open(store, folder.path(), cluster, Timestamp::now()).await.unwrap()
    }

    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    pub fn roots(&self) -> Arc<Roots> {
        self.roots.borrow().clone()
    }

    /// Tells of each change of the roots, and of which one signs.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Roots>> {
        self.roots.subscribe()
    }

    /// What peers are told.
    pub fn bundle(&self) -> TrustBundle {
        self.roots().bundle()
    }

    /// The name of one of this cluster's services, as its certificates have it.
    pub fn id_of(&self, service: &ServiceName) -> SpiffeId {
        SpiffeId::of_service(self.roots().domain.clone(), &self.cluster, service)
    }

    /// A service's certificate and key. Who asks again gets the same, until half of its life has passed or another root
    /// signs.
    pub fn leaf(
        &self,
        permit: &dyn Permission,
        service: &ServiceName,
        now: Timestamp,
    ) -> Result<Arc<Leaf>, MeshError> {
        refuse_peers(permit)?;
        let roots = self.roots();
        let active = roots.active(now).ok_or(MeshError::NoKey)?;
        let key = (service.clone(), permit.caller().identity());
        let mut kept = self.lock();
        if let Some(leaf) = kept.leaves.get(&key)
            && leaf.root == active.fingerprint
            && now < leaf.renewed_at()
        {
            return Ok(Arc::clone(leaf));
        }
        let mut leaf =
            active.issue(self.id_of(service).to_string(), service, None, leaf::Holder::NewKey, now)?;
        leaf.index = kept.next_index(now);
        let leaf = Arc::new(leaf);
        kept.leaves.retain(|_, leaf| now < leaf.renewed_at());
        if kept.leaves.len() >= MAX_LEAVES {
            // Who has one of these asks for another: nothing is lost but work.
            kept.leaves.clear();
        }
        kept.leaves.insert(key, Arc::clone(&leaf));
        self.issued.fetch_add(1, Relaxed);
        tracing::info!(%service, by = %permit.caller(), serial = %leaf.serial, "service certificate issued");
        Ok(leaf)
    }

    /// A service's certificate for the key that a signing request proves to hold. Of the request nothing but the key is
    /// taken.
    pub fn sign(
        &self,
        permit: &dyn Permission,
        service: &ServiceName,
        request: &str,
        now: Timestamp,
    ) -> Result<Leaf, MeshError> {
        refuse_peers(permit)?;
        let key = request::key(request)?;
        let roots = self.roots();
        let active = roots.active(now).ok_or(MeshError::NoKey)?;
        let (uri, holder) = (self.id_of(service).to_string(), leaf::Holder::Requester(&key));
        let mut leaf = active.issue(uri, service, None, holder, now)?;
        leaf.index = self.lock().next_index(now);
        self.issued.fetch_add(1, Relaxed);
        tracing::info!(%service, by = %permit.caller(), serial = %leaf.serial, "service certificate signed");
        Ok(leaf)
    }

    /// How many certificates were issued since the agent started.
    pub fn issued(&self) -> u64 {
        self.issued.load(Relaxed)
    }

    async fn change(&self, mut change: impl FnMut(&mut MeshRecord)) -> Result<(), MeshError> {
        for _ in 0..TRIES {
            let Some(entry) = self.store.get(keys::MESH_CA).await? else { return Err(MeshError::Contended) };
            let mut record: MeshRecord = value::decode(&entry)?;
            change(&mut record);
            match write(&*self.store, entry.modify_revision, &record).await {
                Ok(_) => {
                    if let Some(roots) = read(&*self.store, &self.dir).await? {
                        root::sweep(&self.dir, &roots.all);
                        self.roots.send_replace(Arc::new(roots));
                    }
                    return Ok(());
                }
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(MeshError::Contended)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // The map is whole between statements, so a panic elsewhere leaves nothing half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Rises with every leaf, and over restarts as well: it is never below the time, in milliseconds.
    fn next_index(&mut self, now: Timestamp) -> u64 {
        let now = u64::try_from(now.as_millisecond()).unwrap_or_default();
        self.index = now.max(self.index + 1);
        self.index
    }
}

/// Whoever calls over a link, or shows a linked cluster's certificate, speaks for no service of this cluster, whatever
/// its groups may do.
fn refuse_peers(permit: &dyn Permission) -> Result<(), MeshError> {
    match permit.caller().who {
        Who::Peer { .. } => Err(MeshError::OverLink),
        _ => Ok(()),
    }
}

async fn read(store: &dyn Store, dir: &Path) -> Result<Option<Roots>, MeshError> {
    let Some(entry) = store.get(keys::MESH_CA).await? else { return Ok(None) };
    let record: MeshRecord = value::decode(&entry)?;
    let mut roots = Vec::with_capacity(record.roots.len());
    for (position, stored) in record.roots.into_iter().enumerate() {
        roots.push(Arc::new(Root::read(dir, stored, position)?));
    }
    let (created, modified) = (entry.create_revision, entry.modify_revision);
    Ok(Some(Roots { domain: record.domain, all: roots, created, modified }))
}

async fn write(store: &dyn Store, at: Revision, record: &MeshRecord) -> Result<Revision, CommitError> {
    let key = keys::MESH_CA.to_owned();
    let guard = Guard { key: key.clone(), modify_revision: at };
    store.commit(Txn { guards: vec![guard], ops: vec![Op::Put { key, value: value::encode(record) }] }).await
}

#[cfg(test)]
mod tests;
