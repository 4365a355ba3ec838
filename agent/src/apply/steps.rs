//! Follow-up steps: what a commit entails outside the store, recorded in that very commit.
//!
//! Each step can be run twice, so a crash between doing it and forgetting it is harmless. They run in the order of
//! their commits; one that fails holds up the later ones of the same volume and no others, and is tried again.
//! A link's end needs no step: `peering` follows the store and keeps a tombstone of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use schema::name::{PoolName, VolumeName};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::ApplyError;
use crate::audit::{Action, Actor, Audit, Record};
use crate::dataset::{Dataset, Pools};
use crate::store::{CommitError, Entry, Guard, Op, Store, Txn, keys, value};
use crate::task::{Tasks, crash};

/// Between two tries of what failed: doubled each time, up to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "what a step is of is in its name, which is also the store's")]
pub enum Step {
    /// A declared volume has a tree.
    EnsureVolume { pool: PoolName, volume: VolumeName },
    /// A volume that was deleted with its data has none.
    DestroyVolume { pool: PoolName, volume: VolumeName },
    /// A volume that was renamed has its tree, and its snapshots, under the new name.
    RenameVolume { pool: PoolName, volume: VolumeName, to: VolumeName },
}

impl Step {
    fn subject(&self) -> (PoolName, VolumeName) {
        match self {
            Step::EnsureVolume { pool, volume }
            | Step::DestroyVolume { pool, volume }
            | Step::RenameVolume { pool, volume, .. } => (pool.clone(), volume.clone()),
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::EnsureVolume { pool, volume } => write!(f, "make volume {pool}/{volume}"),
            Step::DestroyVolume { pool, volume } => write!(f, "destroy the data of volume {pool}/{volume}"),
            Step::RenameVolume { pool, volume, to } => write!(f, "rename volume {pool}/{volume} to {to}"),
        }
    }
}

/// Asks the one task that runs steps.
pub struct Steps {
    store: Arc<dyn Store>,
    asked: mpsc::Sender<oneshot::Sender<Vec<String>>>,
}

struct Runner {
    store: Arc<dyn Store>,
    pools: Pools,
    audit: Arc<Audit>,
}

impl Steps {
    /// Begins with what is recorded already.
    pub fn start(store: Arc<dyn Store>, pools: Pools, audit: Arc<Audit>, tasks: &Tasks) -> Self {
        let (asked, asking) = mpsc::channel(64);
        let runner = Runner { store: Arc::clone(&store), pools, audit };
        let ending = tasks.ending();
        tasks.spawn("steps", async move {
            tokio::select! {
                () = runner.run(asking) => {}
                () = ending.cancelled() => {}
            }
        });
        Self { store, asked }
    }

    /// Runs what is recorded: a line for each step that is still to be done after `within`.
    pub async fn settle(&self, within: Duration) -> Vec<String> {
        // Most commits entail nothing; that is asked of the store, not of the runner, which may be at work.
        if self.store.range(keys::STEP).await.is_ok_and(|steps| steps.entries.is_empty()) {
            return Vec::new();
        }
        let (reply, answer) = oneshot::channel();
        let settled = tokio::time::timeout(within, async {
            self.asked.send(reply).await.ok()?;
            answer.await.ok()
        });
        match settled.await {
            Ok(Some(unfinished)) => unfinished,
            Ok(None) => vec!["the agent is ending; what is left is done when it starts again".to_owned()],
            Err(_) => vec!["follow-up steps are still running".to_owned()],
        }
    }

    /// Volumes whose old data is still to be destroyed, or to be put under another name.
    pub async fn going(&self) -> Result<HashSet<(PoolName, VolumeName)>, ApplyError> {
        let steps = self.store.range(keys::STEP).await?;
        let mut going = HashSet::new();
        for entry in &steps.entries {
            match value::decode(entry)? {
                Step::EnsureVolume { .. } => {}
                Step::DestroyVolume { pool, volume } => drop(going.insert((pool, volume))),
                Step::RenameVolume { pool, volume, to } => {
                    going.extend([(pool.clone(), volume), (pool, to)]);
                }
            }
        }
        Ok(going)
    }
}

impl Runner {
    async fn run(&self, mut asking: mpsc::Receiver<oneshot::Sender<Vec<String>>>) {
        let mut retry = FIRST_RETRY;
        let mut unfinished = self.run_recorded().await;
        loop {
            let asker = if unfinished.is_empty() {
                retry = FIRST_RETRY;
                asking.recv().await.map(Some)
            } else if let Ok(asker) = tokio::time::timeout(retry, asking.recv()).await {
                asker.map(Some)
            } else {
                retry = (retry * 2).min(LAST_RETRY);
                Some(None)
            };
            let Some(asker) = asker else { return };
            unfinished = self.run_recorded().await;
            if let Some(asker) = asker {
                // Whoever asked may have gone.
                let _ = asker.send(unfinished.clone());
            }
        }
    }

    /// Does every recorded step that can be done: a line for each of the others.
    async fn run_recorded(&self) -> Vec<String> {
        let mut entries = match self.store.range(keys::STEP).await {
            Ok(steps) => steps.entries,
            Err(error) => return vec![error.to_string()],
        };
        entries.sort_by(|a, b| (a.create_revision, &a.key).cmp(&(b.create_revision, &b.key)));
        let mut unfinished = Vec::new();
        let mut held_up = HashSet::new();
        for entry in entries {
            let step: Step = match value::decode(&entry) {
                Ok(step) => step,
                Err(error) => {
                    unfinished.push(error.to_string());
                    continue;
                }
            };
            if held_up.contains(&step.subject()) {
                unfinished.push(format!("{step}: waits for an earlier step"));
                continue;
            }
            if let Err(why) = self.take(&entry, &step).await {
                tracing::warn!(%step, why, "a follow-up step failed; it is tried again");
                unfinished.push(format!("{step}: {why}"));
                held_up.insert(step.subject());
            }
        }
        unfinished
    }

    async fn take(&self, entry: &Entry, step: &Step) -> Result<(), String> {
        crash::point("apply-before-step");
        let done = match step {
            Step::EnsureVolume { pool, volume } => self.pools.ensure(&Dataset::volume(pool, volume)).await,
            Step::DestroyVolume { pool, volume } => self.pools.destroy(&Dataset::volume(pool, volume)).await,
            Step::RenameVolume { pool, volume, to } => {
                let (from, to) = (Dataset::volume(pool, volume), Dataset::volume(pool, to));
                // Done by an earlier life of the agent, which did not come to forget it.
                if self.pools.has(&to) && !self.pools.has(&from) {
                    Ok(())
                } else {
                    self.pools.rename(&from, &to).await
                }
            }
        };
        done.map_err(|error| error.to_string())?;
        crash::point("apply-after-step");
        let forget = Txn {
            guards: vec![Guard { key: entry.key.clone(), modify_revision: entry.modify_revision }],
            ops: vec![Op::Delete { key: entry.key.clone() }],
        };
        let revision = match self.store.commit(forget).await {
            Ok(revision) => revision,
            // Somebody has forgotten it before us.
            Err(CommitError::Conflict(_)) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let (pool, volume) = step.subject();
        let told = Record::new(Actor::agent(), Action::StepDone, jiff::Timestamp::now())
            .on(format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}"))
            .at(revision)
            .with("step", step.to_string());
        self.audit.record(told);
        Ok(())
    }
}
