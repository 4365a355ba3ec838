//! How a tree comes about whose manifest is known: what is linked, what is copied from the stock, and what must come.
//!
//! The chunks of a manifest are numbered in its order, each mention by itself. What is missing is asked for by the number
//! of its first mention, and written to all places that need it when it comes.
//!
//! Files are linked, and large ones copied in stretches, by all threads: on two processors that took a refresh of 420 MB,
//! 225 MB of them in three large files with a change in each, from 0.9 s to 0.7, and cutting these files along the chunks
//! that they had before ([`super::chunk`]) from 0.7 to 0.5.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::iter::Take;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;

use super::beneath::Place;
use super::build::BuildError;
use super::chunk::ChunkRef;
use super::manifest::TreePath;
use super::packed::{Chunks, Directories, NodeRef, Packed, Step};
use super::site::{Hand, Site};
use super::stock::{Linked, Useful};
use super::survey::in_parallel;

/// What a tree still lacks.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order of their numbers.
    missing: Vec<Missing>,
    /// Further places of missing chunks: which, file, offset. In the order of the first.
    also: Vec<(u32, u32, u64)>,
    /// Files that data is missing of.
    files: Vec<FilePlace>,
    come: Vec<AtomicBool>,
    /// Files that are one with others, in the order of their numbers.
    pub linked: Vec<Linked>,
    /// Bytes that did not have to come.
    pub reused: u64,
    /// Bytes that come once and are needed more often.
    pub repeated: u64,
    /// Bytes that have to.
    pub wanted: u64,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    number: u64,
    chunk: ChunkRef,
    file: u32,
    offset: u64,
}

/// A file that is filled: its record and its folder.
#[derive(Debug, Clone, Copy)]
struct FilePlace {
    directory: u32,
    at: u32,
    number: u32,
    /// Of its first chunk.
    first: u64,
}

/// Files that one thread takes at a time.
const PART: usize = 256;
/// Chunks of a file that one thread takes at a time: a few large files are everyone's work.
const STRETCH: usize = 256;

/// A stretch of a file that is not there yet, with the chunks of it that are.
struct Job<'a> {
    place: FilePlace,
    /// The number of its first chunk, and how many there are.
    first: u64,
    chunks: Take<Chunks<'a>>,
    good: Vec<(u64, ChunkRef)>,
}

impl<'a> Job<'a> {
    /// The stretches of a file.
    fn all(place: FilePlace, mut chunks: Chunks<'a>, good: &[(u64, ChunkRef)], into: &mut Vec<Self>) {
        let (mut first, mut good) = (place.first, good);
        loop {
            let stretch = chunks.clone().take(STRETCH);
            let taken = chunks.by_ref().take(STRETCH).count();
            if taken == 0 {
                return;
            }
            let mut ahead = chunks.clone();
            let (here, later) = match ahead.next() {
                Some((next, _)) => good.split_at(good.partition_point(|(at, _)| *at < next)),
                None => (good, &[][..]),
            };
            into.push(Self { place, first, chunks: stretch, good: here.to_vec() });
            (first, good) = (first + taken as u64, later);
        }
    }
}

impl Plan {
    /// Makes of the stock what it can; `go_on` is asked now and then, and false stops it.
    pub fn make(
        site: &Site,
        packed: &Packed,
        directories: &Directories,
        useful: &Useful<'_>,
        go_on: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Self, BuildError> {
        let Whole { jobs, links, linked } = whole_files(site, packed, directories, useful, go_on)?;
        let lacking: Mutex<Vec<(FilePlace, u64, u64, ChunkRef)>> = Mutex::default();
        let reused = AtomicU64::new(linked);
        in_parallel(
            jobs.len(),
            || Ok((Hand::new(site), useful.reader(), Vec::new())),
            |(hand, reader, data), at| {
                let Some(job) = jobs.get(at) else { return Ok(()) };
                let place = job.place;
                let Some(name) = packed.name(place.at) else { return Ok(()) };
                hand.enter(&directories.path(packed, place.directory, b""))?;
                let mut good = job.good.iter().peekable();
                let mut absent = Vec::new();
                for ((offset, chunk), number) in job.chunks.clone().zip(job.first..) {
                    let there = good.peek().is_some_and(|(at, _)| *at == offset);
                    if there {
                        good.next();
                    } else if useful.has(chunk) && reader.chunk(chunk, data) {
                        hand.write(name, offset, data)?;
                    } else {
                        absent.push((place, number, offset, chunk));
                        continue;
                    }
                    reused.fetch_add(chunk.len.into(), Relaxed);
                    if !go_on(chunk.len.into()) {
                        return Err(BuildError::Stopped);
                    }
                }
                lacking.lock().unwrap_or_else(PoisonError::into_inner).extend(absent);
                Ok(())
            },
        )?;
        let lacking = lacking.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Self { linked: links, ..Self::of(lacking, reused.into_inner()) })
    }

