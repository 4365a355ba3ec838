//! One directory, or a part of a large one: a record and a stamp of each entry.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, Stat, StatxAttributes, StatxFlags, fstat, openat, readlinkat,
    statat, statx,
};
use rustix::io::Errno;

use super::work::{DIRECTORY, Open, PART, Shared};
use super::{Stamp, Watch};
use crate::dataset::beneath::Place;
use crate::dataset::chunk::Cutter;
use crate::dataset::manifest::{Content, Extent, Node};
use crate::dataset::packed::{Child, Children, Chunks, write};
use crate::dataset::scan::{ScanError, attributes_of, data_after, meta_of, xattrs};

/// A file of this size is a thread's work of its own, bytes.
const LARGE: i64 = 4 << 20;

/// The names in a directory, sorted, one after the other.
pub(super) struct Names {
    bytes: Vec<u8>,
    ranges: Vec<Range<u32>>,
}

impl Names {
    pub fn read(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
        let mut buffer: Vec<u8> = Vec::with_capacity(64 * 1024);
        let mut entries = RawDir::new(fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let start = u32::try_from(bytes.len()).map_err(io::Error::other)?;
                bytes.extend_from_slice(name);
                let end = u32::try_from(bytes.len()).map_err(io::Error::other)?;
                ranges.push(start..end);
            }
        }
        let name = |range: &Range<u32>| &bytes[range.start as usize..range.end as usize];
        ranges.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        Ok(Self { bytes, ranges })
    }

    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Empty beyond the last.
    pub fn get(&self, at: usize) -> &[u8] {
        self.ranges.get(at).map_or(&[], |range| &self.bytes[range.start as usize..range.end as usize])
    }
}

/// What was found: records one after the other, and what is to be put between them.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub bytes: Vec<u8>,
    pub stamps: Vec<Stamp>,
    pub marks: Vec<Mark>,
}

/// Where the record of a large file is put.
pub(super) type Slot = Arc<Mutex<Vec<u8>>>;

/// Something about one entry that only the order of the whole tree settles.
#[derive(Debug)]
pub(super) enum Mark {
    /// A directory: what is in it comes behind its record, which ends here.
    Directory { end: usize, entry: usize, number: u32 },
    /// A large file, which is somebody's own work: its record, once it is made, belongs here.
    Later { at: usize, entry: usize, record: Slot },
    /// One name of a file that has several: its record, and which file.
    Linked { record: Range<usize>, entry: usize, inode: u64 },
}

impl Listing {
    /// Bytes that it takes in a tree, with its end.
    pub fn len(&self) -> usize {
        let later = self.marks.iter().map(|mark| match mark {
            Mark::Later { record, .. } => record.lock().unwrap_or_else(PoisonError::into_inner).len(),
            Mark::Directory { .. } | Mark::Linked { .. } => 0,
        });
        self.bytes.len() + 1 + later.sum::<usize>()
    }

