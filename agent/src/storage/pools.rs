//! Storage pools as records: what they are set to, and that they are made and deleted.
//!
//! That a pool exists is the disk's to say (`dataset`); what is set of it is here. `default` is always there and need
//! not have a record.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use schema::kind::Kind;
use schema::name::PoolName;
use schema::record::RecordKey;
use serde::{Deserialize, Serialize};

use super::Instance;
use super::config;
use crate::audit::{Action, Audit, Record, Writes};
use crate::authorize::Permit;
use crate::dataset::pool::DEFAULT_POOL;
use crate::dataset::{PoolError, Pools};
use crate::store::value::{ValueError, decode, encode};
use crate::store::{CommitError, Guard, Op, Revision, Store, StoreError, Txn, keys};

/// Most pools.
const MOST: usize = 1000;

/// What `/storage-pool/NAME` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoragePool {
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

/// A pool, and the revision that last changed it (0: as it came).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub pool: StoragePool,
    pub revision: Revision,
}

/// Why a pool was not read or changed, in LXD's words where it has some.
#[derive(Debug, thiserror::Error)]
pub enum StoragePoolError {
    #[error("Storage pool not found")]
    NotFound,
    #[error("Storage pool {0} is unavailable: its folder is away; is its file system mounted?")]
    Unavailable(PoolName),
    #[error("The storage pool already exists")]
    Exists,
    #[error("The storage pool is currently in use")]
    InUse,
    #[error("The storage pool \"default\" is always there and cannot be deleted")]
    Default,
    #[error("Pool source cannot be changed when not in pending state")]
    Source,
    #[error("There are {MOST} storage pools already")]
    TooMany,
    #[error("others keep changing the same; try again")]
    Contended,
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Commit(CommitError),
}

impl From<CommitError> for StoragePoolError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) => Self::Contended,
            other => Self::Commit(other),
        }
    }
}

/// The folder that a pool was made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It was not there before.
    Made,
    Found,
}

/// The pools of this agent.
pub struct StoragePools {
    store: Arc<dyn Store>,
    audit: Arc<Audit>,
    pools: Pools,
}

impl StoragePools {
    pub fn new(store: Arc<dyn Store>, pools: Pools, audit: Arc<Audit>) -> Arc<Self> {
        Arc::new(Self { store, audit, pools })
    }

    /// A pool, also one whose folder is away.
    pub async fn get(&self, name: &PoolName) -> Result<Held, StoragePoolError> {
        if !self.pools.exists(name) && !self.pools.is_away(name) {
            return Err(StoragePoolError::NotFound);
        }
        Ok(match self.store.get(&keys::storage_pool(name)).await? {
            Some(entry) => Held { pool: decode(&entry)?, revision: entry.modify_revision },
            None => usual(),
        })
    }

    /// Every pool by name.
    pub async fn all(&self) -> Result<BTreeMap<PoolName, Held>, StoragePoolError> {
        let mut all: BTreeMap<PoolName, Held> =
            self.pools.list()?.into_iter().map(|name| (name, usual())).collect();
        for entry in self.store.range(keys::STORAGE_POOL).await?.entries {
            let name = keys::last_part(&entry.key).parse::<PoolName>().ok();
            // One that has gone from the disk is not there, whatever is set of it.
            if let Some(held) = name.and_then(|name| all.get_mut(&name)) {
                *held = Held { pool: decode(&entry)?, revision: entry.modify_revision };
            }
        }
        Ok(all)
    }

