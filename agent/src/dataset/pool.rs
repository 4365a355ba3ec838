//! Pools, the trees in them with their snapshots, and the staging areas beside them.
//!
//! ```text
//! DATA/pools/POOL/custom/VOLUME/       a custom volume's tree
//! DATA/pools/POOL/containers/NAME/     an instance's
//! DATA/pools/POOL/.snapshots/AREA/NAME    which snapshots it has, and which frozen tree each is (see `snapshot`)
//! DATA/pools/POOL/.frozen/HASH/        a frozen tree and its manifest
//! DATA/pools/POOL/.index/AREA/NAME     what was seen of a tree the last time (see `survey::index`)
//! DATA/pools/POOL/.staging/AREA/NAME/  attempts to build another in its place (see `build`)
//! DATA/pools/POOL/.removed/UUID/       trees on their way out
//! ```
//!
//! No name can begin with a dot, so nothing of ours is ever listed as a volume. Staging is beside the volumes, not
//! in a temporary directory, because a rename is atomic only within one file system. A pool that the administrator
//! placed elsewhere is a symlink to its folder.

mod away;
mod clone;
mod folder;
mod hold;
mod left;
mod removal;
mod retire;
mod snapshot;
mod switch;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::BinaryBytes as HumanBytes;
use schema::name::{PoolName, SnapshotName, VolumeName};

use super::Dataset;
use super::build::BuildError;
use super::chunk::Hash;
use super::scan::ScanError;

use folder::{blocking, entries_of, make_dir, names_in, remove_later, sync_dir};
use hold::Hold;
pub use hold::{Held, Use};
pub use left::Left;
pub use removal::remove_tree;
pub use snapshot::Frozen;
pub use switch::{Arrived, Known, Switch};

/// The pool that every agent has.
pub const DEFAULT_POOL: &str = "default";
/// What holds trees (see [`Owner::area`](super::Owner::area)).
const AREAS: [&str; 2] = ["custom", "containers"];
/// What every pool has besides.
const OURS: [&str; 5] = [".staging", ".removed", ".snapshots", ".frozen", ".index"];
/// Staging of an interrupted transfer is kept this long for resuming.
const STAGING_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Of the file system that holds the agent's store a twentieth is left free by what arrives, and at most this much.
const MOST_RESERVED: u64 = 1 << 30;

/// Why a pool or a dataset could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error("storage pool {0} does not exist")]
    NoSuchPool(PoolName),
    #[error("storage pool {pool} is not available: there is no pool in {}; is its file system mounted?", path.display())]
    Unavailable { pool: PoolName, path: PathBuf },
    #[error("storage pool {0} exists already")]
    PoolExists(PoolName),
    #[error("storage pool {pool} still holds {what}")]
    NotEmpty { pool: PoolName, what: String },
    #[error("{} cannot hold a storage pool: {why}", path.display())]
    BadSource { path: PathBuf, why: &'static str },
    #[error("the pool {0} is every agent's, and stays")]
    Default(PoolName),
    #[error("{0} does not exist")]
    NoSuchDataset(Dataset),
    #[error("{0} exists already")]
    Exists(Dataset),
    #[error("{dataset} has no snapshot {snapshot}")]
    NoSuchSnapshot { dataset: Dataset, snapshot: SnapshotName },
    #[error("{dataset} has a snapshot {snapshot} already")]
    SnapshotExists { dataset: Dataset, snapshot: SnapshotName },
    #[error("{0} is in use by another transfer")]
    Busy(Dataset),
    #[error("{} is not what this agent wrote; it is left as it is", .0.display())]
    Damaged(PathBuf),
    #[error("{} is not in the staging area", .0.display())]
    Foreign(PathBuf),
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error(transparent)]
    Build(Box<BuildError>),
    #[error("{} could not be {doing}: no space is left on its file system; make room and try again", path.display())]
    Full { path: PathBuf, doing: &'static str },
    #[error(
        "storage pool {pool} takes nothing more in: {} are free on its file system, of which the last {} are left to the agent's own store; make room and try again",
        HumanBytes(*free), HumanBytes(*kept)
    )]
    Reserved { pool: PoolName, free: u64, kept: u64 },
    #[error(
        "{dataset} is to hold at most {size} bytes (its \"size\"), and what is to be put in it has {data} bytes of data; set \
         a larger size, or none, and do the same again"
    )]
    TooSmall { dataset: Dataset, size: u64, data: u64 },
    #[error("{} could not be {doing}: its file system is read-only", path.display())]
    ReadOnly { path: PathBuf, doing: &'static str },
    #[error("{path} could not be {doing}")]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
}

impl From<BuildError> for PoolError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Pool(error) => error,
            error => Self::Build(Box::new(error)),
        }
    }
}

