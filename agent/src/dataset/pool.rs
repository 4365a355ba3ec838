//! Pools, the trees in them, and the staging areas beside them.
//!
//! ```text
//! DATA/pools/POOL/custom/VOLUME/       a custom volume's tree
//! DATA/pools/POOL/containers/NAME/     an instance's
//! DATA/pools/POOL/.staging/custom/VOLUME/N/   attempts to build another in its place (see `build`)
//! DATA/pools/POOL/.removed/UUID/       trees on their way out
//! ```
//!
//! No name can begin with a dot, so neither area is ever listed as a volume. Staging is beside the volumes, not
//! in a temporary directory, because a rename is atomic only within one file system.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use schema::name::{PoolName, VolumeName};

use super::Dataset;
use crate::task::crash;

/// The pool that every agent has.
pub const DEFAULT_POOL: &str = "default";
/// What holds trees (see [`Owner::area`](super::Owner::area)).
const AREAS: [&str; 2] = ["custom", "containers"];
/// Staging of an interrupted transfer is kept this long for resuming.
const STAGING_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why a pool or volume could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error("storage pool {0} does not exist")]
    NoSuchPool(PoolName),
    #[error("{0} does not exist")]
    NoSuchDataset(Dataset),
    #[error("{0} is in use by another transfer")]
    Busy(Dataset),
    #[error("{path} could not be {doing}")]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
}

impl PoolError {
    fn io(path: &Path, doing: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io { path: path.to_owned(), doing, source: source.into() }
    }
}

/// The pools of this agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pools {
    root: Arc<PathBuf>,
    holds: Arc<Mutex<HashMap<Dataset, Hold>>>,
}

#[derive(Debug, Clone, Copy)]
enum Hold {
    Readers(usize),
    Writer,
}

/// Keeps others from changing (or, if exclusive, from using) a volume until dropped.
#[derive(Debug)]
pub struct Held {
    pools: Pools,
    dataset: Dataset,
}

/// How a volume is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Reading,
    Replacing,
}

impl Pools {
    /// Opens `data/pools`, makes the default pool if need be, and clears away what a crash left.
    pub fn open(data: &Path) -> Result<Self, PoolError> {
        let pools = Self { root: Arc::new(data.join("pools")), holds: Arc::default() };
        for area in AREAS.into_iter().chain([".staging", ".removed"]) {
            make_dir(&pools.root.join(DEFAULT_POOL).join(area))?;
        }
        for pool in pools.list()? {
            pools.recover(&pool)?;
        }
        Ok(pools)
    }

    /// The pools there are, sorted.
    pub fn list(&self) -> Result<Vec<PoolName>, PoolError> {
        names_in(&self.root)
    }

    pub fn exists(&self, pool: &PoolName) -> bool {
        self.root.join(pool.as_str()).join("custom").is_dir()
    }

    /// The volumes that have data in `pool`, declared or not, sorted.
    pub fn volumes(&self, pool: &PoolName) -> Result<Vec<VolumeName>, PoolError> {
        names_in(&self.pool(pool)?.join("custom"))
    }

    /// Makes the volume's tree if it is not there; data that is there is kept and so adopted.
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

