//! Moving volumes: between clusters, within one, and between a cluster and the command line's machine.
//!
//! All three are the same conversation (see [`frame`]) between a source, which has a tree, and a target, which wants
//! it; only what carries it differs: a pinned TLS connection to the source's API, a pipe within the process, or the
//! command line's own connection. The target says which chunks it lacks, so that a refresh and a resumed transfer
//! send only what is new. Carrying the tree as an archive and extracting it would be simpler, and would always send
//! all of it.

use std::io;

pub mod allowance;
pub mod arriving;
pub mod asker;
pub mod batch;
pub mod bridge;
pub mod connections;
pub mod direct;
pub mod exchange;
pub mod frame;
pub mod greeting;
pub mod history;
pub mod lane;
pub mod lxd;
pub mod offer;
pub mod outbox;
pub mod outline;
pub mod pack;
pub mod progress;
pub mod reading;
pub mod receive;
pub mod receive_all;
pub mod remote;
pub mod run;
pub mod send;
pub mod shipment;
pub mod staging;
pub mod stocked;
pub mod telling;

#[cfg(test)]
mod tests;

pub use progress::{Meter, Progress, Report, Stage};
pub use remote::{Remote, Secrets};
pub use run::Transfers;

use indicatif::BinaryBytes;

use crate::dataset::build::BuildError;
use crate::dataset::manifest::Hostile;
use crate::dataset::scan::ScanError;
use crate::dataset::{Dataset, PoolError};
use frame::FrameError;
use lane::Lane;

/// Why a transfer failed. The target is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("{0}")]
    Source(ScanError),
    #[error(transparent)]
    Connection(#[from] FrameError),
    #[error("the source offers what may not be built: {0}")]
    Hostile(Hostile),
    #[error("the tree has too many files for one transfer: its manifest is larger than {0} bytes")]
    TooLarge(u64),
    #[error(transparent)]
    Build(BuildError),
    #[error("{}", with_cause(.0))]
    Pool(PoolError),
    #[error("the data is in place, but could not be recorded: {0}")]
    NotRecorded(String),
    #[error("compression failed: {0}")]
    Packing(io::Error),
    #[error("the source could not be reached: {0}")]
    Unreachable(String),
    #[error(transparent)]
    Remote(#[from] remote::RemoteError),
    #[error("nobody connected within {} s", .0.as_secs())]
    Nobody(std::time::Duration),
    #[error(transparent)]
    Lxd(#[from] lxd::LxdError),
    /// The target's reasons, in its own words.
    #[error("{0}")]
    Refused(String),
    #[error("{place} is full: {} more are needed there, and {} are free", BinaryBytes(*needed), BinaryBytes(*free))]
    Full { place: String, needed: u64, free: u64 },
    #[error(
        "{place} takes no more, though {} are free: its file system is out of entries for files (inodes; see df -i), or \
         a quota is used up",
        BinaryBytes(*free)
    )]
    NoEntries { place: String, free: u64 },
    #[error("{0} already exists")]
    Exists(Dataset),
    #[error("nothing can be copied onto itself")]
    Itself,
    #[error("{0} transfers are under way already; try again when one of them has ended")]
    TooMany(usize),
    #[error("stopped")]
    Stopped,
}

impl From<PoolError> for TransferError {
    fn from(e: PoolError) -> Self {
        Self::Pool(e)
    }
}

impl From<BuildError> for TransferError {
    fn from(e: BuildError) -> Self {
        match e {
            BuildError::Stopped => Self::Stopped,
            BuildError::Pool(e) => Self::Pool(e),
            e => Self::Build(e),
        }
    }
}

impl TransferError {
    /// Tells the other side, unless it is the one that said so.
    fn tell(&self, first: &Lane) {
        match self {
            Self::Connection(FrameError::Theirs(_) | FrameError::Broken(_)) => {}
            Self::Connection(FrameError::Malformed(what)) => {
                first.writer().fail(&format!("you do not keep to the protocol: {what}"));
            }
            e => first.writer().fail(&e.to_string()),
        }
    }
}

/// A pool's error names the path; what happened there is its cause.
fn with_cause(error: &PoolError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
