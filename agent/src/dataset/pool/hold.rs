//! Who is using a dataset: any number of readers, or one that replaces it.

use std::path::PathBuf;
use std::sync::PoisonError;

use super::folder::make_dir;
use super::{PoolError, Pools, switch};
use crate::dataset::Dataset;

#[derive(Debug, Clone, Copy)]
pub(super) enum Hold {
    Readers(usize),
    Writer,
}

/// How a dataset is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Reading,
    Replacing,
}

/// Keeps others from changing (or, if exclusive, from using) a dataset until dropped.
#[derive(Debug)]
pub struct Held {
    pub(super) pools: Pools,
    pub(super) dataset: Dataset,
    /// What the tree that is put in its place may hold.
    pub(super) size: Option<u64>,
}

impl Pools {
    /// Holds the dataset: any number may read it, one alone may replace it. It need not be there.
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
        Ok(Held { pools: self.clone(), dataset: dataset.clone(), size: None })
    }
}

impl Held {
    /// The same, and no tree with more data than this takes its place (LXD: size). `None`: any does.
    #[must_use]
    pub fn of_size(mut self, size: Option<u64>) -> Self {
        self.size = size;
        self
    }

    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// The staging directory of the dataset, made if need be.
    pub fn staging(&self) -> Result<PathBuf, PoolError> {
        let path = self.pools.staging_of(&self.dataset)?;
        if path.join(switch::SWITCHING).exists() {
            // A switch that was decided and could not be done to its end, for want of space perhaps.
            let references = self.pools.references_at(&self.dataset)?;
            switch::finish(&path, &self.pools.place(&self.dataset)?, &references)?;
        }
        make_dir(&path)?;
        Ok(path)
    }

    /// The dataset's present tree, if it has one.
    pub fn tree(&self) -> Option<PathBuf> {
        self.pools.tree(&self.dataset).ok()
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
