//! Puts the listings of all directories together, in the order of the tree.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::vec::IntoIter;

use super::Stamp;
use super::listing::{Listing, Mark};
use super::work::Found;
use crate::dataset::manifest::{Hostile, MAX_ENTRIES};
use crate::dataset::packed::{END, MAX_PACKED, write};

/// A directory that has been begun.
struct Begun {
    parts: IntoIter<Listing>,
    part: Part,
}

/// A listing of which a beginning has been put in place.
struct Part {
    bytes: Vec<u8>,
    stamps: Vec<Stamp>,
    marks: IntoIter<Mark>,
    done: usize,
    stamped: usize,
}

impl Part {
    fn of(listing: Listing) -> Self {
        let Listing { bytes, stamps, marks } = listing;
        Self { bytes, stamps, marks: marks.into_iter(), done: 0, stamped: 0 }
    }

    /// Puts everything in place up to a byte and an entry.
    fn put(&mut self, to: usize, entry: usize, tree: &mut Tree) {
        tree.bytes.extend_from_slice(&self.bytes[self.done..to]);
        tree.stamps.extend_from_slice(&self.stamps[self.stamped..entry]);
        (self.done, self.stamped) = (to, entry);
    }
}

struct Tree {
    bytes: Vec<u8>,
    stamps: Vec<Stamp>,
}

pub(super) fn assemble(mut found: Found) -> Result<(Vec<u8>, Vec<Stamp>), Hostile> {
    let size = found.listings.iter().flatten().map(Listing::len).sum::<usize>();
    let count = found.listings.iter().flatten().map(|listing| listing.stamps.len()).sum::<usize>() + 1;
    if count > MAX_ENTRIES || size > MAX_PACKED {
        return Err(Hostile::TooMany);
    }
    let mut tree = Tree { bytes: write::begin(&found.root), stamps: Vec::with_capacity(count) };
    tree.bytes.reserve_exact(size + 1);
    tree.stamps.push(found.root_stamp);
    // The number of each file that has several names.
    let mut first: HashMap<u64, usize> = HashMap::new();
    let mut take = |number: u32| {
        let mut parts = std::mem::take(&mut found.listings[number as usize]).into_iter();
        let part = Part::of(parts.next().unwrap_or_default());
        Begun { parts, part }
    };
    let mut open = vec![take(0)];
    while let Some(begun) = open.last_mut() {
        match begun.part.marks.next() {
            Some(Mark::Directory { end, entry, number }) => {
                begun.part.put(end, entry + 1, &mut tree);
                let below = take(number);
                open.push(below);
            }
            Some(Mark::Later { at, entry, record }) => {
                begun.part.put(at, entry, &mut tree);
                tree.bytes.append(&mut record.lock().unwrap_or_else(PoisonError::into_inner));
            }
            Some(Mark::Linked { record, entry, inode }) => {
                begun.part.put(record.start, entry, &mut tree);
                let here = tree.stamps.len();
                let to = *first.entry(inode).or_insert(here);
                if to == here {
                    continue;
                }
                let name =
                    record.start + 2..record.start + 2 + usize::from(begun.part.bytes[record.start + 1]);
                // There are no more than MAX_ENTRIES.
                let distance = u32::try_from(here - to).unwrap_or(u32::MAX);
                write::hard_link(&mut tree.bytes, &begun.part.bytes[name], distance);
                begun.part.done = record.end;
            }
            None => {
                let (end, entry) = (begun.part.bytes.len(), begun.part.stamps.len());
                begun.part.put(end, entry, &mut tree);
                if let Some(next) = begun.parts.next() {
                    begun.part = Part::of(next);
                } else {
                    open.pop();
                    tree.bytes.push(END);
                }
            }
        }
    }
    Ok((tree.bytes, tree.stamps))
}
