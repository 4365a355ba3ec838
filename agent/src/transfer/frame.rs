//! The frames of a transfer: a kind, a length, a payload.
//!
//! ```text
//! source                                target
//! Hello(header, what is offered)     ->
//!                                    <- Choice(what is taken); then for each tree:
//! Manifest …, ManifestEnd(tree hash) ->
//!                                    <- Want(one bit a distinct chunk)
//! Chunk …, Done                      ->
//!                                    <- Ack(tree hash): the tree is switched in and durable
//! ```
//!
//! Either side may say `Working` at any time, which only breaks the silence, and `Failed`, which ends it.

use std::io::{self, BufReader, BufWriter, Read, Write};

use super::bridge::Bridge;
use crate::dataset::chunk::{Hash, MAX_CHUNK};

/// Largest piece of a manifest or of a list of wants.
pub const MAX_PIECE: usize = 1 << 20;
/// Largest list of wants, bytes: one bit for each of 64 million chunks.
const MAX_WANT: u32 = 8 << 20;
const MAX_MESSAGE: usize = 4096;
/// Besides its data, a chunk's frame has its number and how it is packed.
const CHUNK_HEAD: u32 = 5;
/// Most frames of mere work in a row: each is a few seconds of it.
const MAX_WORKING: usize = 100_000;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// What the source offers, as JSON.
    Hello(Vec<u8>),
    /// What of it the target takes, as JSON.
    Choice(Vec<u8>),
    /// A piece of the manifest, encoded and compressed as one stream.
    Manifest(Vec<u8>),
    ManifestEnd(Hash),
    Want(Vec<u8>),
    Chunk {
        number: u32,
        packed: Packed,
        data: Vec<u8>,
    },
    Done,
    /// The tree is in its place for good. The notes say what could not be set there.
    Ack {
        tree: Hash,
        notes: Vec<String>,
    },
    Failed(String),
    Working,
}

/// How a chunk's data is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packed {
    Plain,
    Zstd,
}

/// Why the conversation ended.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// The other side's own words, for people.
    #[error("{0}")]
    Theirs(String),
    #[error("the other side does not keep to the protocol: {0}")]
    Malformed(&'static str),
}

/// Both directions, buffered.
pub struct Frames {
    input: BufReader<Half>,
    output: BufWriter<Half>,
}

/// The one bridge, shared by the reader and the writer of one thread.
struct Half(std::rc::Rc<std::cell::RefCell<Bridge>>);

impl Read for Half {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(into)
    }
}

impl Write for Half {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(from)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

impl Frames {
    pub fn new(bridge: Bridge) -> Self {
        let bridge = std::rc::Rc::new(std::cell::RefCell::new(bridge));
        Self {
            input: BufReader::with_capacity(64 * 1024, Half(bridge.clone())),
            output: BufWriter::with_capacity(256 * 1024, Half(bridge)),
        }
    }

    /// True once the transfer was told to stop.
    pub fn stopped(&self) -> bool {
        self.input.get_ref().0.borrow().stopped()
    }

    pub fn send(&mut self, frame: &Frame) -> Result<(), FrameError> {
        self.write(frame).map_err(FrameError::Broken)
    }

    pub fn flush(&mut self) -> Result<(), FrameError> {
        self.output.flush().map_err(FrameError::Broken)
    }

    /// The next frame that says something; what the other side says went wrong is an error.
    pub fn receive(&mut self) -> Result<Frame, FrameError> {
        for _ in 0..MAX_WORKING {
            match self.read()? {
                Frame::Working => {}
                Frame::Failed(message) => return Err(FrameError::Theirs(message)),
                frame => return Ok(frame),
            }
        }
        Err(FrameError::Malformed("it works without end"))
    }

    /// Tells the other side why, if it still listens.
    pub fn fail(&mut self, message: &str) {
        let _ = self.send(&Frame::Failed(clipped(message).to_owned())).and_then(|()| self.flush());
    }

