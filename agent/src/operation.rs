//! Long-running work, and what became of it.
//!
//! Operations live in memory: what must survive a restart is a recorded step of an apply, or can be run again. One
//! that has ended is kept for a while, so that whoever started it can learn how. Codes and words are LXD's.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::task::Tasks;

/// How long an ended operation can still be asked for.
const KEPT: Duration = Duration::from_secs(300);
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
    /// Who may see and cancel it without further rights: the identity that started it.
    pub owner: String,
    /// What it works on, as API paths.
    pub resources: Vec<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub status: Status,
    /// Progress while it runs, the result when it has ended. Never a secret.
    pub metadata: Value,
    /// Why it failed.
    pub error: Option<String>,
}

/// What starts an operation.
#[derive(Debug, Clone)]
pub struct Start {
    pub class: Class,
    pub description: &'static str,
    pub owner: String,
    pub resources: Vec<String>,
}

#[derive(Debug)]
struct Running {
    state: watch::Sender<Operation>,
    cancel: CancellationToken,
}

/// The work's end of an operation.
#[derive(Debug, Clone)]
pub struct Handle {
    running: Arc<Running>,
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
    }

    fn end(&self, result: Result<Value, String>) {
        self.running.state.send_modify(|op| {
            op.updated_at = Timestamp::now();
            match result {
                Ok(metadata) => (op.status, op.metadata) = (Status::Success, metadata),
                Err(_) if self.running.cancel.is_cancelled() => {
                    (op.status, op.error) = (Status::Cancelled, Some("cancelled".to_owned()));
                }
                Err(error) => (op.status, op.error) = (Status::Failure, Some(error)),
            }
        });
    }
}

/// Every operation of this agent that runs or ended lately. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Operations {
    all: Arc<Mutex<BTreeMap<Uuid, Arc<Running>>>>,
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
        let now = Timestamp::now();
        let operation = Operation {
            id: Uuid::new_v4(),
            class: start.class,
            description: start.description,
            owner: start.owner,
            resources: start.resources,
            created_at: now,
            updated_at: now,
            status: Status::Running,
            metadata: Value::Null,
            error: None,
        };
        let running = Arc::new(Running {
            state: watch::Sender::new(operation.clone()),
            cancel: tasks.ending().child_token(),
        });
        self.forget_old(now);
        self.lock().insert(operation.id, running.clone());
        let handle = Handle { running };
        let future = work(handle.clone());
        tasks.spawn("operation", async move {
            let cancelled = handle.cancelled();
            let result = tokio::select! {
                result = future => result,
                () = cancelled.cancelled() => Err("cancelled".to_owned()),
            };
            if let Err(error) = &result {
                tracing::warn!(operation = %handle.id(), error, "operation ended without success");
            }
            handle.end(result);
        });
        operation
    }

    pub fn get(&self, id: Uuid) -> Option<Operation> {
        self.lock().get(&id).map(|running| running.state.borrow().clone())
    }

    /// All of them, oldest first.
    pub fn list(&self) -> Vec<Operation> {
        let mut all: Vec<Operation> = self.lock().values().map(|r| r.state.borrow().clone()).collect();
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

    /// Asks a running operation to stop. False if there is none, or it has ended.
    pub fn cancel(&self, id: Uuid) -> bool {
        let Some(running) = self.lock().get(&id).cloned() else { return false };
        let asked = running.state.send_if_modified(|op| {
            let running = op.status == Status::Running;
            if running {
                op.status = Status::Cancelling;
            }
            running
        });
        running.cancel.cancel();
        asked
    }

    fn forget_old(&self, now: Timestamp) {
        let mut all = self.lock();
        let age = |op: &Operation| Duration::try_from(now.duration_since(op.updated_at)).unwrap_or_default();
        all.retain(|_, running| {
            let op = running.state.borrow();
            !(op.status.ended() && age(&op) > KEPT)
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        Start { class: Class::Task, description: "Testing", owner: "local".into(), resources: Vec::new() }
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
        assert!(operations.cancel(op.id));
        let op = operations.wait(op.id, Duration::from_secs(10)).await.unwrap();
        assert_eq!(op.status, Status::Cancelled);
        assert!(!operations.cancel(op.id));
    }
}
