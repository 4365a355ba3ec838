//! Connections between linked agents: TLS with a pinned peer, many streams, opened by either side.
//!
//! yamux over one TLS connection, and not HTTP/2 CONNECT: either side opens streams there, whoever dialled, so one
//! connection is enough where only one of the two can be reached, and an agent that opens nothing holds no second
//! role open. HTTP/2 would need the client's role on the accepting side or a second connection. The price is an
//! adapter between futures' and tokio's I/O traits.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::task::Tasks;
use crate::trust::Fingerprint;
use crate::trust::certificate::KeyPair;
use crate::wire::link::{Refusal, StreamHeader};

pub mod registry;
pub mod tls;

pub use registry::Sessions;

/// The ALPN of connections between linked agents.
pub const ALPN_LINK: &[u8] = b"comity-link/1";

/// One connection to a peer.
#[derive(Clone)]
pub struct Session {
    peer: Fingerprint,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// This side closed it.
    Here(String),
    /// The peer closed it in order.
    ByPeer,
    /// The connection broke.
    Lost(String),
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the peer refused the stream: {message}")]
    Refused { code: Refusal, message: String },
    #[error("the connection to the peer is closed")]
    Closed,
    #[error("the peer did not answer in time")]
    Timeout,
    #[error("the peer's answer made no sense")]
    Malformed,
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
}

/// Why no session could be made: each address tried, and what happened there.
#[derive(Debug, thiserror::Error)]
#[error("no address of the peer could be reached: {}", .attempts.iter().map(|(address, why)| format!("{address}: {why}")).collect::<Vec<_>>().join("; "))]
pub struct DialError {
    pub attempts: Vec<(String, AttemptError)>,
}

/// Why one address failed.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    #[error("the address could not be resolved: {0}")]
    Resolve(String),
    #[error("{0}")]
    Connect(io::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("certificate does not match: expected {expected}, got {got}")]
    Mismatch { expected: Fingerprint, got: Fingerprint },
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error("the peer refused: {message}")]
    Refused { code: Refusal, message: String },
}

/// A stream, after the header was accepted. Shutting it down ends one direction; dropping it resets both.
pub struct TunnelStream {
    inner: Pin<Box<dyn Duplex>>,
}

trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// A stream that the peer opened, still to be answered.
pub struct Incoming {
    pub header: StreamHeader,
    stream: TunnelStream,
}

/// Serves what arrives on sessions. The daemon's implementation gives each kind of stream to the floor it is for.
pub trait Router: Send + Sync + 'static {
    /// Serves one stream to its end.
    fn route(&self, session: &Session, incoming: Incoming) -> BoxFuture<'static, ()>;
}

impl Session {
    /// The peer's certificate.
    pub fn peer(&self) -> Fingerprint {
        self.peer
    }

    /// Opens a stream and waits for the peer's answer to `header`.
    pub async fn open(&self, header: &StreamHeader) -> Result<TunnelStream, OpenError> {
        let _ = header;
        Err(OpenError::Closed)
    }

    /// Ends the session and every stream on it.
    pub fn close(&self, reason: &str) {
        let _ = reason;
    }

    /// Waits until the session has ended.
    pub async fn closed(&self) -> Closed {
        Closed::ByPeer
    }

    pub fn is_closed(&self) -> bool {
        true
    }

    /// Whether both are the same connection.
    pub fn same(&self, other: &Session) -> bool {
        self.peer == other.peer
    }
}

impl Incoming {
    pub async fn accept(self) -> io::Result<TunnelStream> {
        Ok(self.stream)
    }

    pub async fn refuse(self, code: Refusal, message: &str) {
        let _ = (code, message);
    }
}

/// Connects to the first of `addresses` that answers with the pinned certificate.
pub fn dial<'a>(
    addresses: &'a [String],
    pin: Fingerprint,
    identity: &'a KeyPair,
    router: Arc<dyn Router>,
    tasks: &'a Tasks,
) -> impl Future<Output = Result<Session, DialError>> + Send + 'a {
    let _ = (addresses, pin, identity, router, tasks);
    async { Err(DialError { attempts: Vec::new() }) }
}

/// Serves the accepted end of a connection whose peer was found to be trusted.
pub async fn serve<S>(
    stream: S,
    peer: Fingerprint,
    router: Arc<dyn Router>,
    tasks: &Tasks,
) -> io::Result<Session>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let _ = (stream, router, tasks);
    Ok(Session { peer })
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.inner.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_shutdown(cx)
    }
}
