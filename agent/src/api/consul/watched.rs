//! What a blocking query of the store waits for: a commit that touches what it looks at.

use std::future::pending;
use std::sync::Arc;

use super::answer::ConsulError;
use super::asked::Asked;
use super::blocking::Changes;
use crate::api::ApiState;
use crate::store::{CommitError, Revision, Store, StoreError, Txn, Watch};

/// Commits that touch a prefix of the store.
#[derive(Debug)]
pub struct Watched(Option<Following>);

struct Following {
    store: Arc<dyn Store>,
    prefix: String,
    watch: Watch,
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Following({})", self.prefix)
    }
}

impl Watched {
    /// From now on, for a query that waits; one that does not is spared the watch.
    pub async fn begin(state: &ApiState, asked: &Asked, prefix: String) -> Result<Self, ConsulError> {
        if asked.index.is_none() {
            return Ok(Self::nothing());
        }
        let store = Arc::clone(&state.store);
        let watch = watch(&*store, &prefix).await?;
        Ok(Self(Some(Following { store, prefix, watch })))
    }

    /// What never changes.
    pub fn nothing() -> Self {
        Self(None)
    }
}

async fn watch(store: &dyn Store, prefix: &str) -> Result<Watch, StoreError> {
    // Nothing is written: an empty transaction tells the revision of now.
    let revision: Revision = match store.commit(Txn::default()).await {
        Ok(revision) => revision,
        Err(CommitError::Store(error)) => return Err(error),
        // It has neither guards nor writes.
        Err(CommitError::Conflict(_) | CommitError::DuplicateKey(_)) => Revision::default(),
    };
    store.watch(prefix, revision).await
}

impl Changes for Watched {
    async fn next(&mut self) {
        let Some(following) = &mut self.0 else { return pending().await };
        if let Some(Ok(_)) = following.watch.recv().await {
            // What has come in meanwhile is seen at the next look as well.
            while let Ok(Ok(_)) = following.watch.try_recv() {}
            return;
        }
        // Fallen behind: watched anew, and looked at whatever it was.
        match watch(&*following.store, &following.prefix).await {
            Ok(watch) => following.watch = watch,
            // The store is closing, and so is the agent.
            Err(_) => self.0 = None,
        }
    }
}