    fn of(mut lacking: Vec<(FilePlace, u64, u64, ChunkRef)>, reused: u64) -> Self {
        lacking.sort_unstable_by_key(|(_, number, ..)| *number);
        let mut plan = Self::default();
        let mut known: HashMap<ChunkRef, u32> = HashMap::new();
        let mut last = None;
        for (place, number, offset, chunk) in lacking {
            if last != Some(place.number) {
                plan.files.push(place);
                last = Some(place.number);
            }
            // A manifest has fewer entries, and fewer chunks, than 32 bits count.
            let file = u32::try_from(plan.files.len() - 1).unwrap_or(u32::MAX);
            let next = u32::try_from(plan.missing.len()).unwrap_or(u32::MAX);
            if let Some(first) = known.get(&chunk) {
                plan.also.push((*first, file, offset));
                plan.repeated += u64::from(chunk.len);
            } else {
                known.insert(chunk, next);
                plan.missing.push(Missing { number, chunk, file, offset });
                plan.wanted += u64::from(chunk.len);
            }
        }
        plan.also.sort_unstable();
        plan.come.resize_with(plan.missing.len(), AtomicBool::default);
        plan.reused = reused;
        plan
    }

    /// The numbers of what is missing, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.missing.iter().map(|missing| missing.number)
    }

    /// How many chunks are missing still.
    pub fn left(&self) -> usize {
        self.come.iter().filter(|come| !come.load(Relaxed)).count()
    }

    /// A chunk has come: it is checked, and written to the first of its places.
    pub fn put(
        &self,
        hand: &mut Hand<'_>,
        packed: &Packed,
        directories: &Directories,
        number: u64,
        data: &[u8],
    ) -> Result<(), BuildError> {
        let not_asked = BuildError::NotAsked(u32::try_from(number).unwrap_or(u32::MAX));
        let Ok(at) = self.missing.binary_search_by_key(&number, |missing| missing.number) else {
            return Err(not_asked);
        };
        let missing = self.missing[at];
        if ChunkRef::of(data) != missing.chunk {
            return Err(BuildError::Corrupt(u32::try_from(number).unwrap_or(u32::MAX)));
        }
        if self.come[at].swap(true, Relaxed) {
            return Err(not_asked);
        }
        let place = self.files[missing.file as usize];
        let Some(name) = packed.name(place.at) else { return Ok(()) };
        hand.enter(&directories.path(packed, place.directory, b""))?;
        hand.write(name, missing.offset, data)
    }

    /// Writes the chunks that have come to all their other places. Not as they come: one that is everywhere in a large tree
    /// would keep the source waiting for as long as that takes to write.
    pub fn repeat(
        &self,
        site: &Site,
        packed: &Packed,
        directories: &Directories,
        go_on: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<(), BuildError> {
        let parts: Vec<_> = self.also.chunks(PART).collect();
        in_parallel(
            parts.len(),
            || Ok((Hand::new(site), None, Vec::new())),
            |(hand, at, data): &mut (Hand<'_>, Option<u32>, Vec<u8>), part| {
                for (of, file, offset) in parts.get(part).copied().unwrap_or_default() {
                    if *at != Some(*of) {
                        self.read_back(site, packed, directories, *of, data)?;
                        *at = Some(*of);
                    }
                    let place = self.files[*file as usize];
                    let Some(name) = packed.name(place.at) else { continue };
                    hand.enter(&directories.path(packed, place.directory, b""))?;
                    hand.write(name, *offset, data)?;
                    if !go_on(data.len() as u64) {
                        return Err(BuildError::Stopped);
                    }
                }
                Ok(())
            },
        )
    }

    /// Reads a chunk that has come from where it was written to.
    fn read_back(
        &self,
        site: &Site,
        packed: &Packed,
        directories: &Directories,
        at: u32,
        data: &mut Vec<u8>,
    ) -> Result<(), BuildError> {
        let Some(missing) = self.missing.get(at as usize) else { return Ok(()) };
        let place = self.files[missing.file as usize];
        let Some(name) = packed.name(place.at) else { return Ok(()) };
        let folder = site.folder(&directories.path(packed, place.directory, b""))?;
        data.resize(missing.chunk.len as usize, 0);
        let read = Place { directory: folder.as_fd(), name: OsStr::from_bytes(name) }
            .open(OFlags::RDONLY)
            .and_then(|file| file.read_exact_at(data, missing.offset));
        let path = || TreePath::new(directories.path(packed, place.directory, name)).unwrap_or_default();
        read.map_err(|e| BuildError::io(&path(), e))?;
        if ChunkRef::of(data) == missing.chunk {
            Ok(())
        } else {
            Err(BuildError::Corrupt(u32::try_from(missing.number).unwrap_or(u32::MAX)))
        }
    }
}

