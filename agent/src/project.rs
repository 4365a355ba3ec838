//! Projects: names under which volumes and instances are kept apart, and rights with them.
//!
//! `default` is always there and in no store. What refers to a project by name (permissions, clients that are restricted
//! to it) follows when it is renamed and goes when it is deleted, in the same commit.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use schema::name::ProjectName;
use serde::{Deserialize, Serialize};

use crate::audit::{Action, Audit, Record, Writes};
use crate::authorize::Permit;
use crate::store::value::{ValueError, decode, encode};
use crate::store::{CommitError, Event, Guard, Op, Revision, Store, StoreError, Txn, Watch, keys};
use crate::task::Tasks;
use crate::trust::entity::DEFAULT_PROJECT;

mod config;
mod reference;

pub use config::{Config, ConfigError};

/// How long a broken watch is left before it is begun again.
const RETRY: Duration = Duration::from_millis(500);
/// Tries of a commit that others get in the way of.
const TRIES: usize = 10;
/// Most projects.
const MOST: usize = 10_000;

/// What `/project/NAME` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub config: Config,
}

/// A project, and the revision that last changed it (0: `default` as it comes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub project: Project,
    pub revision: Revision,
}

/// Why a project was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error("Project not found")]
    NotFound,
    #[error("Project \"{0}\" already exists")]
    Exists(ProjectName),
    #[error("The \"default\" project cannot be {0}")]
    Default(&'static str),
    /// LXD's words, with `renamed` or `removed`.
    #[error("Only empty projects can be {0}")]
    NotEmpty(&'static str),
    #[error("There are {MOST} projects already")]
    TooMany,
    #[error("others keep changing the same; try again")]
    Contended,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The projects of the store, followed.
pub struct Projects {
    store: Arc<dyn Store>,
    audit: Arc<Audit>,
    all: RwLock<BTreeMap<ProjectName, Arc<Held>>>,
}

impl Projects {
    /// Reads what there is, then follows it until `tasks` end.
    pub async fn start(
        store: Arc<dyn Store>,
        audit: Arc<Audit>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, ProjectError> {
        let projects = Arc::new(Self { store, audit, all: RwLock::default() });
        let watch = projects.read().await?;
        let follow = Arc::clone(&projects).follow(watch);
        let ending = tasks.ending();
        tasks.spawn("projects", async move {
            ending.run_until_cancelled(follow).await;
        });
        Ok(projects)
    }

    /// Every project by name, `default` with them.
    pub fn all(&self) -> BTreeMap<ProjectName, Arc<Held>> {
        let mut all = self.view().clone();
        all.entry(default_name()).or_insert_with(usual);
        all
    }

    pub fn get(&self, name: &ProjectName) -> Option<Arc<Held>> {
        let found = self.view().get(name).cloned();
        found.or_else(|| (name.as_str() == DEFAULT_PROJECT).then(usual))
    }

    pub fn contains(&self, name: &str) -> bool {
        name == DEFAULT_PROJECT || name.parse().is_ok_and(|name: ProjectName| self.view().contains_key(&name))
    }

    pub async fn create(
        &self,
        permit: &Permit,
        name: &ProjectName,
        project: Project,
        now: Timestamp,
    ) -> Result<(), ProjectError> {
        if self.contains(name.as_str()) {
            return Err(ProjectError::Exists(name.clone()));
        }
        if self.view().len() >= MOST {
            return Err(ProjectError::TooMany);
        }
        let put = Op::Put { key: keys::project(name), value: encode(&project) };
        let guard = Guard { key: keys::project(name), modify_revision: Revision(0) };
        let txn = Txn { guards: vec![guard], ops: vec![put] };
        match self.commit(permit, Action::ProjectCreated, name, txn, now).await {
            Err(ProjectError::Commit(CommitError::Conflict(_))) => Err(ProjectError::Exists(name.clone())),
            done => done,
        }
    }

    /// Puts `project` in place of what it was at `base`. `Contended` if it has moved since.
    pub async fn update(
        &self,
        permit: &Permit,
        name: &ProjectName,
        base: Revision,
        project: Project,
        now: Timestamp,
    ) -> Result<(), ProjectError> {
        let put = Op::Put { key: keys::project(name), value: encode(&project) };
        let guard = Guard { key: keys::project(name), modify_revision: base };
        let txn = Txn { guards: vec![guard], ops: vec![put] };
        match self.commit(permit, Action::ProjectUpdated, name, txn, now).await {
            Err(ProjectError::Commit(CommitError::Conflict(_))) => Err(ProjectError::Contended),
            done => done,
        }
    }

    pub async fn rename(
        &self,
        permit: &Permit,
        from: &ProjectName,
        to: &ProjectName,
        now: Timestamp,
    ) -> Result<(), ProjectError> {
        if from.as_str() == DEFAULT_PROJECT {
            return Err(ProjectError::Default("renamed"));
        }
        for _ in 0..TRIES {
            let held = self.get(from).ok_or(ProjectError::NotFound)?;
            if self.contains(to.as_str()) {
                return Err(ProjectError::Exists(to.clone()));
            }
            let mut txn = removal(from, &held);
            self.must_be_empty(&mut txn, from, "renamed").await?;
            txn.guards.push(Guard { key: keys::project(to), modify_revision: Revision(0) });
            txn.ops.push(Op::Put { key: keys::project(to), value: encode(&held.project) });
            reference::rewrite(&*self.store, &mut txn, from, Some(to)).await?;
            match self.commit(permit, Action::ProjectRenamed, to, txn, now).await {
                Err(ProjectError::Commit(CommitError::Conflict(_))) => self.read_again().await?,
                done => return done,
            }
        }
        Err(ProjectError::Contended)
    }

    /// Deletes a project with every permission on it, and takes it from clients that are restricted to it.
    pub async fn delete(
        &self,
        permit: &Permit,
        name: &ProjectName,
        now: Timestamp,
    ) -> Result<(), ProjectError> {
        if name.as_str() == DEFAULT_PROJECT {
            return Err(ProjectError::Default("deleted"));
        }
        for _ in 0..TRIES {
            let held = self.get(name).ok_or(ProjectError::NotFound)?;
            let mut txn = removal(name, &held);
            self.must_be_empty(&mut txn, name, "removed").await?;
            reference::rewrite(&*self.store, &mut txn, name, None).await?;
            match self.commit(permit, Action::ProjectDeleted, name, txn, now).await {
                Err(ProjectError::Commit(CommitError::Conflict(_))) => self.read_again().await?,
                done => return done,
            }
        }
        Err(ProjectError::Contended)
    }

    /// Refuses where there is an instance in the project, and makes `txn` fail if one comes meanwhile.
    async fn must_be_empty(
        &self,
        txn: &mut Txn,
        name: &ProjectName,
        what: &'static str,
    ) -> Result<(), ProjectError> {
        let key = keys::project_use(name);
        let used = self.store.get(&key).await?;
        if !self.store.range(&keys::containers(name)).await?.entries.is_empty() {
            return Err(ProjectError::NotEmpty(what));
        }
        let modify_revision = used.map_or(Revision(0), |entry| entry.modify_revision);
        txn.guards.push(Guard { key: key.clone(), modify_revision });
        txn.ops.push(Op::Delete { key });
        Ok(())
    }

    async fn commit(
        &self,
        permit: &Permit,
        action: Action,
        name: &ProjectName,
        txn: Txn,
        now: Timestamp,
    ) -> Result<(), ProjectError> {
        let writes = Writes::of(&txn);
        let revision = self.store.commit(txn).await?;
        // Seen at once by whoever asks next; the watch brings the same.
        self.read_again().await?;
        let told = Record::new(permit.caller(), action, now)
            .on(format!("/1.0/projects/{name}"))
            .committed(writes, revision);
        self.audit.record(told);
        Ok(())
    }

    fn put(&self, key: &str, project: Option<Project>, revision: Revision) {
        let Some(name) = key.strip_prefix(keys::PROJECT).and_then(|name| name.parse().ok()) else { return };
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if all.get(&name).is_some_and(|held| held.revision > revision) {
            return;
        }
        match project {
            Some(project) => all.insert(name, Arc::new(Held { project, revision })),
            None => all.remove(&name),
        };
    }

    fn view(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<ProjectName, Arc<Held>>> {
        // The map is whole between statements, so a panic elsewhere leaves nothing half done.
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_again(&self) -> Result<(), ProjectError> {
        self.read().await.map(drop)
    }

    /// Takes in what there is, and watches it from there.
    async fn read(&self) -> Result<Watch, ProjectError> {
        let snapshot = self.store.range(keys::PROJECT).await?;
        let watch = self.store.watch(keys::PROJECT, snapshot.revision).await?;
        let mut all = BTreeMap::new();
        for entry in &snapshot.entries {
            match (keys::last_part(&entry.key).parse(), decode::<Project>(entry)) {
                (Ok(name), Ok(project)) => {
                    all.insert(name, Arc::new(Held { project, revision: entry.modify_revision }));
                }
                (_, Err(error)) => tracing::error!(%error, "a project cannot be read"),
                (Err(_), _) => {}
            }
        }
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(watch)
    }

    async fn follow(self: Arc<Self>, mut watch: Watch) {
        loop {
            while let Some(Ok(batch)) = watch.recv().await {
                for event in batch.events {
                    match event {
                        Event::Put(entry) => match decode(&entry) {
                            Ok(project) => self.put(&entry.key, Some(project), entry.modify_revision),
                            Err(error) => tracing::error!(%error, "a project cannot be read"),
                        },
                        Event::Delete { key } => self.put(&key, None, batch.revision),
                    }
                }
            }
            watch = loop {
                tokio::time::sleep(RETRY).await;
                match self.read().await {
                    Ok(watch) => break watch,
                    Err(ProjectError::Store(StoreError::Closed)) => return,
                    Err(error) => tracing::error!(%error, "projects cannot be followed; trying again"),
                }
            };
        }
    }
}

fn removal(name: &ProjectName, held: &Held) -> Txn {
    let key = keys::project(name);
    let guards = vec![Guard { key: key.clone(), modify_revision: held.revision }];
    Txn { guards, ops: vec![Op::Delete { key }] }
}

fn default_name() -> ProjectName {
    DEFAULT_PROJECT.parse().unwrap_or_else(|_| unreachable!("a constant name is a name"))
}

/// `default`, where nobody has changed it.
fn usual() -> Arc<Held> {
    let description = "Default Comity project".to_owned();
    Arc::new(Held { project: Project { description, config: Config::usual() }, revision: Revision(0) })
}
