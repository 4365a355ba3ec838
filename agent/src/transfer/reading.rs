//! A tree that is sent: what is in it, and its data.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::TransferError;
use crate::dataset::beneath::Root;
use crate::dataset::chunk::ChunkRef;
use crate::dataset::manifest::TreePath;
use crate::dataset::packed::Packed;
use crate::dataset::scan::ScanError;
use crate::dataset::survey::{Manner, Survey, Watch};
use crate::dataset::{Consistency, Dataset, Frozen, PoolError, Pools};

/// Where a tree is that is sent.
#[derive(Debug)]
pub enum At {
    /// A dataset's own.
    Live(Pools, Dataset),
    /// A snapshot's, of which everything is known.
    Frozen(Frozen),
    /// Any folder.
    Folder(PathBuf),
}

/// A tree of which it is known what is in it.
#[derive(Debug)]
pub struct Reading {
    pub packed: Packed,
    root: Root,
    /// `None` for what never changes.
    survey: Option<Survey>,
}

/// Lets a survey run to its end.
#[derive(Debug, Default)]
pub struct Seen;

impl Watch for Seen {
    fn progress(&self, _bytes: u64) -> bool {
        true
    }
}

impl At {
    /// Reads it, as far as it has to be read.
    pub fn read(&self, consistency: Consistency, watch: &impl Watch) -> Result<Reading, TransferError> {
        match self {
            At::Live(pools, dataset) => Reading::of(pools.survey(dataset, consistency, watch)?),
            At::Frozen(frozen) => {
                let root = Root::open(&frozen.tree()).map_err(|e| lost(&frozen.tree(), e))?;
                Ok(Reading { packed: frozen.packed()?, root, survey: None })
            }
            At::Folder(path) => Reading::of(survey(path, consistency, watch)?),
        }
    }

    /// Reads all of it.
    pub fn read_anew(&self, consistency: Consistency, watch: &impl Watch) -> Result<Reading, TransferError> {
        match self {
            At::Live(pools, dataset) => Reading::of(pools.survey_anew(dataset, consistency, watch)?),
            At::Frozen(frozen) => Reading::of(survey(&frozen.tree(), consistency, watch)?),
            At::Folder(path) => Reading::of(survey(path, consistency, watch)?),
        }
    }

    /// What is in it, if that can be told without reading much.
    pub fn known(&self, consistency: Consistency) -> Result<Option<Reading>, TransferError> {
        match self {
            At::Frozen(_) => self.read(consistency, &Seen).map(Some),
            At::Live(pools, dataset)
                if consistency == Consistency::Strict && pools.remembered(dataset).is_some() =>
            {
                self.read(consistency, &Seen).map(Some)
            }
            At::Live(..) | At::Folder(_) => Ok(None),
        }
    }

    fn path(&self) -> Option<PathBuf> {
        match self {
            At::Live(pools, dataset) => pools.tree(dataset).ok(),
            At::Frozen(frozen) => Some(frozen.tree()),
            At::Folder(path) => Some(path.clone()),
        }
    }
}

fn survey(path: &Path, consistency: Consistency, watch: &impl Watch) -> Result<Survey, TransferError> {
    Survey::read(path, Manner { consistency, index: None }, watch).map_err(TransferError::Source)
}

fn lost(path: &Path, source: io::Error) -> PoolError {
    PoolError::Io { path: path.to_owned(), doing: "read", source }
}

impl Reading {
    fn of(survey: Survey) -> Result<Self, TransferError> {
        let root = survey.root().reopen();
        let root =
            root.map_err(|source| TransferError::Source(ScanError::Io { path: TreePath::root(), source }))?;
        Ok(Self { packed: survey.packed().clone(), root, survey: Some(survey) })
    }

    /// Whether it is still what was read.
    pub fn unchanged(&self) -> Result<(), TransferError> {
        self.survey.as_ref().map_or(Ok(()), |survey| survey.unchanged().map_err(TransferError::Source))
    }

    pub fn files(&self) -> Result<Files<'_>, TransferError> {
        let root = self.root.reopen();
        let root =
            root.map_err(|source| TransferError::Source(ScanError::Io { path: TreePath::root(), source }))?;
        Ok(Files { reading: self, root, open: None })
    }
}

/// Reads chunks, of one file after another.
pub struct Files<'a> {
    reading: &'a Reading,
    root: Root,
    open: Option<(Vec<u8>, File)>,
}

impl Files<'_> {
    /// Reads a chunk into `into`. It must be what it was.
    pub fn chunk(
        &mut self,
        path: &[u8],
        offset: u64,
        chunk: ChunkRef,
        into: &mut Vec<u8>,
    ) -> Result<(), TransferError> {
        let told = || TreePath::new(path.to_vec()).unwrap_or_default();
        let failed = |e: io::Error| {
            TransferError::Source(match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => ScanError::Changed(told()),
                _ => ScanError::Io { path: told(), source: e },
            })
        };
        if self.open.as_ref().is_none_or(|(open, _)| open != path) {
            let file = self.root.file(&told()).map_err(failed)?;
            self.open = Some((path.to_vec(), file));
        }
        let Some((_, file)) = &self.open else { return Ok(()) };
        into.resize(chunk.len as usize, 0);
        file.read_exact_at(into, offset).map_err(failed)?;
        // A frozen tree is never written to, and the target looks at every chunk anyhow.
        if self.reading.survey.is_none() || ChunkRef::of(into) == chunk {
            Ok(())
        } else {
            Err(TransferError::Source(ScanError::Changed(told())))
        }
    }
}

/// About how much is in a tree: bytes and files.
pub fn expectation(at: &At) -> (u64, u64) {
    let (mut bytes, mut files) = (0, 0);
    let Some(path) = at.path() else { return (0, 0) };
    // What cannot be read is told when it is read.
    for entry in walkdir::WalkDir::new(path).into_iter().flatten() {
        if entry.file_type().is_file()
            && let Ok(meta) = fs::symlink_metadata(entry.path())
        {
            bytes += meta.len().min(meta.blocks() * 512);
            files += 1;
        }
    }
    (bytes, files)
}
