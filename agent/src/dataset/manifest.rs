//! What a manifest says of a tree's entries: paths, metadata and content, and the limits of each. Paths are bytes, since
//! that is what they are on disk. [`super::packed`] is the manifest itself.

use std::fmt;

use super::chunk::ChunkRef;

/// Most entries in one tree.
pub const MAX_ENTRIES: usize = 16_000_000;
/// Longest path within a tree. The kernel takes 4095 bytes in one call, and deeper trees in several.
pub const MAX_PATH: usize = 65_535;
/// Most directories within each other. No real tree comes near, and what walks one needs something for each.
pub const MAX_DEPTH: usize = 1024;
/// Longest target of a symlink, as the kernel has it.
pub const MAX_TARGET: usize = 4095;
/// Longest name within a path.
pub const MAX_COMPONENT: usize = 255;
/// Largest extended attribute value, as the kernel has it.
pub const MAX_XATTR: usize = 64 * 1024;
/// Largest file: what an offset can hold.
pub const MAX_FILE: u64 = i64::MAX as u64;

/// A path within a tree: relative, `/`-separated, without `.` or `..`; empty for the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    pub fn root() -> Self {
        Self::default()
    }

    pub fn new(bytes: Vec<u8>) -> Result<Self, Hostile> {
        if bytes.len() > MAX_PATH {
            return Err(Hostile::LongPath);
        }
        if bytes.split(|b| *b == b'/').count() > MAX_DEPTH {
            return Err(Hostile::TooDeep);
        }
        let bad = |part: &[u8]| {
            part.is_empty()
                || part == b"."
                || part == b".."
                || part.len() > MAX_COMPONENT
                || part.contains(&0)
        };
        if !bytes.is_empty() && bytes.split(|b| *b == b'/').any(bad) {
            return Err(Hostile::BadPath(Self(bytes)));
        }
        Ok(Self(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this entry, and its name there. `None` for the root.
    pub fn split(&self) -> Option<(TreePath, &[u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => Some((TreePath(self.0[..at].to_vec()), &self.0[at + 1..])),
            None => Some((TreePath::root(), &self.0)),
        }
    }

    /// The path of `name` in this directory.
    pub fn join(&self, name: &[u8]) -> Result<TreePath, Hostile> {
        let mut bytes = self.0.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self::new(bytes)
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str("./") } else { write!(f, "{}", self.0.escape_ascii()) }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Metadata that every entry has. A hard link's is its target's, and is empty here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits, set-id bits and sticky bit: the low twelve.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Sorted by name. ACLs are among them (`system.posix_acl_access`), as the bytes they are.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Directory,
    File(Content),
    Symlink(Vec<u8>),
    /// Another name of an earlier entry that is not a directory, by its place in the manifest.
    HardLink(u32),
    Fifo,
    Socket,
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
}

/// A file's bytes: what is in no extent is a hole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    pub size: u64,
    /// Ascending, never overlapping.
    pub extents: Vec<Extent>,
}

/// A run of data within a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub chunks: Vec<ChunkRef>,
}

/// Why something received is not a manifest that may be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Hostile {
    #[error("a path is longer than {MAX_PATH} bytes")]
    LongPath,
    #[error("there are more than {MAX_DEPTH} folders within each other")]
    TooDeep,
    #[error("{0} is not a path within a tree")]
    BadPath(TreePath),
    #[error("{0} appears twice")]
    Duplicate(TreePath),
    #[error("{0} is a hard link to nothing that can have one")]
    BadLink(TreePath),
    #[error("the tree has more than {MAX_ENTRIES} entries")]
    TooMany,
    #[error("the manifest is cut off or malformed")]
    Malformed,
}
