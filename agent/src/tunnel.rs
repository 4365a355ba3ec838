//! Connections between linked agents: TLS with a pinned peer, many streams, opened by either side.
//!
//! yamux over one TLS connection, and not HTTP/2 CONNECT: with yamux either side opens streams, whoever dialled, so
//! one connection is enough where only one of the two can be reached. HTTP/2 lets only its client open streams, so
//! the accepting side would have to run the client's role or keep a second connection. The price is an adapter
//! between futures' and tokio's I/O traits, and one core a connection, as with any multiplexer over TLS.

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::task::Tasks;
use crate::trust::Fingerprint;
use crate::trust::certificate::KeyPair;
use crate::wire::link::{Refusal, StreamAnswer};
use crate::wire::printable;

pub mod connect;
pub mod frame;
pub mod registry;
pub mod session;
pub mod stream;
pub mod tls;

pub use connect::{AttemptError, DialError};
pub use registry::Sessions;
pub use session::{Closed, EARLY, Opening, Room, Session};
pub use stream::{Incoming, TunnelStream};

use session::End;

/// The ALPN of connections between linked agents.
pub const ALPN_LINK: &[u8] = b"comity-link/1";

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the peer refused the stream: {message}")]
    Refused { code: Refusal, message: String },
    #[error("the connection to the peer is closed")]
    Closed,
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
    Ok(Session::start(stream, End::Dialled, pin, Room::Full, router, tasks))
}

/// Serves the accepted end of a connection, with as much room as its peer was found to deserve.
pub async fn serve<S>(
    mut stream: S,
    peer: Fingerprint,
    room: Room,
    router: Arc<dyn Router>,
    tasks: &Tasks,
) -> io::Result<Session>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    frame::write(&mut stream, &StreamAnswer::Accepted).await?;
    let session = Session::start(stream, End::Accepted, peer, room, router.clone(), tasks);
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