    fn write(&mut self, frame: &Frame) -> io::Result<()> {
        let mut put = |kind: u8, parts: &[&[u8]]| {
            // Each payload is far below its limit, by the side that makes it.
            let len =
                u32::try_from(parts.iter().map(|p| p.len()).sum::<usize>()).map_err(io::Error::other)?;
            self.output.write_all(&[kind])?;
            self.output.write_all(&len.to_be_bytes())?;
            parts.iter().try_for_each(|part| self.output.write_all(part))
        };
        match frame {
            Frame::Manifest(piece) => put(1, &[piece]),
            Frame::ManifestEnd(hash) => put(2, &[&hash.0]),
            Frame::Want(bits) => put(3, &[bits]),
            Frame::Chunk { number, packed, data } => {
                put(4, &[&number.to_be_bytes(), &[u8::from(*packed == Packed::Zstd)], data])
            }
            Frame::Done => put(5, &[]),
            Frame::Ack { tree, notes } => {
                let notes = notes.join("\n");
                put(6, &[&tree.0, clipped(&notes).as_bytes()])
            }
            Frame::Failed(message) => put(7, &[message.as_bytes()]),
            Frame::Working => put(8, &[]),
            Frame::Hello(json) => put(9, &[json]),
            Frame::Choice(json) => put(10, &[json]),
        }
    }

    fn read(&mut self) -> Result<Frame, FrameError> {
        let mut head = [0; 5];
        self.input.read_exact(&mut head).map_err(FrameError::Broken)?;
        let kind = head[0];
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        // MAX_PIECE and MAX_MESSAGE are small constants.
        #[allow(clippy::cast_possible_truncation)]
        let (least, most) = match kind {
            1 | 9 | 10 => (0, MAX_PIECE as u32),
            2 => (32, 32),
            3 => (0, MAX_WANT),
            4 => (CHUNK_HEAD, CHUNK_HEAD + MAX_CHUNK),
            5 | 8 => (0, 0),
            6 => (32, 32 + MAX_MESSAGE as u32),
            7 => (0, MAX_MESSAGE as u32),
            _ => return Err(FrameError::Malformed("a frame of unknown kind")),
        };
        if !(least..=most).contains(&len) {
            return Err(FrameError::Malformed("a frame of impossible length"));
        }
        let mut payload = vec![0; len as usize];
        self.input.read_exact(&mut payload).map_err(FrameError::Broken)?;
        let hash = |payload: &[u8]| {
            payload.try_into().map(Hash).map_err(|_| FrameError::Malformed("a hash of impossible length"))
        };
        Ok(match kind {
            1 => Frame::Manifest(payload),
            2 => Frame::ManifestEnd(hash(&payload)?),
            3 => Frame::Want(payload),
            4 => {
                let number = u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]);
                let packed = match payload[4] {
                    0 => Packed::Plain,
                    1 => Packed::Zstd,
                    _ => return Err(FrameError::Malformed("a chunk packed in an unknown way")),
                };
                payload.drain(..CHUNK_HEAD as usize);
                Frame::Chunk { number, packed, data: payload }
            }
            5 => Frame::Done,
            6 => {
                let (tree, notes) = payload.split_at(32);
                let notes = notes.split(|b| *b == b'\n').filter(|note| !note.is_empty());
                Frame::Ack { tree: hash(tree)?, notes: notes.map(printable).collect() }
            }
            7 => Frame::Failed(printable(&payload)),
            9 => Frame::Hello(payload),
            10 => Frame::Choice(payload),
            _ => Frame::Working,
        })
    }
}

/// As much of a text as a frame takes.
fn clipped(text: &str) -> &str {
    let mut end = text.len().min(MAX_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The other side's words reach a terminal and a log: control characters stay out.
fn printable(message: &[u8]) -> String {
    String::from_utf8_lossy(message).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
