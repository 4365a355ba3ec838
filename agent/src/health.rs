//! Whether the instances of this cluster's services are well: the checks they declare, run from here, and what they
//! say of themselves.
//!
//! An instance without checks is passing; one with checks is as ill as the worst of them, and a check is critical until
//! it has passed once (unless it declares another beginning), so that nothing is sent to an instance that has not been
//! seen to work. Health lives in memory and on links only: it never touches the store.
//!
//! One task owns the state. It starts and stops a task for each check that asks, as the catalog changes, hears from
//! them and from whoever calls over channels, and wakes for the next check whose time has run out: thousands of checks
//! that are made by others cost nothing between their calls. There is no lock and no check outlives its declaration. A
//! check whose declaration did not change keeps running, and keeps its status, through any other edit of its service.

mod board;
mod indexes;
mod keeper;
mod probe;
mod streak;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use schema::kind::service::Initial;
use schema::name::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::catalog::{Catalog, Sharded};
use crate::task::Tasks;
use keeper::{Command, Keeper};

pub use indexes::Indexes;

/// Most bytes of what a check says, as Consul keeps them.
pub const MAX_OUTPUT: usize = 4096;
/// Calls that wait for the keeper.
const WAITING: usize = 256;

/// Health in Consul's words, from well to ill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Passing,
    Warning,
    Critical,
    /// Somebody has taken the instance out of service. Never the status of a check.
    Maintenance,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Passing => "passing",
            Status::Warning => "warning",
            Status::Critical => "critical",
            Status::Maintenance => "maintenance",
        }
    }
}

impl From<Initial> for Status {
    fn from(initial: Initial) -> Self {
        match initial {
            Initial::Passing => Status::Passing,
            Initial::Warning => Status::Warning,
            Initial::Critical => Status::Critical,
        }
    }
}

/// The last word of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckState {
    /// As calls name it, see `Check::id_in`.
    pub id: Arc<str>,
    pub status: Status,
    /// What it said, at most [`MAX_OUTPUT`] bytes.
    pub output: Arc<str>,
}

/// The health of one instance: the worst of its checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceHealth {
    pub status: Status,
    /// In the order in which they are declared.
    pub checks: Vec<CheckState>,
    /// Why it is out of service, if it is.
    pub maintenance: Option<Arc<str>>,
}

impl InstanceHealth {
    /// That of an instance which nobody asks.
    fn unasked() -> Arc<Self> {
        Arc::new(Self { status: Status::Passing, checks: Vec::new(), maintenance: None })
    }
}

/// The health of the instances of one service that have checks or are out of service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceHealth(BTreeMap<InstanceId, Arc<InstanceHealth>>);

impl ServiceHealth {
    pub fn get(&self, id: &InstanceId) -> Option<&Arc<InstanceHealth>> {
        self.0.get(id)
    }
}

/// The health of every service whose instances have checks or are out of service.
pub type HealthView = Sharded<ServiceName, Arc<ServiceHealth>>;

/// Why a check could not be told what it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    #[error("Unknown check ID {0:?}. Ensure that the check ID is passed, not the check name.")]
    Unknown(String),
    #[error("CheckID {0:?} does not have associated TTL")]
    NoTtl(String),
    #[error("the agent is ending")]
    Ended,
}

/// Where a check is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CheckPlace {
    pub service: ServiceName,
    pub instance: InstanceId,
    pub check: Arc<str>,
}

/// Runs the checks of the catalog's services.
#[derive(Debug)]
pub struct Health {
    catalog: Arc<Catalog>,
    view: watch::Sender<Arc<HealthView>>,
    indexes: watch::Sender<Arc<Indexes>>,
    commands: mpsc::Sender<Command>,
    overdue: Mutex<Option<mpsc::Receiver<CheckPlace>>>,
}

