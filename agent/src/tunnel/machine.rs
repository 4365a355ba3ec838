//! The streams of one session, without I/O: what a frame that arrives means for them, and what they have to send.
//!
//! Whoever holds a stream has an entry here until it lets go, whatever the peer says: so entries, and with them the
//! tasks behind them, are bounded by the limit on streams even if the peer resets each as soon as it is open.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::End;
use super::credit;
use super::queue::{Buffer, Queue};
use super::state::{Answer, Phase, Sink, Stream, note};
use super::wire::{Frame, MAX_DATA, Reset, StreamId};

/// Most bytes that are held for streams that nobody reads; beyond it, the streams that hold most are reset.
const HELD: usize = 128 * 1024 * 1024;
/// Most bytes of answers that wait for a peer, before it counts as one that does not read.
const UNREAD: usize = 1024 * 1024;
const STRANGERS_UNREAD: usize = 16 * 1024;

mod arrival;

/// What the driver has to see to after a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Nothing,
    /// The peer has opened a stream. It is there to be accepted or refused, and is to be let go of in any case.
    Opened {
        id: StreamId,
        header: &'a [u8],
    },
    /// The peer opens no streams any more, and takes none.
    Leaving,
    /// The peer has closed the session.
    Closed {
        reason: &'a [u8],
    },
    Pong,
}

/// Why no stream can be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unopened {
    Ended,
    Leaving,
    TooMany,
}

/// The state of a session.
#[derive(Debug)]
pub struct Machine {
    streams: HashMap<StreamId, Stream>,
    /// Most streams that each side may have open.
    limit: usize,
    pub ours: usize,
    pub theirs: usize,
    /// The next stream's number, ours and the peer's; 0 when there are none left.
    next: StreamId,
    expected: StreamId,
    /// What is left for windows to grow by.
    purse: u32,
    held: usize,
    /// Streams that the peer may not open beside those that it has, since this was last told.
    pub turned_away: u64,
    /// Streams that were reset because nobody read them and too much was held, since this was last told.
    pub shed: u64,
    /// Most bytes of answers that the peer may leave unread.
    patience: usize,
    pub queue: Queue,
    /// The streams that wait for room in the queue, in their order; one that is gone may still be named.
    crowd: VecDeque<StreamId>,
    /// The same for streams that no socket is connected to: the link's own, whose heartbeat is not to wait behind
    /// thousands.
    own: VecDeque<StreamId>,
    driver: Option<Waker>,
    left: bool,
    peer_left: bool,
    ended: bool,
    /// Why this side wants the session to end.
    pub closing: Option<String>,
}

impl Machine {
    /// The state of a session whose sides may each have `limit` streams open, and the windows grow by `purse`.
    pub fn new(end: End, limit: usize, purse: u32) -> Self {
        let (next, expected) = match end {
            End::Dialled => (1, 2),
            End::Accepted => (2, 1),
        };
        Self {
            streams: HashMap::new(),
            limit,
            ours: 0,
            theirs: 0,
            next,
            expected,
            purse,
            turned_away: 0,
            shed: 0,
            // Whoever may hold no windows is a stranger.
            patience: if purse == 0 { STRANGERS_UNREAD } else { UNREAD },
            held: 0,
            queue: Queue::default(),
            crowd: VecDeque::new(),
            own: VecDeque::new(),
            driver: None,
            left: false,
            peer_left: false,
            ended: false,
            closing: None,
        }
    }

    /// Begins a stream with what its app has sent by now. The caller holds it from here on.
    pub fn open(&mut self, header: &[u8], early: &[u8]) -> Result<StreamId, Unopened> {
        if self.ended || self.closing.is_some() {
            return Err(Unopened::Ended);
        }
        if self.left || self.peer_left {
            return Err(Unopened::Leaving);
        }
        if self.ours >= self.limit || self.queue.is_stuck() {
            return Err(Unopened::TooMany);
        }
        let id = self.next;
        let Some(next) = id.checked_add(2) else {
            // A session wears out after two thousand million streams; its successor counts from the start again.
            self.leave();
            return Err(Unopened::Leaving);
        };
        self.next = next;
        self.ours += 1;
        let mut stream = Stream::new(Phase::Opening, credit::EARLY, credit::FIRST);
        self.queue.begin(&Frame::Open { id, window: credit::FIRST, header });
        if !early.is_empty() {
            self.queue.data(id, early);
            stream.credit = stream.credit.saturating_sub(small(early.len()));
        }
        self.streams.insert(id, stream);
        self.nudge();
        Ok(id)
    }

