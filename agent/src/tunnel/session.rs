//! One connection to a peer: yamux over TLS, and the task that drives it.
//!
//! The task alone touches the multiplexer; others ask it for streams. Before yamux begins, the accepting side sends
//! one answer frame: a TLS 1.3 client learns only from the first read that it was refused, and this makes it hear why.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};
use tokio_util::sync::CancellationToken;
use yamux::{Config, Connection, Mode};

use super::stream::{Incoming, TunnelStream};
use super::{OpenError, Router, frame};
use crate::task::Tasks;
use crate::trust::Fingerprint;
use crate::wire::link::{Refusal, StreamAnswer, StreamHeader};
use crate::wire::printable;

/// Most streams that either side may have open on one connection.
pub const MAX_STREAMS: usize = 4096;
/// yamux ends the whole connection at its own limit, so that is kept out of reach of both sides' limits.
const YAMUX_STREAMS: usize = 2 * MAX_STREAMS + 256;
/// Most streams that somebody who is not linked may have open: it has a farewell to say or to hear, no more.
const STRANGER_STREAMS: usize = 8;
/// Most bytes of an app that leave with a stream's header, before the peer's answer.
pub const EARLY: usize = 16 * 1024;
/// What streams may take beyond their first 256 KiB, shared by all of a connection, to fill a long fat pipe.
const WINDOW_ROOM: usize = 128 * 1024 * 1024;
/// How long an orderly end may take before the connection is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// One connection to a peer. Clones are the same connection; it lives until it is closed, from either end.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    id: u64,
    peer: Fingerprint,
    end: End,
    room: Room,
    open: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    closing: CancellationToken,
    reason: OnceLock<String>,
    closed: watch::Sender<Option<Closed>>,
    leaving: watch::Sender<bool>,
    outbound: Arc<Semaphore>,
    inbound: Arc<Semaphore>,
    /// Set before streams end because the connection did: an end of stream seen then is no orderly one.
    lost: Arc<AtomicBool>,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    #[error("closed here: {0}")]
    Here(String),
    #[error("closed by the peer")]
    ByPeer,
    #[error("lost: {0}")]
    Lost(String),
}

/// How much a connection may make us hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// A linked cluster's.
    Full,
    /// A stranger's: a window for each of thousands of streams would be gigabytes for anybody who connects.
    Little,
}

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Dialled,
    Accepted,
}

impl Session {
    pub(super) fn start<S>(
        stream: S,
        end: End,
        peer: Fingerprint,
        room: Room,
        router: Arc<dyn Router>,
        tasks: &Tasks,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (streams, yamux_streams, window_room) = match room {
            Room::Full => (MAX_STREAMS, YAMUX_STREAMS, WINDOW_ROOM),
            Room::Little => (STRANGER_STREAMS, 4 * STRANGER_STREAMS, 0),
        };
        let mut config = Config::default();
        config
            .set_max_connection_receive_window(None)
            .set_max_num_streams(yamux_streams)
            .set_max_connection_receive_window(Some(yamux_streams * 256 * 1024 + window_room))
            .set_split_send_size(64 * 1024);
        let mode = match end {
            End::Dialled => Mode::Client,
            End::Accepted => Mode::Server,
        };
        let lost = Arc::new(AtomicBool::new(false));
        let transport = Watched { stream, lost: lost.clone() };
        let connection = Connection::new(transport.compat(), config, mode);
        let (open, asked) = mpsc::channel(64);
        let session = Self {
            inner: Arc::new(Inner {
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                peer,
                end,
                room,
                open,
                closing: CancellationToken::new(),
                reason: OnceLock::new(),
                closed: watch::Sender::new(None),
                leaving: watch::Sender::new(false),
                outbound: Arc::new(Semaphore::new(streams)),
                inbound: Arc::new(Semaphore::new(streams)),
                lost,
            }),
        };
        tasks.spawn("tunnel", drive(connection, session.clone(), asked, router, tasks.clone()));
        session
    }

    /// The peer's certificate.
    pub fn peer(&self) -> Fingerprint {
        self.inner.peer
    }

    /// Whether this side opened the connection.
    pub fn was_dialled(&self) -> bool {
        self.inner.end == End::Dialled
    }

