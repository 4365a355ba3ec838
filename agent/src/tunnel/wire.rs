//! The frames of a session, without I/O: a head of eight bytes (stream, kind, length), then what the kind says.
//!
//! A data frame is handed on as its bytes come in, so that nothing has to be held to its end; every other frame is
//! small and is held until it is whole. Whatever breaks the rules ends the session, with the rule's name.

use crate::wire::link::MAX_FRAME;

/// Bytes before each frame: the stream (four, big end first), the kind, the length (three).
pub const HEAD: usize = 8;
/// Most bytes of one data frame.
pub const MAX_DATA: usize = 256 * 1024;
/// Most bytes of a refusal.
const MAX_REFUSAL: usize = 4 * 1024;
/// Most bytes of a reason.
const MAX_REASON: usize = 512;
const WINDOW: usize = 4;

/// A stream's number on its session. The dialling side's are odd, the accepting side's even; none is used twice.
pub type StreamId = u32;

/// Why a side resets a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Whoever held the stream let go of it.
    Dropped,
    /// The opening crossed with a farewell: it can be tried over another session.
    Leaving,
    /// More was sent and not read than a session may hold.
    Overloaded,
}

/// What has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A stream begins; `window` bytes may be sent on it to whoever opens it.
    Open {
        id: StreamId,
        window: u32,
        header: &'a [u8],
    },
    /// The stream is taken, and that many bytes more may be sent on it.
    Accept {
        id: StreamId,
        window: u32,
    },
    Refuse {
        id: StreamId,
        answer: &'a [u8],
    },
    /// Some bytes of a data frame.
    Data {
        id: StreamId,
        bytes: &'a [u8],
    },
    /// The sender's direction of the stream has ended.
    End {
        id: StreamId,
    },
    Reset {
        id: StreamId,
        why: Reset,
    },
    /// That many bytes more may be sent.
    Credit {
        id: StreamId,
        more: u32,
    },
    /// The sender has used up its credit, and has more to send.
    Starved {
        id: StreamId,
    },
    Ping(u64),
    Pong(u64),
    /// The sender goes away: no new streams, those that are open go on.
    Leave,
    /// The session ends here.
    Close {
        reason: &'a [u8],
    },
}

/// A rule that the peer broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a frame of kind {kind} with {length} bytes")]
    Length { kind: u8, length: usize },
    #[error("a frame of kind {0} for the wrong stream")]
    Stream(u8),
    #[error("a stream was opened under the number {0}, which is not the next")]
    Number(StreamId),
    #[error("a frame for the stream {0}, which was never opened")]
    Unknown(StreamId),
    #[error("stream {0} was answered twice, or by the side that opened it")]
    Answer(StreamId),
    #[error("more bytes on the stream {0} than it was given credit for")]
    Overdrawn(StreamId),
    #[error("credit for the stream {0} beyond every measure")]
    Credit(StreamId),
    #[error("data on the stream {0} after its end")]
    AfterEnd(StreamId),
    #[error("stream {0} was opened after it was said that none would be")]
    Left(StreamId),
    #[error("what it is told is not read")]
    Unread,
}

const OPEN: u8 = 0;
const ACCEPT: u8 = 1;
const REFUSE: u8 = 2;
const DATA: u8 = 3;
const END: u8 = 4;
const RESET: u8 = 5;
const CREDIT: u8 = 6;
const PING: u8 = 7;
const PONG: u8 = 8;
const LEAVE: u8 = 9;
const CLOSE: u8 = 10;
const STARVED: u8 = 11;

/// Whether a frame of `kind` may have `length` bytes.
fn fits(kind: u8, length: usize) -> Result<(), Violation> {
    let (least, most) = match kind {
        OPEN => (WINDOW, WINDOW + MAX_FRAME),
        ACCEPT | CREDIT => (WINDOW, WINDOW),
        REFUSE => (0, MAX_REFUSAL),
        DATA => (1, MAX_DATA),
        END | LEAVE | STARVED => (0, 0),
        RESET => (1, 1),
        PING | PONG => (8, 8),
        CLOSE => (0, MAX_REASON),
        _ => return Err(Violation::Kind(kind)),
    };
    if (least..=most).contains(&length) { Ok(()) } else { Err(Violation::Length { kind, length }) }
}

/// Parts what arrives into frames. However the bytes are split, the same frames come out.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What has come of a frame that is not whole, head included.
    held: Vec<u8>,
    /// The frame in `held` has been given out.
    spent: bool,
    /// The data frame that is coming in, and what is missing of it.
    data: Option<(StreamId, usize)>,
}

