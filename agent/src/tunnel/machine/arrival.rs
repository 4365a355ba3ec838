//! What a frame that arrives means for the streams of a session.

use std::io;

use super::{Event, HELD, Machine, small};
use crate::tunnel::credit;
use crate::tunnel::state::{Answer, Phase, Stream};
use crate::tunnel::wire::{Frame, Reset, StreamId, Violation};

impl Machine {
    /// Takes a frame that has arrived.
    pub fn receive<'a>(&mut self, frame: &Frame<'a>) -> Result<Event<'a>, Violation> {
        match *frame {
            Frame::Data { id, bytes } => self.data(id, bytes)?,
            Frame::Open { id, window, header } => return self.opened(id, window, header),
            Frame::Accept { id, window } => {
                self.check(id)?;
                if let Some(stream) = self.streams.get_mut(&id) {
                    if stream.phase != Phase::Opening {
                        return Err(Violation::Answer(id));
                    }
                    stream.grant(id, window)?;
                    stream.phase = Phase::Open;
                    stream.wake();
                }
            }
            Frame::Refuse { id, answer } => {
                self.check(id)?;
                if let Some(stream) = self.streams.get_mut(&id) {
                    if stream.phase != Phase::Opening {
                        return Err(Violation::Answer(id));
                    }
                    stream.phase = Phase::Answered(Answer::Refused(answer.to_vec()));
                    self.held -= stream.cut(io::ErrorKind::ConnectionRefused);
                }
            }
            Frame::End { id } => {
                self.check(id)?;
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.may_send(id)?;
                    // A stream that was reset here is not to look as if it had ended well.
                    stream.ended.get_or_insert(Ok(()));
                    stream.wake();
                }
            }
            Frame::Reset { id, why } => {
                self.check(id)?;
                if let Some(stream) = self.streams.get_mut(&id) {
                    if stream.phase == Phase::Opening {
                        stream.phase = Phase::Answered(match why {
                            Reset::Leaving => Answer::Leaving,
                            Reset::Overloaded => Answer::TooMany,
                            Reset::Dropped => Answer::Dropped,
                        });
                    }
                    self.held -= stream.cut(io::ErrorKind::ConnectionReset);
                }
            }
            Frame::Credit { id, more } => {
                self.check(id)?;
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.grant(id, more)?;
                    if let Some(waker) = stream.writer.take() {
                        waker.wake();
                    }
                }
            }
            Frame::Starved { id } => {
                self.check(id)?;
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.may_send(id)?;
                    if stream.unread.is_empty()
                        && stream.ended.is_none()
                        && stream.phase == Phase::Open
                        && let Some(more) = stream.receiving.grow(&mut self.purse)
                    {
                        self.queue.tell(&Frame::Credit { id, more });
                    }
                }
            }
            Frame::Ping(n) => self.queue.tell(&Frame::Pong(n)),
            Frame::Pong(_) => return Ok(Event::Pong),
            Frame::Leave => {
                self.peer_left = true;
                return Ok(Event::Leaving);
            }
            Frame::Close { reason } => return Ok(Event::Closed { reason }),
        }
        if self.queue.told() > self.patience { Err(Violation::Unread) } else { Ok(Event::Nothing) }
    }

    fn opened<'a>(&mut self, id: StreamId, window: u32, header: &'a [u8]) -> Result<Event<'a>, Violation> {
        if id != self.expected {
            return Err(Violation::Number(id));
        }
        if self.peer_left {
            return Err(Violation::Left(id));
        }
        self.expected = id.checked_add(2).unwrap_or(0);
        if self.left {
            self.queue.tell(&Frame::Reset { id, why: Reset::Leaving });
        } else if self.theirs >= self.limit {
            self.turned_away += 1;
            self.queue.tell(&Frame::Reset { id, why: Reset::Overloaded });
        } else {
            self.theirs += 1;
            self.streams.insert(id, Stream::new(Phase::Asked, window, credit::EARLY));
            return Ok(Event::Opened { id, header });
        }
        if self.queue.told() > self.patience { Err(Violation::Unread) } else { Ok(Event::Nothing) }
    }

    fn data(&mut self, id: StreamId, bytes: &[u8]) -> Result<(), Violation> {
        self.check(id)?;
        while self.held + bytes.len() > HELD && self.shed_one() {}
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        stream.may_send(id)?;
        if !stream.receiving.receive(small(bytes.len())) {
            return Err(Violation::Overdrawn(id));
        }
        if stream.ended.is_some() {
            // Reset here, which the peer is yet to hear.
            return Ok(());
        }
        let delivered = stream.deliver(bytes);
        let rest = bytes.get(delivered..).unwrap_or_default();
        stream.hold(rest);
        self.held += rest.len();
        if delivered > 0
            && let Some(more) = stream.read(delivered)
        {
            self.queue.tell(&Frame::Credit { id, more });
        }
        Ok(())
    }

    /// Whether the stream was ever opened. If it was let go of since, what comes for it is passed over.
    fn check(&self, id: StreamId) -> Result<(), Violation> {
        let opened = if self.is_ours(id) { id < self.next } else { id < self.expected || self.expected == 0 };
        if opened { Ok(()) } else { Err(Violation::Unknown(id)) }
    }

    /// Resets the stream of which most is held, of those that a socket could have taken.
    fn shed_one(&mut self) -> bool {
        let held = |stream: &Stream| (stream.sink.is_some(), stream.unread.len());
        let most = self.streams.iter_mut().max_by_key(|(_, stream)| held(stream));
        let Some((&id, stream)) = most.filter(|(_, stream)| !stream.unread.is_empty()) else { return false };
        self.held -= stream.cut(io::ErrorKind::OutOfMemory);
        self.shed += 1;
        self.queue.tell(&Frame::Reset { id, why: Reset::Overloaded });
        true
    }
}
