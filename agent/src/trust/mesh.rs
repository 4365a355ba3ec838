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
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use schema::name::{ClusterName, ServiceName};
use tokio::sync::watch;

use super::certificate::CertificateError;
use super::{Permission, Who};
use crate::store::value::ValueError;
use crate::store::{CommitError, Guard, Op, Revision, Store, StoreError, Txn, keys, value};
use crate::task::Tasks;
use crate::wire::bundle::{MAX_ROOTS, TrustBundle};

mod bundle;
mod leaf;
mod request;
mod root;
mod spiffe;

pub use bundle::{BundleError, PeerBundles};
pub use leaf::{LEAF_LIFE, Leaf};
pub use request::RequestError;
pub use root::Root;
pub use spiffe::{ServiceId, SpiffeError, SpiffeId, TrustDomain};

use root::{MeshRecord, RootRecord};

/// How long a new root is in the bundle before it signs, so that peers know it by then.
const ANNOUNCED: SignedDuration = SignedDuration::from_mins(5);
/// A root with less than this left is followed by another.
const RENEW_ROOT: SignedDuration = SignedDuration::from_hours(365 * 24);
/// How often it is looked whether a root is to begin, to end, or to be followed.
const ROUND: Duration = Duration::from_secs(30);
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

    /// Has roots begin, end and be followed in their time.
    pub fn start(self: &Arc<Self>, tasks: &Tasks) {
        let (authority, ending) = (Arc::clone(self), tasks.ending());
        tasks.spawn("mesh CA", async move {
            while ending.run_until_cancelled(tokio::time::sleep(ROUND)).await.is_some() {
                if let Err(error) = authority.settle(Timestamp::now()).await {
                    tracing::error!(%error, "the mesh CA's roots could not be looked at");
                }
            }
        });
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
        let mut leaf = active.issue(&self.id_of(service), service, leaf::Holder::NewKey, now)?;
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
        let mut leaf = active.issue(&self.id_of(service), service, leaf::Holder::Requester(&key), now)?;
        leaf.index = self.lock().next_index(now);
        self.issued.fetch_add(1, Relaxed);
        tracing::info!(%service, by = %permit.caller(), serial = %leaf.serial, "service certificate signed");
        Ok(leaf)
    }

    /// How many certificates were issued since the agent started.
    pub fn issued(&self) -> u64 {
        self.issued.load(Relaxed)
    }

    /// Has another root follow the one that signs.
    pub async fn rotate(&self, permit: &dyn Permission, now: Timestamp) -> Result<(), MeshError> {
        tracing::info!(by = %permit.caller(), "another root of the mesh CA follows");
        self.follow_with(now, now + ANNOUNCED).await
    }

    async fn settle(&self, now: Timestamp) -> Result<(), MeshError> {
        let roots = self.roots();
        let ended = |root: &Arc<Root>| root.ends.is_some_and(|ends| ends <= now);
        if roots.all.iter().any(ended) {
            self.change(|record| record.roots.retain(|root| root.ends.is_none_or(|ends| ends > now))).await?;
        }
        let newest_from = roots.all.last().map(|root| root.active_from);
        let waiting = newest_from.is_some_and(|from| from > now);
        match roots.active(now) {
            None => self.follow_with(now, now).await?,
            Some(active) if !waiting && active.not_after < now + RENEW_ROOT => {
                self.follow_with(now, now + ANNOUNCED).await?;
            }
            // One that was announced signs from now on: who waits for its leaf gets a new one.
            Some(active) if active.active_from > now - SignedDuration::from_secs(60) => {
                self.roots.send_modify(|_| {});
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// A new root that signs from `from` on. Those before it stay in the bundle until what they signed has ended.
    async fn follow_with(&self, now: Timestamp, from: Timestamp) -> Result<(), MeshError> {
        let domain = self.roots().domain.clone();
        let next = root::create(&self.dir, &domain, now)?;
        let changed = self
            .change(|record| {
                for root in &mut record.roots {
                    root.ends.get_or_insert(from + LEAF_LIFE);
                }
                let spare = (record.roots.len() + 1).saturating_sub(MAX_ROOTS);
                record.roots.drain(..spare);
                record.roots.push(RootRecord::beginning(&next, from));
            })
            .await;
        if changed.is_err() {
            root::discard(&self.dir, &next);
        }
        changed
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
