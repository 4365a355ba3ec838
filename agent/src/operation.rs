//! Long-running work, and what became of it.
//!
//! Operations live in memory: what must survive a restart is a recorded step of an apply, or can be run again. One
//! that has ended is kept for a while, so that whoever started it can learn how. Codes and words are LXD's.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::task::Tasks;
use crate::trust::Caller;

/// How long an ended operation is listed (LXD's time).
const LISTED: Duration = Duration::from_secs(5);
/// How long it can still be asked for: whoever waits for it may have to ask again.
const KEPT: Duration = Duration::from_secs(30);
/// How many changes a listener may be behind before it is told that it has missed some.
const BEHIND: usize = 1024;
/// How long the parts of an operation that was cancelled may take to end: threads do so a little after what waited for them.
const PARTS_END: Duration = Duration::from_secs(3);
/// At most this many are remembered; the oldest that have ended go first.
const MAX_KEPT: usize = 1024;

/// What an operation is (LXD: class).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Work that runs by itself.
    Task,
    /// Waits for someone to connect with its secret.
    Websocket,
    /// A token that is out.
    Token,
}

/// Where an operation stands (LXD: status, by its code).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Running,
    Cancelling,
    Success,
    Failure,
    Cancelled,
}

impl Status {
    pub fn code(self) -> u16 {
        match self {
            Status::Running => 103,
            Status::Cancelling => 104,
            Status::Success => 200,
            Status::Failure => 400,
            Status::Cancelled => 401,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Running => "Running",
            Status::Cancelling => "Cancelling",
            Status::Success => "Success",
            Status::Failure => "Failure",
            Status::Cancelled => "Cancelled",
        }
    }

    pub fn ended(self) -> bool {
        matches!(self, Status::Success | Status::Failure | Status::Cancelled)
    }
}

/// An operation as it stands at one moment.
#[derive(Debug, Clone)]
pub struct Operation {
    pub id: Uuid,
    pub class: Class,
    pub description: &'static str,
    /// Who started it, and so may see and cancel it without further rights.
    pub by: Caller,
    /// What it works on, as API paths.
    pub resources: Vec<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub status: Status,
    /// Progress while it runs, the result when it has ended. Never a secret.
    pub metadata: Value,
    /// Why it failed.
    pub error: Option<String>,
    /// Whether it can be asked to stop (LXD: may cancel).
    pub stoppable: bool,
}

/// What starts an operation.
#[derive(Debug, Clone)]
pub struct Start {
    pub class: Class,
    pub description: &'static str,
    pub by: Caller,
    pub resources: Vec<String>,
}

#[derive(Debug)]
struct Running {
    state: watch::Sender<Operation>,
    cancel: CancellationToken,
    told: broadcast::Sender<Operation>,
}

impl Running {
    /// Tells whoever listens how it stands now.
    fn tell(&self) {
        if self.told.receiver_count() > 0 {
            let _ = self.told.send(self.state.borrow().clone());
        }
    }

    fn end(&self, result: Result<Value, String>) {
        if let Err(error) = &result {
            let id = self.state.borrow().id;
            tracing::warn!(operation = %id, error, "operation ended without success");
        }
        self.state.send_modify(|op| {
            op.updated_at = Timestamp::now();
            match result {
                Ok(metadata) => (op.status, op.metadata) = (Status::Success, metadata),
                Err(_) if self.cancel.is_cancelled() => {
                    (op.status, op.error) = (Status::Cancelled, Some("cancelled".to_owned()));
                }
                Err(error) => (op.status, op.error) = (Status::Failure, Some(error)),
            }
        });
        self.tell();
    }
}

/// Why an operation cannot be cancelled, in LXD's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CancelError {
    #[error("Operation not found")]
    NotFound,
    #[error("Operation already finalized")]
    Ended,
    #[error("This operation can't be cancelled")]
    Unstoppable,
    #[error("Only running operations can be cancelled")]
    NotRunning,
}

/// The work's end of an operation. Each part of the work keeps one: what was cancelled has ended when none is left.
#[derive(Debug, Clone)]
pub struct Handle {
    running: Arc<Running>,
    _part: mpsc::Sender<Infallible>,
}

impl Handle {
    pub fn id(&self) -> Uuid {
        self.running.state.borrow().id
    }

    /// Cancelled when someone asks for the operation to stop.
    pub fn cancelled(&self) -> CancellationToken {
        self.running.cancel.clone()
    }

    /// Publishes progress.
    pub fn progress(&self, metadata: Value) {
        self.running.state.send_modify(|op| {
            op.metadata = metadata;
            op.updated_at = Timestamp::now();
        });
        self.running.tell();
    }
}

