//! Takes in connections: the network's, told apart by ALPN and, those of
//! services that speak for themselves, by the server's name; the unix socket's, and streams of linked clusters.
//!
//! Everything that somebody unknown can make us hold is bounded: connections, handshakes, the time of each, headers.
//! A connection whose caller loses its identity is cut, not only refused its next request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::ApiState;
use super::callers::Callers;
use super::credential::Credentials;
use super::request::Connection;
use crate::mesh::Visitor;
use crate::strangers::{self, Stranger, Strangers};
use crate::task::Tasks;
use crate::trust::acme::challenge::ALPN_ACME;
use crate::trust::certificate::CertificateError;
use crate::trust::shown::Shown;
use crate::trust::{Origin, Who};
use crate::tunnel::tls;
use crate::tunnel::{self, ALPN_LINK, Room, Session, TunnelStream, connect};
use crate::wire::link::Refusal;

mod configs;
pub mod doors;
mod http;
pub mod network;
pub(super) mod plain;
pub mod socket;

use configs::Configs;

/// Most connections from the network at a time.
const MAX_CONNECTIONS: usize = 2048;
/// Most of them that may be of somebody who is not trusted, or not known yet. The rest is for those who are.
const MAX_STRANGERS: usize = 1024;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a link's connection may outlive its identity: time for both sides to part in order. What runs on it is cut
/// at once by whoever serves it.
const PARTING: Duration = Duration::from_secs(5);
/// How long to wait when the machine has no more descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// The API, ready to be served to whoever connects.
#[derive(Clone)]
pub struct Api {
    state: ApiState,
    app: Router,
    /// What is served in the clear.
    plain: Router,
    callers: Arc<Callers>,
}

/// Who is at the other end of a connection, as far as its handshake says.
enum Known {
    /// Somebody who calls the agent.
    Caller(Box<TlsStream<TcpStream>>),
    /// A service that calls another.
    Service(Box<Visitor>),
}

struct Network {
    api: Api,
    router: Arc<dyn tunnel::Router>,
    configs: Configs,
    strangers: Arc<Strangers>,
    places: Arc<Semaphore>,
}

impl Api {
    pub fn new(state: ApiState) -> Self {
        let callers = Arc::new(Callers {
            identities: state.identities.clone(),
            logins: state.logins.clone(),
            failures: state.failures.clone(),
        });
        Self { app: super::router(state.clone()), plain: super::plain_router(state.clone()), state, callers }
    }

    /// Serves the network until the tasks end, beginning with `listener`. `router` serves what arrives on links.
    pub async fn serve_network(
        &self,
        listener: Option<network::Bound>,
        router: Arc<dyn tunnel::Router>,
    ) -> Result<(), ListenerError> {
        let network = Arc::new(Network {
            api: self.clone(),
            router,
            configs: Configs::new(&self.state)?,
            strangers: Strangers::new(MAX_STRANGERS),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        });
        self.state.doors.begin(network, listener).await
    }

    /// Serves the unix socket until the tasks end.
    pub fn serve_socket(&self, bound: socket::Bound) -> Result<(), ListenerError> {
        let socket::Bound { lease, listener } = bound;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let api = self.clone();
        self.state.tasks.spawn("socket", async move {
            socket::accept(api, &listener).await;
            drop(lease);
            drop(listener);
        });
        Ok(())
    }

    /// Serves plain HTTP on this machine until the tasks end.
    pub fn serve_plain(&self, bound: network::Bound) -> Result<(), ListenerError> {
        let network::Bound { lease, listener } = bound;
        let listener = TcpListener::from_std(listener)?;
        let api = self.clone();
        self.state.tasks.spawn("plain HTTP", async move {
            plain::accept(api, &listener).await;
            drop(lease);
            drop(listener);
        });
        Ok(())
    }

    /// Serves a stream of kind `Api` that a linked cluster opened and that was accepted.
    pub async fn serve_stream(&self, session: &Session, stream: TunnelStream) {
        self.serve(stream, Connection::Link { peer: session.peer() }, None).await;
    }

    async fn serve<S>(&self, stream: S, connection: Connection, stranger: Option<Stranger>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let is_plain = matches!(connection, Connection::Plain { .. });
        let (app, state) = (if is_plain { &self.plain } else { &self.app }.clone(), &self.state);
        http::serve(app, &self.callers, &state.tasks, stream, connection, stranger).await;
    }

    fn tasks(&self) -> &Tasks {
        &self.state.tasks
    }
}

