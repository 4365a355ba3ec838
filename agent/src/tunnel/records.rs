//! A TLS connection as the driver uses it: large reads, and writes that gather many frames into few records.
//!
//! Under tokio-rustls, rustls reads from the socket in steps of four kilobytes: five calls to the system for each
//! record. Here the socket is read by the hundred kilobytes and rustls takes its steps from memory.

use std::io::{self, BufRead as _, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::queue::Queue;

/// Bytes that are read from the socket at once, at first and once the connection is seen to be busy.
const CALM: usize = 16 * 1024;
const BUSY: usize = 128 * 1024;
/// Pieces that are gathered into one write, and their bytes, about.
const PIECES: usize = 64;
const GATHERED: usize = 128 * 1024;

pub struct Records<S> {
    socket: S,
    tls: Connection,
    read: Box<[u8]>,
    from: usize,
    to: usize,
}

/// What reading came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Took {
    Bytes,
    /// The peer has ended the connection in order.
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Records<S> {
    pub fn new(socket: S, mut tls: Connection) -> Self {
        // What waits is bounded before it gets here.
        tls.set_buffer_limit(None);
        Self { socket, tls, read: vec![0; CALM].into_boxed_slice(), from: 0, to: 0 }
    }

    /// Reads from the socket once, and hands what was in the records to `take`.
    pub fn poll_take<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<Took, E>> {
        // What came with the handshake.
        self.give(&mut take)?;
        let mut buffer = ReadBuf::new(&mut self.read);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        (self.from, self.to) = (0, buffer.filled().len());
        if self.to == 0 {
            // Without the farewell that TLS has for it, this may be somebody who cut the connection.
            self.tls.read_tls(&mut io::empty())?;
        }
        while self.from < self.to {
            let mut held = self.read.get(self.from..self.to).unwrap_or_default();
            let read = self.tls.read_tls(&mut held)?;
            self.from += read;
            if let Err(error) = self.tls.process_new_packets() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error).into()));
            }
            if self.give(&mut take)? == Took::End {
                return Poll::Ready(Ok(Took::End));
            }
        }
        if self.to == self.read.len() && self.to < BUSY {
            self.read = vec![0; BUSY].into_boxed_slice();
        }
        if self.to == 0 {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
        }
        Poll::Ready(Ok(Took::Bytes))
    }

    fn give<E: From<io::Error>>(&mut self, take: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<Took, E> {
        let mut reader = self.tls.reader();
        loop {
            let length = match reader.fill_buf() {
                Ok([]) => return Ok(Took::End),
                Ok(bytes) => {
                    take(bytes)?;
                    bytes.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Took::Bytes),
                Err(error) => return Err(error.into()),
            };
            reader.consume(length);
        }
    }

    /// Sends what is in `queue`; ready when the socket has it all.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, queue: &mut Queue) -> Poll<io::Result<()>> {
        loop {
            while self.tls.wants_write() {
                ready!(self.poll_write(cx))?;
            }
            if queue.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut slices = [IoSlice::new(&[]); PIECES];
            let (mut pieces, mut bytes) = (0, 0);
            for (slice, piece) in slices.iter_mut().zip(queue.slices()) {
                *slice = IoSlice::new(piece);
                pieces += 1;
                bytes += piece.len();
                if bytes >= GATHERED {
                    break;
                }
            }
            let written = self.tls.writer().write_vectored(slices.get(..pieces).unwrap_or_default())?;
            debug_assert_eq!(written, bytes, "there is no limit on what rustls takes");
            queue.sent(pieces);
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = Now { socket: &mut self.socket, cx };
        match self.tls.write_tls(&mut socket) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Says by TLS that nothing follows, and ends the connection.
    pub fn poll_close(&mut self, cx: &mut Context<'_>, queue: &mut Queue) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx, queue))?;
        // Said once, however often it is asked for.
        self.tls.send_close_notify();
        while self.tls.wants_write() {
            ready!(self.poll_write(cx))?;
        }
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Passes over what still comes, until the peer has ended its side too: closing a socket with something unread in it
    /// is a reset, which can overtake the farewell.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut buffer = ReadBuf::new(&mut self.read);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// A socket as rustls writes to it: what would have to wait is `WouldBlock`.
struct Now<'a, 'b, S> {
    socket: &'a mut S,
    cx: &'a mut Context<'b>,
}

impl<S: AsyncWrite + Unpin> Write for Now<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.socket).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        now(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        now(Pin::new(&mut *self.socket).poll_flush(self.cx))
    }
}

fn now<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
