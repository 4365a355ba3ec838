//! Builds a tree in a staging area, out of chunks found here and chunks that are sent, in any order.
//!
//! ```text
//! AREA/N/tree/      the tree: names and sizes first, then data, metadata last
//! AREA/N/manifest   what it is to become, encoded
//! AREA/N/journal    numbers of the chunks that have been written, four bytes each
//! AREA/N/finishing  metadata is being set: files may no longer be writable
//! ```
//!
//! Data goes straight to its place in the tree, so it is written once. The journal is only a hint: what it names is
//! hashed again before it counts, so it need not be flushed, and a torn end does no harm. An attempt at the same
//! manifest is continued where it stopped; one at another manifest gives its chunks and goes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dev, FileType, Mode, OFlags, linkat, makedev, mkdirat, mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use super::beneath::Root;
use super::chunk::ChunkRef;
use super::encoding;
use super::finish::{self, Unset};
use super::manifest::{Entry, Hostile, Manifest, Node, TreePath};
use super::pool::{PoolError, remove_tree};
use super::scan::{Progress, Scan, ScanError};
use super::verify::{self, VerifyError};

/// Why a tree could not be built. The staging area keeps what was done.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("no space left: {:.1} MiB are needed and {:.1} MiB are free", mib(*needed), mib(*available))]
    NoSpace { needed: u64, available: u64 },
    #[error("no space left on the file system")]
    Full,
    #[error("chunk {0} is not what its hash says")]
    Corrupt(u32),
    #[error("chunk {0} was not asked for")]
    NotAsked(u32),
    #[error("{0} chunks are missing")]
    Incomplete(usize),
    #[error("{path} could not be written: {source}")]
    Io { path: TreePath, source: io::Error },
    #[error("the staging area could not be used: {0}")]
    Area(io::Error),
    #[error(
        "{0} of the present tree was written to while it was taken over; try again when nothing writes to it"
    )]
    Changed(TreePath),
    #[error("it may not be built: {0}")]
    Hostile(Hostile),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error("stopped")]
    Stopped,
}

impl BuildError {
    pub fn io(path: &TreePath, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { path: path.clone(), source },
        }
    }

    fn area(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Area(source),
        }
    }
}

#[allow(clippy::cast_precision_loss)] // for people
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A tree being built.
#[derive(Debug)]
pub struct Build {
    attempt: PathBuf,
    older: Vec<PathBuf>,
    root: Root,
    manifest: Manifest,
    chunks: Vec<ChunkRef>,
    /// Where each chunk goes: entry and offset.
    places: Vec<Vec<(u32, u64)>>,
    have: Vec<bool>,
    journal: BufWriter<File>,
    open: Option<(u32, File)>,
    unset: Unset,
}

/// A whole tree, verified, ready to be switched in.
#[derive(Debug)]
pub struct Built {
    pub tree: PathBuf,
    /// What of the manifest could not be set here, in sentences.
    pub unset: Vec<String>,
}

impl Build {
    /// Begins, or continues, building `manifest` in `area`. `encoded` is its encoding.
    pub fn begin(area: &Path, manifest: Manifest, encoded: &[u8]) -> Result<Self, BuildError> {
        let mut older = attempts(area).map_err(BuildError::area)?;
        let newest = older.last().map_or(0, |(number, _)| *number);
        if let Some((_, attempt)) = older.last()
            && attempt.join("journal").is_file()
            && !attempt.join("finishing").exists()
            && fs::read(attempt.join("manifest")).is_ok_and(|bytes| bytes == encoded)
        {
            let attempt = attempt.clone();
            older.pop();
            let journal = fs::read(attempt.join("journal")).map_err(BuildError::area)?;
            let mut build = Self::over(attempt, older, manifest)?;
            build.trust_journal(&journal);
            return Ok(build);
        }
        if older.is_empty() {
            let stat = rustix::fs::statvfs(area).map_err(|e| BuildError::area(e.into()))?;
            let (needed, available) = (manifest.data_bytes(), stat.f_bavail * stat.f_frsize);
            if needed > available {
                return Err(BuildError::NoSpace { needed, available });
            }
        }
        let attempt = area.join((newest + 1).to_string());
        let private = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        private(&attempt)
            .and_then(|()| private(&attempt.join("tree")))
            .and_then(|()| fs::write(attempt.join("manifest"), encoded))
            .map_err(BuildError::area)?;
        let mut skeleton = Skeleton {
            root: Root::open(&attempt.join("tree")).map_err(BuildError::area)?,
            unset: Unset::default(),
        };
        for at in 1..manifest.entries().len() {
            skeleton.make(&manifest, at)?;
        }
        let mut build = Self::over(attempt, older, manifest)?;
        build.unset = skeleton.unset;
        Ok(build)
    }