/// Why a listener could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    #[error("the listener cannot be used: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Network {
    /// Takes connections in until the tasks end, or `closing` is cancelled.
    async fn accept(self: Arc<Self>, listener: &TcpListener, closing: CancellationToken) {
        let ending = self.api.tasks().ending();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ending.cancelled() => return,
                () = closing.cancelled() => return,
            };
            match accepted {
                Ok((tcp, from)) => {
                    // First, since it may free a place.
                    let stranger = self.strangers.enter();
                    let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                        tracing::warn!(%from, "too many connections; one was dropped");
                        continue;
                    };
                    let network = Arc::clone(&self);
                    let ending = ending.clone();
                    self.api.tasks().spawn("connection", async move {
                        if let Err(error) = network.take(tcp, from, stranger, place, &ending).await {
                            if tls::is_old(&error) {
                                tracing::info!(%from, "a caller that does not speak TLS 1.3 was refused");
                            }
                            tracing::debug!(%from, %error, "a connection came to nothing");
                        }
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "connections cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn take(
        &self,
        tcp: TcpStream,
        from: SocketAddr,
        stranger: Stranger,
        _place: OwnedSemaphorePermit,
        ending: &CancellationToken,
    ) -> io::Result<()> {
        connect::tune(&tcp)?;
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.handshake(tcp, from));
        // Who was let in before the agent began to end is answered, if it does not take its time.
        let too_late = async {
            ending.cancelled().await;
            tokio::time::sleep(http::LAST_REQUEST).await;
        };
        let known = tokio::select! {
            ended = handshake => ended
                .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
                .inspect_err(|_| self.api.state.doors.refuse())?,
            () = stranger.evicted() => return Err(io::Error::other("others came after it")),
            () = too_late => return Ok(()),
        };
        let stream = match known {
            Known::Caller(stream) => *stream,
            Known::Service(visitor) => {
                // A connection of a service's: its place among these is free again, and it is none of the strangers.
                let mesh = self.api.state.mesh.clone();
                self.api.tasks().spawn("connection", mesh.carry(*visitor));
                return Ok(());
            }
        };
        let session = stream.get_ref().1;
        if session.alpn_protocol() == Some(ALPN_ACME) {
            // The handshake was the answer.
            return Ok(());
        }
        let shown = session.peer_certificates().and_then(<[_]>::split_first).map(|(leaf, between)| {
            let between = between.iter().map(|der| der.clone().into_owned()).collect();
            Arc::new(Shown::with(leaf.clone().into_owned(), between))
        });
        if session.alpn_protocol() == Some(ALPN_LINK) {
            // The link's verifier insists on one.
            let shown = shown.ok_or(io::ErrorKind::InvalidData)?;
            return self.link(stream, &shown, from, stranger).await;
        }
        if let Some(shown) = &shown {
            let origin = Origin { address: Some(from), ..Origin::default() };
            self.api.state.clients.arrive(shown, origin, jiff::Timestamp::now()).await;
        }
        let connection =
            Connection::Network { from, certificate: shown, credentials: Credentials::default() };
        self.api.serve(stream, connection, Some(stranger)).await;
        Ok(())
    }

    async fn handshake(&self, tcp: TcpStream, from: SocketAddr) -> io::Result<Known> {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp).await?;
        let hello = start.client_hello();
        let mesh = &self.api.state.mesh;
        // A protocol that is ours alone goes before a name, which anybody may send.
        let config = match (self.configs.of_ours(&hello), mesh.called(&hello)) {
            (Some(config), _) => config,
            (None, Some(call)) => {
                let visitor = mesh.receive(start, call, from).await?;
                return Ok(Known::Service(Box::new(visitor)));
            }
            (None, None) => self.configs.clients(),
        };
        start.into_stream(config).await.map(|stream| Known::Caller(Box::new(stream)))
    }

    /// Serves a linked cluster's connection for as long as it is linked. One that is not linked is handed over all the
    /// same: it may be here to say, or to hear, that the link was deleted, which is peering's to judge.
    async fn link(
        &self,
        stream: TlsStream<TcpStream>,
        shown: &Shown,
        from: SocketAddr,
        stranger: Stranger,
    ) -> io::Result<()> {
        let now = jiff::Timestamp::now();
        if let Err(reason) = shown.check(now) {
            return tunnel::refuse(stream, Refusal::Denied, &reason.to_string()).await;
        }
        let peer = shown.fingerprint;
        let identities = &self.api.state.identities;
        let mut changed = identities.changed();
        let linked = |who: &Who| matches!(who, Who::Peer { .. });
        let was_linked = linked(&identities.caller_by_fingerprint(peer));
        if !was_linked && let Some(reason) = self.api.state.clients.not_an_agent(shown, now) {
            // Nodes are listed once they were here.
            let origin = Origin { address: Some(from), ..Origin::default() };
            self.api.state.clients.arrive(shown, origin, now).await;
            tracing::info!(%from, certificate = %peer, reason, "a caller over the links' protocol was refused");
            return tunnel::refuse(stream, Refusal::Denied, &reason).await;
        }
        let (room, stranger) = if was_linked { (Room::Full, None) } else { (Room::Little, Some(stranger)) };
        let session = tunnel::serve(stream, peer, room, self.router.clone(), self.api.tasks()).await?;
        loop {
            tokio::select! {
                _ = session.closed() => return Ok(()),
                () = strangers::evicted(stranger.as_ref()), if stranger.is_some() && !session.is_closed() => {
                    session.close("too many others wait");
                }
                _ = changed.changed(), if was_linked => {
                    if !linked(&identities.caller_by_fingerprint(peer)) {
                        let _ = tokio::time::timeout(PARTING, session.closed()).await;
                        session.close("the link's identity is gone");
                    }
                }
            }
        }
    }
}
