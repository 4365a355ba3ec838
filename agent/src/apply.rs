//! One commit and its follow-up steps: the only writer of declared state.
//!
//! Every surface writes through here, so that what holds for one holds for all: the plan's base, the manifest's
//! binding, each record's owner and revision, and that links and groups fit together. The command is not trusted;
//! a plan is a proposal that is checked again against the store.
//!
//! Applies take turns. Guards alone would do for each record; that a link's groups exist is about several, and
//! holding the turn from reading to commit is simpler than guarding each of them. Writers elsewhere (link trust,
//! identities) do not write declared state and need no turn.
//!
//! Work goes on when the caller goes away: a request that is cut off leaves either nothing or a whole commit, its
//! audit line and its recorded steps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schema::kind::Kind;
use schema::plan::Data;
use schema::record::{LiveRecord, Record, RecordKey};
use tokio::sync::{Mutex, oneshot};

use crate::audit::{Action, Audit, Record as Told, Writes};
use crate::authorize::{Entitlement, Entity, Permit};
use crate::dataset::Pools;
use crate::observe::{self, LinkTrust, ManifestRecord};
use crate::store::value::Declared;
use crate::store::{CommitError, Entry, Guard, Op, Revision, Store, keys, value};
use crate::task::{Tasks, crash};
use crate::trust::client_token::is_guests;
use crate::wire::control::{ApplyRequest, ApplyResponse};

mod binding;
mod check;
mod content;
mod draft;
mod entry;
mod groups;
mod instances;
pub mod maintenance;
pub mod overdue;
mod protocol;
mod refusal;
mod rename;
mod sameness;
mod steps;
#[cfg(test)]
mod tests;
pub mod volumes;

pub use entry::{EntryChange, EntryEdit, EntryOutcome, GivenMeta, PartEdit, Presence};
pub use refusal::ApplyError;

use draft::{Draft, Write};
use steps::Steps;

/// How long an apply waits for its follow-up steps before it answers that they go on.
const STEPS_WITHIN: Duration = Duration::from_secs(10);
/// Up to so many records are looked up one by one; for more, their kinds are read whole.
const LOOKED_UP: usize = 64;

/// What an `Apply` works with.
pub struct ApplyParts {
    pub store: Arc<dyn Store>,
    pub links: Arc<dyn LinkTrust>,
    pub pools: Pools,
    pub audit: Arc<Audit>,
    pub tasks: Tasks,
}

/// Writes declared state.
pub struct Apply {
    store: Arc<dyn Store>,
    links: Arc<dyn LinkTrust>,
    pools: Pools,
    audit: Arc<Audit>,
    tasks: Tasks,
    steps: Steps,
    turn: Mutex<()>,
}

/// A change to one record by hand, or through a compat surface: what no manifest declares.
#[derive(Debug, Clone)]
pub struct Edit {
    pub key: RecordKey,
    /// What it shall say; `None` deletes it.
    pub to: Option<Record>,
    /// The revision that the caller has seen, 0 for none; `None` for a caller that did not look.
    pub base: Option<u64>,
    /// What deleting a volume does to its data.
    pub data: Data,
}

impl Edit {
    pub fn put(key: RecordKey, record: Record) -> Self {
        Self { key, to: Some(record), base: None, data: Data::Keep }
    }

    pub fn delete(key: RecordKey, data: Data) -> Self {
        Self { key, to: None, base: None, data }
    }

    /// Only if the record is still as of `revision`; 0 for "only if it is not there".
    #[must_use]
    pub fn only_at(mut self, revision: u64) -> Self {
        self.base = Some(revision);
        self
    }
}

/// What an edit did.
#[derive(Debug, Clone)]
pub struct Edited {
    pub revision: Revision,
    /// Follow-up steps that could not be finished yet, one line each.
    pub unfinished: Vec<String>,
}

impl Apply {
    /// Also takes up the steps that an earlier life of the agent left.
    pub fn start(parts: ApplyParts) -> Arc<Self> {
        let ApplyParts { store, links, pools, audit, tasks } = parts;
        let steps = Steps::start(Arc::clone(&store), pools.clone(), Arc::clone(&audit), &tasks);
        Arc::new(Self { store, links, pools, audit, tasks, steps, turn: Mutex::new(()) })
    }

    /// Makes a manifest's plan true. `permit` is to edit the server; the caller of it is who the manifest is bound to.
    pub async fn apply(
        self: &Arc<Self>,
        permit: &Permit,
        request: ApplyRequest,
    ) -> Result<ApplyResponse, ApplyError> {
        let enough = matches!(permit.entitlement(), Entitlement::CanEdit | Entitlement::Admin);
        if *permit.entity() != Entity::Server || !enough {
            return Err(ApplyError::NotPermitted);
        }
        let (this, permit) = (Arc::clone(self), permit.clone());
        self.whole("apply", async move { this.apply_now(&permit, request).await }).await?
    }