    /// What it was given when it began.
    pub fn room(&self) -> Room {
        self.inner.room
    }

    /// Begins a stream: `header`, and what its app has sent by now (at most [`EARLY`] bytes of it), leave at once.
    pub fn begin(&self, header: &StreamHeader, early: &[u8]) -> Result<Opening, OpenError> {
        if self.is_closed() {
            return Err(OpenError::Closed);
        }
        if self.is_leaving() {
            return Err(OpenError::Leaving);
        }
        let early = early.get(..EARLY).unwrap_or(early).to_vec();
        Ok(Opening { session: self.clone(), header: header.clone(), early })
    }

    /// Opens a stream and waits for the peer's answer to `header`.
    pub async fn open(&self, header: &StreamHeader) -> Result<TunnelStream, OpenError> {
        self.begin(header, &[])?.answered().await
    }

    async fn open_with(&self, header: &StreamHeader, early: &[u8]) -> Result<TunnelStream, OpenError> {
        let permit = self.inner.outbound.clone().try_acquire_owned().map_err(|_| OpenError::TooMany)?;
        let open = async {
            let (give, given) = oneshot::channel();
            self.inner.open.send(give).await.map_err(|_| OpenError::Closed)?;
            given.await.map_err(|_| OpenError::Closed)
        };
        let stream =
            tokio::time::timeout(frame::FRAME_TIMEOUT, open).await.map_err(|_| OpenError::Timeout)??;
        let mut stream = TunnelStream::new(stream, self.inner.lost.clone(), permit);
        frame::write(&mut stream, header).await?;
        match frame::read(&mut stream).await? {
            StreamAnswer::Accepted => {
                if !early.is_empty() {
                    stream.write_all(early).await?;
                }
                Ok(stream)
            }
            StreamAnswer::Refused { code, message } => {
                Err(OpenError::Refused { code, message: printable(&message) })
            }
        }
    }

    /// Tells the peer that this side is going away: neither opens streams any more, those open go on.
    pub fn leave(&self) {
        self.inner.leaving.send_replace(true);
    }

    /// Whether either side is going away.
    pub fn is_leaving(&self) -> bool {
        *self.inner.leaving.borrow()
    }

    /// Waits until either side is going away.
    pub async fn leaving(&self) {
        // The sender lives as long as this handle.
        let _ = self.inner.leaving.subscribe().wait_for(|leaving| *leaving).await;
    }

    /// Ends the session and every stream on it.
    pub fn close(&self, reason: &str) {
        // The first reason is the one that ended it.
        let _ = self.inner.reason.set(reason.to_owned());
        self.inner.closing.cancel();
    }

    /// Waits until the session has ended.
    pub async fn closed(&self) -> Closed {
        let mut closed = self.inner.closed.subscribe();
        let ended = closed.wait_for(Option::is_some).await;
        // The sender lives as long as this handle, so the wait ends only with a reason.
        ended.ok().and_then(|reason| reason.clone()).unwrap_or(Closed::ByPeer)
    }

    /// Whether it has ended, or is about to.
    pub fn is_closed(&self) -> bool {
        self.inner.closing.is_cancelled() || self.inner.closed.borrow().is_some()
    }

    /// Whether both are the same connection.
    pub fn same(&self, other: &Session) -> bool {
        self.inner.id == other.inner.id
    }
}

/// A stream that was begun and is not answered yet. Dropping it resets the stream.
#[must_use]
pub struct Opening {
    session: Session,
    header: StreamHeader,
    early: Vec<u8>,
}

impl Opening {
    /// Waits for the peer's answer.
    pub async fn answered(self) -> Result<TunnelStream, OpenError> {
        self.session.open_with(&self.header, &self.early).await
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({} to {})", self.inner.id, self.inner.peer)
    }
}

enum Turn {
    Inbound(yamux::Stream),
    Outbound(oneshot::Sender<yamux::Stream>, yamux::Stream),
    Ended(Option<yamux::ConnectionError>),
}

