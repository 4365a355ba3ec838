//! Connections that a peer opens to services of this cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use schema::access::Source;
use schema::name::LinkName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::admission::{Request, link_of};
use super::grant::Wish;
use super::instance::reach;
use super::{Mesh, proxy_protocol, relay};
use crate::tunnel::{Incoming, Session};
use crate::wire::link::{Refusal, StreamHeader};
use crate::wire::traffic::{Cause, Way};

/// Connections that one link may have open here, so that one peer cannot take every socket there is.
const MAX_FROM_LINK: usize = 32_768;

/// All that a peer is told of a refusal: what is declared here is not its business.
const DENIED: &str = "denied";

/// What each link has left of its connections.
#[derive(Debug, Default)]
pub(super) struct Limits {
    by_link: Mutex<BTreeMap<LinkName, Arc<Semaphore>>>,
}

impl Limits {
    /// A place for one connection of `link`, unless it has them all.
    pub(super) fn take(&self, link: &LinkName) -> Option<OwnedSemaphorePermit> {
        let mut by_link = self.by_link.lock().unwrap_or_else(PoisonError::into_inner);
        let places = match by_link.get(link) {
            Some(places) => places.clone(),
            None => by_link.entry(link.clone()).or_insert(Arc::new(Semaphore::new(MAX_FROM_LINK))).clone(),
        };
        places.try_acquire_owned().ok()
    }
}

/// Serves one stream to its end.
pub(super) async fn serve(mesh: &Mesh, session: &Session, incoming: Incoming) {
    let arrived = Instant::now();
    let StreamHeader::Service { destination, source, from } = incoming.header.clone() else {
        incoming.refuse(Refusal::Malformed, "not a service stream").await;
        return;
    };
    let peer = session.peer();
    let Some(link) = link_of(&mesh.parts.identities, peer) else {
        let reason = format!("the certificate {peer} belongs to no link");
        mesh.traffic.stranger(&source, &destination, &reason);
        incoming.refuse(Refusal::Denied, DENIED).await;
        return;
    };
    let place = mesh.inbound.take(&link);
    let wish = Wish {
        request: Request { source: Source { peer: Some(link), service: source }, destination },
        peer: Some(peer),
        way: Way::Link,
    };
    let grant = match mesh.grants.ask(&wish) {
        Ok(grant) => grant,
        Err(refused) => {
            mesh.traffic.refused(wish.pair(), &refused);
            incoming.refuse(Refusal::Denied, DENIED).await;
            return;
        }
    };
    let counters = grant.counters();
    let Some(_place) = place else {
        let reason = format!("the link has {MAX_FROM_LINK} connections open, and no more are taken");
        counters.failed(Cause::TooMany, &reason);
        incoming.refuse(Refusal::Unavailable, "too many connections").await;
        return;
    };
    // The peer's word: what would mean something else here is not passed on.
    let from = from.filter(proxy_protocol::is_global);
    let reached = tokio::select! {
        biased;
        () = grant.cut().cancelled() => {
            if let Some(refused) = grant.why() {
                mesh.traffic.refused(wish.pair(), refused);
            }
            incoming.refuse(Refusal::Denied, DENIED).await;
            return;
        }
        reached = reach(mesh, &wish.request, &grant, from) => reached,
    };
    let instance = match reached {
        Ok(socket) => socket,
        Err(reason) => {
            counters.failed(reason.cause(), &reason);
            incoming.refuse(Refusal::Unavailable, "no healthy instance").await;
            return;
        }
    };
    let stream = match incoming.accept().await {
        Ok(stream) => stream,
        Err(error) => {
            instance.reset();
            let reason = format!("the peer went away before its connection was made: {error}");
            counters.failed(Cause::Gone, &reason);
            return;
        }
    };
    let _open = counters.carried(arrived.elapsed());
    tokio::select! {
        // First, so that not a byte passes after the permit has fallen. The stream is reset by being dropped.
        biased;
        () = grant.cut().cancelled() => {
            instance.reset();
            if let Some(refused) = grant.why() {
                counters.cut(refused);
            }
        }
        ended = relay::carry(&instance, stream, counters.of_instance()) => {
            if let Err(error) = ended {
                instance.reset();
                tracing::debug!(request = ?wish.request, %error, "connection broke");
            }
        }
    }
}
