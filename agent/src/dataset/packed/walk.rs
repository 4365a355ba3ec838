//! From one record to the next, with the path that leads there.

use super::read::Reader;
use super::{END, Hostile, MAGIC, MAX_DEPTH, MAX_ENTRIES, MAX_PATH, NodeRef, Record, Sums, TreePath};

/// Where a walk has come to.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// A directory; what is in it follows, until it is left.
    Enter(Record<'a>),
    Entry(Record<'a>),
    /// Everything in the directory has been seen; [`Walk::path`] is the directory's again.
    Leave,
}

/// A walk through a whole tree.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    whole: &'a [u8],
    at: usize,
    number: u32,
    path: Vec<u8>,
    /// Of every directory that is open, how long its path is.
    open: Vec<usize>,
    begun: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn begin(bytes: &'a [u8]) -> Self {
        Self { whole: bytes, at: 0, number: 0, path: Vec::new(), open: Vec::new(), begun: false }
    }

    /// The path of the entry just come to, or of the directory just left; empty for the root.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// How many directories are open: 1 within the root.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    #[allow(clippy::should_implement_trait)] // the path lives in the walk, so this is no iterator
    pub fn next(&mut self) -> Option<Step<'a>> {
        // The bytes were checked when they became a manifest.
        self.step().ok().flatten()
    }

    fn step(&mut self) -> Result<Option<Step<'a>>, Hostile> {
        if !self.begun {
            let mut reader = Reader { rest: self.whole.strip_prefix(MAGIC).ok_or(Hostile::Malformed)? };
            let flag = reader.byte()?;
            if flag > 1 {
                return Err(Hostile::Malformed);
            }
            let body = reader.rest;
            let meta = reader.meta(flag == 1)?;
            let body = &body[..body.len() - reader.rest.len()];
            self.at = self.whole.len() - reader.rest.len();
            (self.begun, self.number) = (true, 1);
            self.open.push(0);
            let root = Record { number: 0, at: 0, name: b"", node: NodeRef::Directory, body, meta };
            return Ok(Some(Step::Enter(root)));
        }
        let Some(&length) = self.open.last() else { return Ok(None) };
        self.path.truncate(length);
        let mut reader = Reader { rest: &self.whole[self.at..] };
        let at = u32::try_from(self.at).map_err(|_| Hostile::TooMany)?;
        let record = reader.record(at, self.number)?;
        self.at = self.whole.len() - reader.rest.len();
        let Some(record) = record else {
            self.open.pop();
            return Ok(Some(Step::Leave));
        };
        self.number += 1;
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(record.name);
        if matches!(record.node, NodeRef::Directory) {
            self.open.push(self.path.len());
            Ok(Some(Step::Enter(record)))
        } else {
            Ok(Some(Step::Entry(record)))
        }
    }

    /// Where the next record begins.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next entry's number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

/// Walks through everything, once, believing nothing.
pub(super) fn check(bytes: &[u8]) -> Result<Sums, Hostile> {
    let mut walk = Walk::begin(bytes);
    let mut sums = Sums::default();
    // Of every open directory, where the last name in it is.
    let mut before: Vec<&[u8]> = Vec::new();
    let mut linkable = Bits::default();
    loop {
        let path = |walk: &Walk<'_>| TreePath::new(walk.path().to_vec()).unwrap_or_default();
        match walk.step() {
            Ok(Some(Step::Leave)) => {
                before.pop();
            }
            Ok(Some(Step::Enter(record) | Step::Entry(record))) => {
                sums.entries += 1;
                if sums.entries as usize > MAX_ENTRIES {
                    return Err(Hostile::TooMany);
                }
                if walk.path().len() > MAX_PATH {
                    return Err(Hostile::LongPath);
                }
                // The root is open in any walk, and a directory that was just come to as well.
                let nested = walk.depth() - usize::from(matches!(record.node, NodeRef::Directory));
                if nested > MAX_DEPTH {
                    return Err(Hostile::TooDeep);
                }
                if record.number > 0 {
                    match before.last_mut() {
                        Some(last) if *last < record.name => *last = record.name,
                        _ => return Err(Hostile::Duplicate(path(&walk))),
                    }
                }
                match record.node {
                    NodeRef::Directory => before.push(b""),
                    NodeRef::HardLink(to) if !linkable.get(to) => return Err(Hostile::BadLink(path(&walk))),
                    NodeRef::File(content) => {
                        sums.files += 1;
                        for (_, chunk) in content.chunks() {
                            sums.chunks += 1;
                            sums.data += u64::from(chunk.len);
                        }
                    }
                    _ => {}
                }
                linkable.push(!matches!(record.node, NodeRef::Directory | NodeRef::HardLink(_)));
            }
            Ok(None) if walk.position() == bytes.len() && bytes.last() == Some(&END) => return Ok(sums),
            Ok(None) => return Err(Hostile::Malformed),
            Err(e) => return Err(e),
        }
    }
}

/// One bit an entry.
#[derive(Debug, Default)]
struct Bits {
    words: Vec<u64>,
    len: u32,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        if let Some(last) = self.words.last_mut() {
            *last |= u64::from(bit) << (self.len % 64);
        }
        self.len += 1;
    }

    fn get(&self, at: u32) -> bool {
        self.words.get(at as usize / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}