    /// Destroys the volume's data and any staging of it. Done when it has gone from the volumes; that it was
    /// not there is no error, so that a step can be run twice.
    pub async fn destroy(&self, dataset: &Dataset) -> Result<(), PoolError> {
        let base = self.pool(&dataset.pool)?;
        let held = self.hold(dataset, Use::Replacing)?;
        let (tree, staging) = (self.place(dataset)?, self.staging_of(dataset)?);
        blocking(move || {
            let _held = held;
            for path in [tree, staging] {
                let bin = base.join(".removed").join(uuid::Uuid::new_v4().to_string());
                match fs::rename(&path, &bin) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(PoolError::io(&path, "removed", e)),
                }
                path.parent().map_or(Ok(()), sync_dir)?;
                remove_tree(&bin)?;
            }
            Ok(())
        })
        .await
    }

    /// Where the volume's tree is; an error if it has none.
    pub fn tree(&self, dataset: &Dataset) -> Result<PathBuf, PoolError> {
        let path = self.place(dataset)?;
        if path.is_dir() { Ok(path) } else { Err(PoolError::NoSuchDataset(dataset.clone())) }
    }

    pub fn has(&self, dataset: &Dataset) -> bool {
        self.tree(dataset).is_ok()
    }

    /// Bytes of disk that the volume takes up, as `du` counts them.
    pub async fn usage(&self, dataset: &Dataset) -> Result<u64, PoolError> {
        let tree = self.tree(dataset)?;
        blocking(move || {
            let mut total = 0;
            let mut seen = std::collections::HashSet::new();
            // A tree in use changes while it is walked; what cannot be read no longer counts.
            for entry in walkdir::WalkDir::new(&tree).into_iter().flatten() {
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

    /// Size and free space of the file system that holds the pool, bytes.
    pub fn space(&self, pool: &PoolName) -> Result<(u64, u64), PoolError> {
        let path = self.pool(pool)?;
        let stat = rustix::fs::statvfs(&path).map_err(|e| PoolError::io(&path, "read", e))?;
        Ok((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
    }

    /// Holds the volume: any number may read it, one alone may replace it.
    pub fn hold(&self, dataset: &Dataset, how: Use) -> Result<Held, PoolError> {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let key = dataset.clone();
        let next = match (holds.get(&key), how) {
            (None, Use::Reading) => Hold::Readers(1),
            (None, Use::Replacing) => Hold::Writer,
            (Some(Hold::Readers(n)), Use::Reading) => Hold::Readers(n + 1),
            _ => return Err(PoolError::Busy(key)),
        };
        holds.insert(key, next);
        Ok(Held { pools: self.clone(), dataset: dataset.clone() })
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

    fn pool(&self, pool: &PoolName) -> Result<PathBuf, PoolError> {
        if self.exists(pool) {
            Ok(self.root.join(pool.as_str()))
        } else {
            Err(PoolError::NoSuchPool(pool.clone()))
        }
    }

    /// What a crash can leave: trees on their way out, and staging too old to be resumed or already switched in.
    fn recover(&self, pool: &PoolName) -> Result<(), PoolError> {
        let base = self.pool(pool)?;
        for area in AREAS.into_iter().chain([".staging", ".removed"]) {
            make_dir(&base.join(area))?;
        }
        for bin in entries_of(&base.join(".removed"))? {
            remove_tree(&bin)?;
        }
        for area in AREAS {
            let stagings = base.join(".staging").join(area);
            make_dir(&stagings)?;
            for staging in entries_of(&stagings)? {
                let old = fs::metadata(&staging)
                    .and_then(|meta| meta.modified())
                    .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STAGING_KEPT));
                if old || staging.join("switching").exists() {
                    undo_halfway_switch(&base.join(area), &staging)?;
                    remove_tree(&staging)?;
                }
            }
        }
        Ok(())
    }
}

impl Held {
    /// The staging directory of the volume, made if need be.
    pub fn staging(&self) -> Result<PathBuf, PoolError> {
        let path = self.pools.staging_of(&self.dataset)?;
        make_dir(&path)?;
        Ok(path)
    }

    /// The volume's present tree, if it has one.
    pub fn tree(&self) -> Option<PathBuf> {
        self.pools.tree(&self.dataset).ok()
    }

    /// Makes everything in staging durable, then puts `new`, a tree there, in the volume's place in one step and
    /// removes what was there. A crash before the step leaves the old tree, after it the new one.
    pub fn switch_in(&self, new: &Path) -> Result<(), PoolError> {
        let staging = self.staging()?;
        let tree = self.pools.place(&self.dataset)?;
        let marker = staging.join("switching");
        fs::write(&marker, b"").map_err(|e| PoolError::io(&marker, "written", e))?;
        let handle = fs::File::open(&staging).map_err(|e| PoolError::io(&staging, "opened", e))?;
        rustix::fs::syncfs(&handle).map_err(|e| PoolError::io(&staging, "made durable", e))?;

        crash::point("transfer-before-switch");
        let mode = loosen(new)?;
        if tree.exists() {
            loosen(&tree)?;
            match renameat_with(CWD, new, CWD, &tree, RenameFlags::EXCHANGE) {
                Ok(()) => {}
                Err(Errno::INVAL | Errno::NOSYS) => {
                    let aside = staging.join("aside");
                    fs::rename(&tree, &aside).map_err(|e| PoolError::io(&tree, "set aside", e))?;
                    fs::rename(new, &tree).map_err(|e| PoolError::io(&tree, "switched in", e))?;
                }
                Err(e) => return Err(PoolError::io(&tree, "switched in", e)),
            }
        } else {
            fs::rename(new, &tree).map_err(|e| PoolError::io(&tree, "switched in", e))?;
        }
        crash::point("transfer-after-switch");
        if let Some(mode) = mode {
            set_mode(&tree, mode)?;
        }
        tree.parent().map_or(Ok(()), sync_dir)?;
        sync_dir(&staging)?;
        remove_tree(&staging)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut holds = self.pools.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.dataset.clone();
        match holds.get(&key) {
            Some(Hold::Readers(n)) if *n > 1 => {
                let left = Hold::Readers(n - 1);
                holds.insert(key, left);
            }
            _ => {
                holds.remove(&key);
            }
        }
    }
}

/// On a file system without exchanging renames the old tree is set aside first; put it back if the new one
/// did not make it.
fn undo_halfway_switch(area: &Path, staging: &Path) -> Result<(), PoolError> {
    let (Some(name), aside) = (staging.file_name(), staging.join("aside")) else { return Ok(()) };
    let tree = area.join(name);
    if aside.is_dir() && !tree.exists() {
        fs::rename(&aside, &tree).map_err(|e| PoolError::io(&tree, "restored", e))?;
        sync_dir(area)?;
    }
    Ok(())
}

/// Moving a directory writes its `..`, which its owner, unless root, may do only with write permission on it. Gives
/// back the mode to restore, if it was changed.
fn loosen(tree: &Path) -> Result<Option<u32>, PoolError> {
    let mode = fs::metadata(tree).map_err(|e| PoolError::io(tree, "read", e))?.mode() & 0o7777;
    if mode & 0o200 != 0 || rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    set_mode(tree, mode | 0o200)?;
    Ok(Some(mode))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), PoolError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| PoolError::io(path, "changed", e))
}

/// Removes a tree, also one with directories that its owner may not write to.
pub fn remove_tree(path: &Path) -> Result<(), PoolError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            // Parents come before what is in them, so each is readable by the time it is entered.
            for entry in walkdir::WalkDir::new(path).into_iter().flatten() {
                if entry.file_type().is_dir() {
                    set_mode(entry.path(), 0o700)?;
                }
            }
            fs::remove_dir_all(path).map_err(|e| PoolError::io(path, "removed", e))
        }
        Err(e) => Err(PoolError::io(path, "removed", e)),
    }
}

fn make_dir(path: &Path) -> Result<(), PoolError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| PoolError::io(path, "created", e))
}

fn sync_dir(path: &Path) -> Result<(), PoolError> {
    fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| PoolError::io(path, "made durable", e))
}

fn entries_of(path: &Path) -> Result<Vec<PathBuf>, PoolError> {
    fs::read_dir(path)
        .and_then(|dir| dir.map(|entry| entry.map(|e| e.path())).collect())
        .map_err(|e| PoolError::io(path, "read", e))
}

/// The directories in `path` whose names are names, sorted.
fn names_in<T: std::str::FromStr + Ord>(path: &Path) -> Result<Vec<T>, PoolError> {
    let mut names: Vec<T> = entries_of(path)?
        .iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .collect();
    names.sort();
    Ok(names)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PoolError> + Send + 'static,
) -> Result<T, PoolError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(PoolError::io(Path::new("pool"), "reached", io::Error::other(e))),
    }
}
