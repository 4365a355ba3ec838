//! What is here already that a tree can be made of: earlier trees, their files and their chunks.
//!
//! What a manifest says of a tree is a claim about the past. A chunk that is found here is read and hashed before it is
//! used, and a file is linked only as long as it still looks as it did.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, RenameFlags, Stat, chmodat, linkat, renameat_with, statat};

use super::beneath::{Place, Root};
use super::chunk::{ChunkRef, Hash};
use super::manifest::TreePath;
use super::packed::{Directories, NodeRef, Packed, Record, Step};
use super::survey::index::is_alike;
use super::survey::{Stamp, Survey};

/// What may be done with a tree's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Its data is read and written anew.
    Data,
    /// A file that is the same in everything is given another name: the tree goes, or is never written to, like the new.
    Files,
    /// What an interrupted attempt left: nobody else's, so it is gone on with in place.
    Unfinished,
}

/// One tree that is here.
#[derive(Debug)]
pub struct Base {
    root: Root,
    packed: Packed,
    directories: Directories,
    share: Share,
    /// What tells whether a file of it is still what it was; without it none is linked that somebody may write to.
    survey: Option<Arc<Survey>>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Stock {
    bases: Vec<Base>,
}

/// A file that is one with a file of the stock, and what it looked like when it became so. It may be written to by whoever
/// uses that tree, so it is never touched, and looked at again.
#[derive(Debug, Clone, Copy)]
pub struct Linked {
    pub number: u32,
    /// `None` for a file that nobody writes to.
    pub stamp: Option<Stamp>,
}

impl Linked {
    /// It was given one more name: that alone has moved its ctime, or it is not known any more.
    pub fn gained_a_name(&mut self, before: Option<Stat>, after: Option<Stat>) {
        self.stamp = match (before, after) {
            (Some(was), Some(is)) if self.stamp == Some(Stamp::of(&was)) && is_alike(&was, &is) => {
                Some(Stamp::of(&is))
            }
            _ => None,
        };
    }
}

/// Where an entry is: of which tree, which record.
#[derive(Debug, Clone, Copy)]
struct Found {
    base: u32,
    directory: u32,
    at: u32,
    number: u32,
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy)]
struct Held {
    file: Found,
    offset: u64,
}

/// What of the stock is of use for one tree.
#[derive(Debug)]
pub struct Useful<'a> {
    stock: &'a Stock,
    /// By the hash of what two files have in common that differ in their names alone.
    same: Mutex<HashMap<u64, Vec<Found>>>,
    /// By the hash of their paths: files of unfinished trees.
    unfinished: HashMap<u64, Found>,
    chunks: HashMap<u64, Held>,
}

/// Makes of the stock's files what they can be made of, from one thread.
#[derive(Debug)]
pub struct Linker<'a> {
    useful: &'a Useful<'a>,
    /// The folder last linked from.
    folder: Option<((u32, u32), OwnedFd)>,
}

impl Stock {
    pub fn is_empty(&self) -> bool {
        self.bases.is_empty()
    }

    /// Adds a tree, with what is in it.
    pub fn add(&mut self, tree: &Path, packed: Packed, share: Share) -> io::Result<()> {
        let directories = Directories::of(&packed);
        self.bases.push(Base { root: Root::open(tree)?, packed, directories, share, survey: None });
        Ok(())
    }

    /// Adds a tree that is in use, as it was just read.
    pub fn add_live(&mut self, tree: &Path, survey: &Arc<Survey>, share: Share) -> io::Result<()> {
        self.add(tree, survey.packed().clone(), share)?;
        if let Some(base) = self.bases.last_mut() {
            base.survey = Some(survey.clone());
        }
        Ok(())
    }

    /// The same tree, so that its data is read and nothing else.
    pub fn data_only(&mut self) {
        for base in self.bases.iter_mut().filter(|base| base.share == Share::Files) {
            base.share = Share::Data;
        }
    }

    pub fn len(&self) -> usize {
        self.bases.len()
    }