    fn over(attempt: PathBuf, older: Vec<(u64, PathBuf)>, manifest: Manifest) -> Result<Self, BuildError> {
        let root = Root::open(&attempt.join("tree")).map_err(BuildError::area)?;
        let journal = File::options()
            .create(true)
            .append(true)
            .open(attempt.join("journal"))
            .map_err(BuildError::area)?;
        let chunks = manifest.distinct_chunks();
        let number: HashMap<ChunkRef, usize> = chunks.iter().copied().zip(0..).collect();
        let mut places = vec![Vec::new(); chunks.len()];
        for (entry, content) in manifest.files() {
            for (offset, chunk) in content.chunks() {
                // Every chunk of a file is among the distinct ones; an entry's place fits, by MAX_ENTRIES.
                if let (Some(at), Ok(entry)) = (number.get(&chunk), u32::try_from(entry)) {
                    places[*at].push((entry, offset));
                }
            }
        }
        let unset = finish::not_made(&manifest, &attempt.join("tree"));
        Ok(Self {
            attempt,
            older: older.into_iter().map(|(_, path)| path).collect(),
            root,
            manifest,
            have: vec![false; chunks.len()],
            chunks,
            places,
            // Small: what a kill leaves unwritten has to be sent again.
            journal: BufWriter::with_capacity(256, journal),
            open: None,
            unset,
        })
    }

    /// Every distinct chunk, and whether it is here already.
    pub fn chunks(&self) -> impl Iterator<Item = (ChunkRef, bool)> + '_ {
        self.chunks.iter().copied().zip(self.have.iter().copied())
    }

    pub fn chunk(&self, number: u32) -> Option<ChunkRef> {
        self.chunks.get(number as usize).copied()
    }

    /// Takes what it can from older attempts, which go then, and from `tree`, the volume as it is.
    pub fn reuse(&mut self, tree: Option<&Path>, progress: Progress<'_>) -> Result<(), BuildError> {
        for older in std::mem::take(&mut self.older) {
            self.reuse_attempt(&older, progress)?;
            remove_tree(&older)?;
        }
        let Some(tree) = tree.filter(|_| self.have.contains(&false)) else { return Ok(()) };
        match Scan::read(tree, progress) {
            Ok(mut scan) => self.reuse_scan(&mut scan, progress),
            Err(ScanError::Stopped) => Err(BuildError::Stopped),
            // Not worth failing for: then everything is fetched.
            Err(e) => {
                tracing::info!(reason = %e, "the present tree gives no chunks");
                Ok(())
            }
        }
    }

    /// Writes a chunk to all its places.
    pub fn put(&mut self, number: u32, data: &[u8]) -> Result<(), BuildError> {
        let at = number as usize;
        match self.chunks.get(at) {
            None => return Err(BuildError::NotAsked(number)),
            Some(chunk) if *chunk != ChunkRef::of(data) => return Err(BuildError::Corrupt(number)),
            Some(_) if self.have[at] => return Err(BuildError::NotAsked(number)),
            Some(_) => {}
        }
        for place in 0..self.places[at].len() {
            let (entry, offset) = self.places[at][place];
            let path = self.manifest.entries()[entry as usize].path.clone();
            if self.open.as_ref().is_none_or(|(open, _)| *open != entry) {
                let file = self.root.place(&path).and_then(|place| place.open(OFlags::RDWR));
                self.open = Some((entry, file.map_err(|e| BuildError::io(&path, e))?));
            }
            if let Some((_, file)) = &self.open {
                file.write_all_at(data, offset).map_err(|e| BuildError::io(&path, e))?;
            }
        }
        self.have[at] = true;
        self.journal.write_all(&number.to_le_bytes()).map_err(BuildError::area)
    }

    /// Verifies the whole tree and sets all metadata.
    pub fn finish(mut self, progress: Progress<'_>) -> Result<Built, BuildError> {
        let missing = self.have.iter().filter(|have| !**have).count();
        if missing > 0 {
            return Err(BuildError::Incomplete(missing));
        }
        self.journal.flush().map_err(BuildError::area)?;
        self.open = None;
        verify::contents(&mut self.root, &self.manifest, &self.unset, progress)?;
        fs::write(self.attempt.join("finishing"), b"").map_err(BuildError::area)?;
        finish::set_metadata(&mut self.root, &self.manifest, &mut self.unset)?;
        Ok(Built { tree: self.attempt.join("tree"), unset: self.unset.report(&self.manifest) })
    }

    fn trust_journal(&mut self, journal: &[u8]) {
        let mut data = Vec::new();
        for number in journal.as_chunks::<4>().0 {
            let at = u32::from_le_bytes(*number) as usize;
            let Some((entry, offset)) = self.places.get(at).and_then(|places| places.first()).copied() else {
                continue;
            };
            // All places must hold it, and a crash may have come between two of them.
            let others = self.places[at].len() > 1;
            let path = self.manifest.entries()[entry as usize].path.clone();
            data.resize(self.chunks[at].len as usize, 0);
            let read = self.root.file(&path).and_then(|file| file.read_exact_at(&mut data, offset));
            if read.is_ok() && ChunkRef::of(&data) == self.chunks[at] && !self.have[at] {
                if others {
                    let number = u32::from_le_bytes(*number);
                    if let Err(e) = self.put(number, &data) {
                        tracing::debug!(reason = %e, "a chunk of an earlier attempt is of no use");
                    }
                } else {
                    self.have[at] = true;
                }
            }
        }
    }

    fn reuse_attempt(&mut self, older: &Path, progress: Progress<'_>) -> Result<(), BuildError> {
        let Ok(Ok(manifest)) = fs::read(older.join("manifest")).map(|bytes| encoding::decode(&bytes)) else {
            return Ok(());
        };
        let (Ok(journal), Ok(mut root)) = (fs::read(older.join("journal")), Root::open(&older.join("tree")))
        else {
            return Ok(());
        };
        let numbers = self.missing();
        let chunks = manifest.distinct_chunks();
        let mut first: HashMap<ChunkRef, (usize, u64)> = HashMap::new();
        for (entry, content) in manifest.files() {
            for (offset, chunk) in content.chunks() {
                first.entry(chunk).or_insert((entry, offset));
            }
        }
        let (mut data, mut bytes) = (Vec::new(), 0);
        for number in journal.as_chunks::<4>().0 {
            let Some(chunk) = chunks.get(u32::from_le_bytes(*number) as usize) else { continue };
            let (Some(wanted), Some((entry, offset))) = (numbers.get(chunk), first.get(chunk)) else {
                continue;
            };
            if self.have[*wanted as usize] {
                continue;
            }
            data.resize(chunk.len as usize, 0);
            let path = &manifest.entries()[*entry].path;
            let read = root.file(path).and_then(|file| file.read_exact_at(&mut data, *offset));
            if read.is_ok() && ChunkRef::of(&data) == *chunk {
                self.put(*wanted, &data)?;
            }
            bytes += u64::from(chunk.len);
            if !progress(bytes) {
                return Err(BuildError::Stopped);
            }
        }
        Ok(())
    }

    fn reuse_scan(&mut self, scan: &mut Scan, progress: Progress<'_>) -> Result<(), BuildError> {
        let numbers = self.missing();
        let mut found: Vec<(u32, usize, u64, ChunkRef)> = Vec::new();
        for (entry, content) in scan.manifest.files() {
            for (offset, chunk) in content.chunks() {
                if let Some(number) = numbers.get(&chunk) {
                    found.push((*number, entry, offset, chunk));
                }
            }
        }
        let (mut data, mut bytes) = (Vec::new(), 0);
        for (number, entry, offset, chunk) in found {
            if self.have[number as usize] {
                continue;
            }
            // A chunk that has changed since is fetched instead.
            if scan.chunk(entry, offset, chunk, &mut data).is_ok() {
                self.put(number, &data)?;
            }
            bytes += u64::from(chunk.len);
            if !progress(bytes) {
                return Err(BuildError::Stopped);
            }
        }
        Ok(())
    }

    fn missing(&self) -> HashMap<ChunkRef, u32> {
        (0..).zip(self.chunks()).filter(|(_, (_, have))| !have).map(|(at, (chunk, _))| (chunk, at)).collect()
    }
}