    /// Takes a stream that the peer opened.
    pub fn accept(&mut self, id: StreamId) -> io::Result<()> {
        let Some(stream) = self.streams.get_mut(&id) else { return Err(gone()) };
        if stream.broken {
            return Err(gone());
        }
        stream.phase = Phase::Open;
        // Where much is held already, a stream has to show that it is read before it gets more.
        let window = if self.held > HELD / 2 { 0 } else { stream.receiving.widen(credit::FIRST) };
        self.queue.tell(&Frame::Accept { id, window });
        self.nudge();
        Ok(())
    }

    /// Tells the peer why its stream is not taken.
    pub fn refuse(&mut self, id: StreamId, answer: &[u8]) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.broken {
            self.held -= stream.cut(io::ErrorKind::ConnectionAborted);
            self.queue.tell(&Frame::Refuse { id, answer });
            self.nudge();
        }
    }

    /// The peer's answer to a stream that was begun.
    pub fn poll_answer(&mut self, id: StreamId, cx: &Context<'_>) -> Poll<Answer> {
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Answer::Dropped) };
        match &mut stream.phase {
            Phase::Opening => {
                note(&mut stream.reader, cx);
                Poll::Pending
            }
            Phase::Asked | Phase::Open => Poll::Ready(Answer::Accepted),
            Phase::Answered(answer) => Poll::Ready(std::mem::replace(answer, Answer::Dropped)),
        }
    }

    /// Bytes that may be written now; some, or there is an error to wait no longer.
    pub fn poll_room(&mut self, id: StreamId, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Err(gone())) };
        stream.writable()?;
        let room = self.queue.room();
        if stream.credit == 0 {
            note(&mut stream.writer, cx);
            if !std::mem::replace(&mut stream.starved, true) {
                self.queue.tell(&Frame::Starved { id });
                self.nudge();
            }
            Poll::Pending
        } else if room == 0 {
            note(&mut stream.writer, cx);
            if !std::mem::replace(&mut stream.crowding, true) {
                let waiting = if stream.sink.is_some() { &mut self.crowd } else { &mut self.own };
                waiting.push_back(id);
            }
            Poll::Pending
        } else {
            let room = room.min(stream.credit as usize).min(MAX_DATA);
            self.call_next();
            Poll::Ready(Ok(room))
        }
    }

    /// Sends `bytes`, no more than there was said to be room for.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> io::Result<()> {
        self.charge(id, bytes.len())?;
        self.queue.data(id, bytes);
        self.nudge();
        Ok(())
    }

    /// Sends what `buffer` was filled with, no more than there was said to be room for.
    pub fn write_filled(
        &mut self,
        id: StreamId,
        buffer: Buffer,
        length: usize,
    ) -> io::Result<Option<Buffer>> {
        self.charge(id, length)?;
        let back = self.queue.filled(id, buffer, length);
        self.nudge();
        Ok(back)
    }

    fn charge(&mut self, id: StreamId, length: usize) -> io::Result<()> {
        let stream = self.streams.get_mut(&id).ok_or_else(gone)?;
        stream.writable()?;
        let left = stream.credit.checked_sub(small(length));
        stream.credit = left.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(())
    }

    /// Ends this side's direction.
    pub fn finish(&mut self, id: StreamId) -> io::Result<()> {
        let stream = self.streams.get_mut(&id).ok_or_else(gone)?;
        if stream.finished {
            return Ok(());
        }
        stream.writable()?;
        stream.finished = true;
        self.queue.tell(&Frame::End { id });
        self.nudge();
        Ok(())
    }

    /// Hands what has come to `take`, which says how much of it it took; 0 at the end of the peer's direction.
    pub fn poll_read(
        &mut self,
        id: StreamId,
        cx: &Context<'_>,
        take: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Err(gone())) };
        if stream.unread.is_empty() {
            return match stream.ended {
                Some(Ok(())) => Poll::Ready(Ok(0)),
                Some(Err(kind)) => Poll::Ready(Err(kind.into())),
                None => {
                    note(&mut stream.reader, cx);
                    Poll::Pending
                }
            };
        }
        let taken = take(stream.unread.as_slices().0)?;
        stream.unread.drain(..taken);
        if stream.unread.is_empty() {
            // An idle stream holds nothing.
            stream.unread = std::collections::VecDeque::new();
        }
        self.held -= taken;
        if let Some(more) = stream.read(taken) {
            self.queue.tell(&Frame::Credit { id, more });
            self.nudge();
        }
        Poll::Ready(Ok(taken))
    }

    /// Where the stream's bytes go from now on, when nothing is held of it.
    pub fn set_sink(&mut self, id: StreamId, sink: Option<Arc<dyn Sink>>) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.sink = sink;
        }
    }

    /// Whoever held the stream is done with it; it is reset unless both directions have ended.
    pub fn release(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.held -= stream.unread.len();
        stream.receiving.close(&mut self.purse);
        // It may have been called and not have looked.
        self.call_next();
        *(if self.is_ours(id) { &mut self.ours } else { &mut self.theirs }) -= 1;
        if !stream.is_over() && !self.ended {
            self.queue.tell(&Frame::Reset { id, why: Reset::Dropped });
            self.nudge();
        }
        if (self.left || self.peer_left) && self.streams.is_empty() {
            self.nudge();
        }
    }

    fn is_ours(&self, id: StreamId) -> bool {
        id % 2 == self.next % 2
    }

    /// Says that this side goes away.
    pub fn leave(&mut self) {
        if !self.left {
            self.left = true;
            self.queue.tell(&Frame::Leave);
            self.nudge();
        }
    }

    /// Whether either side goes away.
    pub fn is_leaving(&self) -> bool {
        self.left || self.peer_left
    }

    /// Whether this side goes away and nothing is left to wait for.
    pub fn has_left(&self) -> bool {
        self.left && self.streams.is_empty()
    }

    pub fn is_ended(&self) -> bool {
        self.ended || self.closing.is_some()
    }

    /// The peer has closed the session in order: what it has not accepted by now, it has not looked at.
    pub fn hand_back(&mut self) {
        for stream in self.streams.values_mut().filter(|stream| stream.phase == Phase::Opening) {
            stream.phase = Phase::Answered(Answer::Leaving);
        }
    }

    /// The connection is gone, or about to be: no stream that has not ended by now ends well.
    pub fn end(&mut self) {
        self.ended = true;
        for stream in self.streams.values_mut() {
            if stream.phase == Phase::Opening {
                stream.phase = Phase::Answered(Answer::Lost);
            }
            self.held -= stream.cut(io::ErrorKind::ConnectionReset);
        }
    }

    /// Asks for the session's end. The first reason is the one that ended it.
    pub fn close(&mut self, reason: &str) {
        self.closing.get_or_insert_with(|| reason.to_owned());
        self.nudge();
    }

    /// Lets the first that waits for room look again, if there is some. It calls the next in its turn, so that each
    /// piece of room wakes about one of thousands, and none is forgotten.
    pub fn call_next(&mut self) {
        if self.queue.room() == 0 {
            return;
        }
        while let Some(id) = self.own.pop_front().or_else(|| self.crowd.pop_front()) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.crowding = false;
            if let Some(waker) = stream.writer.take() {
                waker.wake();
                return;
            }
        }
    }

    /// Whom to wake when there is something to send.
    pub fn register(&mut self, cx: &Context<'_>) {
        note(&mut self.driver, cx);
    }

    fn nudge(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// A length of bytes that a window has bounded.
fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