impl Decoder {
    /// The next frame of `input`, which is moved on. `None` means that `input` is used up.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'a>>, Violation> {
        if self.spent {
            self.held.clear();
            self.spent = false;
        }
        if self.data.is_none() {
            let Some(head) = self.head(input) else { return Ok(None) };
            let (id, kind, length) = split(head);
            fits(kind, length)?;
            let of_session = matches!(kind, PING | PONG | LEAVE | CLOSE);
            if of_session != (id == 0) {
                return Err(Violation::Stream(kind));
            }
            if kind == DATA {
                self.take_head(input);
                self.data = Some((id, length));
            } else {
                let whole = HEAD + length;
                if self.held.is_empty()
                    && let Some((frame, rest)) = input.split_at_checked(whole)
                {
                    *input = rest;
                    return body(id, kind, frame.get(HEAD..).unwrap_or_default()).map(Some);
                }
                self.hold(input, whole);
                if self.held.len() < whole {
                    return Ok(None);
                }
                self.spent = true;
                return body(id, kind, self.held.get(HEAD..).unwrap_or_default()).map(Some);
            }
        }
        let Some((id, left)) = self.data else { return Ok(None) };
        if input.is_empty() {
            return Ok(None);
        }
        let (bytes, rest) = input.split_at(left.min(input.len()));
        *input = rest;
        self.data = (bytes.len() < left).then_some((id, left - bytes.len()));
        Ok(Some(Frame::Data { id, bytes }))
    }

    /// The head of the frame that comes next, without taking it.
    fn head(&mut self, input: &mut &[u8]) -> Option<[u8; HEAD]> {
        if self.held.is_empty()
            && let Some(head) = input.first_chunk()
        {
            return Some(*head);
        }
        self.hold(input, HEAD);
        self.held.first_chunk().copied()
    }

    fn take_head(&mut self, input: &mut &[u8]) {
        if self.held.is_empty() {
            *input = input.get(HEAD..).unwrap_or_default();
        } else {
            self.held.clear();
        }
    }

    /// Holds `input` until there are `whole` bytes of the frame.
    fn hold(&mut self, input: &mut &[u8], whole: usize) {
        let missing = whole.saturating_sub(self.held.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.held.extend_from_slice(taken);
        *input = rest;
    }
}

fn split(head: [u8; HEAD]) -> (StreamId, u8, usize) {
    let [first, second, third, fourth, kind, length @ ..] = head;
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    (u32::from_be_bytes([first, second, third, fourth]), kind, length)
}

/// The frame of which `bytes` is the body; [`fits`] has seen its length.
fn body(id: StreamId, kind: u8, bytes: &[u8]) -> Result<Frame<'_>, Violation> {
    let wrong = || Violation::Length { kind, length: bytes.len() };
    let four = || bytes.first_chunk().map(|four| u32::from_be_bytes(*four)).ok_or_else(wrong);
    let eight = || bytes.first_chunk().map(|eight| u64::from_be_bytes(*eight)).ok_or_else(wrong);
    Ok(match kind {
        OPEN => Frame::Open { id, window: four()?, header: bytes.get(WINDOW..).unwrap_or_default() },
        ACCEPT => Frame::Accept { id, window: four()? },
        REFUSE => Frame::Refuse { id, answer: bytes },
        END => Frame::End { id },
        RESET => {
            let why = match bytes {
                [1] => Reset::Leaving,
                [2] => Reset::Overloaded,
                _ => Reset::Dropped,
            };
            Frame::Reset { id, why }
        }
        CREDIT => Frame::Credit { id, more: four()? },
        STARVED => Frame::Starved { id },
        PING => Frame::Ping(eight()?),
        PONG => Frame::Pong(eight()?),
        LEAVE => Frame::Leave,
        CLOSE => Frame::Close { reason: bytes },
        _ => return Err(Violation::Kind(kind)),
    })
}

/// The head of a data frame of `length` bytes.
pub fn data_head(id: StreamId, length: usize) -> [u8; HEAD] {
    head(id, DATA, length)
}

fn head(id: StreamId, kind: u8, length: usize) -> [u8; HEAD] {
    debug_assert!(fits(kind, length).is_ok(), "a frame of kind {kind} with {length} bytes");
    let [first, second, third, fourth] = id.to_be_bytes();
    // Every length that fits is below 2^24.
    let [.., high, middle, low] = length.to_be_bytes();
    [first, second, third, fourth, kind, high, middle, low]
}

impl Frame<'_> {
    /// Appends the frame as it is sent. Words are cut to what a frame may have.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |id: StreamId, kind: u8, parts: [&[u8]; 2]| {
            out.extend_from_slice(&head(id, kind, parts[0].len() + parts[1].len()));
            out.extend_from_slice(parts[0]);
            out.extend_from_slice(parts[1]);
        };
        match *self {
            Frame::Open { id, window, header } => put(id, OPEN, [&window.to_be_bytes(), header]),
            Frame::Accept { id, window } => put(id, ACCEPT, [&window.to_be_bytes(), &[]]),
            Frame::Refuse { id, answer } => put(id, REFUSE, [cut(answer, MAX_REFUSAL), &[]]),
            Frame::Data { id, bytes } => put(id, DATA, [bytes, &[]]),
            Frame::End { id } => put(id, END, [&[], &[]]),
            Frame::Reset { id, why } => {
                let code = match why {
                    Reset::Dropped => 0,
                    Reset::Leaving => 1,
                    Reset::Overloaded => 2,
                };
                put(id, RESET, [&[code], &[]]);
            }
            Frame::Credit { id, more } => put(id, CREDIT, [&more.to_be_bytes(), &[]]),
            Frame::Starved { id } => put(id, STARVED, [&[], &[]]),
            Frame::Ping(n) => put(0, PING, [&n.to_be_bytes(), &[]]),
            Frame::Pong(n) => put(0, PONG, [&n.to_be_bytes(), &[]]),
            Frame::Leave => put(0, LEAVE, [&[], &[]]),
            Frame::Close { reason } => put(0, CLOSE, [cut(reason, MAX_REASON), &[]]),
        }
    }
}

fn cut(bytes: &[u8], most: usize) -> &[u8] {
    bytes.get(..most).unwrap_or(bytes)
}

#[cfg(test)]
mod tests;
