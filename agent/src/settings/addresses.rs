//! Where this agent is reached, as tokens and server information tell it: changes when the listener moves.

use std::sync::{Arc, PoisonError, RwLock};

/// The addresses of this moment, `host:port`. None: nobody can dial this agent.
#[derive(Debug)]
pub struct Addresses(RwLock<Arc<[String]>>);

impl Addresses {
    pub fn new(addresses: impl Into<Arc<[String]>>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(addresses.into())))
    }

    pub fn current(&self) -> Arc<[String]> {
        // One pointer is swapped, so a panic elsewhere leaves nothing half done.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn replace(&self, addresses: impl Into<Arc<[String]>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addresses.into();
    }
}