    /// Forgets all trees but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.bases.truncate(len);
    }

    pub fn manifests(&self) -> impl Iterator<Item = &Packed> {
        self.bases.iter().map(|base| &base.packed)
    }

    /// Looks up what `wanted` needs.
    pub fn for_tree(&self, wanted: &Packed) -> Useful<'_> {
        let mut needed: HashSet<u64> = HashSet::new();
        let mut bodies: HashSet<u64> = HashSet::new();
        each_file(wanted, |_, record| {
            bodies.insert(key(record.body));
            needed.extend(record.content().into_iter().flat_map(|c| c.chunks()).map(|(_, c)| short(c.hash)));
        });
        let mut useful = Useful {
            stock: self,
            same: Mutex::default(),
            unfinished: HashMap::new(),
            chunks: HashMap::new(),
        };
        for (base, at) in self.bases.iter().zip(0..) {
            useful.look_through(base, at, Some(&needed), &bodies);
        }
        useful
    }

    /// Looks up every chunk, for a tree of which nothing is known yet.
    pub fn for_any_tree(&self) -> Useful<'_> {
        let mut useful = Useful {
            stock: self,
            same: Mutex::default(),
            unfinished: HashMap::new(),
            chunks: HashMap::new(),
        };
        for (base, at) in self.bases.iter().zip(0..) {
            useful.look_through(base, at, None, &HashSet::new());
        }
        useful
    }
}

impl Useful<'_> {
    /// `needed`: those chunks alone.
    fn look_through(
        &mut self,
        base: &Base,
        number: u32,
        needed: Option<&HashSet<u64>>,
        bodies: &HashSet<u64>,
    ) {
        let same = self.same.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut directory = Vec::new();
        let mut seen = 0;
        let mut walk = base.packed.walk();
        while let Some(step) = walk.next() {
            match step {
                Step::Enter(_) => {
                    directory.push(seen);
                    seen += 1;
                }
                Step::Leave => drop(directory.pop()),
                Step::Entry(record) => {
                    let Some(content) = record.content() else { continue };
                    let folder = directory.last().copied().unwrap_or(0);
                    let found =
                        Found { base: number, directory: folder, at: record.at, number: record.number };
                    if base.share == Share::Unfinished {
                        self.unfinished.entry(key(walk.path())).or_insert(found);
                        continue;
                    }
                    let body = key(record.body);
                    if base.share == Share::Files && bodies.contains(&body) {
                        same.entry(body).or_default().push(found);
                    }
                    for (offset, chunk) in content.chunks() {
                        let short = short(chunk.hash);
                        if needed.is_none_or(|needed| needed.contains(&short)) {
                            self.chunks.entry(short).or_insert(Held { file: found, offset });
                        }
                    }
                }
            }
        }
    }

    /// Whether the chunk is likely to be here.
    pub fn has(&self, chunk: ChunkRef) -> bool {
        self.chunks.contains_key(&short(chunk.hash))
    }

    /// The beginnings of the hashes of the chunks that are likely to be here.
    pub fn shorts(&self) -> impl Iterator<Item = u64> + '_ {
        self.chunks.keys().copied()
    }

    /// Another thread's view of the same.
    pub fn reader(&self) -> Reader<'_> {
        Reader { useful: self, open: None }
    }

    /// Another thread's hand on its files.
    pub fn linker(&self) -> Linker<'_> {
        Linker { useful: self, folder: None }
    }

    fn another(&self, body: u64) -> Option<Found> {
        self.same.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&body).and_then(Vec::pop)
    }
}

