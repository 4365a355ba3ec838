//! Noticing that `ca.crl` changed.
//!
//! By looking: the file lies beside the store, and the kernel would tell of each of the store's writes as well. What
//! is looked at is the file's identity, size and times, and a file is read once two looks in a row agree, so that one
//! that is still being written is left alone. That holds on any filesystem, and for a file that is replaced by a rename.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Pki;
use crate::task::Tasks;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// What a file is known by: two that are the same in all of this are one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None` where there is nothing of that name. A link to what is not there is something, and so is what nobody may
    /// look at: it could be a list.
    pub fn of(path: &Path) -> Option<Self> {
        let found = match std::fs::metadata(path).or_else(|_| std::fs::symlink_metadata(path)) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(_) => return Some(Self::default()),
        };
        Some(Self {
            place: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl Pki {
    /// Keeps the lists as the file says until `tasks` end. `seen` is the file that was read at the start.
    pub fn follow(self: &Arc<Self>, seen: Option<Stamp>, tasks: &Tasks) {
        let (pki, ending) = (Arc::clone(self), tasks.ending());
        tasks.spawn("revocation lists", async move {
            ending.run_until_cancelled(pki.look(seen)).await;
        });
    }

    async fn look(self: Arc<Self>, mut seen: Option<Stamp>) {
        let mut before = seen;
        loop {
            tokio::time::sleep(LOOK).await;
            let now = Stamp::of(&self.crl);
            let (settled, changed) = (now == before, now != seen);
            before = now;
            if changed && settled {
                seen = now;
                let pki = Arc::clone(&self);
                // Reading a hundred thousand entries takes a while, and no handshake is to wait for it.
                let reading = tokio::task::spawn_blocking(move || pki.reload(Timestamp::now()));
                if let Err(error) = reading.await {
                    tracing::error!(%error, "the revocation lists could not be read anew");
                }
            }
            self.warn_of_stale(Timestamp::now());
        }
    }
}
