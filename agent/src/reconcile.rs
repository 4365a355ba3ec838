//! The watch loop: the same plan and apply as the command line's, for as long as the agent runs.
//!
//! The folder is read whole after every change of it, and compared with live state after every change of that by
//! others; what differs is applied. A folder with faults changes nothing: the last good state stays, and the faults
//! are in the log and in `comity status`. There is no re-check in intervals, since both ends tell of changes; only
//! what failed is tried again, after a while.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use schema::name::LinkName;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::apply::Apply;
use crate::authorize::Permit;
use crate::files::{self, Changed};
use crate::observe::Observe;
use crate::peering::Peering;
use crate::store::{self, Revision, Store, StoreError, Watch, keys};
use crate::task::Tasks;
use crate::trust::identity::Identities;
use crate::wire::control::{LastApplied, WatchFault, WatchState, WatchStatus};

mod owner;
mod pass;
#[cfg(test)]
mod tests;

use pass::Outcome;

/// Between two tries of what failed: doubled each time, up to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Quiet in live state after which it is compared: others' changes often come in bursts.
const QUIET: Duration = Duration::from_millis(100);
/// A plan that others overtook is made again this often at once.
const OVERTAKEN: usize = 5;

/// Redeems the tokens that a folder names: `peering`, or a stand-in in tests.
pub trait Redeem: Send + Sync + 'static {
    fn redeem<'a>(
        &'a self,
        permit: &'a Permit,
        link: &'a LinkName,
        token: &'a str,
    ) -> BoxFuture<'a, Result<(), String>>;
    /// Pins what the declaration of a public link names.
    fn pin<'a>(&'a self, permit: &'a Permit, link: &'a LinkName) -> BoxFuture<'a, Result<(), String>>;
}

/// A peering is shared, and its redemptions go on after the call.
impl Redeem for Arc<Peering> {
    fn redeem<'a>(
        &'a self,
        permit: &'a Permit,
        link: &'a LinkName,
        token: &'a str,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            Peering::redeem(self, permit, link, token).await.map(drop).map_err(|error| error.to_string())
        })
    }

    fn pin<'a>(&'a self, permit: &'a Permit, link: &'a LinkName) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { Peering::pin(self, permit, link).await.map_err(|error| error.to_string()) })
    }
}

/// What a `Reconcile` works with.
pub struct ReconcileParts {
    pub folder: PathBuf,
    pub store: Arc<dyn Store>,
    pub observe: Observe,
    pub apply: Arc<Apply>,
    pub redeem: Arc<dyn Redeem>,
    pub identities: Arc<Identities>,
    pub tasks: Tasks,
}

/// A folder that is kept applied.
pub struct Reconcile {
    status: watch::Sender<WatchStatus>,
}

impl Reconcile {
    /// Applies the folder, then keeps it applied until the tasks end.
    pub fn start(parts: ReconcileParts) -> Arc<Self> {
        let status = WatchStatus {
            folder: parts.folder.display().to_string(),
            state: WatchState::Starting,
            faults: Vec::new(),
            last_applied: None,
        };
        let this = Arc::new(Self { status: watch::channel(status).0 });
        let keeper = Arc::clone(&this);
        let (ending, tasks) = (parts.tasks.ending(), parts.tasks.clone());
        tasks.spawn("reconcile", async move {
            tokio::select! {
                () = keeper.keep(&parts) => {}
                () = ending.cancelled() => {}
            }
        });
        this
    }

    pub fn status(&self) -> WatchStatus {
        self.status.borrow().clone()
    }

    /// Follows the status.
    pub fn changed(&self) -> watch::Receiver<WatchStatus> {
        self.status.subscribe()
    }

    async fn keep(&self, parts: &ReconcileParts) {
        // Before the first reading, so that nothing falls between it and the first wait.
        let mut folder = files::watch(&parts.folder);
        let mut live = Live { watch: None, ours: Revision(0) };
        let mut retry = FIRST_RETRY;
        loop {
            live.follow(&*parts.store).await;
            let outcome = self.pass(parts).await;
            live.ours = live.ours.max(outcome.revision);
            let failing = outcome.state == WatchState::Failing;
            self.report(parts, outcome);
            let again = failing.then(|| Instant::now() + retry);
            retry = if failing { (retry * 2).min(LAST_RETRY) } else { FIRST_RETRY };
            tokio::select! {
                changed = folder.recv() => match changed {
                    Some(Changed) => retry = FIRST_RETRY,
                    None => return,
                },
                () = live.moved() => {}
                () = until(again) => {}
            }
        }
    }

    async fn pass(&self, parts: &ReconcileParts) -> Outcome {
        for _ in 1..OVERTAKEN {
            let outcome = pass::pass(parts).await;
            if !outcome.overtaken {
                return outcome;
            }
        }
        pass::pass(parts).await
    }

    /// Puts an outcome into the status, and what is new of it into the log.
    fn report(&self, parts: &ReconcileParts, outcome: Outcome) {
        let Outcome { state, faults, revision, changes, .. } = outcome;
        let before = self.status();
        let folder = before.folder.as_str();
        if (state, &faults) != (before.state, &before.faults) {
            for WatchFault { at, message } in &faults {
                let at = at.as_deref().unwrap_or(folder);
                tracing::warn!(folder, at, fault = message, "the watched folder is not applied");
            }
            if state == WatchState::Missing {
                tracing::warn!(folder, "the watched folder is gone; what it declared stays");
            }
        }
        if changes > 0 {
            tracing::info!(folder, changes, %revision, "the watched folder was applied");
        }
        let applied = state == WatchState::Applied && (changes > 0 || before.state != state);
        let last_applied = if applied {
            Some(LastApplied {
                at: jiff::Timestamp::now(),
                revision: revision.0,
                cluster: parts.observe.cluster().clone(),
            })
        } else {
            before.last_applied
        };
        self.status.send_replace(WatchStatus { folder: before.folder, state, faults, last_applied });
    }
}

/// Others' changes of declared state.
struct Live {
    watch: Option<Watch>,
    /// What was committed here: no news.
    ours: Revision,
}

impl Live {
    /// Watches from now on, unless that is so already.
    async fn follow(&mut self, store: &dyn Store) {
        if self.watch.is_some() {
            return;
        }
        let started: Result<Watch, StoreError> = async {
            let now = store.range(keys::MANIFEST).await?.revision;
            store.watch(keys::DECLARED, now).await
        }
        .await;
        match started {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => tracing::warn!(%error, "live state cannot be followed; the folder alone is"),
        }
    }

    /// Waits until someone else has changed declared state, and for a moment of quiet.
    async fn moved(&mut self) {
        let Some(watch) = &mut self.watch else { return std::future::pending().await };
        loop {
            match watch.recv().await {
                Some(Ok(store::Batch { revision, .. })) if revision <= self.ours => {}
                Some(Ok(_)) => break,
                Some(Err(_)) | None => {
                    self.watch = None;
                    return;
                }
            }
        }
        while let Ok(Some(Ok(_))) = tokio::time::timeout(QUIET, watch.recv()).await {}
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