    /// Makes a pool: in the data directory, or in a folder of the administrator's.
    pub async fn create(
        &self,
        permit: &Permit,
        name: &PoolName,
        mut pool: StoragePool,
        now: Timestamp,
    ) -> Result<Source, StoragePoolError> {
        if self.pools.exists(name) || self.pools.is_away(name) {
            return Err(StoragePoolError::Exists);
        }
        if self.pools.list()?.len() >= MOST {
            return Err(StoragePoolError::TooMany);
        }
        let source = pool.config.get(config::SOURCE).map(PathBuf::from);
        if let Some(source) = pool.config.get(config::SOURCE).cloned() {
            pool.config.insert(config::INITIAL_SOURCE.to_owned(), source);
        }
        let found = source.as_ref().is_some_and(|source| source.exists());
        self.pools.create_pool(name, source.as_deref()).await?;
        let put = Op::Put { key: keys::storage_pool(name), value: encode(&pool) };
        // What an earlier pool of that name was set to, and lost by a crash, is of no interest.
        let txn = Txn { guards: Vec::new(), ops: vec![put] };
        self.commit(permit, Action::StoragePoolCreated, name, txn, now).await?;
        Ok(if found { Source::Found } else { Source::Made })
    }

    /// Puts `pool` in place of what it was at `base`.
    pub async fn update(
        &self,
        permit: &Permit,
        name: &PoolName,
        base: &Held,
        mut pool: StoragePool,
        now: Timestamp,
    ) -> Result<(), StoragePoolError> {
        for key in [config::SOURCE, config::INITIAL_SOURCE] {
            let (was, is) = (base.pool.config.get(key), pool.config.get(key));
            match (was, is) {
                (was, is) if was == is => {}
                // Whoever leaves it out means what it is.
                (Some(was), None) => {
                    pool.config.insert(key.to_owned(), was.clone());
                }
                _ => return Err(StoragePoolError::Source),
            }
        }
        let key = keys::storage_pool(name);
        let guards = vec![Guard { key: key.clone(), modify_revision: base.revision }];
        let txn = Txn { guards, ops: vec![Op::Put { key, value: encode(&pool) }] };
        self.commit(permit, Action::StoragePoolUpdated, name, txn, now).await
    }

    /// Deletes a pool that holds nothing. One that is away is forgotten, if nothing is recorded to be in it.
    pub async fn delete(
        &self,
        permit: &Permit,
        name: &PoolName,
        now: Timestamp,
    ) -> Result<(), StoragePoolError> {
        if name.as_str() == DEFAULT_POOL {
            return Err(StoragePoolError::Default);
        }
        let is_away = self.pools.is_away(name);
        if !is_away && !self.pools.exists(name) {
            return Err(StoragePoolError::NotFound);
        }
        if self.is_used(name).await? {
            return Err(StoragePoolError::InUse);
        }
        if is_away {
            self.pools.forget_pool(name).await?;
        } else {
            // The disk refuses what holds data that no record speaks of.
            self.pools.delete_pool(name).await?;
        }
        let txn = Txn { guards: Vec::new(), ops: vec![Op::Delete { key: keys::storage_pool(name) }] };
        self.commit(permit, Action::StoragePoolDeleted, name, txn, now).await
    }

    async fn is_used(&self, name: &PoolName) -> Result<bool, StoragePoolError> {
        let volumes = self.store.range(&keys::declared_kind(Kind::Volume)).await?.entries;
        let holds = |key: &str| matches!(keys::declared_record(key), Some(RecordKey::Volume { pool, .. }) if pool == *name);
        if volumes.iter().any(|entry| holds(&entry.key)) {
            return Ok(true);
        }
        for entry in self.store.range(keys::CONTAINER).await?.entries {
            if decode::<Instance>(&entry)?.pool == *name {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn commit(
        &self,
        permit: &Permit,
        action: Action,
        name: &PoolName,
        txn: Txn,
        now: Timestamp,
    ) -> Result<(), StoragePoolError> {
        let writes = Writes::of(&txn);
        let revision = self.store.commit(txn).await?;
        let told = Record::new(permit.caller(), action, now)
            .on(format!("/1.0/storage-pools/{name}"))
            .committed(writes, revision);
        self.audit.record(told);
        Ok(())
    }
}

/// A pool that nothing is set of.
fn usual() -> Held {
    Held { pool: StoragePool::default(), revision: Revision(0) }
}