impl Health {
    /// Runs checks as the catalog declares them until `tasks` end.
    pub fn start(catalog: Arc<Catalog>, tasks: &Tasks) -> Arc<Self> {
        let (commands, asked) = mpsc::channel(WAITING);
        let (tell_overdue, overdue) = mpsc::channel(WAITING);
        let health = Arc::new(Self {
            catalog,
            view: watch::Sender::default(),
            indexes: watch::Sender::new(Arc::new(Indexes::begin(now_ms()))),
            commands,
            overdue: Mutex::new(Some(overdue)),
        });
        let keeper = Keeper::new(health.clone(), tasks.clone(), tell_overdue);
        tasks.spawn("health", keeper.run(asked));
        health
    }

    /// The health of a service as a whole: that of its best instance; critical for one that is not declared.
    pub fn status(&self, service: &ServiceName) -> Status {
        let catalog = self.catalog.view();
        let Some(instances) = catalog.instances(service) else { return Status::Critical };
        let view = self.view();
        instances
            .iter()
            .map(|instance| in_view(&view, service, &instance.id, !instance.service.checks.is_empty()).status)
            .min()
            .unwrap_or(Status::Critical)
    }

    /// The health of one instance; critical for one that is not declared.
    pub fn instance(&self, service: &ServiceName, id: &InstanceId) -> Arc<InstanceHealth> {
        let catalog = self.catalog.view();
        let declared = catalog.instances(service).and_then(|instances| instances.get(id));
        let asked = declared.is_none_or(|instance| !instance.service.checks.is_empty());
        in_view(&self.view(), service, id, asked)
    }

    pub fn view(&self) -> Arc<HealthView> {
        self.view.borrow().clone()
    }

    /// A new view whenever the health of an instance changes, and only then; `changed_since` tells of which services.
    pub fn subscribe(&self) -> watch::Receiver<Arc<HealthView>> {
        self.view.subscribe()
    }

    /// When each service's instances or health last changed. A new number is told after the change can be seen.
    pub fn indexes(&self) -> watch::Receiver<Arc<Indexes>> {
        self.indexes.subscribe()
    }

    /// Says how an instance is, for a check that waits to be told. Returns when everybody may see it.
    pub async fn update(&self, place: &CheckPlace, status: Status, output: &str) -> Result<(), UpdateError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Update { place: place.clone(), status, output: cut(output).into(), reply };
        self.commands.send(command).await.map_err(|_| UpdateError::Ended)?;
        answer.await.map_err(|_| UpdateError::Ended)?
    }

    /// Every check of this id. Those of different services may have one: who is meant is for the caller's rights to say.
    pub async fn places(&self, id: &str) -> Vec<CheckPlace> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Find { check: id.to_owned(), reply }).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// Waits until the health of everything that the catalog has by now can be seen.
    pub async fn settle(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Settle { reply }).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// Takes an instance out of service, for `reason`, or with `None` back into it.
    pub async fn set_maintenance(&self, service: &ServiceName, id: &InstanceId, reason: Option<Arc<str>>) {
        let (reply, answer) = oneshot::channel();
        let command = Command::Maintain { service: service.clone(), instance: id.clone(), reason, reply };
        if self.commands.send(command).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// Instances that have been critical for as long as they declare that they may be. To be taken once, by whoever
    /// deregisters them; an instance that stays is named again.
    pub fn take_overdue(&self) -> Option<mpsc::Receiver<CheckPlace>> {
        self.overdue.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
}

/// The health that `view` has of an instance. One with checks that the view does not know yet has just been declared.
fn in_view(
    view: &HealthView,
    service: &ServiceName,
    id: &InstanceId,
    has_checks: bool,
) -> Arc<InstanceHealth> {
    match view.get(service).and_then(|service| service.get(id)) {
        Some(health) => health.clone(),
        None if has_checks => {
            Arc::new(InstanceHealth { status: Status::Critical, checks: Vec::new(), maintenance: None })
        }
        None => InstanceHealth::unasked(),
    }
}

/// `output` up to its limit, at the end of a character.
fn cut(output: &str) -> &str {
    let mut end = output.len().min(MAX_OUTPUT);
    while !output.is_char_boundary(end) {
        end -= 1;
    }
    &output[..end]
}

#[cfg(test)]
mod tests;
