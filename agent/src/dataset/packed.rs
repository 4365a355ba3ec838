//! A manifest as it is kept, sent, hashed and walked: one canonical byte string.
//!
//! ```text
//! tree    = "cmtytre2" (0 or 1) meta record* END   whether the root has attributes, its metadata, what is in it
//! record  = kind name-length name body            names ascending within a directory
//! body    = meta [content]                        a directory's records follow its meta, and END ends them
//!         | distance                              a hard link: how many entries back its file is
//! meta    = mode uid gid seconds nanoseconds [count (name value)*]
//! content = size hash                             one chunk that is the whole file
//!         | size extents (gap count (hash length)*)*
//!         | target | major minor
//! ```
//!
//! Numbers are LEB128 in their only form, seconds zigzag. Names are relative to their directory and nothing in a record
//! depends on where it is, so a folder that moves changes one record and a change stays where it is made. Equal
//! trees give equal bytes, and their hash is the tree's. In memory a file takes its record and nothing else, some sixty
//! bytes and its name: whoever needs an entry walks to it.
//!
//! A [`Packed`] can only be made through [`Packed::decode`], which checks everything that a hostile peer could get
//! wrong, so walking one cannot fail.

mod directories;
#[cfg(test)]
pub(super) mod open;
mod pieces;
mod read;
#[cfg(test)]
pub(super) mod tests;
mod walk;
pub(super) mod write;

use std::sync::Arc;

use super::chunk::{ChunkRef, Hash, MAX_CHUNK};
use super::manifest::{
    Hostile, MAX_COMPONENT, MAX_DEPTH, MAX_ENTRIES, MAX_FILE, MAX_PATH, MAX_TARGET, MAX_XATTR, Meta, Time,
    TreePath,
};
pub use directories::{Child, Children, Directories, Directory};
pub use pieces::{MAX_PIECE, MIN_PIECE, Piece, pieces};
use read::Reader;
pub use walk::{Step, Walk};

/// Begins every packed manifest: what it is, and the version.
pub(super) const MAGIC: &[u8; 8] = b"cmtytre2";
/// Largest packed manifest, bytes: places in it are told in 32 bits.
pub const MAX_PACKED: usize = 2 << 30;

pub(super) const END: u8 = 0;
const DIRECTORY: u8 = 1;
/// A file that is one chunk from end to end.
const WHOLE: u8 = 2;
const FILE: u8 = 3;
const SYMLINK: u8 = 4;
const HARD_LINK: u8 = 5;
const FIFO: u8 = 6;
const SOCKET: u8 = 7;
const CHARACTER_DEVICE: u8 = 8;
const BLOCK_DEVICE: u8 = 9;
/// Added to the kind when there are extended attributes.
const ATTRIBUTES: u8 = 0x80;

/// A whole tree, checked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Packed {
    bytes: Arc<Vec<u8>>,
    hash: Hash,
    sums: Sums,
}

/// What a tree adds up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Every entry, the root too.
    pub entries: u32,
    /// Regular files, each once however many names it has.
    pub files: u32,
    /// References to chunks.
    pub chunks: u64,
    /// Bytes of data in all files, holes not counted.
    pub data: u64,
}

/// One entry, as it stands in the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its place in the order of the tree; the root's is 0.
    pub number: u32,
    /// Where it begins in the bytes; the root's is 0, which is no record's.
    pub at: u32,
    /// Empty for the root.
    pub name: &'a [u8],
    pub node: NodeRef<'a>,
    /// What two entries have in common that differ in their names alone.
    pub body: &'a [u8],
    meta: MetaRef<'a>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy)]
pub enum NodeRef<'a> {
    Directory,
    File(ContentRef<'a>),
    Symlink(&'a [u8]),
    /// Another name of an earlier entry that is not a directory, by its number. It has no metadata of its own.
    HardLink(u32),
    Fifo,
    Socket,
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
}

/// An entry's metadata.
#[derive(Debug, Clone, Copy, Default)]
pub struct MetaRef<'a> {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    attributes: usize,
    rest: &'a [u8],
}

