//! A connection on this machine or to an instance: TCP, or a unix socket.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// The probes that find another end which vanished without a word, at the pace of our links'.
pub(super) fn probes() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3)
}

/// One end of a carried connection. Clones are the same socket: a session writes to it in its own turn.
#[derive(Debug, Clone)]
pub(super) enum Socket {
    Tcp(Arc<TcpStream>),
    Unix(Arc<UnixStream>),
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        Self::Tcp(Arc::new(socket))
    }
}

impl From<UnixStream> for Socket {
    fn from(socket: UnixStream) -> Self {
        Self::Unix(Arc::new(socket))
    }
}

impl Socket {
    /// Small writes must not wait for the other end's acknowledgement. What is accepted has this from its listener.
    pub(super) fn hurry(&self) {
        if let Self::Tcp(socket) = self {
            // Fails only on a socket that is closed already, which its first use tells.
            let _ = socket.set_nodelay(true);
        }
    }

    /// Has an end that vanishes found. What is accepted has this from its listener.
    pub(super) fn probe(&self) {
        if let Self::Tcp(socket) = self {
            // Fails only on a socket that is closed already, which its first use tells.
            let _ = SockRef::from(&**socket).set_tcp_keepalive(&probes());
        }
    }

    /// Makes closing it a reset: whoever is at the other end must not take a cut for the end of the data. A unix socket
    /// has no reset; its other end sees one only where it had sent something that was never read.
    pub(super) fn reset(&self) {
        if let Self::Tcp(socket) = self {
            // Fails only on a socket that is closed already.
            let _ = socket.set_zero_linger();
        }
    }

    /// Has whoever is at the other end see a reset also if this process is killed: closing is one from now on, until
    /// `release`. (What was accepted has this from its listener.)
    pub(super) fn guard(&self) {
        self.reset();
    }

    /// Both directions have ended well: closing says no more than that.
    pub(super) fn release(&self) {
        if let Self::Tcp(socket) = self {
            // Fails only on a socket that is closed already.
            let _ = SockRef::from(&**socket).set_linger(None);
        }
    }

    /// Where the other end is, unless it is on a unix socket.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// What has arrived, without waiting for it. A read that falls short has used up what there was: tokio is told so
    /// at once, instead of by another call that finds nothing.
    pub(super) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len();
        let mut taken = 0;
        let mut read = |mut socket: &socket2::Socket| {
            taken = socket.read(into)?;
            if taken > 0 && taken < most { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        };
        let whole = match self {
            Self::Tcp(socket) => socket.try_io(Interest::READABLE, || read(&SockRef::from(&**socket))),
            Self::Unix(socket) => socket.try_io(Interest::READABLE, || read(&SockRef::from(&**socket))),
        };
        if taken > 0 { Ok(taken) } else { whole.map(|()| 0) }
    }

    /// What has arrived by now, asked of the kernel itself: of a socket that was just accepted tokio has heard nothing
    /// yet, though most apps that connect have sent their first bytes by then.
    pub(super) fn read_now(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => (&*SockRef::from(&**socket)).read(into),
            Self::Unix(socket) => (&*SockRef::from(&**socket)).read(into),
        }
    }

    /// Writes what can be written without waiting for it.
    pub(super) fn try_write(&self, from: &[u8]) -> io::Result<usize> {
        let mut given = 0;
        let mut write = |mut socket: &socket2::Socket| {
            given = socket.write(from)?;
            if given < from.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        };
        let whole = match self {
            Self::Tcp(socket) => socket.try_io(Interest::WRITABLE, || write(&SockRef::from(&**socket))),
            Self::Unix(socket) => socket.try_io(Interest::WRITABLE, || write(&SockRef::from(&**socket))),
        };
        if given > 0 { Ok(given) } else { whole.map(|()| 0) }
    }

    /// Ends the direction to the socket.
    pub(super) fn end(&self) -> io::Result<()> {
        let ended = match self {
            Self::Tcp(socket) => SockRef::from(&**socket).shutdown(Shutdown::Write),
            Self::Unix(socket) => SockRef::from(&**socket).shutdown(Shutdown::Write),
        };
        match ended {
            // Whoever was there has gone, with everything it wanted.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_read_ready(cx),
            Self::Unix(socket) => socket.poll_read_ready(cx),
        }
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_write_ready(cx),
            Self::Unix(socket) => socket.poll_write_ready(cx),
        }
    }

    /// Resolves when the other end has gone for good. An end of its sending alone is none: it may wait for an answer.
    pub(super) async fn broken(&self) {
        let ready = match self {
            Self::Tcp(socket) => socket.ready(Interest::ERROR).await,
            Self::Unix(socket) => socket.ready(Interest::ERROR).await,
        };
        // An error is as good an answer.
        drop(ready);
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            match self.try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Neither kind keeps anything back.
        let _ = self;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end())
    }
}
