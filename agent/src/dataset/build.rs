//! Why a tree could not be built in a staging area, which keeps what was done, or is not what it is to be.

use std::io;

use super::manifest::{Hostile, TreePath};
use super::pool::PoolError;

/// How a tree differs from its manifest.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{path} is not as it should be: its {what} differs")]
    Differs { path: TreePath, what: &'static str },
    #[error("{0} holds something that should not be there")]
    Extra(TreePath),
}

/// Why a tree could not be built. The staging area keeps what was done.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
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
}