/// Every operation of this agent that runs or ended lately. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Operations {
    all: Arc<Mutex<BTreeMap<Uuid, Arc<Running>>>>,
    told: broadcast::Sender<Operation>,
}

impl Default for Operations {
    fn default() -> Self {
        Self { all: Arc::default(), told: broadcast::Sender::new(BEHIND) }
    }
}

impl Operations {
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts `work`. It is dropped, and so must be safe to drop, when the operation is cancelled or the agent ends.
    pub fn start<F>(&self, tasks: &Tasks, start: Start, work: impl FnOnce(Handle) -> F) -> Operation
    where
        F: Future<Output = Result<Value, String>> + Send + 'static,
    {
        let (operation, handle, mut parts) = self.enter(tasks, start, true);
        let running = handle.running.clone();
        let future = work(handle);
        tasks.spawn("operation", async move {
            let result = tokio::select! {
                result = future => result,
                () = running.cancel.cancelled() => Err("cancelled".to_owned()),
            };
            if running.cancel.is_cancelled() {
                let _ = tokio::time::timeout(PARTS_END, parts.recv()).await;
            }
            running.end(result);
        });
        operation
    }

    /// Starts `work` that must not be left half done: it cannot be cancelled, and the agent waits for it as long as it
    /// waits for anything before it ends.
    pub fn start_unstoppable<F>(&self, tasks: &Tasks, start: Start, work: F) -> Operation
    where
        F: Future<Output = Result<Value, String>> + Send + 'static,
    {
        let (operation, handle, _) = self.enter(tasks, start, false);
        tasks.spawn("operation", async move { handle.running.end(work.await) });
        operation
    }

    /// Lists a new operation as running.
    fn enter(
        &self,
        tasks: &Tasks,
        start: Start,
        stoppable: bool,
    ) -> (Operation, Handle, mpsc::Receiver<Infallible>) {
        let now = Timestamp::now();
        let operation = Operation {
            id: Uuid::new_v4(),
            class: start.class,
            description: start.description,
            by: start.by,
            resources: start.resources,
            created_at: now,
            updated_at: now,
            status: Status::Running,
            metadata: Value::Null,
            error: None,
            stoppable,
        };
        let cancel = if stoppable { tasks.ending().child_token() } else { CancellationToken::new() };
        let state = watch::Sender::new(operation.clone());
        let running = Arc::new(Running { state, cancel, told: self.told.clone() });
        self.forget_old(now);
        self.lock().insert(operation.id, running.clone());
        running.tell();
        let (part, parts) = mpsc::channel(1);
        (operation, Handle { running, _part: part }, parts)
    }