/// What became of whole files.
#[derive(Default)]
struct Whole<'a> {
    links: Vec<Linked>,
    jobs: Vec<Job<'a>>,
    /// Bytes that are linked.
    linked: u64,
}

/// Makes the folders; then links and takes over whole files, and says which others there are.
fn whole_files<'a>(
    site: &Site,
    packed: &'a Packed,
    directories: &Directories,
    useful: &Useful<'_>,
    go_on: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Whole<'a>, BuildError> {
    let files = folders_and_files(site, packed)?;
    let all: Mutex<Whole<'a>> = Mutex::default();
    let parts: Vec<_> = files.chunks(PART).collect();
    in_parallel(
        parts.len(),
        || Ok(useful.linker()),
        |linker, at| {
            let mut whole = Whole::default();
            let mut current: Option<(u32, Arc<OwnedFd>)> = None;
            for file in parts.get(at).copied().unwrap_or_default() {
                let Some(record) = packed.record(file.at, file.number) else { continue };
                let Some(content) = record.content() else { continue };
                let folder = match &current {
                    Some((at, folder)) if *at == file.directory => folder.clone(),
                    _ => {
                        let folder = site.folder(&directories.path(packed, file.directory, b""))?;
                        current = Some((file.directory, folder.clone()));
                        folder
                    }
                };
                let place = Place { directory: folder.as_fd(), name: OsStr::from_bytes(record.name) };
                let path = || directories.path(packed, file.directory, record.name);
                let taken = linker.take_over(path, &record, place);
                if taken.is_none() {
                    let linked = linker.link(&record, place);
                    let failed = |e| BuildError::io(&TreePath::new(path()).unwrap_or_default(), e);
                    if let Some(link) = linked.map_err(failed)? {
                        whole.links.push(link);
                        whole.linked += content.data();
                        if !go_on(content.data()) {
                            return Err(BuildError::Stopped);
                        }
                        continue;
                    }
                }
                Job::all(*file, content.chunks(), &taken.unwrap_or_default(), &mut whole.jobs);
            }
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.links.append(&mut whole.links);
            all.jobs.append(&mut whole.jobs);
            all.linked += whole.linked;
            Ok(())
        },
    )?;
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.links.sort_unstable_by_key(|link| link.number);
    all.jobs.sort_unstable_by_key(|job| job.first);
    Ok(all)
}

/// Makes every folder, and lists the files that have data.
fn folders_and_files(site: &Site, packed: &Packed) -> Result<Vec<FilePlace>, BuildError> {
    let (mut files, mut open, mut seen, mut chunks) = (Vec::new(), Vec::new(), 0_u32, 0_u64);
    let mut walk = packed.walk();
    while let Some(step) = walk.next() {
        match step {
            Step::Enter(_) => {
                site.folder(walk.path())?;
                open.push(seen);
                seen += 1;
            }
            Step::Leave => drop(open.pop()),
            Step::Entry(record) => {
                let NodeRef::File(content) = record.node else { continue };
                let first = chunks;
                chunks += content.chunks().count() as u64;
                if chunks > first {
                    let directory = open.last().copied().unwrap_or(0);
                    files.push(FilePlace { directory, at: record.at, number: record.number, first });
                }
            }
        }
    }
    Ok(files)
}
