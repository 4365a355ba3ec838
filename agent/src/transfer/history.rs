//! Which transfers this agent has received: the last hundred, in the store.
//!
//! An operation is forgotten half a minute after it ended; whoever comes in the morning asks what the night's transfer
//! did. Written by listening to operations, so that a transfer does not wait for it and cannot fail by it. One that the
//! agent's end interrupted is told as such after the next start.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use crate::operation::{Operation, Operations, Status};
use crate::store::value::{decode, encode};
use crate::store::{CommitError, Op, Store, StoreError, Txn, keys};
use crate::task::Tasks;
use crate::wire::transfer::{Run, RunResult};

/// How many are kept.
const KEPT: usize = 100;
/// What operations are called by which something arrives, and those of them that may be no transfer.
const ARRIVING: [&str; 4] =
    ["Copying storage volume", "Refreshing storage volume", "Refreshing instance", "Creating instance"];
const AMBIGUOUS: &str = "Creating instance";

/// The transfers of the store.
#[derive(Clone)]
pub struct History {
    store: Arc<dyn Store>,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("History")
    }
}

/// Why the history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl History {
    /// Says of those that an earlier agent left running how they ended, then writes down what `operations` tell until
    /// `tasks` end.
    pub async fn start(
        store: Arc<dyn Store>,
        operations: &Operations,
        tasks: &Tasks,
    ) -> Result<Self, HistoryError> {
        let history = Self { store };
        for (key, run) in history.entries().await? {
            if run.result == RunResult::Running {
                history.put(key, &Run { result: RunResult::Interrupted, ..run }).await?;
            }
        }
        let (follower, told, ending) = (history.clone(), operations.subscribe(), tasks.ending());
        tasks.spawn("transfer history", async move {
            // What ends because the agent does is told as interrupted after the next start.
            ending.run_until_cancelled(follower.follow(told)).await;
        });
        Ok(history)
    }

    /// All that are kept, the latest first.
    pub async fn list(&self) -> Result<Vec<Run>, HistoryError> {
        Ok(self.entries().await?.into_values().rev().collect())
    }

    async fn follow(self, mut told: Receiver<Operation>) {
        // Of those that run, whether their source is written down.
        let mut running: BTreeMap<Uuid, bool> = BTreeMap::new();
        loop {
            let operation = match told.recv().await {
                Ok(operation) => operation,
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "the history of transfers has gaps: too much happened at once");
                    continue;
                }
                Err(RecvError::Closed) => return,
            };
            let Some(run) = run_of(&operation) else { continue };
            if run.result == RunResult::Running {
                let knows = run.source.is_some();
                // Progress is not history.
                if running.insert(run.id, knows).is_some_and(|knew| knew || !knows) {
                    continue;
                }
            } else {
                running.remove(&run.id);
            }
            let ended = run.result != RunResult::Running;
            let written = async {
                self.put(key(&run), &run).await?;
                if ended { self.prune().await } else { Ok(()) }
            };
            if let Err(error) = written.await {
                tracing::warn!(operation = %run.id, %error, "a transfer could not be written into the history");
            }
        }
    }

    async fn put(&self, key: String, run: &Run) -> Result<(), HistoryError> {
        let put = Op::Put { key, value: encode(run) };
        self.store.commit(Txn { guards: Vec::new(), ops: vec![put] }).await?;
        Ok(())
    }

    /// Forgets the oldest of too many.
    async fn prune(&self) -> Result<(), HistoryError> {
        let all = self.store.range(keys::TRANSFER_RUN).await?.entries;
        let surplus = all.len().saturating_sub(KEPT);
        let ops: Vec<Op> = all.into_iter().take(surplus).map(|entry| Op::Delete { key: entry.key }).collect();
        if !ops.is_empty() {
            self.store.commit(Txn { guards: Vec::new(), ops }).await?;
        }
        Ok(())
    }

    async fn entries(&self) -> Result<BTreeMap<String, Run>, HistoryError> {
        let entries = self.store.range(keys::TRANSFER_RUN).await?.entries;
        // One that a newer version wrote is left to that.
        Ok(entries.iter().filter_map(|entry| Some((entry.key.clone(), decode(entry).ok()?))).collect())
    }
}

/// In order of time.
fn key(run: &Run) -> String {
    format!("{}{:020}-{}", keys::TRANSFER_RUN, run.began_at.as_millisecond(), run.id)
}