    /// Every change of every operation from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Operation> {
        self.told.subscribe()
    }

    pub fn get(&self, id: Uuid) -> Option<Operation> {
        let found = self.lock().get(&id).map(|running| running.state.borrow().clone());
        found.filter(|operation| !ended_before(operation, KEPT, Timestamp::now()))
    }

    /// All that run or have ended this moment, oldest first.
    pub fn list(&self) -> Vec<Operation> {
        let now = Timestamp::now();
        let mut all: Vec<Operation> = self.lock().values().map(|r| r.state.borrow().clone()).collect();
        all.retain(|operation| !ended_before(operation, LISTED, now));
        all.sort_by_key(|op| op.created_at);
        all
    }

    /// The operation once it has ended, or as it stands after `limit`.
    pub async fn wait(&self, id: Uuid, limit: Duration) -> Option<Operation> {
        let mut state = self.lock().get(&id)?.state.subscribe();
        let ended = async { state.wait_for(|op| op.status.ended()).await.map(|op| op.clone()).ok() };
        match tokio::time::timeout(limit, ended).await {
            Ok(Some(op)) => Some(op),
            _ => self.get(id),
        }
    }

    /// Asks a running operation to stop.
    pub fn cancel(&self, id: Uuid) -> Result<(), CancelError> {
        let running = self.lock().get(&id).cloned().ok_or(CancelError::NotFound)?;
        let mut asked = Ok(());
        running.state.send_if_modified(|op| {
            asked = match op.status {
                Status::Running if !op.stoppable => Err(CancelError::Unstoppable),
                Status::Running => Ok(()),
                status if status.ended() => Err(CancelError::Ended),
                _ => Err(CancelError::NotRunning),
            };
            if asked.is_ok() {
                op.status = Status::Cancelling;
                op.updated_at = Timestamp::now();
            }
            asked.is_ok()
        });
        asked?;
        running.tell();
        running.cancel.cancel();
        Ok(())
    }

    fn forget_old(&self, now: Timestamp) {
        let mut all = self.lock();
        all.retain(|_, running| !ended_before(&running.state.borrow(), KEPT, now));
        while all.len() >= MAX_KEPT {
            let oldest = all
                .iter()
                .filter(|(_, running)| running.state.borrow().status.ended())
                .min_by_key(|(_, running)| running.state.borrow().updated_at)
                .map(|(id, _)| *id);
            match oldest {
                Some(id) => all.remove(&id),
                None => break,
            };
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Uuid, Arc<Running>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an operation ended longer than `kept` ago.
fn ended_before(operation: &Operation, kept: Duration, now: Timestamp) -> bool {
    let age = Duration::try_from(now.duration_since(operation.updated_at)).unwrap_or_default();
    operation.status.ended() && age > kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        let by = Caller::local(0);
        Start { class: Class::Task, description: "Testing", by, resources: Vec::new() }
    }

    #[tokio::test]
    async fn every_change_is_told_and_an_ended_one_is_soon_no_longer_listed() {
        let (operations, tasks) = (Operations::new(), Tasks::new());
        let mut told = operations.subscribe();
        let op = operations.start(&tasks, start(), |_| async { Ok(Value::Null) });
        assert_eq!(told.recv().await.unwrap().status, Status::Running);
        let ended = told.recv().await.unwrap();
        assert_eq!((ended.id, ended.status), (op.id, Status::Success));
        assert_eq!(operations.list().len(), 1);
        let at = |after: Duration| ended.updated_at.saturating_add(after).unwrap();
        assert!(!ended_before(&ended, LISTED, at(LISTED)));
        assert!(ended_before(&ended, LISTED, at(LISTED + Duration::from_millis(1))));
        assert!(!ended_before(&op, LISTED, at(KEPT)), "it had not ended");
    }

    #[tokio::test]
    async fn ends_with_its_result_or_its_error() {
        let (operations, tasks) = (Operations::new(), Tasks::new());
        let good = operations.start(&tasks, start(), |handle| async move {
            handle.progress(serde_json::json!({"bytes": 1}));
            Ok(serde_json::json!({"bytes": 2}))
        });
        let bad = operations.start(&tasks, start(), |_| async { Err("the disk is full".to_owned()) });
        let limit = Duration::from_secs(10);
        let good = operations.wait(good.id, limit).await.unwrap();
        assert_eq!((good.status, &good.metadata["bytes"]), (Status::Success, &serde_json::json!(2)));
        let bad = operations.wait(bad.id, limit).await.unwrap();
        assert_eq!((bad.status, bad.error.as_deref()), (Status::Failure, Some("the disk is full")));
    }

    #[tokio::test]
    async fn cancelling_drops_the_work() {
        let (operations, tasks) = (Operations::new(), Tasks::new());
        let op = operations.start(&tasks, start(), |_| std::future::pending());
        assert_eq!(operations.cancel(op.id), Ok(()));
        let op = operations.wait(op.id, Duration::from_secs(10)).await.unwrap();
        assert_eq!(op.status, Status::Cancelled);
        assert_eq!(operations.cancel(op.id), Err(CancelError::Ended));
    }

    #[tokio::test]
    async fn what_was_cancelled_has_ended_when_its_threads_have() {
        let (operations, tasks) = (Operations::new(), Tasks::new());
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = ended.clone();
        let op = operations.start(&tasks, start(), |handle| {
            std::thread::spawn(move || {
                let _part = handle;
                let _ = gone.recv();
                seen.store(true, std::sync::atomic::Ordering::SeqCst);
            });
            std::future::pending()
        });
        assert_eq!(operations.cancel(op.id), Ok(()));
        // Everything else that has to be done for it is done by then.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(operations.get(op.id).unwrap().status, Status::Cancelling);
        go.send(()).unwrap();
        let op = operations.wait(op.id, Duration::from_secs(10)).await.unwrap();
        assert_eq!(op.status, Status::Cancelled);
        assert!(ended.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[tokio::test]
    async fn what_cannot_be_stopped_goes_on_to_its_end() {
        let (operations, tasks) = (Operations::new(), Tasks::new());
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let op = operations.start_unstoppable(&tasks, start(), async move {
            gone.await.map_err(|error| error.to_string())?;
            Ok(Value::Null)
        });
        assert_eq!(operations.cancel(op.id), Err(CancelError::Unstoppable));
        tasks.end();
        go.send(()).unwrap();
        let op = operations.wait(op.id, Duration::from_secs(10)).await.unwrap();
        assert_eq!(op.status, Status::Success);
    }
}
