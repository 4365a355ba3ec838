//! LXD's migration protocol, so that `lxc copy` works from a real LXD to us and from us to a real LXD.
//!
//! ```text
//! source                        control                      target
//! MigrationHeader (what there is)       ->
//!                                       <- MigrationHeader (what is taken, and how)
//!                                 fs
//! index header, barrier                 ->
//!                                       <- its answer, barrier
//! rsync of each snapshot, oldest first, and then of the tree; each ends with a barrier both ways
//!                               control
//!                                       <- MigrationControl (all is in its place, or why not)
//! ```
//!
//! `control` carries one protobuf message in each websocket message, `fs` bytes, with an empty text message as the
//! barrier. How the files go over is a [`message::Type`]; rsync is the one that every LXD has. `btrfs send` would be
//! another: offered first in [`source`], preferred in [`sink`], with a stream of its own in place of [`rsync`]'s.
//!
//! Two of our own agents that a client joins by these websockets agree on the chunk stream in the same headers, by a
//! field that LXD does not know, and speak it over `fs`.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::TransferError;

pub mod index;
pub mod message;
pub mod rsync;
pub mod sink;
pub mod socket;
pub mod source;

#[cfg(test)]
mod tests;

/// Trees that are sent and received over this protocol at the same time: each has rsync running.
const MOST_AT_ONCE: usize = 32;

static PLACES: Semaphore = Semaphore::const_new(MOST_AT_ONCE);

/// A place among those, until it is dropped.
fn place() -> Result<SemaphorePermit<'static>, TransferError> {
    PLACES.try_acquire().map_err(|_| TransferError::TooMany(MOST_AT_ONCE))
}

/// Why a migration failed, in words for people.
#[derive(Debug, thiserror::Error)]
pub enum LxdError {
    #[error("Failed waiting for migration {0} connection")]
    NotConnected(&'static str),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("the other side said nothing for {} s", .0.as_secs())]
    Silent(std::time::Duration),
    #[error("the other side makes no progress: less than {least} bytes in {} s", .span.as_secs())]
    Slow { least: u64, span: std::time::Duration },
    /// The other side's own words.
    #[error("Error from migration control {side}: {message}")]
    Theirs { side: &'static str, message: String },
    #[error("the other side does not keep to the migration protocol: {0}")]
    Malformed(&'static str),
    #[error("No matching migration types found. Offered types: [{0}], our types: [rsync]")]
    NoCommonType(String),
    #[error("Failed negotiating migration options: {0}")]
    Negotiation(String),
    #[error("LXD's protocol needs rsync on this machine: install the package \"rsync\" ({0})")]
    NoRsync(std::io::Error),
    #[error("rsync ended with {status}: {said}")]
    Rsync { status: std::process::ExitStatus, said: String },
    #[error("{} was changed while it was read; take a snapshot and copy that, or allow an inconsistent copy", .0.display())]
    Changed(std::path::PathBuf),
    #[error("what rsync works on: {0}")]
    Io(#[from] std::io::Error),
}