async fn drive<S>(
    mut connection: Connection<Compat<Watched<S>>>,
    session: Session,
    mut asked: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    router: Arc<dyn Router>,
    tasks: Tasks,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let ending = tasks.ending();
    let mut wanted: Option<oneshot::Sender<yamux::Stream>> = None;
    let closed = loop {
        let turn = poll_fn(|cx| turn(&mut connection, &mut asked, &mut wanted, cx));
        let turn = tokio::select! {
            turn = turn => turn,
            () = session.inner.closing.cancelled() => {
                break Closed::Here(session.inner.reason.get().cloned().unwrap_or_default());
            }
            () = ending.cancelled() => break Closed::Here("the agent is shutting down".to_owned()),
        };
        match turn {
            Turn::Outbound(give, stream) => {
                // Who asked may have given up; the stream is then reset by being dropped.
                let _ = give.send(stream);
            }
            Turn::Inbound(stream) => receive(stream, &session, &router, &tasks),
            Turn::Ended(None) => break Closed::ByPeer,
            Turn::Ended(Some(error)) => break Closed::Lost(error.to_string()),
        }
    };
    session.inner.lost.store(true, Ordering::Release);
    session.inner.closing.cancel();
    drop((asked, wanted));
    if matches!(closed, Closed::Here(_)) {
        // Best effort: the peer is told, if it listens.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, poll_fn(|cx| connection.poll_close(cx))).await;
    }
    drop(connection);
    tracing::debug!(peer = %session.peer(), reason = %closed, "tunnel closed");
    session.inner.closed.send_replace(Some(closed));
}

fn turn<T>(
    connection: &mut Connection<T>,
    asked: &mut mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    wanted: &mut Option<oneshot::Sender<yamux::Stream>>,
    cx: &mut Context<'_>,
) -> Poll<Turn>
where
    T: futures::AsyncRead + futures::AsyncWrite + Unpin,
{
    if wanted.is_none() {
        // The session keeps a sender, so the channel never ends before this task.
        if let Poll::Ready(Some(give)) = asked.poll_recv(cx) {
            *wanted = Some(give);
        }
    }
    if wanted.is_some() {
        match connection.poll_new_outbound(cx) {
            Poll::Ready(Ok(stream)) => {
                if let Some(give) = wanted.take() {
                    return Poll::Ready(Turn::Outbound(give, stream));
                }
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Turn::Ended(Some(error))),
            Poll::Pending => {}
        }
    }
    Poll::Ready(match ready!(connection.poll_next_inbound(cx)) {
        Some(Ok(stream)) => Turn::Inbound(stream),
        Some(Err(error)) => Turn::Ended(Some(error)),
        None => Turn::Ended(None),
    })
}

/// Serves one stream that the peer opened, in a task of its own.
fn receive(stream: yamux::Stream, session: &Session, router: &Arc<dyn Router>, tasks: &Tasks) {
    let Ok(permit) = session.inner.inbound.clone().try_acquire_owned() else {
        // Dropped, so reset: the peer has as many streams open as it may.
        tracing::warn!(peer = %session.peer(), "the peer has too many streams open; one was reset");
        return;
    };
    let mut stream = TunnelStream::new(stream, session.inner.lost.clone(), permit);
    let (session, router) = (session.clone(), router.clone());
    tasks.spawn("stream", async move {
        match frame::read::<StreamHeader>(&mut stream).await {
            Ok(header) => {
                let serve = router.route(&session, Incoming::new(header, stream));
                // A handler's fault ends its stream, and no other.
                if std::panic::AssertUnwindSafe(serve).catch_unwind().await.is_err() {
                    tracing::error!(peer = %session.peer(), "a stream's handler panicked");
                }
            }
            Err(error) => {
                tracing::debug!(peer = %session.peer(), %error, "a stream without a header");
                let refusal = StreamAnswer::Refused {
                    code: Refusal::Malformed,
                    message: "the stream's header made no sense".to_owned(),
                };
                // The peer may be gone; there is nobody else to tell.
                let _ = frame::write(&mut stream, &refusal).await;
            }
        }
    });
}

/// A transport that notes its own end.
struct Watched<S> {
    stream: S,
    lost: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if read.is_err() || (buf.filled().len() == before && buf.remaining() > 0) {
            self.lost.store(true, Ordering::Release);
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        if written.is_err() {
            self.lost.store(true, Ordering::Release);
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
