//! What a linked peer opens on its session, given to the floor that it is for.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::mesh::Mesh;
use crate::peering::Peering;
use crate::tunnel::{Incoming, Router, Session};
use crate::wire::link::{Refusal, StreamHeader};

/// Knows the floors, so that they need not know each other.
pub struct Streams {
    pub peering: Arc<Peering>,
    pub mesh: Arc<Mesh>,
}

impl Router for Streams {
    fn route(&self, session: &Session, incoming: Incoming) -> BoxFuture<'static, ()> {
        match incoming.header {
            StreamHeader::Sync { .. } | StreamHeader::Farewell => self.peering.serve(session, incoming),
            StreamHeader::Service { .. } => Box::pin(self.mesh.clone().serve(session.clone(), incoming)),
            StreamHeader::Api => Box::pin(incoming.refuse(Refusal::Unavailable, "not ready")),
        }
    }

    fn arrived(&self, session: &Session) {
        self.peering.adopt(session.clone());
    }
}
