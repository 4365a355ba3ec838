//! What interrupted transfers have left in staging: it is kept for resuming, and can be thrown away.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::PoisonError;
use std::time::SystemTime;

use super::{AREAS, PoolError, Pools, STAGING_KEPT, Use, entries_of, remove_tree};
use crate::dataset::{Dataset, Owner, survey};

/// What has arrived of a dataset and is not in its place.
#[derive(Debug, Clone)]
pub struct Left {
    pub dataset: Dataset,
    /// Bytes of disk that it takes up.
    pub bytes: u64,
    pub last_written: Option<SystemTime>,
}

impl Pools {
    /// Every staging area with something in it that nobody is filling at the moment. Walks them: for a blocking thread.
    pub fn left(&self) -> Result<Vec<Left>, PoolError> {
        let mut all = Vec::new();
        for pool in self.list()? {
            // One disk that is away keeps nobody from the others.
            let Ok(base) = self.pool(&pool) else { continue };
            for area in AREAS {
                for staging in entries_of(&base.join(".staging").join(area)).unwrap_or_default() {
                    let owner = staging.file_name().and_then(|name| Owner::in_folder(area, name.to_str()?));
                    let Some(owner) = owner else { continue };
                    let dataset = Dataset { pool: pool.clone(), owner };
                    // Looked at only: nobody who goes on with it is kept waiting for that.
                    if self.in_use(&dataset) {
                        continue;
                    }
                    let (mut bytes, mut last_written, mut any) = (0, None, false);
                    for entry in walkdir::WalkDir::new(&staging).min_depth(1).into_iter().flatten() {
                        let Ok(meta) = entry.metadata() else { continue };
                        // What an attempt begins with is no data yet: the folder of the attempt, and that of a tree.
                        any |= !meta.is_dir() || entry.depth() > 2;
                        bytes += meta.blocks() * 512;
                        last_written = last_written.max(meta.modified().ok());
                    }
                    if any && !self.in_use(&dataset) {
                        all.push(Left { dataset, bytes, last_written });
                    }
                }
            }
        }
        Ok(all)
    }

    /// Throws away what interrupted transfers have left so long ago that nobody goes on with it. Walks it: for a blocking
    /// thread.
    pub fn sweep(&self) -> Result<(), PoolError> {
        for left in self.left()? {
            if recently_changed(&self.staging_of(&left.dataset)?, usize::MAX) {
                continue;
            }
            // Whoever went on with it meanwhile has moved what is at its top.
            match self.discard_if(&left.dataset, |staging| !recently_changed(staging, 1)) {
                Ok(true) => {
                    tracing::info!(dataset = %left.dataset, "threw away what a transfer left that nobody went on with");
                }
                Ok(false) | Err(PoolError::Busy(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Whether anybody holds the dataset at the moment.
    fn in_use(&self, dataset: &Dataset) -> bool {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).contains_key(dataset)
    }

    /// Throws away what has arrived of a dataset; what is in its place stays. False, if there was nothing.
    pub fn discard(&self, dataset: &Dataset) -> Result<bool, PoolError> {
        self.discard_if(dataset, |_| true)
    }

    fn discard_if(&self, dataset: &Dataset, is_due: impl FnOnce(&Path) -> bool) -> Result<bool, PoolError> {
        let _held = self.hold(dataset, Use::Replacing)?;
        let staging = self.staging_of(dataset)?;
        if !staging.exists() || !is_due(&staging) {
            return Ok(false);
        }
        // Something decided on and not finished would be undone by half.
        let tree = self.place(dataset)?;
        let references = self.references_at(dataset)?;
        if super::switch::finish(&staging, &tree, &references)? {
            return Ok(false);
        }
        remove_tree(&staging)?;
        Ok(true)
    }
}

/// Whether anything in a staging area was changed not too long ago. The times of files are those of their source: what
/// counts is when they were set. As deep as `depth`.
fn recently_changed(staging: &Path, depth: usize) -> bool {
    let kept = i64::try_from(STAGING_KEPT.as_secs()).unwrap_or(i64::MAX);
    let oldest = survey::now() / 1_000_000_000 - kept;
    walkdir::WalkDir::new(staging)
        .max_depth(depth)
        .into_iter()
        .flatten()
        .any(|entry| entry.metadata().is_ok_and(|meta| MetadataExt::ctime(&meta) >= oldest))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    #[test]
    fn what_an_interrupted_transfer_left_is_listed_and_can_be_thrown_away() {
        let scratch = tempfile::tempdir().unwrap();
        let pools = Pools::open(scratch.path()).unwrap();
        let pool = "default".parse().unwrap();
        let volume = Dataset::volume(&pool, &"orders".parse().unwrap());
        let instance = Dataset::instance(&pool, &"blue".parse().unwrap(), &"c1".parse().unwrap());
        for dataset in [&volume, &instance] {
            let held = pools.hold(dataset, Use::Replacing).unwrap();
            let staging = held.staging().unwrap();
            assert!(pools.left().unwrap().iter().all(|left| left.dataset != *dataset), "it is in use");
            fs::write(staging.join("file"), [1; 5000]).unwrap();
        }
        let mut left: Vec<Dataset> = pools.left().unwrap().into_iter().map(|left| left.dataset).collect();
        left.sort();
        let mut all = vec![volume.clone(), instance.clone()];
        all.sort();
        assert_eq!(left, all);
        assert!(pools.left().unwrap().iter().all(|left| left.bytes >= 5000));
        assert!(pools.discard(&volume).unwrap());
        assert!(!pools.discard(&volume).unwrap());
        assert_eq!(pools.left().unwrap().len(), 1);
        // What is as new as this stays.
        pools.sweep().unwrap();
        assert_eq!(pools.left().unwrap().len(), 1);
        // Folders alone are data as well.
        let staging = pools.hold(&volume, Use::Replacing).unwrap().staging().unwrap();
        fs::create_dir_all(staging.join("now/.main")).unwrap();
        assert_eq!(pools.left().unwrap().len(), 1);
        fs::create_dir_all(staging.join("now/.main/a/a")).unwrap();
        assert_eq!(pools.left().unwrap().len(), 2);
        assert!(pools.discard(&volume).unwrap());
        assert_eq!(pools.left().unwrap().len(), 1);
        let _held = pools.hold(&instance, Use::Replacing).unwrap();
        assert!(matches!(pools.discard(&instance), Err(PoolError::Busy(_))));
    }

    #[test]
    fn looking_at_what_was_left_keeps_nobody_from_going_on_with_it() {
        let scratch = tempfile::tempdir().unwrap();
        let pools = Pools::open(scratch.path()).unwrap();
        let volume = Dataset::volume(&"default".parse().unwrap(), &"orders".parse().unwrap());
        let staging = pools.hold(&volume, Use::Replacing).unwrap().staging().unwrap();
        for number in 0..200 {
            fs::write(staging.join(number.to_string()), [1; 100]).unwrap();
        }
        let looked = AtomicU64::new(0);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    pools.left().unwrap();
                    pools.sweep().unwrap();
                    looked.fetch_add(1, Ordering::Relaxed);
                }
            });
            let mut busy = 0;
            while looked.load(Ordering::Relaxed) < 20 {
                busy += u32::from(pools.hold(&volume, Use::Replacing).is_err());
            }
            done.store(true, Ordering::Relaxed);
            assert_eq!(busy, 0);
        });
        assert_eq!(pools.left().unwrap().len(), 1);
    }
}
