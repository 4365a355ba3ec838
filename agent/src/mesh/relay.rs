//! Copying both ways between a local socket and what it is connected to.
//!
//! Nothing is held while nothing passes: a buffer is taken when the socket has something to read, and what comes from
//! a peer goes from the session's buffer straight into the socket, in the session's own turn, as long as the socket
//! takes it. Bytes are counted as they pass, so that an open connection shows and one that is cut has been counted.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Socket;
use crate::tunnel::{Buffer, Sink, TunnelStream};

/// Reads and writes of one connection before others have their turn.
const TURNS: usize = 4;

/// Counts what passes.
pub(super) trait Meter: Send + Sync + 'static {
    /// Bytes that came from the local socket.
    fn taken(&self, bytes: u64);
    /// Bytes that went to the local socket.
    fn given(&self, bytes: u64);
}

/// Waits for a reset by whoever is at the local end, while nothing is read of it. Costs nothing until it is needed.
#[derive(Default)]
struct Watch(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Watch {
    /// Fails once the socket is reset. That there is something to read, or no more to come, is none of its business.
    fn poll(&mut self, socket: &Socket, cx: &mut Context<'_>) -> io::Result<()> {
        let broken = self.0.get_or_insert_with(|| {
            let socket = socket.clone();
            Box::pin(async move { socket.broken().await })
        });
        if broken.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        self.0 = None;
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

/// A local socket and the count of what passes it. Dropped before both directions have ended, it resets the socket.
struct Counted<M> {
    socket: Socket,
    meter: M,
}

impl<M: Meter> Counted<M> {
    fn take(&self, into: &mut [u8]) -> io::Result<usize> {
        let taken = self.socket.try_read(into)?;
        self.meter.taken(taken as u64);
        Ok(taken)
    }
}

impl<M: Meter> Sink for Counted<M> {
    fn deliver(&self, bytes: &[u8]) -> io::Result<usize> {
        let given = self.socket.try_write(bytes)?;
        self.meter.given(given as u64);
        Ok(given)
    }
}

/// Copies between `local` and a stream of a session until both directions have ended. An end of one is passed on while
/// the other goes on. An error, or dropping this before, resets both.
pub(super) async fn carry<M: Meter>(local: &Socket, far: TunnelStream, meter: M) -> io::Result<()> {
    let local = Arc::new(Counted { socket: local.clone(), meter });
    let mut carried = Carried { local: local.clone(), far, up: true, down: true, watch: Watch::default() };
    carried.far.set_sink(Some(local));
    poll_fn(|cx| carried.poll(cx)).await
}

struct Carried<M: Meter> {
    local: Arc<Counted<M>>,
    far: TunnelStream,
    /// Whether there is more to come from the socket, and from the stream.
    up: bool,
    down: bool,
    watch: Watch,
}

impl<M: Meter> Carried<M> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let down = self.poll_down(cx)?;
        let up = self.poll_up(cx)?;
        if down.is_ready() && up.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// What the session could not deliver by itself.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.down {
            match self.far.poll_take(cx, |bytes| self.local.deliver(bytes)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => {
                    self.down = false;
                    // With both directions at their end, closing the socket says it.
                    if self.up {
                        self.local.socket.end()?;
                    }
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.local.socket.poll_write_ready(cx)?.is_pending() {
                        return Poll::Pending;
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..TURNS {
            if !self.up {
                if self.down {
                    self.watch.poll(&self.local.socket, cx)?;
                }
                return Poll::Ready(Ok(()));
            }
            let Poll::Ready(room) = self.far.poll_room(cx)? else {
                self.watch.poll(&self.local.socket, cx)?;
                return Poll::Pending;
            };
            ready!(self.local.socket.poll_read_ready(cx))?;
            let mut buffer = Buffer::take();
            match self.local.take(buffer.room(room)) {
                Ok(0) => {
                    buffer.keep();
                    self.far.finish()?;
                    self.up = false;
                }
                Ok(taken) => self.far.write_filled(buffer, taken)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => buffer.keep(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<M: Meter> Drop for Carried<M> {
    fn drop(&mut self) {
        self.far.set_sink(None);
        if self.up || self.down {
            self.local.socket.reset();
        } else {
            self.local.socket.release();
        }
    }
}

/// Copies between `local` and any other stream, such as an instance's socket or an app's TLS connection, as [`carry`]
/// does. Whoever calls resets `far` on an error, if it can be reset.
pub(super) async fn join<F, M>(local: &Socket, far: &mut F, meter: M) -> io::Result<()>
where
    F: AsyncRead + AsyncWrite + Unpin,
    M: Meter,
{
    let mut joined = Joined {
        local: Counted { socket: local.clone(), meter },
        up: Way::default(),
        down: Way::default(),
        watch: Watch::default(),
    };
    poll_fn(|cx| joined.poll(cx, Pin::new(&mut *far))).await
}

struct Joined<M: Meter> {
    local: Counted<M>,
    up: Way,
    down: Way,
    watch: Watch,
}

/// One direction: what was read and is not written yet.
#[derive(Default)]
struct Way {
    held: Option<(Buffer, usize, usize)>,
    /// Something was written that is not flushed.
    dirty: bool,
    ended: bool,
    over: bool,
}

impl<M: Meter> Joined<M> {
    fn poll<F>(&mut self, cx: &mut Context<'_>, mut far: Pin<&mut F>) -> Poll<io::Result<()>>
    where
        F: AsyncRead + AsyncWrite,
    {
        let down = self.poll_down(cx, far.as_mut())?;
        let up = self.poll_up(cx, far)?;
        if down.is_ready() && up.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_up<F: AsyncWrite>(&mut self, cx: &mut Context<'_>, mut far: Pin<&mut F>) -> Poll<io::Result<()>> {
        for _ in 0..2 * TURNS {
            let way = &mut self.up;
            if way.over {
                return Poll::Ready(Ok(()));
            }
            if let Some((buffer, from, to)) = &mut way.held {
                let rest = buffer.read(*to).get(*from..).unwrap_or_default();
                let Poll::Ready(written) = far.as_mut().poll_write(cx, rest)? else {
                    self.watch.poll(&self.local.socket, cx)?;
                    return Poll::Pending;
                };
                *from += written;
                way.dirty = true;
                if from == to {
                    way.release();
                }
                continue;
            }
            if way.ended {
                ready!(far.as_mut().poll_shutdown(cx))?;
                way.over = true;
                continue;
            }
            if self.local.socket.poll_read_ready(cx)?.is_pending() {
                if way.dirty {
                    ready!(far.as_mut().poll_flush(cx))?;
                    way.dirty = false;
                }
                return Poll::Pending;
            }
            let mut buffer = Buffer::take();
            match self.local.take(buffer.room(usize::MAX)) {
                Ok(0) => {
                    buffer.keep();
                    way.ended = true;
                }
                Ok(taken) => way.held = Some((buffer, 0, taken)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => buffer.keep(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_down<F: AsyncRead>(
        &mut self,
        cx: &mut Context<'_>,
        mut far: Pin<&mut F>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..2 * TURNS {
            let way = &mut self.down;
            if way.over {
                return Poll::Ready(Ok(()));
            }
            if let Some((buffer, from, to)) = &mut way.held {
                let rest = buffer.read(*to).get(*from..).unwrap_or_default();
                match self.local.deliver(rest) {
                    Ok(given) => *from += given,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(self.local.socket.poll_write_ready(cx))?;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
                if from == to {
                    way.release();
                }
                continue;
            }
            if way.ended {
                self.local.socket.end()?;
                way.over = true;
                continue;
            }
            let mut buffer = Buffer::take();
            let mut into = ReadBuf::new(buffer.room(usize::MAX));
            let read = far.as_mut().poll_read(cx, &mut into).map_ok(|()| into.filled().len());
            match read {
                Poll::Ready(Ok(0)) => {
                    buffer.keep();
                    way.ended = true;
                }
                Poll::Ready(Ok(taken)) => way.held = Some((buffer, 0, taken)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    buffer.keep();
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Way {
    fn release(&mut self) {
        if let Some((buffer, ..)) = self.held.take() {
            buffer.keep();
        }
    }
}

impl<M: Meter> Drop for Joined<M> {
    fn drop(&mut self) {
        if self.up.over && self.down.over {
            self.local.socket.release();
        } else {
            self.local.socket.reset();
        }
    }
}