impl Linker<'_> {
    /// Gives a file that is the same in everything the name `place`, too, and says what it looks like then. `None` if
    /// there is none.
    pub fn link(&mut self, record: &Record<'_>, place: Place<'_>) -> io::Result<Option<Linked>> {
        let stock = self.useful.stock;
        let Some(meta) = record.meta() else { return Ok(None) };
        let size = record.content().map(|content| content.size);
        // Each serves once: two files of the new tree must not become one.
        let body = key(record.body);
        while let Some(found) = self.useful.another(body) {
            let base = &stock.bases[found.base as usize];
            let Some(theirs) = base.packed.record(found.at, found.number) else { continue };
            if theirs.body != record.body || !self.is_still(base, found, &theirs) {
                continue;
            }
            if !self.linked(base, found, &theirs, place) {
                continue;
            }
            let stat = statat(place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW)?;
            let time = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(u32::MAX));
            if u64::try_from(stat.st_size).ok() == size
                && time == (meta.mtime.seconds, meta.mtime.nanoseconds)
            {
                let stamp = base.survey.is_some().then(|| Stamp::of(&stat));
                return Ok(Some(Linked { number: record.number, stamp }));
            }
            // It was written to since it was read.
            rustix::fs::unlinkat(place.directory, place.name, AtFlags::empty())?;
        }
        Ok(None)
    }

    /// Whether a file is what it was when its tree was read.
    fn is_still(&mut self, base: &Base, found: Found, theirs: &Record<'_>) -> bool {
        let Some(survey) = base.survey.clone() else { return true };
        self.folder(base, found)
            .and_then(|folder| statat(folder, theirs.name, AtFlags::SYMLINK_NOFOLLOW).ok())
            .is_some_and(|stat| survey.is_still(found.number, &stat))
    }

    /// Takes over what an unfinished tree has at that path: it gets the name `place`, and what is good of it is told.
    pub fn take_over(
        &mut self,
        path: impl FnOnce() -> Vec<u8>,
        record: &Record<'_>,
        place: Place<'_>,
    ) -> Option<Vec<(u64, ChunkRef)>> {
        if self.useful.unfinished.is_empty() {
            return None;
        }
        let stock = self.useful.stock;
        let found = *self.useful.unfinished.get(&key(&path()))?;
        let base = stock.bases.get(found.base as usize)?;
        let theirs = base.packed.record(found.at, found.number)?;
        let content = record.content()?;
        // In place of a hole there could be data of another attempt.
        if content.data() != content.size {
            return None;
        }
        let folder = self.folder(base, found)?;
        let stat = statat(folder, theirs.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        // With two names it is, or may be, part of another tree, too: then it is not touched.
        if stat.st_nlink != 1 || !self.moved(base, found, &theirs, place) {
            return None;
        }
        // It may have been finished, and then no longer be writable.
        if stat.st_mode & 0o200 == 0 {
            let private = Mode::from_raw_mode(0o600);
            chmodat(place.directory, place.name, private, AtFlags::empty()).ok()?;
        }
        let mut good = Vec::new();
        let mut ours = content.chunks().peekable();
        for it in theirs.content()?.chunks() {
            while ours.peek().is_some_and(|own| own.0 < it.0) {
                ours.next();
            }
            if ours.peek() == Some(&it) {
                good.push(it);
            }
        }
        Some(good)
    }

    fn folder(&mut self, base: &Base, found: Found) -> Option<BorrowedFd<'_>> {
        let which = (found.base, found.directory);
        if self.folder.as_ref().is_none_or(|(open, _)| *open != which) {
            let path = base.directories.path(&base.packed, found.directory, b"");
            self.folder = Some((which, base.root.open_directory(&TreePath::new(path).ok()?).ok()?));
        }
        self.folder.as_ref().map(|(_, fd)| fd.as_fd())
    }

    /// Not linked: with one name it can be taken over again if this attempt is interrupted, too.
    fn moved(&mut self, base: &Base, found: Found, theirs: &Record<'_>, place: Place<'_>) -> bool {
        self.folder(base, found).is_some_and(|folder| {
            renameat_with(folder, theirs.name, place.directory, place.name, RenameFlags::NOREPLACE).is_ok()
        })
    }

    fn linked(&mut self, base: &Base, found: Found, theirs: &Record<'_>, place: Place<'_>) -> bool {
        self.folder(base, found).is_some_and(|folder| {
            linkat(folder, theirs.name, place.directory, place.name, AtFlags::empty()).is_ok()
        })
    }
}

/// Reads chunks of the stock, from one thread.
#[derive(Debug)]
pub struct Reader<'a> {
    useful: &'a Useful<'a>,
    open: Option<((u32, u32), std::fs::File)>,
}

impl Reader<'_> {
    /// Reads a chunk into `into`. False if it is not here after all.
    pub fn chunk(&mut self, chunk: ChunkRef, into: &mut Vec<u8>) -> bool {
        let Some(held) = self.useful.chunks.get(&short(chunk.hash)).copied() else { return false };
        self.read(held, chunk, into).is_some() && ChunkRef::of(into) == chunk
    }

    fn read(&mut self, held: Held, chunk: ChunkRef, into: &mut Vec<u8>) -> Option<()> {
        let which = (held.file.base, held.file.number);
        if self.open.as_ref().is_none_or(|(open, _)| *open != which) {
            let base = self.useful.stock.bases.get(held.file.base as usize)?;
            let record = base.packed.record(held.file.at, held.file.number)?;
            let path = base.directories.path(&base.packed, held.file.directory, record.name);
            let file = base.root.reopen().ok()?.file(&TreePath::new(path).ok()?).ok()?;
            self.open = Some((which, file));
        }
        into.resize(chunk.len as usize, 0);
        let (_, file) = self.open.as_ref()?;
        file.read_exact_at(into, held.offset).ok()
    }
}

/// Calls `with` for each file, with its path.
fn each_file(packed: &Packed, mut with: impl FnMut(&[u8], &Record<'_>)) {
    let mut walk = packed.walk();
    while let Some(step) = walk.next() {
        if let Step::Entry(record) = step
            && matches!(record.node, NodeRef::File(_))
        {
            with(walk.path(), &record);
        }
    }
}

/// The beginning of a hash: enough to find what is then compared in full, or hashed again.
pub fn short(hash: Hash) -> u64 {
    hash.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn key(bytes: &[u8]) -> u64 {
    short(Hash::of(bytes))
}