/// Makes every entry, empty and private.
struct Skeleton {
    root: Root,
    unset: Unset,
}

impl Skeleton {
    fn make(&mut self, manifest: &Manifest, at: usize) -> Result<(), BuildError> {
        let entry = &manifest.entries()[at];
        let made = match &entry.node {
            Node::HardLink(to) => self.link(&manifest.entries()[*to as usize], entry),
            _ => self.node(entry),
        };
        match made {
            Ok(()) => Ok(()),
            Err(e) => match (&entry.node, Errno::from_io_error(&e)) {
                (Node::Device { .. }, Some(Errno::PERM)) | (Node::HardLink(_), Some(Errno::NOENT)) => {
                    self.unset.lacks_node(at);
                    Ok(())
                }
                _ => Err(BuildError::io(&entry.path, e)),
            },
        }
    }

    fn node(&mut self, entry: &Entry) -> io::Result<()> {
        let place = self.root.place(&entry.path)?;
        let (directory, name) = (place.directory, place.name);
        let private = Mode::from_raw_mode(0o600);
        let special = |kind, device: Dev| mknodat(directory, name, kind, private, device);
        match &entry.node {
            Node::Directory => mkdirat(directory, name, Mode::from_raw_mode(0o700))?,
            Node::File(content) => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = File::from(openat(directory, name, flags, private)?);
                if content.size > 0 {
                    file.set_len(content.size)?;
                }
            }
            Node::Symlink(to) => symlinkat(&to[..], directory, name)?,
            Node::Fifo => special(FileType::Fifo, 0)?,
            Node::Socket => special(FileType::Socket, 0)?,
            Node::Device { block, major, minor } => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                special(kind, makedev(*major, *minor))?;
            }
            Node::HardLink(_) => {}
        }
        Ok(())
    }

    fn link(&mut self, to: &Entry, entry: &Entry) -> io::Result<()> {
        let mut other = self.root.reopen()?;
        let (from, place) = (other.place(&to.path)?, self.root.place(&entry.path)?);
        Ok(linkat(from.directory, from.name, place.directory, place.name, AtFlags::empty())?)
    }
}

/// The attempts in a staging area, oldest first.
fn attempts(area: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(area)? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}
