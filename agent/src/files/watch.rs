//! Noticing that a folder changed.
//!
//! The kernel's events say only *that* something happened; whoever listens reads the folder whole. So lost events,
//! renames and editors' habits need no treatment of their own: a burst becomes one `Changed` once it has been quiet
//! for a moment. A look at the folder's identity twice a second notices what no event tells: that the folder (or a
//! symlink that it is reached by) was moved away, replaced, or came back. Where the kernel grants no more watches,
//! the folder is looked at in intervals instead.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// The folder may have changed: read it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed;

/// Quiet that ends a burst.
const QUIET: Duration = Duration::from_millis(40);
/// Longest burst: a folder that never rests is read all the same.
const LONGEST_BURST: Duration = Duration::from_millis(300);
/// Between two looks at the folder's identity.
const LOOK: Duration = Duration::from_millis(500);
/// Between two readings where the kernel does not tell of changes.
const POLL: Duration = Duration::from_secs(2);

/// Tells of changes in `folder` until the receiver is dropped. The folder need not exist yet. What happens after
/// this returns is told; several changes may be told as one.
pub fn watch(folder: &Path) -> mpsc::Receiver<Changed> {
    let (tell, told) = mpsc::channel(1);
    let mut watched = Watched {
        folder: folder.to_owned(),
        event: Arc::new(Notify::new()),
        watcher: None,
        identity: None,
        polling: None,
    };
    watched.renew();
    tokio::spawn(async move {
        tokio::select! {
            () = watched.run(&tell) => {}
            () = tell.closed() => {}
        }
    });
    told
}

struct Watched {
    folder: PathBuf,
    event: Arc<Notify>,
    watcher: Option<notify::RecommendedWatcher>,
    /// Device and inode of what is watched; `None` while there is no folder.
    identity: Option<(u64, u64)>,
    /// When the last reading in intervals was, while there is no watch on a folder that exists.
    polling: Option<Instant>,
}

impl Watched {
    async fn run(&mut self, tell: &mpsc::Sender<Changed>) {
        let event = Arc::clone(&self.event);
        loop {
            tokio::select! {
                () = event.notified() => {
                    let latest = Instant::now() + LONGEST_BURST;
                    while Instant::now() < latest
                        && tokio::time::timeout(QUIET, event.notified()).await.is_ok()
                    {}
                    self.look();
                }
                () = tokio::time::sleep(LOOK) => {
                    if !self.look() {
                        continue;
                    }
                }
            }
            // Full means that the last one has not been taken yet: it stands for this one too.
            if let Err(mpsc::error::TrySendError::Closed(_)) = tell.try_send(Changed) {
                return;
            }
        }
    }

    /// Whether there is something to tell that no event told.
    fn look(&mut self) -> bool {
        if identity(&self.folder) != self.identity {
            self.renew();
            return true;
        }
        match &mut self.polling {
            Some(last) if last.elapsed() >= POLL => {
                self.renew();
                true
            }
            _ => false,
        }
    }

    /// Watches what is at the path now.
    fn renew(&mut self) {
        let tried_before = self.polling.is_some();
        self.watcher = None;
        self.polling = None;
        self.identity = identity(&self.folder);
        if self.identity.is_none() {
            return;
        }
        match self.start() {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                self.polling = Some(Instant::now());
                if !tried_before {
                    let advice = match error.kind {
                        notify::ErrorKind::MaxFilesWatch => "raise fs.inotify.max_user_watches",
                        _ => "",
                    };
                    tracing::warn!(
                        folder = %self.folder.display(), %error, advice,
                        "the folder cannot be watched; it is read every {} s instead", POLL.as_secs()
                    );
                }
            }
        }
    }

    fn start(&self) -> notify::Result<notify::RecommendedWatcher> {
        let event = Arc::clone(&self.event);
        let mut watcher = notify::recommended_watcher(move |found: notify::Result<notify::Event>| {
            let matters = match found {
                Ok(found) => found.need_rescan() || is_change(found.kind),
                // Whatever was lost, reading again finds it.
                Err(_) => true,
            };
            if matters {
                event.notify_one();
            }
        })?;
        watcher.watch(&self.folder, RecursiveMode::Recursive)?;
        Ok(watcher)
    }
}

/// Reading is no change: the reading that follows a change would be one, for ever.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(folder).ok()?;
    metadata.is_dir().then(|| (metadata.dev(), metadata.ino()))
}