/// What an operation tells of a transfer that arrives here; `None`, if it is something else.
fn run_of(operation: &Operation) -> Option<Run> {
    if !ARRIVING.contains(&operation.description) {
        return None;
    }
    let told = match operation.metadata.get("comity") {
        Some(told @ Value::Object(_)) => told,
        _ => &operation.metadata,
    };
    let number = |key: &str| told.get(key).and_then(Value::as_u64);
    let word = |key: &str| told.get(key).and_then(Value::as_str);
    let moves = number("total").is_some()
        || ["stage", "protocol", "source"].into_iter().any(|key| word(key).is_some());
    if operation.description == AMBIGUOUS && !moves {
        return None;
    }
    let result = match operation.status {
        Status::Running | Status::Cancelling => RunResult::Running,
        Status::Success => RunResult::Success,
        Status::Failure => RunResult::Failure,
        Status::Cancelled => RunResult::Cancelled,
    };
    Some(Run {
        id: operation.id,
        target: operation.resources.first().cloned().unwrap_or_default(),
        source: word("source").map(str::to_owned),
        transfer: word("transfer").and_then(|name| name.parse().ok()),
        description: operation.description.to_owned(),
        by: operation.by.to_string(),
        began_at: operation.created_at,
        ended_at: operation.status.ended().then_some(operation.updated_at),
        result,
        error: operation.error.clone(),
        protocol: word("protocol").map(str::to_owned),
        total: number("total"),
        sent: number("sent").or_else(|| number("received")),
        reused: number("reused"),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::operation::{Class, Start};
    use crate::store::sqlite::SqliteStore;
    use crate::trust::Caller;

    fn start(description: &'static str) -> Start {
        let resources = vec!["/1.0/storage-pools/default/volumes/custom/orders".to_owned()];
        Start { class: Class::Task, description, by: Caller::local(0), resources }
    }

    async fn until(history: &History, enough: impl Fn(&[Run]) -> bool) -> Vec<Run> {
        for _ in 0..1000 {
            let runs = history.list().await.unwrap();
            if enough(&runs) {
                return runs;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the history does not come to what is expected");
    }

    #[tokio::test]
    async fn what_arrived_is_remembered_and_what_did_not_end_is_told_after_a_restart() {
        let (store, operations, tasks) = (SqliteStore::scratch(), Operations::new(), Tasks::new());
        let history = History::start(store.clone(), &operations, &tasks).await.unwrap();
        operations.start(&tasks, start(ARRIVING[0]), |_| async { Ok(json!({"total": 10, "sent": 4})) });
        operations.start(&tasks, start(ARRIVING[1]), |_| async { Err("the disk is full".to_owned()) });
        // An instance that is made of nothing is no transfer.
        operations.start(&tasks, start(AMBIGUOUS), |_| async { Ok(Value::Null) });
        let held = operations.start(&tasks, start(ARRIVING[2]), |handle| async move {
            handle.progress(json!({"comity": {"source": "east:c1", "transfer": "nightly"}}));
            std::future::pending().await
        });
        let settled = |runs: &[Run]| {
            let ended = runs.iter().filter(|run| run.ended_at.is_some()).count();
            (runs.len(), ended) == (3, 2) && runs.iter().any(|run| run.source.is_some())
        };
        let runs = until(&history, settled).await;
        let failed = runs.iter().find(|run| run.result == RunResult::Failure).unwrap();
        assert_eq!(failed.error.as_deref(), Some("the disk is full"));
        let good = runs.iter().find(|run| run.result == RunResult::Success).unwrap();
        assert_eq!((good.total, good.sent), (Some(10), Some(4)));
        // An agent that begins anew knows nothing of what ran before.
        let again = History::start(store, &Operations::new(), &Tasks::new()).await.unwrap();
        let runs = again.list().await.unwrap();
        let interrupted = runs.iter().find(|run| run.id == held.id).unwrap();
        assert_eq!(interrupted.result, RunResult::Interrupted);
        assert_eq!(interrupted.source.as_deref(), Some("east:c1"));
        assert_eq!(interrupted.transfer.as_ref().map(schema::name::TransferName::as_str), Some("nightly"));
    }

    #[tokio::test]
    async fn the_oldest_are_forgotten() {
        let history = History { store: SqliteStore::scratch() };
        let run = |at: i64| Run {
            id: Uuid::from_u128(u128::try_from(at).unwrap()),
            target: String::new(),
            source: None,
            transfer: None,
            description: String::new(),
            by: String::new(),
            began_at: jiff::Timestamp::from_second(at).unwrap(),
            ended_at: None,
            result: RunResult::Success,
            error: None,
            protocol: None,
            total: None,
            sent: None,
            reused: None,
        };
        for at in 1..=103 {
            history.put(key(&run(at)), &run(at)).await.unwrap();
        }
        history.prune().await.unwrap();
        let kept = history.list().await.unwrap();
        assert_eq!((kept.len(), kept[0].clone(), kept[99].clone()), (KEPT, run(103), run(4)));
    }
}
