//! The frames of a transfer: a kind, a length, a payload.
//!
//! ```text
//! source                                    target
//! Hello(header, what is offered)         ->
//!                                        <- Choice(what is taken, whether it has nothing at all)
//! (whoever was dialled gave Tickets before that; the other says with Join how many connections it opened with them)
//! then for each tree, snapshots first:
//! Tree(hash)                             ->   (both have read theirs meanwhile)
//!                                        <- Have, or Outline
//! Outline(the pieces of the manifest)    ->
//!                                        <- Pieces(one bit a piece)
//! Manifest …                             ->
//!                                        <- Chunks(one bit a chunk)
//! Data … on any connection, End on each  ->
//! Whole(hash): it has not changed        ->
//!                                        <- Ack(hash of the last tree): all is switched in and durable
//! ```
//!
//! To a target that has nothing at all the source sends the first tree while it reads it, without being asked for
//! anything: `Data …, End` on each connection, `Tree(hash), Manifest …, Whole`. A tree that may change while it is read
//! is read once, and so sent in the same way; before it the target says with `Stock` which chunks it has, and these are
//! only named.
//! Either side may say `Working` at any time, which only breaks the silence, and `Failed`, which ends it.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::time::{Duration, Instant};

use super::bridge::{Input, MAX_SILENCE, Output};
use crate::dataset::chunk::Hash;

/// Largest piece of a list.
pub const MAX_PIECE: usize = 1 << 20;
/// Largest batch of data, as it is packed or once it is unpacked: a batch, and a largest chunk with its head.
pub const MAX_BATCH: usize = 2 << 20;
const MAX_MESSAGE: usize = 4096;
/// Longest time of mere work, without a word about it.
const MAX_WORKING: Duration = Duration::from_secs(12 * 3600);
/// What a frame's payload comes at, at the least, bytes each second.
const LEAST_RATE: u64 = 16 * 1024;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// What the source offers, as JSON.
    Hello = 1,
    /// What of it the target takes, as JSON.
    Choice = 2,
    /// A secret with which the other side may open one more connection.
    Ticket = 3,
    /// How many more connections were opened with tickets.
    Join = 4,
    /// The hash of a tree's manifest.
    Tree = 5,
    /// The target has that tree.
    Have = 6,
    /// The target wants the outline (from the target), or a part of it (from the source).
    Outline = 7,
    OutlineEnd = 8,
    /// Part of a list of wanted pieces, one bit each.
    Pieces = 10,
    PiecesEnd = 11,
    /// Part of the wanted pieces of a manifest, or of all of it, compressed as one stream.
    Manifest = 12,
    ManifestEnd = 13,
    /// Part of a list of wanted chunks, one bit each.
    Chunks = 14,
    ChunksEnd = 15,
    /// A batch of data, as it is.
    Data = 16,
    /// A batch of data, compressed.
    PackedData = 17,
    /// No more data of this tree on this connection.
    End = 18,
    /// The tree was sent whole, and did not change meanwhile.
    Whole = 19,
    /// How much there will be, as far as can be known: bytes and files.
    Expect = 20,
    /// All trees are in their place for good. What could not be set follows the hash.
    Ack = 21,
    Failed = 22,
    Working = 23,
    /// Part of a list of chunks that the target has, the beginning of each one's hash.
    Stock = 24,
    StockEnd = 25,
}

