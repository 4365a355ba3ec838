//! Manifests opened and checked by other means than the code under test: entry by entry, by their paths.

use std::collections::HashMap;

use super::{
    ContentRef, MAX_CHUNK, MAX_COMPONENT, MAX_FILE, MAX_TARGET, MAX_XATTR, Meta, NodeRef, Packed, Step,
    TreePath,
};
use crate::dataset::manifest::{Content, Extent, Node};

/// One entry of a tree.
#[derive(Debug)]
pub struct Entry {
    pub path: TreePath,
    pub node: Node,
    pub meta: Meta,
}

/// Every entry, in order.
pub fn open(packed: &Packed) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut walk = packed.walk();
    while let Some(step) = walk.next() {
        let (Step::Enter(record) | Step::Entry(record)) = step else { continue };
        entries.push(Entry {
            path: TreePath::new(walk.path().to_vec()).unwrap(),
            node: node(record.node),
            meta: record.meta().map(|meta| meta.open()).unwrap_or_default(),
        });
    }
    entries
}

fn node(node: NodeRef<'_>) -> Node {
    match node {
        NodeRef::Directory => Node::Directory,
        NodeRef::File(of) => Node::File(content(of)),
        NodeRef::Symlink(to) => Node::Symlink(to.to_vec()),
        NodeRef::HardLink(to) => Node::HardLink(to),
        NodeRef::Fifo => Node::Fifo,
        NodeRef::Socket => Node::Socket,
        NodeRef::Device { block, major, minor } => Node::Device { block, major, minor },
    }
}

fn content(of: ContentRef<'_>) -> Content {
    let mut extents: Vec<Extent> = Vec::new();
    let mut end = None;
    for (offset, chunk) in of.chunks() {
        match extents.last_mut().filter(|_| end == Some(offset)) {
            Some(extent) => extent.chunks.push(chunk),
            None => extents.push(Extent { offset, chunks: vec![chunk] }),
        }
        end = Some(offset + u64::from(chunk.len));
    }
    Content { size: of.size, extents }
}

/// Bytes of data in all files, holes not counted.
pub fn data(entries: &[Entry]) -> u64 {
    let files =
        entries.iter().filter_map(|entry| if let Node::File(of) = &entry.node { Some(of) } else { None });
    let chunks = files.flat_map(|of| of.extents.iter().flat_map(|extent| &extent.chunks));
    chunks.map(|chunk| u64::from(chunk.len)).sum()
}

/// What of a tree may not be built, if anything.
pub fn fault(entries: &[Entry]) -> Option<String> {
    let mut is_directory: HashMap<&[u8], bool> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let known = |path: &TreePath| is_directory.get(path.as_bytes()).copied();
        let fault = match entry.path.split() {
            None if at > 0 => Some("a second root"),
            None if entry.node != Node::Directory => Some("a root that is no folder"),
            Some((parent, _)) if known(&parent) != Some(true) => Some("an entry in no folder"),
            Some(_) if known(&entry.path).is_some() => Some("an entry twice"),
            _ => fault_of_meta(entry).or_else(|| fault_of_node(&entries[..at], &entry.node)),
        };
        if let Some(fault) = fault {
            return Some(format!("{fault}: {entry:?}"));
        }
        is_directory.insert(entry.path.as_bytes(), entry.node == Node::Directory);
    }
    if entries.is_empty() { Some("no root".to_owned()) } else { None }
}

fn fault_of_meta(entry: &Entry) -> Option<&'static str> {
    let meta = &entry.meta;
    let sorted = meta.xattrs.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let fit = meta.xattrs.iter().all(|(name, value)| {
        !name.is_empty() && name.len() <= MAX_COMPONENT && !name.contains(&0) && value.len() <= MAX_XATTR
    });
    let linked = matches!(entry.node, Node::HardLink(_)) && *meta != Meta::default();
    let good = sorted && fit && !linked && meta.mode <= 0o7777 && meta.mtime.nanoseconds < 1_000_000_000;
    (!good).then_some("impossible metadata")
}

fn fault_of_node(before: &[Entry], node: &Node) -> Option<&'static str> {
    let good = match node {
        Node::File(content) => is_possible(content),
        Node::Symlink(to) => !to.is_empty() && to.len() <= MAX_TARGET && !to.contains(&0),
        Node::HardLink(to) => {
            let target = before.get(*to as usize).map(|entry| &entry.node);
            !matches!(target, None | Some(Node::Directory | Node::HardLink(_)))
        }
        _ => true,
    };
    (!good).then_some("impossible content")
}

fn is_possible(content: &Content) -> bool {
    let mut end = 0_u64;
    for extent in &content.extents {
        if extent.offset < end || extent.chunks.is_empty() {
            return false;
        }
        end = extent.offset;
        for chunk in &extent.chunks {
            let next = end.checked_add(u64::from(chunk.len)).filter(|next| *next <= content.size);
            match next {
                Some(next) if chunk.len > 0 && chunk.len <= MAX_CHUNK => end = next,
                _ => return false,
            }
        }
    }
    content.size <= MAX_FILE
}
