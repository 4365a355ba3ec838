//! Copying both ways between a local socket and what it is connected to.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Socket;

/// Bytes taken in one read: large enough that a bulk copy is bound by the socket and not by wake-ups.
const BUFFER: usize = 64 * 1024;

/// Copies until both directions have ended. An end of one is passed on while the other goes on. Bytes are counted
/// as they pass, so that an open connection shows and one that is cut has been counted.
pub(super) async fn relay<F>(
    local: &mut Socket,
    far: &mut F,
    read: &AtomicU64,
    written: &AtomicU64,
) -> io::Result<()>
where
    F: AsyncRead + AsyncWrite + Unpin,
{
    let mut local = Counted { socket: local, read, written };
    tokio::io::copy_bidirectional_with_sizes(&mut local, far, BUFFER, BUFFER).await.map(drop)
}

struct Counted<'a> {
    socket: &'a mut Socket,
    read: &'a AtomicU64,
    written: &'a AtomicU64,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut *self.socket).poll_read(cx, buf))?;
        self.read.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.socket).poll_write(cx, buf))?;
        self.written.fetch_add(written as u64, Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket).poll_shutdown(cx)
    }
}
