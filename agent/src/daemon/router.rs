//! What a linked peer opens on its session, given to the floor that it is for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;

use crate::api::listener::Api;
use crate::mesh::Mesh;
use crate::peering::Peering;

use crate::tunnel::{Incoming, Router, Session};
use crate::wire::link::{Refusal, StreamHeader};

/// Streams for the API that one session may have open. Each is a connection of HTTP, which costs more to begin than a stream:
/// thousands at once, on a machine with little to spare, kept other links' heartbeats from being sent for ten seconds.
const MAX_API: usize = 256;

/// Knows the floors, so that they need not know each other.
pub struct Streams {
    pub peering: Arc<Peering>,
    pub mesh: Arc<Mesh>,
    pub api: Api,
    pub open: Arc<Open>,
}

/// How many streams for the API each session has open, by its id. Not each peer: what is left of the session before, whose
/// streams take a moment to end, would be held against the one that a peer begins anew.
#[derive(Debug, Default)]
pub struct Open(Mutex<BTreeMap<u64, usize>>);

/// One of them, for as long as it is kept.
#[derive(Debug)]
struct Place {
    open: Arc<Open>,
    session: u64,
}

impl Open {
    /// `None` if the session has all that it may have.
    fn take(self: &Arc<Self>, session: u64) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(session).or_default();
        (*count < MAX_API).then(|| {
            *count += 1;
            Place { open: self.clone(), session }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.session) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.session);
            }
        }
    }
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
                let place = self.open.take(session.id());
                Box::pin(async move {
                    let Some(_place) = place else {
                        return incoming.refuse(Refusal::Unavailable, "too many requests at once").await;
                    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_its_share_of_the_api_and_no_more() {
        let open = Arc::new(Open::default());
        let (one, other) = (1, 2);
        let mut places: Vec<_> = (0..MAX_API).map_while(|_| open.take(one)).collect();
        assert_eq!(places.len(), MAX_API);
        assert!(open.take(one).is_none());
        assert!(open.take(other).is_some());
        places.pop();
        assert!(open.take(one).is_some());
        drop(places);
        assert!(open.0.lock().unwrap().is_empty(), "nobody is remembered who has none open");
    }
}
