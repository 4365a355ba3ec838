//! What a session has to send, in order: small frames gathered, large ones as the buffers they were read into.
//!
//! A large read is never copied here: it is read behind eight bytes of room, its head is written there, and the whole
//! buffer is handed on until TLS takes the bytes out of it. Buffers are kept by the thread that is done with them.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::wire::{Frame, HEAD, StreamId, data_head};

/// Bytes that are read at once from an app or an instance.
pub const READ: usize = 64 * 1024;
/// What is worth handing on instead of copying.
const LARGE: usize = 4 * 1024;
/// Where a piece of small frames is full.
const GATHERED: usize = 32 * 1024;
/// What may wait before streams have to.
pub const FULL: usize = 256 * 1024;
/// What may wait of streams that begin, before others cannot begin.
const STUCK: usize = 8 * 1024 * 1024;
/// Buffers that a thread keeps.
const KEPT: usize = 8;

thread_local! {
    static BUFFERS: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// A buffer for one large read, with room for a frame's head.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Buffer {
    pub fn take() -> Self {
        let kept = BUFFERS.with_borrow_mut(Vec::pop);
        kept.unwrap_or_else(|| Self(vec![0; HEAD + READ].into_boxed_slice()))
    }

    pub fn keep(self) {
        BUFFERS.with_borrow_mut(|buffers| {
            if buffers.len() < KEPT {
                buffers.push(self);
            }
        });
    }

    /// Where to read into, at most `most` bytes.
    pub fn room(&mut self, most: usize) -> &mut [u8] {
        let end = HEAD + most.min(READ);
        self.0.get_mut(HEAD..end).unwrap_or_default()
    }

    /// The first `length` bytes that were read.
    pub fn read(&self, length: usize) -> &[u8] {
        self.0.get(HEAD..HEAD + length).unwrap_or_default()
    }
}

/// Some bytes to send.
#[derive(Debug)]
enum Piece {
    Gathered(Vec<u8>),
    Large { buffer: Buffer, end: usize },
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Gathered(bytes) => bytes,
            Piece::Large { buffer, end } => buffer.0.get(..*end).unwrap_or_default(),
        }
    }
}

/// The frames that wait to be sent.
#[derive(Debug, Default)]
pub struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// How many of them are no data.
    told: usize,
    spare: Vec<u8>,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// What streams may add now; none while too much waits.
    pub fn room(&self) -> usize {
        FULL.saturating_sub(self.bytes)
    }

    /// Whether nothing has gone out for long, so that new streams would only pile up.
    pub fn is_stuck(&self) -> bool {
        self.bytes > STUCK
    }

    /// Bytes of what the peer is told that wait: no stream's credit bounds them.
    pub fn told(&self) -> usize {
        self.told
    }

    /// Adds the beginning of a stream of ours. It is bounded by [`Queue::is_stuck`]: that the peer does not take it is
    /// not its breaking a rule.
    pub fn begin(&mut self, frame: &Frame<'_>) {
        self.gather(|out| frame.encode(out));
    }

    /// Adds a frame that is no data.
    pub fn tell(&mut self, frame: &Frame<'_>) {
        let before = self.bytes;
        self.gather(|out| frame.encode(out));
        self.told += self.bytes - before;
    }

    /// Adds a copy of `bytes` as one data frame.
    pub fn data(&mut self, id: StreamId, bytes: &[u8]) {
        self.gather(|out| Frame::Data { id, bytes }.encode(out));
    }

    /// Adds the first `length` bytes that `buffer` was filled with, and gives the buffer back if they were few.
    pub fn filled(&mut self, id: StreamId, mut buffer: Buffer, length: usize) -> Option<Buffer> {
        if length < LARGE {
            self.data(id, buffer.read(length));
            return Some(buffer);
        }
        if let Some(room) = buffer.0.first_chunk_mut() {
            *room = data_head(id, length);
        }
        let end = HEAD + length;
        self.bytes += end;
        self.pieces.push_back(Piece::Large { buffer, end });
        None
    }

    fn gather(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.pieces.back(), Some(Piece::Gathered(bytes)) if bytes.len() < GATHERED) {
            self.pieces.push_back(Piece::Gathered(std::mem::take(&mut self.spare)));
        }
        if let Some(Piece::Gathered(bytes)) = self.pieces.back_mut() {
            let before = bytes.len();
            encode(bytes);
            self.bytes += bytes.len() - before;
        }
    }

    /// Moves what waits to `other`, which is to be sent before anything else.
    pub fn move_to(&mut self, other: &mut Queue) {
        std::mem::swap(self, other);
        std::mem::swap(&mut self.spare, &mut other.spare);
    }

    /// The bytes in order, for one gathering write.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(Piece::bytes)
    }

    /// Drops the first `count` pieces: they have been sent.
    pub fn sent(&mut self, count: usize) {
        for piece in self.pieces.drain(..count.min(self.pieces.len())) {
            match piece {
                Piece::Large { buffer, .. } => buffer.keep(),
                Piece::Gathered(mut bytes) => {
                    bytes.clear();
                    if self.spare.capacity() < bytes.capacity() && bytes.capacity() <= 2 * GATHERED {
                        self.spare = bytes;
                    }
                }
            }
        }
        if self.pieces.is_empty() {
            self.bytes = 0;
            self.told = 0;
        }
    }
}
