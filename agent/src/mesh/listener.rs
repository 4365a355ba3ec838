//! One upstream's local port, and the connections that are made to it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schema::access::Source;
use schema::name::LinkName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::admission::{Request, Standing};
use super::instance::reach;
use super::outbound::Route;
use super::relay::{relay, reset};
use super::traffic::{Counters, Pair};
use super::{Mesh, drained};
use crate::sockets::Lease;
use crate::tunnel::{OpenError, Session, TunnelStream};
use crate::wire::link::{Refusal, StreamHeader};
use crate::wire::service::PortState;
use crate::wire::traffic::{Cause, Denial};

/// Connections that one upstream's port may have open; more wait in the socket's queue.
const MAX_OPEN: usize = 1024;

/// First and longest wait before a port that is in use is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Wait after an accept that failed for want of something (file descriptors), which only time brings back.
const STARVED: Duration = Duration::from_millis(100);

/// Sessions that one connection tries. Each but the last closed, or its peer went away, at that very moment.
const MOST_SESSIONS: usize = 3;

/// Listens until `route`'s sender is gone or the agent drains.
pub(super) async fn listen(mesh: Arc<Mesh>, address: SocketAddr, mut route: watch::Receiver<Arc<Route>>) {
    let ending = mesh.parts.tasks.ending();
    // The lease is the first to go, before the listener does.
    let (_lease, bound) = tokio::select! {
        () = ending.cancelled() => return,
        () = gone(route.clone()) => return,
        bound = bind(&mesh, address, &route) => bound,
    };
    let places = Arc::new(Semaphore::new(MAX_OPEN));
    loop {
        let accept = async {
            // The semaphore is never closed, so that the place is always there in the end.
            let place = places.clone().acquire_owned().await.ok();
            (place, bound.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = ending.cancelled() => return,
            changed = route.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            accepted = accept => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                let (mesh, route) = (mesh.clone(), route.clone());
                mesh.parts.tasks.clone().spawn("connection", async move {
                    connect(&mesh, socket, route).await;
                    drop(place);
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%address, %error, "an upstream's port takes no connections for now");
                tokio::time::sleep(STARVED).await;
            }
        }
    }
}

/// Resolves when the listener is to stop.
async fn gone(mut route: watch::Receiver<Arc<Route>>) {
    while route.changed().await.is_ok() {}
}

async fn bind(mesh: &Mesh, address: SocketAddr, route: &watch::Receiver<Arc<Route>>) -> (Lease, TcpListener) {
    let mut wait = RETRY.0;
    let mut told = None;
    loop {
        let opened = mesh.parts.sockets.listen_tcp(address);
        let opened = opened.and_then(|(socket, lease)| Ok((lease, TcpListener::from_std(socket)?)));
        let error = match opened {
            Ok(bound) => {
                let route = route.borrow().clone();
                tracing::info!(%address, service = %route.owner, destination = %route.destination, "upstream listens");
                mesh.upstreams.set(address, PortState::Listening);
                return bound;
            }
            Err(error) => error,
        };
        if told != Some(error.kind()) {
            told = Some(error.kind());
            tracing::warn!(%address, service = %route.borrow().owner, %error, "an upstream's port cannot be opened; trying on");
            mesh.upstreams.set(address, PortState::Waiting { reason: error.to_string() });
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

/// Carries one connection to its end, or until the route is another.
async fn connect(mesh: &Mesh, mut socket: TcpStream, mut routes: watch::Receiver<Arc<Route>>) {
    let route = routes.borrow_and_update().clone();
    let arrived = Instant::now();
    let pair = Pair::upstream(route.owner.clone(), route.destination.clone(), route.peer.clone());
    // Small writes of the far end must not wait for the app's acknowledgement.
    let _ = socket.set_nodelay(true);
    let ended = tokio::select! {
        biased;
        () = rerouted(mesh, &mut routes) => Err(Failed::Rerouted),
        () = drained(&mesh.parts.tasks) => Err(Failed::Draining),
        ended = async {
            match &route.peer {
                Some(link) => abroad(mesh, &mut socket, &route, link, pair, arrived).await,
                None => at_home(mesh, &mut socket, &route, pair, arrived).await,
            }
        } => ended,
    };
    let Err(failed) = ended else { return };
    reset(&socket);
    let (source, destination) = (&route.owner, &route.destination);
    let link = route.peer.as_ref().map(tracing::field::display);
    match &failed {
        Failed::Rerouted => {
            tracing::info!(%source, %destination, link, "connection cut: its upstream was changed");
        }
        Failed::Broke(error) => tracing::debug!(%source, %destination, link, %error, "connection broke"),
        Failed::Counted | Failed::Draining => {}
    }
}

/// Resolves when the upstream leads elsewhere or is gone. Routes also go when the agent drains: then what is open may
/// end by itself for a while.
async fn rerouted(mesh: &Mesh, routes: &mut watch::Receiver<Arc<Route>>) {
    if routes.changed().await.is_err() && mesh.parts.tasks.ending().is_cancelled() {
        std::future::pending::<()>().await;
    }
}

/// Why a connection did not end by itself.
enum Failed {
    /// Never made, or its permit fell: counted and told already.
    Counted,
    /// The upstream leads elsewhere now, or is gone.
    Rerouted,
    Broke(io::Error),
    Draining,
}

async fn abroad(
    mesh: &Mesh,
    socket: &mut TcpStream,
    route: &Route,
    link: &LinkName,
    pair: Pair,
    arrived: Instant,
) -> Result<(), Failed> {
    let counters = mesh.traffic.of(pair);
    let header = StreamHeader::Service {
        destination: route.destination.clone(),
        source: route.owner.clone(),
        from: None,
    };
    let mut stream = open(mesh, link, &header, &counters).await?;
    let _open = counters.carried(arrived.elapsed());
    relay(socket, &mut stream, counters.sent(), counters.received()).await.map_err(Failed::Broke)
}

/// Opens a stream over the link's session; one that turns out to take none is replaced by the next.
async fn open(
    mesh: &Mesh,
    link: &LinkName,
    header: &StreamHeader,
    counters: &Counters,
) -> Result<TunnelStream, Failed> {
    let mut tried: Option<Session> = None;
    for _ in 0..MOST_SESSIONS {
        // Waits for a link that is expected back, and for no other.
        let session = mesh.parts.sessions.wait(link, tried.as_ref()).await;
        let Some(session) = session else { break };
        match session.open(header).await {
            Ok(stream) => return Ok(stream),
            Err(OpenError::Closed | OpenError::Leaving) => tried = Some(session),
            Err(OpenError::Refused { code: Refusal::Denied, message }) => {
                counters.denied(Denial::Peer, &format!("{link} says: {message}"));
                return Err(Failed::Counted);
            }
            Err(error) => {
                let cause = match &error {
                    OpenError::TooMany => Cause::TooMany,
                    OpenError::Refused { .. } => Cause::Peer,
                    _ => Cause::LinkDown,
                };
                counters.failed(cause, &error);
                return Err(Failed::Counted);
            }
        }
    }
    counters.failed(Cause::LinkDown, &format!("there is no connection to {link}"));
    Err(Failed::Counted)
}

/// A destination of this cluster: the same question as a peer's connection meets, and the same watch on the answer.
async fn at_home(
    mesh: &Mesh,
    socket: &mut TcpStream,
    route: &Route,
    pair: Pair,
    arrived: Instant,
) -> Result<(), Failed> {
    let request = Request {
        source: Source { peer: None, service: route.owner.clone() },
        destination: route.destination.clone(),
    };
    let (standing, admitted) = match Standing::decide(&mesh.parts, &request, None) {
        Ok(decided) => decided,
        Err(refused) => {
            mesh.traffic.refused(pair, &refused);
            return Err(Failed::Counted);
        }
    };
    let counters = mesh.traffic.of(pair.under(&admitted.reason));
    let mut instance = match reach(&mesh.parts.health, &route.destination, &admitted).await {
        Ok(instance) => instance,
        Err(unreachable) => {
            counters.failed(unreachable.cause(), &unreachable);
            return Err(Failed::Counted);
        }
    };
    let _open = counters.carried(arrived.elapsed());
    let ended = tokio::select! {
        biased;
        refused = standing.fallen() => {
            counters.cut(&refused);
            Err(Failed::Counted)
        }
        ended = relay(socket, &mut instance, counters.sent(), counters.received()) => ended.map_err(Failed::Broke),
    };
    if ended.is_err() {
        reset(&instance);
    }
    ended
}