impl PoolError {
    fn io(path: &Path, doing: &'static str, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { path: path.to_owned(), doing }
            }
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path: path.to_owned(), doing },
            _ => Self::Io { path: path.to_owned(), doing, source },
        }
    }
}

/// The pools of this agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pools {
    root: Arc<PathBuf>,
    holds: Arc<Mutex<HashMap<Dataset, Hold>>>,
    /// Frozen trees that somebody reads.
    frozen: Arc<Mutex<HashMap<(PoolName, Hash), usize>>>,
    /// Who changes references and collects what none refers to.
    turns: Arc<Mutex<()>>,
}

impl Pools {
    /// Opens `data/pools`, makes the default pool if need be, and clears away what a crash left.
    pub fn open(data: &Path) -> Result<Self, PoolError> {
        let pools = Self {
            root: Arc::new(data.join("pools")),
            holds: Arc::default(),
            frozen: Arc::default(),
            turns: Arc::default(),
        };
        make_pool(&pools.root.join(DEFAULT_POOL))?;
        for pool in pools.list()? {
            match pools.recover(&pool) {
                Ok(()) => {}
                Err(e) if pool.as_str() == DEFAULT_POOL => return Err(e),
                // One disk that is away keeps nobody from the others.
                Err(e) => tracing::warn!(%pool, reason = %e, "a storage pool could not be looked through"),
            }
        }
        Ok(pools)
    }

    /// The pools there are, sorted, also those that are not available.
    pub fn list(&self) -> Result<Vec<PoolName>, PoolError> {
        let mut names: Vec<PoolName> = entries_of(&self.root)?
            .iter()
            .filter(|path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() || meta.is_symlink()))
            .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    pub fn exists(&self, pool: &PoolName) -> bool {
        let base = self.root.join(pool.as_str());
        // Where everybody may make folders, somebody may have made one in the place of a pool that is away.
        folder::is_ours(&base) && base.join("custom").is_dir()
    }

    /// Makes a pool: in a folder of the administrator's, which must be empty or not be there, or with the others.
    pub async fn create_pool(&self, pool: &PoolName, source: Option<&Path>) -> Result<(), PoolError> {
        let (pools, pool, source) = (self.clone(), pool.clone(), source.map(Path::to_owned));
        blocking(move || {
            let _turn = pools.turn();
            let place = pools.root.join(pool.as_str());
            if fs::symlink_metadata(&place).is_ok() {
                return Err(PoolError::PoolExists(pool));
            }
            match source {
                Some(source) => {
                    let source = pools.fit_for_pool(&source)?;
                    make_pool(&source)?;
                    std::os::unix::fs::symlink(&source, &place)
                        .map_err(|e| PoolError::io(&place, "created", e))?;
                }
                None => make_pool(&place)?,
            }
            sync_dir(&pools.root)
        })
        .await
    }

    /// Removes a pool that holds no data, staging apart. The administrator's folder stays, empty.
    pub async fn delete_pool(&self, pool: &PoolName) -> Result<(), PoolError> {
        let (pools, pool) = (self.clone(), pool.clone());
        blocking(move || {
            if pool.as_str() == DEFAULT_POOL {
                return Err(PoolError::Default(pool));
            }
            let _turn = pools.turn();
            let base = pools.pool(&pool)?;
            for area in AREAS {
                if let Some(path) = entries_of(&base.join(area))?.first() {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    return Err(PoolError::NotEmpty { pool, what: format!("{area}/{name}") });
                }
            }
            let place = pools.root.join(pool.as_str());
            if place.is_symlink() {
                fs::remove_file(&place).map_err(|e| PoolError::io(&place, "removed", e))?;
                sync_dir(&pools.root)?;
                for part in AREAS.into_iter().chain(OURS) {
                    remove_tree(&base.join(part))?;
                }
                Ok(())
            } else {
                remove_tree(&base)?;
                sync_dir(&pools.root)
            }
        })
        .await
    }

    /// The folder of the administrator's, made if need be, if a pool can be in it.
    fn fit_for_pool(&self, source: &Path) -> Result<PathBuf, PoolError> {
        let bad = |why| Err(PoolError::BadSource { path: source.to_owned(), why });
        if !source.is_absolute() {
            return bad("its path must be absolute");
        }
        if !source.exists() {
            let above = source.parent().filter(|above| above.is_dir());
            if above.is_none() {
                return bad("the folder above it does not exist");
            }
            make_dir(source)?;
        }
        let source = fs::canonicalize(source).map_err(|e| PoolError::io(source, "read", e))?;
        if !source.is_dir() {
            return bad("it is no folder");
        }
        let mut others =
            vec![fs::canonicalize(&*self.root).map_err(|e| PoolError::io(&self.root, "read", e))?];
        for pool in self.list()? {
            others.extend(fs::canonicalize(self.root.join(pool.as_str())));
        }
        if let Some(open) = source.ancestors().find(|folder| !folder::is_guarded(folder)) {
            tracing::warn!(folder = %open.display(), "others can write to a folder that a storage pool is to be in");
            return bad(
                "others can write to it, or to a folder above it, and so could exchange what is in it",
            );
        }
        if others.iter().any(|other| source.starts_with(other) || other.starts_with(&source)) {
            return bad("it is within another pool, or the other way round");
        }
        if !entries_of(&source)?.is_empty() {
            return bad("it is not empty");
        }
        Ok(source)
    }

