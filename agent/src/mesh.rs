//! Traffic: local ports that lead to other services, and connections that peers open to ours.
//!
//! Outbound, each declared upstream has a loopback port; what connects there is carried over the session of the
//! link it names, in a stream that says which service calls which. Inbound, the link is known from the pinned
//! certificate of the session and never from a claim; the service must be exported to that link and an intention
//! must allow the pair, else the peer hears one word, `denied`, and our log the reason. A permit is not asked for
//! once: connections of one pair share a standing grant, which one task judges again with each change of the catalog
//! and the identities, and are cut when it falls.
//!
//! A connection is one task on either side. Its bytes pass through this process once each way (socket to stream,
//! stream to socket); half-closes are carried.
//!
//! What was tried, and what it gave, in processor time of both agents together (loopback, one thread each, a busy
//! machine of two cores; haproxy 2.6 beside it in the same minutes):
//!
//! - yamux over tokio-rustls, and 64 KiB of buffer for each direction: 52 us a request, 197 us a connection (five
//!   writes each), 2.9 s a gigabyte; haproxy 47 to 65 us, 1,900 us or more (a TLS handshake each), 1.3 to 2.1 s.
//! - Frames of our own, all that waits in one write: 10 us a request (one read and one write of a socket each, one write
//!   to the link for 26 of them), beside haproxy's 37 in the same minutes; 65 to 81 us a connection, most of it the kernel's.
//! - Bytes from the link written to the socket in the session's own turn, and no buffer while nothing passes: 1.05 s a
//!   gigabyte with one stream or eight, beside haproxy's 1.42 and 2.03; tunnel and relay hold 1.4 KiB for an idle connection.
//! - Windows that grow by a measured round trip: eight streams had a tenth of what one had, for on a busy machine it is the
//!   turns of the processor that take long. They grow when the sender says that it waits.
//! - Freed memory kept instead of given back at every 128 KiB: 2.1 instead of 3.3 s a gigabyte with the buffers of then.
//!   Another allocator (jemalloc): no difference. Both of one run.
//! - One thread that does everything instead of one worker beside the main thread: 128 instead of 244 us a connection (one run).
//! - The app's first bytes read as it is accepted, and sent with the opening; no option set on each accepted socket:
//!   62 us a connection, with haproxy's at 1,700.
//! - TLS_AES_128_GCM_SHA256 first, on a processor with VAES: no difference beyond the noise of that machine; rustls' order stays.
//! - Not built: a pool of warm TLS connections, one for each stream. Every message is then a record and a call to the
//!   system by itself, which is what haproxy's figures above are made of.
//! - Not built: a record layer of our own with rustls' keys, which would save rustls' copy of what is sent, and two of
//!   what is received, about a tenth of a gigabyte's cost, for code that must not be wrong.

mod admission;
mod bind;
mod carry;
mod door;
mod grant;
mod inbound;
mod instance;
mod listener;
mod outbound;
mod pace;
mod proxy_protocol;
mod relay;
mod resolve;
mod socket;
mod targets;
mod traffic;
mod users;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::catalog::{Catalog, Imports};
use crate::health::Health;
use crate::sockets::Sockets;
use crate::task::Tasks;
use crate::trust::identity::Identities;
use crate::trust::mesh::{MeshAuthority, PeerBundles};
use crate::tunnel::{Incoming, Session, Sessions};
use crate::wire::service::{MeshStatus, UpstreamRow};
pub use door::{Call, Visitor};
use grant::Grants;
use instance::Pools;
use outbound::Upstreams;
use traffic::Traffic;

/// What the mesh works with.
pub struct MeshParts {
    pub catalog: Arc<Catalog>,
    pub imports: Arc<Imports>,
    pub health: Arc<Health>,
    pub sessions: Arc<Sessions>,
    pub identities: Arc<Identities>,
    /// What gives services their certificates, and what linked clusters said of theirs.
    pub mesh_ca: Arc<MeshAuthority>,
    pub bundles: Arc<PeerBundles>,
    /// What earlier runs have left of the ports and sockets, and who keeps them for the next.
    pub sockets: Arc<Sockets>,
    pub tasks: Tasks,
}

/// The traffic of one agent.
pub struct Mesh {
    parts: MeshParts,
    traffic: Arc<Traffic>,
    upstreams: Upstreams,
    grants: Grants,
    pools: Pools,
    inbound: inbound::Limits,
    door: door::Door,
}

impl Mesh {
    pub fn new(parts: MeshParts) -> Arc<Self> {
        let traffic = Arc::<Traffic>::default();
        let grants = Grants::new(&parts, traffic.clone());
        Arc::new(Self {
            parts,
            grants,
            pools: Pools::default(),
            traffic,
            upstreams: Upstreams::default(),
            inbound: inbound::Limits::default(),
            door: door::Door::default(),
        })
    }

    /// Keeps the upstreams' ports as the catalog declares them, until the tasks end, and judges standing permits for as
    /// long as connections may be open.
    pub async fn run(self: Arc<Self>) {
        let (mesh, tasks) = (self.clone(), self.parts.tasks.clone());
        tasks.spawn("traffic", async move { mesh.traffic.tell(mesh.parts.tasks.ending()).await });
        let judge = self.clone();
        // Permits are judged for as long as a connection is open, and nobody waits for their judge: it would make every
        // drain last to its deadline.
        tokio::spawn(async move { judge.grants.run().await });
        outbound::run(self).await;
    }

    /// Serves one stream that a peer opened to one of our services, to its end.
    pub async fn serve(self: Arc<Self>, session: Session, incoming: Incoming) {
        inbound::serve(&self, &session, incoming).await;
    }

    /// Every upstream with the state of its port.
    pub fn upstreams(&self) -> Vec<UpstreamRow> {
        self.upstreams.rows(self)
    }

    pub fn status(&self) -> MeshStatus {
        MeshStatus {
            upstreams: self.upstreams(),
            traffic: self.traffic.rows(),
            age_ms: self.traffic.age_ms(),
        }
    }
}
