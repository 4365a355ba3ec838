//! What a linked peer opens on its session, given to the floor that it is for.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::api::listener::Api;
use crate::mesh::Mesh;
use crate::peering::Peering;
use crate::tunnel::{Incoming, Router, Session};
use crate::wire::link::StreamHeader;

/// Knows the floors, so that they need not know each other.
pub struct Streams {
    pub peering: Arc<Peering>,
    pub mesh: Arc<Mesh>,
    pub api: Api,
}

impl Router for Streams {
    fn route(&self, session: &Session, incoming: Incoming) -> BoxFuture<'static, ()> {
        match incoming.header {
            StreamHeader::Sync { .. }
            | StreamHeader::Farewell
            | StreamHeader::Succession
            | StreamHeader::Compromised => self.peering.serve(session, incoming),
            StreamHeader::Service { .. } => Box::pin(self.mesh.clone().serve(session.clone(), incoming)),
            StreamHeader::Api => {
                let (api, session) = (self.api.clone(), session.clone());
                Box::pin(async move {
                    match incoming.accept().await {
                        Ok(stream) => api.serve_stream(&session, stream).await,
                        Err(error) => tracing::debug!(%error, "a stream for the API broke"),
                    }
                })
            }
        }
    }

    fn arrived(&self, session: &Session) {
        self.peering.adopt(session.clone());
    }
}
