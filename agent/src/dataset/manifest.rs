//! What a tree is, in full: every entry, its metadata, and the chunks of its files.
//!
//! A [`Manifest`] can only be made through [`Manifest::new`], which checks everything that a hostile peer could get
//! wrong: a value of this type is safe to build. Paths are bytes, since that is what they are on disk.

use std::collections::HashMap;
use std::fmt;

use super::chunk::{ChunkRef, MAX_CHUNK};

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

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: TreePath,
    pub node: Node,
    pub meta: Meta,
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

impl Content {
    /// Every chunk with its offset in the file.
    pub fn chunks(&self) -> impl Iterator<Item = (u64, ChunkRef)> + '_ {
        self.extents.iter().flat_map(|extent| {
            extent.chunks.iter().scan(extent.offset, |at, chunk| {
                let here = *at;
                *at += u64::from(chunk.len);
                Some((here, *chunk))
            })
        })
    }
}

/// A whole tree. Entries are in an order in which they can be made: a directory before what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
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
    #[error("{0} is in no directory of the tree")]
    NoParent(TreePath),
    #[error("the tree's first entry is not its root directory")]
    NoRoot,
    #[error("{0} is a hard link to nothing that can have one")]
    BadLink(TreePath),
    #[error("{0} has impossible metadata")]
    BadMeta(TreePath),
    #[error("{0} has impossible content")]
    BadContent(TreePath),
    #[error("the tree has more than {MAX_ENTRIES} entries")]
    TooMany,
    #[error("the manifest is cut off or malformed")]
    Malformed,
}

impl Manifest {
    /// Checks `entries`.
    pub fn new(entries: Vec<Entry>) -> Result<Self, Hostile> {
        if entries.len() > MAX_ENTRIES {
            return Err(Hostile::TooMany);
        }
        if !entries.first().is_some_and(|e| e.path.is_root() && e.node == Node::Directory) {
            return Err(Hostile::NoRoot);
        }
        let mut is_directory: HashMap<&[u8], bool> = HashMap::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            if let Some((parent, _)) = entry.path.split()
                && !is_directory.get(parent.as_bytes()).copied().unwrap_or(false)
            {
                return Err(Hostile::NoParent(entry.path.clone()));
            }
            if is_directory.insert(entry.path.as_bytes(), entry.node == Node::Directory).is_some() {
                return Err(Hostile::Duplicate(entry.path.clone()));
            }
            check_meta(entry)?;
            match &entry.node {
                Node::File(content) => check_content(&entry.path, content)?,
                Node::Symlink(to) if to.is_empty() || to.len() > MAX_TARGET || to.contains(&0) => {
                    return Err(Hostile::BadContent(entry.path.clone()));
                }
                Node::HardLink(to) => {
                    let target = entries[..at].get(*to as usize).map(|e| &e.node);
                    if matches!(target, None | Some(Node::Directory | Node::HardLink(_))) {
                        return Err(Hostile::BadLink(entry.path.clone()));
                    }
                }
                _ => {}
            }
        }
        Ok(Self { entries })
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Every distinct chunk, in order of first need: the numbering that both ends of a transfer use.
    pub fn distinct_chunks(&self) -> Vec<ChunkRef> {
        let mut seen = std::collections::HashSet::new();
        self.files()
            .flat_map(|(_, content)| content.chunks())
            .map(|(_, chunk)| chunk)
            .filter(|chunk| seen.insert(*chunk))
            .collect()
    }

    /// Every file's place and content.
    pub fn files(&self) -> impl Iterator<Item = (usize, &Content)> {
        self.entries.iter().enumerate().filter_map(|(at, entry)| match &entry.node {
            Node::File(content) => Some((at, content)),
            _ => None,
        })
    }

    /// Bytes of data in all files, holes not counted.
    pub fn data_bytes(&self) -> u64 {
        self.files().flat_map(|(_, content)| content.chunks()).map(|(_, chunk)| u64::from(chunk.len)).sum()
    }
}

fn check_meta(entry: &Entry) -> Result<(), Hostile> {
    let meta = &entry.meta;
    let sorted = meta.xattrs.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let fit = meta.xattrs.iter().all(|(name, value)| {
        !name.is_empty() && name.len() <= MAX_COMPONENT && !name.contains(&0) && value.len() <= MAX_XATTR
    });
    let linked = matches!(entry.node, Node::HardLink(_)) && *meta != Meta::default();
    if sorted && fit && !linked && meta.mode <= 0o7777 && meta.mtime.nanoseconds < 1_000_000_000 {
        Ok(())
    } else {
        Err(Hostile::BadMeta(entry.path.clone()))
    }
}

fn check_content(path: &TreePath, content: &Content) -> Result<(), Hostile> {
    let mut end = 0;
    for extent in &content.extents {
        if extent.offset < end || extent.chunks.is_empty() {
            return Err(Hostile::BadContent(path.clone()));
        }
        end = extent.offset;
        for chunk in &extent.chunks {
            if chunk.len == 0 || chunk.len > MAX_CHUNK {
                return Err(Hostile::BadContent(path.clone()));
            }
            // Both are below 2^64 by far: the end was checked against the size on the way here.
            end = end.checked_add(u64::from(chunk.len)).ok_or_else(|| Hostile::BadContent(path.clone()))?;
            if end > content.size {
                return Err(Hostile::BadContent(path.clone()));
            }
        }
    }
    if content.size > MAX_FILE { Err(Hostile::BadContent(path.clone())) } else { Ok(()) }
}