    pub fn of<'k, W: Watch>(
        shared: &Shared<'k, W>,
        open: &Arc<Open>,
        part: usize,
        mut known: Option<Children<'k>>,
        cutter: &mut Cutter,
    ) -> Result<Self, ScanError> {
        let mut listing = Self::default();
        let mut before = known.as_mut().and_then(Iterator::next);
        for at in part * PART..((part + 1) * PART).min(open.names.len()) {
            let name = open.names.get(at);
            while before.as_ref().is_some_and(|child| child.record.name < name) {
                before = known.as_mut().and_then(Iterator::next);
            }
            let was = before.as_ref().filter(|child| child.record.name == name);
            let mut entry = Reading { shared, open, name, cutter };
            match entry.add(&mut listing, at, was) {
                Ok(()) => {}
                // It went, or was replaced, while the directory was read.
                Err(ScanError::Changed(_)) if !shared.strict() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(listing)
    }
}

/// One entry, while it is read.
struct Reading<'a, 'b, W> {
    shared: &'a Shared<'b, W>,
    open: &'a Arc<Open>,
    name: &'a [u8],
    cutter: &'a mut Cutter,
}

/// The record of a large file, which another thread has listed.
pub(super) fn record_of<W: Watch>(
    shared: &Shared<'_, W>,
    open: &Arc<Open>,
    at: usize,
    stat: &Stat,
    before: Option<&Chunks<'_>>,
    cutter: &mut Cutter,
) -> Result<Vec<u8>, ScanError> {
    let mut record = Vec::new();
    Reading { shared, open, name: open.names.get(at), cutter }.record(stat, before, &mut record)?;
    Ok(record)
}

impl<'k, W: Watch> Reading<'_, 'k, W> {
    /// Adds the entry, the one at `at` in its directory.
    fn add(&mut self, listing: &mut Listing, at: usize, was: Option<&Child<'k>>) -> Result<(), ScanError> {
        let stat = statat(&self.open.fd, self.name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| self.io(e))?;
        let stamp = Stamp::of(&stat);
        if stat.st_dev != self.shared.device {
            return Err(ScanError::Mounted(self.open.path.join(self.name)?));
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        let known = was.and_then(|was| self.shared.known?.same(was, stamp));
        let before = was.and_then(|was| was.record.content()).map(|content| content.chunks());
        let is_large = kind == FileType::RegularFile && stat.st_size >= LARGE;
        let start = listing.bytes.len();
        let (entry, directory) = (listing.stamps.len(), kind == FileType::Directory);
        if !directory && stat.st_nlink > 1 {
            let record = self.linked(&stat, known, before.as_ref())?;
            put(&mut listing.bytes, self.name, &record);
            let record = start..listing.bytes.len();
            listing.marks.push(Mark::Linked { record, entry, inode: stamp.inode });
        } else if let Some((kind, body)) = known {
            head(&mut listing.bytes, self.name, kind);
            listing.bytes.extend_from_slice(body);
        } else if is_large && self.shared.strict() {
            let record = self.shared.later(self.open, at, stat, before);
            listing.marks.push(Mark::Later { at: start, entry, record });
        } else {
            self.record(&stat, before.as_ref(), &mut listing.bytes)?;
        }
        listing.stamps.push(stamp);
        if directory {
            let number = self.shared.found(self.open, self.name, stamp)?;
            listing.marks.push(Mark::Directory { end: listing.bytes.len(), entry, number });
        }
        Ok(())
    }

    /// Kind and body of a file that has several names, read once.
    fn linked(
        &mut self,
        stat: &Stat,
        known: Option<(u8, &[u8])>,
        before: Option<&Chunks<'_>>,
    ) -> Result<Arc<[u8]>, ScanError> {
        let link = {
            let mut links = self.shared.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.entry(Stamp::of(stat).inode).or_default().clone()
        };
        let mut body = link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(body) = &*body {
            return Ok(body.clone());
        }
        let mut bytes = Vec::new();
        if let Some((kind, rest)) = known {
            bytes.push(kind);
            bytes.extend_from_slice(rest);
        } else {
            self.record(stat, before, &mut bytes)?;
            bytes.drain(1..2 + self.name.len());
        }
        let bytes: Arc<[u8]> = bytes.into();
        *body = Some(bytes.clone());
        Ok(bytes)
    }

    /// Reads the entry, and appends its record. A file is cut along the chunks that it had `before`.
    fn record(
        &mut self,
        stat: &Stat,
        before: Option<&Chunks<'_>>,
        out: &mut Vec<u8>,
    ) -> Result<(), ScanError> {
        let place = Place {
            directory: self.open.fd.as_fd(),
            name: std::os::unix::ffi::OsStrExt::from_bytes(self.name),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut stat = *stat;
        let (node, attributes) = match kind {
            FileType::RegularFile => {
                let file = place.open(OFlags::RDONLY).map_err(|e| self.io(e))?;
                self.note_flags(file.as_fd(), &stat)?;
                let content = self.content(&file, &stat, before)?;
                let after = fstat(&file).map_err(|e| self.io(e))?;
                if Stamp::of(&after) != Stamp::of(&stat) {
                    if self.shared.strict() || after.st_ino != stat.st_ino {
                        return Err(self.changed());
                    }
                    stat = after;
                }
                (Node::File(content), attributes_of(file.as_fd()).map_err(|e| self.io(e))?)
            }
            FileType::Directory => {
                let fd =
                    openat(place.directory, place.name, DIRECTORY, Mode::empty()).map_err(|e| self.io(e))?;
                self.note_flags(fd.as_fd(), &stat)?;
                (Node::Directory, attributes_of(fd.as_fd()).map_err(|e| self.io(e))?)
            }
            FileType::Symlink => {
                let target = readlinkat(place.directory, place.name, Vec::new()).map_err(|e| self.io(e))?;
                (Node::Symlink(target.into_bytes()), xattrs(place).map_err(|e| self.io(e))?)
            }
            FileType::Fifo => (Node::Fifo, xattrs(place).map_err(|e| self.io(e))?),
            FileType::Socket => (Node::Socket, xattrs(place).map_err(|e| self.io(e))?),
            FileType::CharacterDevice | FileType::BlockDevice => {
                let device = Node::Device {
                    block: kind == FileType::BlockDevice,
                    major: rustix::fs::major(stat.st_rdev),
                    minor: rustix::fs::minor(stat.st_rdev),
                };
                (device, xattrs(place).map_err(|e| self.io(e))?)
            }
            FileType::Unknown => return Err(self.io(io::Error::other("is of a kind that cannot be copied"))),
        };
        write::record(out, self.name, &node, &meta_of(&stat, attributes));
        Ok(())
    }

    /// Flags that shut out even the owner are not copied: what is built could not be finished, or replaced. They are told
    /// of, each time.
    fn note_flags(&self, fd: BorrowedFd<'_>, stat: &Stat) -> Result<(), ScanError> {
        let flags = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
        let about = match statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::empty()) {
            Ok(about) => about,
            // An old kernel, or a sandbox: nobody can say.
            Err(Errno::NOSYS | Errno::PERM) => return Ok(()),
            Err(e) => return Err(self.io(e)),
        };
        if about.stx_attributes.intersects(flags) {
            let path = self.open.path.join(self.name)?;
            let mut flagged = self.shared.flagged.lock().unwrap_or_else(PoisonError::into_inner);
            flagged.inodes.insert(Stamp::of(stat).inode);
            flagged.first.get_or_insert(path);
        }
        Ok(())
    }

    /// Reads a file, chunk by chunk.
    fn content(
        &mut self,
        file: &File,
        stat: &Stat,
        before: Option<&Chunks<'_>>,
    ) -> Result<Content, ScanError> {
        let mut size = u64::try_from(stat.st_size).map_err(|e| self.io(io::Error::other(e)))?;
        // Only a file with fewer blocks than its size needs can have holes.
        let holes = u64::try_from(stat.st_blocks).unwrap_or(0) * 512 < size;
        let (mut extents, mut at): (Vec<Extent>, u64) = (Vec::new(), 0);
        let mut stopped = false;
        while at < size {
            let run =
                if holes { data_after(file, at, size).map_err(|e| self.io(e))? } else { Some((0, size)) };
            let Some((start, end)) = run else { break };
            let (shared, directory, name) = (self.shared, self.open.number, self.name);
            let (mut chunks, mut offset) = (Vec::new(), start);
            let run = Run { file, at: start, end };
            // Further runs find their own part of it: it is no longer than the file.
            let before = before.cloned().into_iter().flatten();
            self.cutter
                .cut_along(run, start, before, |chunk, data| {
                    shared.watch.chunk(directory, name, offset, chunk, data);
                    offset += data.len() as u64;
                    chunks.push(chunk);
                    stopped = stopped || !shared.count(data.len() as u64);
                    if stopped { Err(io::Error::other("stopped")) } else { Ok(()) }
                })
                .map_err(|e| if stopped { ScanError::Stopped } else { self.io(e) })?;
            at = end;
            let short = offset < end;
            if !chunks.is_empty() {
                extents.push(Extent { offset: start, chunks });
            }
            if short {
                // It lost its end meanwhile.
                if self.shared.strict() {
                    return Err(self.changed());
                }
                size = offset;
            }
        }
        Ok(Content { size, extents })
    }

    fn changed(&self) -> ScanError {
        self.open.path.join(self.name).map_or_else(ScanError::Unfit, ScanError::Changed)
    }

    fn io(&self, error: impl Into<io::Error>) -> ScanError {
        match self.open.path.join(self.name) {
            Ok(path) => {
                let error = error.into();
                // What a name led to a moment ago is something else now.
                match Errno::from_io_error(&error) {
                    Some(Errno::LOOP | Errno::NXIO) => ScanError::Changed(path),
                    _ => ScanError::io(&path, error),
                }
            }
            Err(unfit) => ScanError::Unfit(unfit),
        }
    }
}

fn head(out: &mut Vec<u8>, name: &[u8], kind: u8) {
    out.push(kind);
    // No file system that Linux has takes longer names.
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name);
}

/// Appends the record of another name.
fn put(out: &mut Vec<u8>, name: &[u8], kind_and_body: &[u8]) {
    if let Some((kind, body)) = kind_and_body.split_first() {
        head(out, name, *kind);
        out.extend_from_slice(body);
    }
}

/// A run of a file.
struct Run<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Run<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = into.len().min(left).min(1 << 20);
        if len == 0 {
            return Ok(0);
        }
        let n = self.file.read_at(&mut into[..len], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
