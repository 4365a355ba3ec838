//! Pools whose folder is away: its file system is not mounted, or somebody took it.

use std::fs;

use schema::name::PoolName;

use super::{PoolError, Pools, blocking, sync_dir};

impl Pools {
    /// Whether there is such a pool in a folder of the administrator's, and nothing of it can be reached there now.
    pub fn is_away(&self, pool: &PoolName) -> bool {
        !self.exists(pool) && self.root.join(pool.as_str()).is_symlink()
    }

    /// Forgets a pool that is away. What its folder holds, wherever it is, stays as it is.
    pub async fn forget_pool(&self, pool: &PoolName) -> Result<(), PoolError> {
        let (pools, pool) = (self.clone(), pool.clone());
        blocking(move || {
            let _turn = pools.turn();
            let place = pools.root.join(pool.as_str());
            if !pools.is_away(&pool) {
                return Err(PoolError::NoSuchPool(pool));
            }
            fs::remove_file(&place).map_err(|e| PoolError::io(&place, "removed", e))?;
            sync_dir(&pools.root)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pool_that_is_away_is_known_and_can_be_forgotten() {
        let scratch = tempfile::tempdir().unwrap();
        let pools = Pools::open(&scratch.path().join("data")).unwrap();
        let (pool, folder) = ("fast".parse().unwrap(), scratch.path().join("fast"));
        pools.create_pool(&pool, Some(&folder)).await.unwrap();
        assert!(!pools.is_away(&pool) && pools.forget_pool(&pool).await.is_err());
        fs::rename(&folder, scratch.path().join("gone")).unwrap();
        assert!(pools.is_away(&pool) && pools.list().unwrap().contains(&pool));
        pools.forget_pool(&pool).await.unwrap();
        assert!(!pools.is_away(&pool) && !pools.list().unwrap().contains(&pool));
        assert!(scratch.path().join("gone/custom").is_dir());
        assert!(!pools.is_away(&"never".parse().unwrap()));
    }
}