    /// Changes records that no manifest owns. One that a manifest owns is passed over if it says so already, and
    /// refused if not. `permit` is what the surface asked for.
    pub async fn edit(self: &Arc<Self>, permit: &Permit, edits: Vec<Edit>) -> Result<Edited, ApplyError> {
        let (this, permit) = (Arc::clone(self), permit.clone());
        self.whole("edit", async move { this.edit_now(&permit, edits).await }).await?
    }

    /// Runs `work` to its end, even if nobody waits for it any more.
    async fn whole<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ApplyError> {
        let (reply, answer) = oneshot::channel();
        self.tasks.spawn(name, async move {
            let _ = reply.send(work.await);
        });
        answer.await.map_err(|_| ApplyError::Ended)
    }

    async fn apply_now(&self, permit: &Permit, request: ApplyRequest) -> Result<ApplyResponse, ApplyError> {
        let ApplyRequest { plan, destroy_data } = request;
        check::shape(&plan, destroy_data)?;
        if plan.base.epoch != self.store.epoch() {
            return Err(ApplyError::OtherStore);
        }
        let exchanges = plan.exchanges.clone();
        let revision = {
            let _turn = self.turn.lock().await;
            let mut draft = Draft::default();
            self.manifest(&mut draft, permit, &plan).await?;
            let current = self.current(plan.changes.iter().map(|change| &change.key)).await?;
            check::against(&plan, &current)?;
            let owner = &plan.manifest;
            let writes = plan
                .changes
                .into_iter()
                .map(|change| Write {
                    base: Revision(change.base_revision),
                    data: check::data(&change),
                    after: change.after.map(|record| Declared {
                        owner: Some(owner.clone()),
                        file: change.file.as_deref().map(content::file_name),
                        record,
                    }),
                    key: change.key,
                })
                .collect::<Vec<_>>();
            self.check_arrivals(&writes)?;
            self.commit(permit, draft, writes, Some(owner.as_str())).await?
        };
        let unfinished = self.steps.settle(STEPS_WITHIN).await;
        Ok(ApplyResponse {
            epoch: self.store.epoch().to_owned(),
            revision: revision.0,
            exchanges,
            unfinished,
        })
    }

    async fn edit_now(&self, permit: &Permit, edits: Vec<Edit>) -> Result<Edited, ApplyError> {
        let revision = {
            let _turn = self.turn.lock().await;
            let current = self.current(edits.iter().map(|edit| &edit.key)).await?;
            let writes = check::edits(edits, &current)?;
            self.commit(permit, Draft::default(), writes, None).await?
        };
        Ok(Edited { revision, unfinished: self.steps.settle(STEPS_WITHIN).await })
    }

    /// Checks the manifest's binding and puts its record, where it changes, into the draft.
    async fn manifest(
        &self,
        draft: &mut Draft,
        permit: &Permit,
        plan: &schema::plan::Plan,
    ) -> Result<(), ApplyError> {
        let key = keys::manifest(&plan.manifest);
        let base = Revision(plan.base.manifest_revision);
        let stored = self.store.get(&key).await?;
        let record = match &stored {
            Some(entry) => {
                let record: ManifestRecord = value::decode(entry)?;
                binding::check(&plan.manifest, &record, permit.caller())?;
                ManifestRecord { declared: plan.declared.clone(), ..record }
            }
            None => ManifestRecord {
                declared: plan.declared.clone(),
                bound_to: binding::of(permit.caller()).ok_or(ApplyError::NotPermitted)?,
            },
        };
        let value = value::encode(&record);
        if stored.is_none_or(|entry| *entry.value != *value) {
            draft.txn.ops.push(Op::Put { key: key.clone(), value });
        }
        draft.txn.guards.push(Guard { key, modify_revision: base });
        Ok(())
    }

    /// Adds to the draft what goes with the records that `writes` delete: a link's trust, and what groups say of them.
    async fn withdraw(&self, draft: &mut Draft, mut writes: Vec<Write>) -> Result<Vec<Write>, ApplyError> {
        for write in &writes {
            if let (RecordKey::ClusterLink(link), None) = (&write.key, &write.after) {
                let removal = self.links.removal(link).await.map_err(ApplyError::Links)?;
                draft.txn.guards.extend(removal.guards);
                draft.txn.ops.extend(removal.ops);
            }
        }
        self.forget(draft, &mut writes).await?;
        Ok(writes)
    }

