//! Writes records, in their one form.

use super::{
    ATTRIBUTES, BLOCK_DEVICE, CHARACTER_DEVICE, DIRECTORY, FIFO, FILE, HARD_LINK, MAGIC, SOCKET, SYMLINK,
    WHOLE,
};
use crate::dataset::manifest::{Content, Meta, Node};

/// Begins a tree: its root's metadata.
pub fn begin(root: &Meta) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(u8::from(!root.xattrs.is_empty()));
    meta(&mut out, root);
    out
}

/// Appends one entry; after a directory's come those in it, and END. A hard link has no body here: see [`hard_link`].
pub fn record(out: &mut Vec<u8>, name: &[u8], node: &Node, about: &Meta) {
    let whole = |content: &Content| match content.extents.as_slice() {
        [one] => one.offset == 0 && matches!(one.chunks[..], [chunk] if u64::from(chunk.len) == content.size),
        _ => false,
    };
    let kind = match node {
        Node::Directory => DIRECTORY,
        Node::File(content) if whole(content) => WHOLE,
        Node::File(_) => FILE,
        Node::Symlink(_) => SYMLINK,
        Node::HardLink(_) => HARD_LINK,
        Node::Fifo => FIFO,
        Node::Socket => SOCKET,
        Node::Device { block: false, .. } => CHARACTER_DEVICE,
        Node::Device { block: true, .. } => BLOCK_DEVICE,
    };
    head(out, if about.xattrs.is_empty() { kind } else { kind | ATTRIBUTES }, name);
    meta(out, about);
    match node {
        Node::File(content) => body(out, content, kind == WHOLE),
        Node::Symlink(to) => blob(out, to),
        Node::Device { major, minor, .. } => {
            number(out, (*major).into());
            number(out, (*minor).into());
        }
        Node::Directory | Node::HardLink(_) | Node::Fifo | Node::Socket => {}
    }
}

/// Appends another name of the entry that is so many entries back.
pub fn hard_link(out: &mut Vec<u8>, name: &[u8], distance: u32) {
    head(out, HARD_LINK, name);
    number(out, distance.into());
}

fn head(out: &mut Vec<u8>, kind: u8, name: &[u8]) {
    out.push(kind);
    // No file system that Linux has takes longer names.
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name);
}

fn body(out: &mut Vec<u8>, content: &Content, whole: bool) {
    number(out, content.size);
    if whole {
        for chunk in content.extents.iter().flat_map(|extent| &extent.chunks) {
            out.extend_from_slice(&chunk.hash.0);
        }
        return;
    }
    number(out, content.extents.len() as u64);
    let mut end = 0;
    for extent in &content.extents {
        number(out, extent.offset - end);
        end = extent.offset;
        number(out, extent.chunks.len() as u64);
        for chunk in &extent.chunks {
            out.extend_from_slice(&chunk.hash.0);
            number(out, chunk.len.into());
            end += u64::from(chunk.len);
        }
    }
}

fn meta(out: &mut Vec<u8>, meta: &Meta) {
    number(out, meta.mode.into());
    number(out, meta.uid.into());
    number(out, meta.gid.into());
    let seconds = meta.mtime.seconds;
    number(out, ((seconds << 1) ^ (seconds >> 63)).cast_unsigned());
    number(out, meta.mtime.nanoseconds.into());
    if !meta.xattrs.is_empty() {
        number(out, meta.xattrs.len() as u64);
        for (name, value) in &meta.xattrs {
            blob(out, name);
            blob(out, value);
        }
    }
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn blob(out: &mut Vec<u8>, blob: &[u8]) {
    number(out, blob.len() as u64);
    out.extend_from_slice(blob);
}