    /// The volumes that have data in `pool`, declared or not, sorted.
    pub fn volumes(&self, pool: &PoolName) -> Result<Vec<VolumeName>, PoolError> {
        names_in(&self.pool(pool)?.join("custom"))
    }

    /// Makes the dataset's tree if it is not there; data that is there is kept and so adopted.
    pub async fn ensure(&self, dataset: &Dataset) -> Result<(), PoolError> {
        let path = self.place(dataset)?;
        blocking(move || {
            if path.is_dir() {
                return Ok(());
            }
            fs::DirBuilder::new()
                .mode(0o755)
                .create(&path)
                .map_err(|e| PoolError::io(&path, "created", e))?;
            path.parent().map_or(Ok(()), sync_dir)
        })
        .await
    }

    /// Destroys the dataset's data, its snapshots and any staging of it. Done when it has gone from the volumes; that it
    /// was not there is no error, so that a step can be run twice.
    pub async fn destroy(&self, dataset: &Dataset) -> Result<(), PoolError> {
        let (pools, dataset) = (self.clone(), dataset.clone());
        blocking(move || {
            let _held = pools.hold(&dataset, Use::Replacing)?;
            for path in [pools.place(&dataset)?, pools.staging_of(&dataset)?] {
                let bin = pools.bin(&dataset.pool)?;
                match fs::rename(&path, &bin) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(PoolError::io(&path, "removed", e)),
                }
                path.parent().map_or(Ok(()), sync_dir)?;
                remove_later(bin);
            }
            {
                let _turn = pools.turn();
                pools.drop_references(&dataset)?;
            }
            // A hint: what is left of it does no harm.
            let _ = fs::remove_file(pools.index_at(&dataset)?);
            pools.collect(&dataset.pool)
        })
        .await
    }

    /// Gives the dataset another name in the same pool, with its snapshots.
    pub async fn rename(&self, dataset: &Dataset, to: &Dataset) -> Result<(), PoolError> {
        let (pools, from, to) = (self.clone(), dataset.clone(), to.clone());
        blocking(move || {
            if from.pool != to.pool {
                return Err(PoolError::Foreign(pools.place(&to)?));
            }
            let (_old, _new) = (pools.hold(&from, Use::Replacing)?, pools.hold(&to, Use::Replacing)?);
            let (old, new) = (pools.tree(&from)?, pools.place(&to)?);
            if fs::symlink_metadata(&new).is_ok() {
                return Err(PoolError::Exists(to));
            }
            let _turn = pools.turn();
            // References without a tree go at a start, so either name has all or nothing after a crash.
            pools.move_references(&from, &to)?;
            let mode = folder::loosen(&old)?;
            fs::rename(&old, &new).map_err(|e| PoolError::io(&old, "renamed", e))?;
            if let Some(mode) = mode {
                folder::set_mode(&new, mode)?;
            }
            new.parent().map_or(Ok(()), sync_dir)?;
            let _ = fs::rename(pools.index_at(&from)?, pools.index_at(&to)?);
            pools.drop_references(&from)
        })
        .await
    }

    /// Where the dataset's tree is; an error if it has none.
    pub fn tree(&self, dataset: &Dataset) -> Result<PathBuf, PoolError> {
        let path = self.place(dataset)?;
        if path.is_dir() { Ok(path) } else { Err(PoolError::NoSuchDataset(dataset.clone())) }
    }

    pub fn has(&self, dataset: &Dataset) -> bool {
        self.tree(dataset).is_ok()
    }

    /// Bytes of disk that the dataset takes up with its snapshots, as `du` counts them: what they share counts once.
    pub async fn usage(&self, dataset: &Dataset) -> Result<u64, PoolError> {
        let (pools, dataset) = (self.clone(), dataset.clone());
        blocking(move || {
            let mut trees = vec![pools.tree(&dataset)?];
            let mut frozen = Vec::new();
            for name in pools.snapshots(&dataset)? {
                // One that goes meanwhile no longer counts.
                frozen.extend(pools.snapshot(&dataset, &name));
            }
            trees.extend(frozen.iter().map(Frozen::tree).collect::<std::collections::BTreeSet<_>>());
            let mut total = 0;
            let mut seen = std::collections::HashSet::new();
            // A tree in use changes while it is walked; what cannot be read no longer counts.
            for entry in trees.iter().flat_map(walkdir::WalkDir::new).flatten() {
                if let Ok(meta) = entry.metadata()
                    && (meta.nlink() < 2 || meta.is_dir() || seen.insert((meta.dev(), meta.ino())))
                {
                    total += meta.blocks() * 512;
                }
            }
            Ok(total)
        })
        .await
    }

    /// Size of the file system that holds the pool, what of it is used, and what of the rest can be had, bytes.
    pub fn space(&self, pool: &PoolName) -> Result<(u64, u64, u64), PoolError> {
        let path = self.pool(pool)?;
        let stat = rustix::fs::statvfs(&path).map_err(|e| PoolError::io(&path, "read", e))?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        Ok((stat.f_blocks * stat.f_frsize, used * stat.f_frsize, stat.f_bavail * stat.f_frsize))
    }

    /// Refuses what would take the last space of the file system that the agent's own store is on: full, it would stop
    /// everything.
    pub fn room(&self, pool: &PoolName) -> Result<(), PoolError> {
        let (free, kept) = self.shared_out(pool)?;
        if free < kept {
            return Err(PoolError::Reserved { pool: pool.clone(), free, kept });
        }
        Ok(())
    }

    /// Bytes that the pool may still take in.
    pub fn usable(&self, pool: &PoolName) -> Result<u64, PoolError> {
        let (free, kept) = self.shared_out(pool)?;
        Ok(free.saturating_sub(kept))
    }

    /// Bytes that are free where the pool is, and how many of them it leaves to others.
    fn shared_out(&self, pool: &PoolName) -> Result<(u64, u64), PoolError> {
        let path = self.pool(pool)?;
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
        let (size, _, free) = self.space(pool)?;
        let is_shared = device(&path) == device(&self.root);
        Ok((free, if is_shared { (size / 20).min(MOST_RESERVED) } else { 0 }))
    }

    /// Where the dataset's tree is or would be.
    fn place(&self, dataset: &Dataset) -> Result<PathBuf, PoolError> {
        let owner = &dataset.owner;
        Ok(self.pool(&dataset.pool)?.join(owner.area()).join(owner.folder()))
    }

    fn staging_of(&self, dataset: &Dataset) -> Result<PathBuf, PoolError> {
        let owner = &dataset.owner;
        Ok(self.pool(&dataset.pool)?.join(".staging").join(owner.area()).join(owner.folder()))
    }

    /// A new place for what is on its way out.
    fn bin(&self, pool: &PoolName) -> Result<PathBuf, PoolError> {
        Ok(self.pool(pool)?.join(".removed").join(uuid::Uuid::new_v4().to_string()))
    }

    /// The folder of a pool.
    pub(super) fn base(&self, pool: &PoolName) -> Result<PathBuf, PoolError> {
        self.pool(pool)
    }

    fn pool(&self, pool: &PoolName) -> Result<PathBuf, PoolError> {
        let path = self.root.join(pool.as_str());
        if self.exists(pool) {
            // Not the symlink: what is opened later must not be led elsewhere meanwhile.
            return fs::canonicalize(&path).map_err(|e| PoolError::io(&path, "read", e));
        }
        match fs::read_link(&path) {
            Ok(source) => Err(PoolError::Unavailable { pool: pool.clone(), path: source }),
            Err(_) => Err(PoolError::NoSuchPool(pool.clone())),
        }
    }

    /// What a crash can leave: a switch that was decided and not done, trees on their way out, frozen trees that nothing
    /// refers to, and staging too old to be resumed.
    fn recover(&self, pool: &PoolName) -> Result<(), PoolError> {
        let base = self.pool(pool)?;
        make_pool(&base)?;
        for bin in entries_of(&base.join(".removed"))? {
            remove_later(bin);
        }
        for area in AREAS {
            let stagings = base.join(".staging").join(area);
            make_dir(&stagings)?;
            for staging in entries_of(&stagings)? {
                let Some(name) = staging.file_name() else { continue };
                let (place, references) =
                    (base.join(area).join(name), base.join(".snapshots").join(area).join(name));
                let old = fs::metadata(&staging)
                    .and_then(|meta| meta.modified())
                    .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STAGING_KEPT));
                if !switch::finish(&staging, &place, &references)? && old {
                    remove_tree(&staging)?;
                }
            }
        }
        snapshot::forget_strays(&base)?;
        self.collect(pool)
    }
}

fn make_pool(base: &Path) -> Result<(), PoolError> {
    AREAS.into_iter().chain(OURS).try_for_each(|part| make_dir(&base.join(part)))
}