impl Kind {
    const ALL: [Kind; 24] = [
        Kind::Hello,
        Kind::Choice,
        Kind::Ticket,
        Kind::Join,
        Kind::Tree,
        Kind::Have,
        Kind::Outline,
        Kind::OutlineEnd,
        Kind::Pieces,
        Kind::PiecesEnd,
        Kind::Manifest,
        Kind::ManifestEnd,
        Kind::Chunks,
        Kind::ChunksEnd,
        Kind::Data,
        Kind::PackedData,
        Kind::End,
        Kind::Whole,
        Kind::Expect,
        Kind::Ack,
        Kind::Failed,
        Kind::Working,
        Kind::Stock,
        Kind::StockEnd,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Fewest and most bytes of its payload.
    fn lengths(self) -> (usize, usize) {
        match self {
            Kind::Hello
            | Kind::Choice
            | Kind::Outline
            | Kind::Pieces
            | Kind::Manifest
            | Kind::Chunks
            | Kind::Stock => (0, MAX_PIECE),
            Kind::Join => (1, 1),
            Kind::Ticket => (1, 256),
            Kind::Tree | Kind::Whole => (32, 32),
            Kind::Data | Kind::PackedData => (1, MAX_BATCH),
            Kind::Expect => (16, 16),
            Kind::Ack => (32, 32 + MAX_MESSAGE),
            Kind::Failed => (0, MAX_MESSAGE),
            Kind::Have
            | Kind::OutlineEnd
            | Kind::PiecesEnd
            | Kind::ManifestEnd
            | Kind::ChunksEnd
            | Kind::End
            | Kind::Working
            | Kind::StockEnd => (0, 0),
        }
    }
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

impl FrameError {
    /// A connection that broke. Whichever way the other side went, people are told that it did.
    fn broken(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        Self::Broken(match error.kind() {
            kind @ (BrokenPipe | ConnectionReset | UnexpectedEof) => {
                io::Error::new(kind, "the other side went away")
            }
            _ => error,
        })
    }
}

/// The frames that arrive.
pub struct Reader {
    input: BufReader<Input>,
}

impl Reader {
    pub fn new(input: Input) -> Self {
        Self { input: BufReader::with_capacity(256 * 1024, input) }
    }

    /// The next frame that says something, into `payload`; what the other side says went wrong is an error.
    pub fn receive(&mut self, payload: &mut Vec<u8>) -> Result<Kind, FrameError> {
        let begun = Instant::now();
        while begun.elapsed() < MAX_WORKING {
            match self.read(payload)? {
                Kind::Working => {}
                Kind::Failed => return Err(FrameError::Theirs(printable(payload))),
                kind => return Ok(kind),
            }
        }
        Err(FrameError::Malformed("it works without end"))
    }

    /// The other side's reason for having gone, if it left one.
    pub fn last_words(&mut self) -> Option<FrameError> {
        self.input.get_mut().until(Some(Instant::now() + Duration::from_secs(3)));
        let mut payload = Vec::new();
        loop {
            match self.receive(&mut payload) {
                Ok(_) => {}
                Err(theirs @ FrameError::Theirs(_)) => return Some(theirs),
                Err(_) => return None,
            }
        }
    }

    fn read(&mut self, payload: &mut Vec<u8>) -> Result<Kind, FrameError> {
        let mut head = [0; 5];
        self.input.read_exact(&mut head).map_err(FrameError::broken)?;
        let kind = Kind::of(head[0]).ok_or(FrameError::Malformed("a frame of unknown kind"))?;
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (least, most) = kind.lengths();
        if !(least..=most).contains(&len) {
            return Err(FrameError::Malformed("a frame of impossible length"));
        }
        payload.resize(len, 0);
        let time = MAX_SILENCE + Duration::from_secs(len as u64 / LEAST_RATE);
        self.input.get_mut().until(Some(Instant::now() + time));
        let read = self.input.read_exact(payload);
        self.input.get_mut().until(None);
        read.map_err(FrameError::broken)?;
        Ok(kind)
    }
}

/// The frames that are sent.
pub struct Writer {
    output: BufWriter<Output>,
}

impl Writer {
    pub fn new(output: Output) -> Self {
        Self { output: BufWriter::with_capacity(64 * 1024, output) }
    }

    pub fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), FrameError> {
        self.write(kind, payload).map_err(FrameError::broken)
    }

    pub fn flush(&mut self) -> Result<(), FrameError> {
        self.output.flush().map_err(FrameError::broken)
    }

    /// Tells the other side why, if it still listens.
    pub fn fail(&mut self, message: &str) {
        let _ = self.send(Kind::Failed, clipped(message).as_bytes()).and_then(|()| self.flush());
    }

    fn write(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        // Each payload is far below its limit, by the side that makes it.
        let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
        self.output.write_all(&[kind as u8])?;
        self.output.write_all(&len.to_be_bytes())?;
        self.output.write_all(payload)
    }
}

/// An acknowledgement: the hash of the last tree, and what could not be set, a line each.
pub fn acknowledgement(tree: Hash, notes: &[String]) -> Vec<u8> {
    let mut payload = tree.0.to_vec();
    payload.extend_from_slice(clipped(&notes.join("\n")).as_bytes());
    payload
}

/// The same, as it is read.
pub fn acknowledged(payload: &[u8]) -> Result<(Hash, Vec<String>), FrameError> {
    let (tree, notes) = payload.split_at_checked(32).ok_or(FrameError::Malformed("no acknowledgement"))?;
    let notes = notes.split(|b| *b == b'\n').filter(|note| !note.is_empty());
    Ok((hash(tree)?, notes.map(printable).collect()))
}

/// A hash, as a payload.
pub fn hash(payload: &[u8]) -> Result<Hash, FrameError> {
    payload.try_into().map(Hash).map_err(|_| FrameError::Malformed("a hash of impossible length"))
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