/// A file's bytes: what is in no extent is a hole.
#[derive(Debug, Clone, Copy)]
pub struct ContentRef<'a> {
    pub size: u64,
    shape: Shape,
    rest: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Whole,
    Extents(usize),
}

impl Packed {
    /// Checks bytes from anywhere; what comes back is safe to build.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, Hostile> {
        if bytes.len() > MAX_PACKED {
            return Err(Hostile::TooMany);
        }
        let sums = walk::check(&bytes)?;
        Ok(Self { hash: Hash::of(&bytes), bytes: Arc::new(bytes), sums })
    }

    /// The same, for bytes that were read beside the hash that they had.
    pub fn decode_as(bytes: Vec<u8>, hash: Hash) -> Result<Self, Hostile> {
        let packed = Self::decode(bytes)?;
        if packed.hash == hash { Ok(packed) } else { Err(Hostile::Malformed) }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What names the whole tree.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// From the root through everything, in order.
    pub fn walk(&self) -> Walk<'_> {
        Walk::begin(&self.bytes)
    }

    /// The record at a place that a walk gave, with the number that it had there.
    pub fn record(&self, at: u32, number: u32) -> Option<Record<'_>> {
        let rest = self.bytes.get(at as usize..).filter(|_| at as usize >= MAGIC.len())?;
        Reader { rest }.record(at, number).ok().flatten()
    }

    /// The name of the entry whose record begins there. Unlike [`record`](Self::record) it does not pass over the chunks of
    /// a file, so that it may be asked for each of them.
    pub fn name(&self, at: u32) -> Option<&[u8]> {
        let rest = self.bytes.get(at as usize..).filter(|_| at as usize >= MAGIC.len())?;
        let (_kind, rest) = rest.split_first()?;
        let (len, rest) = rest.split_first()?;
        rest.get(..usize::from(*len))
    }
}

impl<'a> Record<'a> {
    /// `None` for a hard link: its file has it.
    pub fn meta(&self) -> Option<MetaRef<'a>> {
        if matches!(self.node, NodeRef::HardLink(_)) { None } else { Some(self.meta) }
    }

    pub fn content(&self) -> Option<ContentRef<'a>> {
        if let NodeRef::File(content) = self.node { Some(content) } else { None }
    }
}

impl<'a> MetaRef<'a> {
    /// Extended attributes, sorted by name.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut reader = Reader { rest: self.rest };
        (0..self.attributes).map_while(move |_| Some((reader.blob().ok()?, reader.blob().ok()?)))
    }

    pub fn open(&self) -> Meta {
        Meta {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            xattrs: self.attributes().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
        }
    }
}

impl<'a> ContentRef<'a> {
    /// Every chunk with its offset in the file.
    pub fn chunks(&self) -> Chunks<'a> {
        match self.shape {
            Shape::Whole => Chunks { rest: self.rest, extents: 0, left: 1, at: 0, whole: Some(self.size) },
            Shape::Extents(extents) => Chunks { rest: self.rest, extents, left: 0, at: 0, whole: None },
        }
    }

    /// Bytes that are not holes.
    pub fn data(&self) -> u64 {
        self.chunks().map(|(_, chunk)| u64::from(chunk.len)).sum()
    }
}

/// The chunks of a file.
#[derive(Debug, Clone)]
pub struct Chunks<'a> {
    rest: &'a [u8],
    extents: usize,
    left: usize,
    at: u64,
    whole: Option<u64>,
}

impl Iterator for Chunks<'_> {
    type Item = (u64, ChunkRef);

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader { rest: self.rest };
        while self.left == 0 {
            self.extents = self.extents.checked_sub(1)?;
            self.at += reader.number().ok()?;
            self.left = reader.small().ok()?;
        }
        self.left -= 1;
        let hash = reader.hash().ok()?;
        let len = match self.whole {
            Some(size) => u32::try_from(size).ok()?,
            None => reader.small().ok()?,
        };
        self.rest = reader.rest;
        let offset = self.at;
        self.at += u64::from(len);
        Some((offset, ChunkRef { hash, len }))
    }
}
