//! Whether the instances of this cluster's services are well: the checks they declare, run from here.
//!
//! A service without checks is passing; one with checks is critical until each has passed once, so that nothing is
//! sent to an instance that has not been seen to work. Health lives in memory and on links only: it never touches
//! the store.
//!
//! One task owns the state. It starts and stops a task for each check as the catalog changes and hears from them
//! over a channel, so there is no lock and no check outlives its declaration. A check whose declaration did not
//! change keeps running, and keeps its status, through any other edit of its service.

mod board;
mod probe;

use std::sync::Arc;
use std::time::Duration;

use schema::kind::service::Check;
use schema::name::ServiceName;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::catalog::{Catalog, CatalogView, Sharded};
use crate::task::Tasks;
use board::{Board, CheckId};

/// Probes that may be under way at once: a cluster of thousands of checks does not open thousands of sockets when
/// its agent starts.
const CONCURRENT_PROBES: usize = 64;

/// Probes are never closer together than this, whatever a declaration says.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Health in Consul's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Passing,
    Critical,
}

/// The health of every service that has checks.
pub type HealthView = Sharded<ServiceName, Status>;

/// Runs the checks of the catalog's services.
#[derive(Debug)]
pub struct Health {
    catalog: Arc<Catalog>,
    view: watch::Sender<Arc<HealthView>>,
}

impl Health {
    /// Runs checks as the catalog declares them until `tasks` end.
    pub fn start(catalog: Arc<Catalog>, tasks: &Tasks) -> Arc<Self> {
        let health = Arc::new(Self { catalog, view: watch::Sender::default() });
        let keeper = Keeper {
            health: health.clone(),
            tasks: tasks.clone(),
            permits: Arc::new(Semaphore::new(CONCURRENT_PROBES)),
        };
        tasks.spawn("health", keeper.run());
        health
    }

    /// The health of `service`; critical for one that is not declared.
    pub fn status(&self, service: &ServiceName) -> Status {
        match self.view.borrow().get(service) {
            Some(status) => *status,
            None if self.catalog.view().service(service).is_some_and(|service| service.checks.is_empty()) => {
                Status::Passing
            }
            None => Status::Critical,
        }
    }

    /// A new view whenever the status of a service changes, and only then.
    pub fn subscribe(&self) -> watch::Receiver<Arc<HealthView>> {
        self.view.subscribe()
    }
}

/// What a check's task tells the keeper, only when it differs from what it told before.
struct Outcome {
    check: CheckId,
    result: Result<(), probe::ProbeError>,
}

struct Keeper {
    health: Arc<Health>,
    tasks: Tasks,
    permits: Arc<Semaphore>,
}

impl Keeper {
    async fn run(self) {
        let ending = self.tasks.ending();
        let mut catalog = self.health.catalog.subscribe();
        let mut known = Arc::<CatalogView>::default();
        let mut board = Board::default();
        let (told, mut outcomes) = mpsc::channel(CONCURRENT_PROBES);
        loop {
            let now = catalog.borrow_and_update().clone();
            for name in now.services.changed_since(&known.services) {
                let checks = now.service(name).map_or(&[][..], |service| &service.checks);
                for (id, check) in board.declare(name, checks) {
                    self.start_check(id, check, told.clone());
                }
            }
            known = now;
            self.publish(&mut board);

            tokio::select! {
                () = ending.cancelled() => return,
                changed = catalog.changed() => if changed.is_err() { return },
                Some(outcome) = outcomes.recv() => {
                    let mut next = Some(outcome);
                    while let Some(outcome) = next {
                        board.record(&outcome.check, outcome.result);
                        next = outcomes.try_recv().ok();
                    }
                    self.publish(&mut board);
                }
            }
        }
    }

    fn publish(&self, board: &mut Board) {
        let changes = board.take_changes();
        if changes.is_empty() {
            return;
        }
        self.health.view.send_modify(|view| {
            let view = Arc::make_mut(view);
            for (service, status) in changes {
                let _ = match status {
                    Some(status) => view.insert(service, status),
                    None => view.remove(&service),
                };
            }
        });
    }

    fn start_check(&self, id: CheckId, check: Check, told: mpsc::Sender<Outcome>) {
        let permits = self.permits.clone();
        let ending = self.tasks.ending();
        self.tasks.spawn("check", async move {
            let stopped = id.stopped();
            tokio::select! {
                () = ending.cancelled() => {}
                () = stopped.cancelled() => {}
                () = watch_instance(id, check, permits, told) => {}
            }
        });
    }
}

/// Probes again and again, and tells the first outcome and each that differs in kind from the one before.
async fn watch_instance(id: CheckId, check: Check, permits: Arc<Semaphore>, told: mpsc::Sender<Outcome>) {
    let interval = Duration::from_millis(check.interval_ms).max(SHORTEST_INTERVAL);
    let timeout = Duration::from_millis(check.timeout_ms.max(1));
    // The first probe is at once, so that a new service is soon usable; the second is brought forward by a share
    // of the interval that is the check's own, so that checks declared together do not keep probing together.
    let mut pause = interval.mul_f64(id.phase());
    let mut last = None;
    loop {
        let result = {
            let Ok(_permit) = permits.acquire().await else { return };
            probe::run(&check.probe, timeout).await
        };
        let passed = result.is_ok();
        if last != Some(passed) {
            last = Some(passed);
            if told.send(Outcome { check: id.clone(), result }).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(pause).await;
        pause = interval;
    }
}

#[cfg(test)]
mod tests;
