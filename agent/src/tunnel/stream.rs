//! A stream of a session, as tokio reads and writes it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::queue::Buffer;
use super::session::Session;
use super::state::{Answer, Sink};
use super::wire::StreamId;
use super::{OpenError, frame};
use crate::wire::link::{Refusal, StreamAnswer, StreamHeader};
use crate::wire::printable;

/// A stream, after its header was accepted. Shutting it down ends this side's direction only; dropping it before that
/// resets both. An end of stream that the peer did not mean (a reset, a lost connection) reads as an error.
pub struct TunnelStream {
    session: Session,
    id: StreamId,
}

/// A stream that was begun and is not answered yet. Dropping it resets the stream.
#[must_use]
pub struct Opening {
    stream: TunnelStream,
}

/// A stream that the peer opened, still to be answered. Dropping it resets the stream.
pub struct Incoming {
    /// What the peer opened it for.
    pub header: StreamHeader,
    stream: TunnelStream,
}

impl Opening {
    pub(super) fn new(stream: TunnelStream) -> Self {
        Self { stream }
    }

    /// Waits for the peer's answer.
    pub async fn answered(self) -> Result<TunnelStream, OpenError> {
        let answer = poll_fn(|cx| self.stream.session.machine().poll_answer(self.stream.id, cx));
        match tokio::time::timeout(frame::FRAME_TIMEOUT, answer).await {
            Err(_) => Err(OpenError::Timeout),
            Ok(Answer::Accepted) => Ok(self.stream),
            Ok(Answer::Leaving) => Err(OpenError::Leaving),
            Ok(Answer::TooMany) => Err(OpenError::TooMany),
            Ok(Answer::Lost) => Err(OpenError::Lost),
            Ok(Answer::Dropped) => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
            Ok(Answer::Refused(answer)) => match serde_json::from_slice(&answer) {
                Ok(StreamAnswer::Refused { code, message }) => {
                    Err(OpenError::Refused { code, message: printable(&message) })
                }
                _ => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
            },
        }
    }
}

impl Incoming {
    pub(super) fn new(header: StreamHeader, stream: TunnelStream) -> Self {
        Self { header, stream }
    }

    // Accepting waits for nothing today, and stays a thing to await: it did, and an acceptor may have to again.
    #[expect(
        clippy::unused_async,
        reason = "callers hold no lock over it, and need not change if it waits again"
    )]
    pub async fn accept(self) -> io::Result<TunnelStream> {
        self.stream.session.machine().accept(self.stream.id)?;
        Ok(self.stream)
    }

    /// Tells the peer why not. The message goes to the peer as it is.
    #[expect(
        clippy::unused_async,
        reason = "callers hold no lock over it, and need not change if it waits again"
    )]
    pub async fn refuse(self, code: Refusal, message: &str) {
        self.stream.refuse(code, message);
    }
}

impl TunnelStream {
    pub(super) fn new(session: Session, id: StreamId) -> Self {
        Self { session, id }
    }

    /// Tells the peer why its stream is not taken.
    pub(super) fn refuse(self, code: Refusal, message: &str) {
        let answer = StreamAnswer::Refused { code, message: message.to_owned() };
        // Words and an enum: there is nothing in it that JSON cannot say.
        let answer = serde_json::to_vec(&answer).unwrap_or_default();
        self.session.machine().refuse(self.id, &answer);
    }

    /// Gives what comes to `sink` from now on, as it comes, whenever nothing is held before it. What the sink does not
    /// take is read as ever.
    pub fn set_sink(&self, sink: Option<Arc<dyn Sink>>) {
        self.session.machine().set_sink(self.id, sink);
    }

    /// How many bytes may be written now: some.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        self.session.machine().poll_room(self.id, cx)
    }

    /// Writes the first `length` bytes that `buffer` was filled with: no more than there was room for.
    pub fn write_filled(&self, buffer: Buffer, length: usize) -> io::Result<()> {
        let back = self.session.machine().write_filled(self.id, buffer, length)?;
        if let Some(buffer) = back {
            buffer.keep();
        }
        Ok(())
    }

    /// Hands what has come to `take`, which says how much of it it took; 0 at the end.
    pub fn poll_take(
        &self,
        cx: &Context<'_>,
        take: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.session.machine().poll_read(self.id, cx, take)
    }

    /// Ends this side's direction.
    pub fn finish(&self) -> io::Result<()> {
        self.session.machine().finish(self.id)
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.session.machine().release(self.id);
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_take(cx, |bytes| {
            let length = bytes.len().min(buf.remaining());
            buf.put_slice(bytes.get(..length).unwrap_or_default());
            Ok(length)
        }))?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut machine = self.session.machine();
        let room = ready!(machine.poll_room(self.id, cx))?;
        let length = bytes.len().min(room);
        machine.write(self.id, bytes.get(..length).unwrap_or_default())?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is the session's to send.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }
}
