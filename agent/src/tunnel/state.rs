//! One stream of a session, without I/O.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::credit::Receiving;
use super::wire::{StreamId, Violation};

/// Where the bytes of a stream can go at once, without being held: the socket that it is connected to.
pub trait Sink: Send + Sync {
    /// Takes what it can without waiting; `WouldBlock` when that is nothing.
    fn deliver(&self, bytes: &[u8]) -> io::Result<usize>;
}

/// How far a stream has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Phase {
    /// Opened here, and not answered yet.
    Opening,
    /// Opened here and not taken.
    Answered(Answer),
    /// Opened by the peer, and not answered yet.
    Asked,
    /// Accepted by either side.
    Open,
}

/// The peer's answer to an opening.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// The refusal as it came.
    Refused(Vec<u8>),
    Leaving,
    /// The peer has as many streams open as it takes.
    TooMany,
    Dropped,
    /// The session has ended first.
    Lost,
}

/// A stream.
pub struct Stream {
    pub phase: Phase,
    /// What may be sent.
    pub credit: u32,
    /// The peer has been told that this is not enough.
    pub starved: bool,
    /// It waits for room in the queue.
    pub crowding: bool,
    pub receiving: Receiving,
    pub unread: VecDeque<u8>,
    /// How the peer's direction has ended.
    pub ended: Option<Result<(), io::ErrorKind>>,
    /// This side's direction has ended.
    pub finished: bool,
    /// Reset by either side, or lost with the session.
    pub broken: bool,
    pub sink: Option<Arc<dyn Sink>>,
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({:?}, {} unread, ended {:?})", self.phase, self.unread.len(), self.ended)
    }
}

impl Stream {
    /// A stream on which `credit` bytes may be sent, and `window` bytes received.
    pub fn new(phase: Phase, credit: u32, window: u32) -> Self {
        Self {
            phase,
            credit,
            starved: false,
            crowding: false,
            receiving: Receiving::new(window),
            unread: VecDeque::new(),
            ended: None,
            finished: false,
            broken: false,
            sink: None,
            reader: None,
            writer: None,
        }
    }

    /// Whether there is nothing left that the peer would have to be told.
    pub fn is_over(&self) -> bool {
        self.broken || (self.finished && self.ended.is_some())
    }

    /// Whether this side may write.
    pub fn writable(&self) -> io::Result<()> {
        match self.ended {
            _ if self.finished => Err(io::ErrorKind::BrokenPipe.into()),
            Some(Err(kind)) => Err(kind.into()),
            _ if self.broken => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }

    /// Whether the peer may send on.
    pub fn may_send(&self, id: StreamId) -> Result<(), Violation> {
        match self.phase {
            Phase::Opening => Err(Violation::Answer(id)),
            _ if self.ended == Some(Ok(())) => Err(Violation::AfterEnd(id)),
            _ => Ok(()),
        }
    }

    /// Adds to what may be sent.
    pub fn grant(&mut self, id: StreamId, more: u32) -> Result<(), Violation> {
        self.credit = self.credit.checked_add(more).ok_or(Violation::Credit(id))?;
        self.starved = false;
        Ok(())
    }

    /// Gives `bytes` to the sink, if nothing is held before them; what it took.
    pub fn deliver(&mut self, bytes: &[u8]) -> usize {
        let Some(sink) = self.sink.as_ref().filter(|_| self.unread.is_empty()) else { return 0 };
        // What is wrong with the socket shows to the relay, when it tries to write what is held.
        sink.deliver(bytes).unwrap_or(0)
    }

    /// Keeps `bytes` until they are read.
    pub fn hold(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.unread.extend(bytes);
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
    }

    /// Notes that `bytes` were read; gives what the peer is to be granted for them.
    pub fn read(&mut self, bytes: usize) -> Option<u32> {
        let more = self.receiving.read(u32::try_from(bytes).unwrap_or(u32::MAX));
        more.filter(|_| self.ended.is_none())
    }

    /// Both directions end with an error, but for a peer's direction that has ended well before. Gives the number of
    /// bytes that are not held any more.
    #[must_use]
    pub fn cut(&mut self, kind: io::ErrorKind) -> usize {
        self.broken = true;
        self.wake();
        if self.ended == Some(Ok(())) {
            return 0;
        }
        self.ended = Some(Err(kind));
        self.sink = None;
        std::mem::take(&mut self.unread).len()
    }

    /// Whoever waits for the stream may look again.
    pub fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// Keeps the waker of `cx`, unless it is kept already.
pub fn note(kept: &mut Option<Waker>, cx: &Context<'_>) {
    if !kept.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *kept = Some(cx.waker().clone());
    }
}
