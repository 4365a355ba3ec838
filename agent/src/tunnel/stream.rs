//! A stream of a session, as tokio reads and writes it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use super::frame;
use crate::wire::link::{Refusal, StreamAnswer, StreamHeader};

/// A stream, after its header was accepted. Shutting it down ends this side's direction only; dropping it before that
/// resets both. An end of stream that the peer did not mean (a reset, a lost connection) reads as an error.
pub struct TunnelStream {
    inner: Compat<yamux::Stream>,
    lost: Arc<AtomicBool>,
    shut: bool,
    _permit: OwnedSemaphorePermit,
}

/// A stream that the peer opened, still to be answered. Dropping it resets the stream.
pub struct Incoming {
    /// What the peer opened it for.
    pub header: StreamHeader,
    stream: TunnelStream,
}

impl Incoming {
    pub(super) fn new(header: StreamHeader, stream: TunnelStream) -> Self {
        Self { header, stream }
    }

    pub async fn accept(mut self) -> io::Result<TunnelStream> {
        frame::write(&mut self.stream, &StreamAnswer::Accepted).await?;
        Ok(self.stream)
    }

    /// Tells the peer why not. The message goes to the peer as it is.
    pub async fn refuse(mut self, code: Refusal, message: &str) {
        use tokio::io::AsyncWriteExt as _;
        let answer = StreamAnswer::Refused { code, message: message.to_owned() };
        // The peer may be gone; there is nobody else to tell.
        if frame::write(&mut self.stream, &answer).await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }
}

impl TunnelStream {
    pub(super) fn new(stream: yamux::Stream, lost: Arc<AtomicBool>, permit: OwnedSemaphorePermit) -> Self {
        Self { inner: stream.compat(), lost, shut: false, _permit: permit }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if buf.filled().len() == before && buf.remaining() > 0 {
            // yamux ends a stream that was reset as it ends one that was finished. It was finished if only our own
            // direction is still open; once both are closed, all that can be told is whether the connection broke.
            let reset = !self.shut && self.inner.get_ref().is_closed();
            if reset || (self.inner.get_ref().is_closed() && self.lost.load(Ordering::Acquire)) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.inner).poll_write(cx, buf)) {
            // yamux's word for a stream or connection that is gone.
            Err(error) if error.kind() == io::ErrorKind::WriteZero => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            other => Poll::Ready(other),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            self.shut = true;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }
}
