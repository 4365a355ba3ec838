//! Connections between linked agents: TLS with a pinned peer, many streams, opened by either side.
//!
//! A multiplexer of our own over one TLS 1.3 connection, and not HTTP/2 CONNECT: here either side opens streams, whoever
//! dialled, so one connection is enough where only one of the two can be reached, and HTTP/2 lets only its client open
//! them. And not yamux, which this was: it writes each frame by itself, answers each window update by itself, and takes
//! a round trip before an app's first byte. What it costs is one core a connection, as with any multiplexer over TLS.
//!
//! From the wire up: [`wire`] (frames), [`credit`] (how much may be under way), `state` and [`machine`] (what frames mean
//! for streams), all without I/O; [`queue`] (what is to be sent), `records` (TLS), `driver` (the task), and [`session`]
//! and [`stream`], which others use.

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::server::TlsStream;

use crate::task::Tasks;
use crate::trust::Fingerprint;
use crate::trust::certificate::KeyPair;
use crate::wire::link::{Refusal, StreamAnswer};
use crate::wire::printable;

pub mod connect;
pub mod credit;
mod driver;
pub mod frame;
pub mod machine;
pub mod queue;
mod records;
pub mod registry;
pub mod session;
mod state;
pub mod stream;
pub mod tls;
pub mod wire;

pub use connect::{AttemptError, DialError};
pub use queue::Buffer;
pub use registry::Sessions;
pub use session::{Closed, EARLY, Room, Session};
pub use state::Sink;
pub use stream::{Incoming, Opening, TunnelStream};

use session::End;

/// The ALPN of connections between linked agents.
pub const ALPN_LINK: &[u8] = b"comity-link/2";

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the peer refused the stream: {message}")]
    Refused { code: Refusal, message: String },
    /// Nothing was sent.
    #[error("the connection to the peer is closed")]
    Closed,
    /// What was sent may have arrived, early bytes included.
    #[error("the connection to the peer was lost before its answer")]
    Lost,
    /// The stream can go over another connection: this one takes no new ones.
    #[error("one side of the connection is going away")]
    Leaving,
    #[error("too many streams are open to the peer")]
    TooMany,
    #[error("the peer did not answer in time")]
    Timeout,
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
}

/// Serves what arrives on sessions. The daemon's implementation gives each kind of stream to the floor it is for.
pub trait Router: Send + Sync + 'static {
    /// Serves one stream to its end.
    fn route(&self, session: &Session, incoming: Incoming) -> BoxFuture<'static, ()>;

    /// A peer has connected to the listener. (A session that was dialled is its dialler's to look after.)
    fn arrived(&self, session: &Session) {
        let _ = session;
    }
}

/// Connects to the first of `addresses` that answers with the pinned certificate.
pub async fn dial(
    addresses: &[String],
    pin: Fingerprint,
    identity: &KeyPair,
    router: Arc<dyn Router>,
    tasks: &Tasks,
) -> Result<Session, DialError> {
    let config = tls::client_config_pinned(pin, Some(identity), &[ALPN_LINK])
        .map_err(|error| DialError::one("this agent", AttemptError::Tls(error.to_string())))?;
    let stream = connect::race(addresses, |address| {
        let config = config.clone();
        async move {
            let mut stream = connect::connect(&address, config).await?;
            if stream.get_ref().1.alpn_protocol() != Some(ALPN_LINK) {
                return Err(AttemptError::Tls("the server does not serve links".to_owned()));
            }
            match frame::read(&mut stream).await {
                Ok(StreamAnswer::Accepted) => Ok(stream),
                Ok(StreamAnswer::Refused { code, message }) => {
                    Err(AttemptError::Refused { code, message: printable(&message) })
                }
                Err(error) => Err(AttemptError::Tls(error.to_string())),
            }
        }
    })
    .await?;
    let (socket, tls) = stream.into_inner();
    Ok(Session::start(socket, tls.into(), End::Dialled, pin, Room::Full, router, tasks))
}

/// Serves the accepted end of a connection, with as much room as its peer was found to deserve.
pub async fn serve<S>(
    mut stream: TlsStream<S>,
    peer: Fingerprint,
    room: Room,
    router: Arc<dyn Router>,
    tasks: &Tasks,
) -> io::Result<Session>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    frame::write(&mut stream, &StreamAnswer::Accepted).await?;
    let (socket, tls) = stream.into_inner();
    let session = Session::start(socket, tls.into(), End::Accepted, peer, room, router.clone(), tasks);
    router.arrived(&session);
    Ok(session)
}

/// Tells a peer that its connection is not taken, and ends it.
pub async fn refuse<S>(mut stream: S, code: Refusal, message: &str) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    frame::write(&mut stream, &StreamAnswer::Refused { code, message: message.to_owned() }).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests;