    /// Checks what is about several records, and makes the commit.
    async fn commit(
        &self,
        permit: &Permit,
        mut draft: Draft,
        writes: Vec<Write>,
        manifest: Option<&str>,
    ) -> Result<Revision, ApplyError> {
        let writes = self.withdraw(&mut draft, writes).await?;
        self.write(permit, draft, writes, manifest).await
    }

    /// Makes the commit of what was checked, and of what ends with it, which is in the draft.
    async fn write(
        &self,
        permit: &Permit,
        mut draft: Draft,
        writes: Vec<Write>,
        manifest: Option<&str>,
    ) -> Result<Revision, ApplyError> {
        self.check_groups(&writes).await?;
        self.check_link_names(&writes).await?;
        self.check_volumes(&writes).await?;
        self.check_protocols(&writes).await?;
        self.check_sameness_groups(&writes).await?;
        self.settle_ids(&mut draft, &writes).await?;
        for write in writes {
            draft.write(write)?;
        }
        let txn = draft.finish();
        let writes_something = !txn.ops.is_empty();
        let written = Writes::of(&txn);
        crash::point("apply-before-commit");
        let revision = self.store.commit(txn).await.map_err(|error| match error {
            CommitError::Conflict(keys) => ApplyError::Moved(draft::addresses(&keys)),
            other => ApplyError::Commit(other),
        })?;
        crash::point("apply-after-commit");
        if writes_something {
            let caller = permit.caller().to_string();
            let request = permit.caller().origin.request;
            tracing::info!(%request, caller, %revision, changes = written.len(), "committed");
            let action = if manifest.is_some() { Action::Applied } else { Action::Edited };
            let told =
                Told::new(permit.caller(), action, jiff::Timestamp::now()).committed(written, revision);
            self.audit.record(match manifest {
                Some(manifest) => told.with("manifest", manifest),
                None => told,
            });
        }
        Ok(revision)
    }

    /// The records of `keys` that exist.
    async fn current(
        &self,
        keys: impl Iterator<Item = &RecordKey> + Clone,
    ) -> Result<BTreeMap<RecordKey, LiveRecord>, ApplyError> {
        let mut found = BTreeMap::new();
        if keys.clone().count() <= LOOKED_UP {
            for key in keys {
                if let Some(entry) = self.store.get(&keys::declared(key)).await? {
                    found.extend([observe::record(&entry)?]);
                }
            }
            return Ok(found);
        }
        let wanted: std::collections::HashSet<String> = keys.clone().map(keys::declared).collect();
        let kinds: std::collections::BTreeSet<Kind> = keys.map(RecordKey::kind).collect();
        for kind in kinds {
            for entry in self.store.range(&keys::declared_kind(kind)).await?.entries {
                if wanted.contains(&entry.key) {
                    found.extend([observe::record(&entry)?]);
                }
            }
        }
        Ok(found)
    }

    async fn check_groups(&self, writes: &[Write]) -> Result<(), ApplyError> {
        let touches = |write: &Write| matches!(write.key.kind(), Kind::AuthGroup | Kind::ClusterLink);
        if !writes.iter().any(touches) {
            return Ok(());
        }
        let records = async |kind| -> Result<BTreeMap<RecordKey, LiveRecord>, ApplyError> {
            let entries: Vec<Entry> = self.store.range(&keys::declared_kind(kind)).await?.entries;
            Ok(entries.iter().map(observe::record).collect::<Result<_, _>>()?)
        };
        check::groups(writes, &records(Kind::AuthGroup).await?, &records(Kind::ClusterLink).await?)
    }

    /// Whether the names of new links are free of clusters that call here with no link behind them.
    async fn check_link_names(&self, writes: &[Write]) -> Result<(), ApplyError> {
        for write in writes.iter().filter(|write| write.base == Revision(0) && write.after.is_some()) {
            if let RecordKey::ClusterLink(link) = &write.key
                && is_guests(&*self.store, link, jiff::Timestamp::now()).await?
            {
                return Err(ApplyError::NameOfCaller(link.clone()));
            }
        }
        Ok(())
    }

    async fn check_volumes(&self, writes: &[Write]) -> Result<(), ApplyError> {
        let made = draft::made_volumes(writes);
        if made.is_empty() {
            return Ok(());
        }
        let going = self.steps.going().await?;
        for (pool, volume) in made {
            if !self.pools.exists(&pool) {
                return Err(ApplyError::NoSuchPool { pool, volume });
            }
            // Its destruction would meet what is put into the new one.
            if going.contains(&(pool.clone(), volume.clone())) {
                return Err(ApplyError::StillGoing { pool, volume });
            }
        }
        Ok(())
    }
}
