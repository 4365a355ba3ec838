//! Where the directories of a packed manifest are, so that one can be entered without walking there.

use super::read::Reader;
use super::{NodeRef, Packed, Record, Step};

/// One directory of a tree.
#[derive(Debug, Clone, Copy)]
pub struct Directory {
    /// Its own record; 0 for the root.
    pub record: u32,
    /// Where the records of what is in it begin, and the byte that ends them.
    pub first: u32,
    pub end: u32,
    /// Its number, and that of the first entry after everything in it.
    pub number: u32,
    pub past: u32,
    /// The directory that it is in (the root's is itself), and the first after everything in it, by their places here.
    pub parent: u32,
    pub next: u32,
}

/// Every directory, in the order of the tree: the root is the first.
#[derive(Debug, Clone, Default)]
pub struct Directories {
    all: Vec<Directory>,
}

impl Directories {
    pub fn of(packed: &Packed) -> Self {
        let mut all: Vec<Directory> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut walk = packed.walk();
        // The bytes are at most MAX_PACKED, so every place and count fits.
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        while let Some(step) = walk.next() {
            match step {
                Step::Enter(record) => {
                    let parent = open.last().copied().unwrap_or(0);
                    open.push(all.len());
                    all.push(Directory {
                        record: record.at,
                        first: small(walk.position()),
                        end: 0,
                        number: record.number,
                        past: 0,
                        parent: small(parent),
                        next: 0,
                    });
                }
                Step::Leave => {
                    let next = small(all.len());
                    if let Some(at) = open.pop() {
                        all[at].end = small(walk.position() - 1);
                        all[at].past = walk.number();
                        all[at].next = next;
                    }
                }
                Step::Entry(_) => {}
            }
        }
        Self { all }
    }

    pub fn all(&self) -> &[Directory] {
        &self.all
    }

    /// The directory that the record at `at` is in.
    pub fn around(&self, at: u32) -> Option<u32> {
        let after = self.all.partition_point(|directory| directory.first <= at);
        let mut place = after.checked_sub(1)?;
        while at > self.all[place].end {
            if place == 0 {
                return None;
            }
            place = self.all[place].parent as usize;
        }
        u32::try_from(place).ok()
    }

    /// The path of a directory, or of the entry `name` in it.
    pub fn path(&self, packed: &Packed, directory: u32, name: &[u8]) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = directory;
        while at != 0 {
            let Some(this) = self.all.get(at as usize) else { break };
            names.extend(packed.record(this.record, this.number).map(|record| record.name));
            at = this.parent;
        }
        names.reverse();
        if !name.is_empty() {
            names.push(name);
        }
        names.join(&b'/')
    }

    /// What is in a directory, in order.
    pub fn children<'a>(&'a self, packed: &'a Packed, directory: u32) -> Children<'a> {
        let this = self.all.get(directory as usize);
        Children {
            directories: self,
            bytes: packed.bytes(),
            at: this.map_or(u32::MAX, |this| this.first),
            number: this.map_or(0, |this| this.number + 1),
            next: directory + 1,
        }
    }
}

/// An entry of a directory; if it is one itself, its place among the directories.
#[derive(Debug, Clone, Copy)]
pub struct Child<'a> {
    pub record: Record<'a>,
    pub directory: Option<u32>,
}

/// What is in a directory. Cheap to clone, so that several can share the work on a large one.
#[derive(Debug, Clone)]
pub struct Children<'a> {
    directories: &'a Directories,
    bytes: &'a [u8],
    at: u32,
    number: u32,
    next: u32,
}

impl<'a> Iterator for Children<'a> {
    type Item = Child<'a>;

    fn next(&mut self) -> Option<Child<'a>> {
        let rest = self.bytes.get(self.at as usize..)?;
        let mut reader = Reader { rest };
        let record = reader.record(self.at, self.number).ok().flatten()?;
        if matches!(record.node, NodeRef::Directory) {
            let directory = self.next;
            let this = self.directories.all.get(directory as usize)?;
            (self.at, self.number, self.next) = (this.end + 1, this.past, this.next);
            Some(Child { record, directory: Some(directory) })
        } else {
            self.at = u32::try_from(self.bytes.len() - reader.rest.len()).ok()?;
            self.number += 1;
            Some(Child { record, directory: None })
        }
    }
}
