//! The task that owns the board, and the tasks that ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schema::kind::service::Check;
use schema::name::{InstanceId, ServiceName};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::board::{Board, Run};
use super::indexes::Fate;
use super::streak::Streak;
use super::{CheckPlace, Health, ServiceHealth, Status, UpdateError, probe};
use crate::catalog::CatalogView;
use crate::task::Tasks;

/// Probes that may be under way at once: a cluster of thousands of checks does not open thousands of sockets when
/// its agent starts.
const CONCURRENT_PROBES: usize = 64;

/// Probes are never closer together than this, whatever a declaration says.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// What a caller asks of the keeper.
#[derive(Debug)]
pub(super) enum Command {
    Update {
        place: CheckPlace,
        status: Status,
        output: Arc<str>,
        reply: oneshot::Sender<Result<(), UpdateError>>,
    },
    /// Nothing: the answer comes when everything that is declared by now can be seen.
    Settle {
        reply: oneshot::Sender<()>,
    },
    Find {
        check: String,
        reply: oneshot::Sender<Vec<CheckPlace>>,
    },
    Maintain {
        service: ServiceName,
        instance: InstanceId,
        reason: Option<Arc<str>>,
        reply: oneshot::Sender<()>,
    },
}

/// What a check's task tells the keeper, only when it differs from what it told before.
struct Outcome {
    run: Run,
    status: Status,
    output: Arc<str>,
}

/// What is declared, and how far it has been taken in.
struct Declared {
    catalog: watch::Receiver<Arc<CatalogView>>,
    known: Arc<CatalogView>,
    /// Where the tasks of checks tell what they find.
    told: mpsc::Sender<Outcome>,
}

pub(super) struct Keeper {
    health: Arc<Health>,
    tasks: Tasks,
    permits: Arc<Semaphore>,
    overdue: mpsc::Sender<CheckPlace>,
}

impl Keeper {
    pub(super) fn new(health: Arc<Health>, tasks: Tasks, overdue: mpsc::Sender<CheckPlace>) -> Self {
        Self { health, tasks, permits: Arc::new(Semaphore::new(CONCURRENT_PROBES)), overdue }
    }

    pub(super) async fn run(self, mut asked: mpsc::Receiver<Command>) {
        let ending = self.tasks.ending();
        let (told, mut outcomes) = mpsc::channel(CONCURRENT_PROBES);
        let mut declared = Declared { catalog: self.health.catalog.subscribe(), known: Arc::default(), told };
        let mut board = Board::default();
        loop {
            let changed = self.take_in(&mut board, &mut declared);
            self.expire(&mut board);
            self.publish(&mut board, changed);

            let deadline = board.next_deadline();
            let time_runs_out = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ending.cancelled() => return,
                changed = declared.catalog.changed() => if changed.is_err() { return },
                Some(outcome) = outcomes.recv() => {
                    let mut next = Some(outcome);
                    while let Some(Outcome { run, status, output }) = next {
                        board.record(&run, status, output, Instant::now());
                        next = outcomes.try_recv().ok();
                    }
                }
                Some(command) = asked.recv() => {
                    // Whoever asks may have declared what is asked about the moment before.
                    let changed = self.take_in(&mut board, &mut declared);
                    self.serve(&mut board, changed, command, &mut asked);
                }
                () = time_runs_out => {}
            }
        }
    }

    /// Has the board be as the catalog declares, and tells which services changed there.
    fn take_in(&self, board: &mut Board, declared: &mut Declared) -> BTreeMap<ServiceName, Fate> {
        let now = declared.catalog.borrow_and_update().clone();
        let mut changed = BTreeMap::new();
        for name in now.services.changed_since(&declared.known.services) {
            let instances = now.instances(name).map(|instances| &**instances);
            changed.insert(name.clone(), if instances.is_some() { Fate::Changed } else { Fate::Gone });
            for (run, check) in board.declare(name, instances, Instant::now()) {
                self.start_check(run, check, declared.told.clone());
            }
        }
        declared.known = now;
        changed
    }

    /// Does what is asked, and whatever else has been asked by now: they are published as one.
    fn serve(
        &self,
        board: &mut Board,
        changed: BTreeMap<ServiceName, Fate>,
        first: Command,
        asked: &mut mpsc::Receiver<Command>,
    ) {
        let (mut updated, mut done) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Update { place, status, output, reply } => {
                    updated.push((reply, board.update(&place, status, output, Instant::now())));
                }
                Command::Settle { reply } => done.push(reply),
                Command::Find { check, reply } => _ = reply.send(board.places(&check)),
                Command::Maintain { service, instance, reason, reply } => {
                    board.maintain(&service, &instance, reason);
                    done.push(reply);
                }
            }
            next = asked.try_recv().ok();
        }
        self.publish(board, changed);
        // Whoever asked may have gone.
        for (reply, outcome) in updated {
            let _ = reply.send(outcome);
        }
        for reply in done {
            let _ = reply.send(());
        }
    }

    fn expire(&self, board: &mut Board) {
        for place in board.expire(Instant::now()) {
            // Where nobody hears, or too many are named at once, it is named again later.
            let _ = self.overdue.try_send((*place).clone());
        }
    }

    /// Tells what changed on the board, and that `changed` did in the catalog.
    fn publish(&self, board: &mut Board, mut changed: BTreeMap<ServiceName, Fate>) {
        let view = self.health.view();
        let changes = board.take_changes(|service| view.get(service).cloned());
        drop(view);
        for (service, _) in &changes {
            changed.entry(service.clone()).or_insert(Fate::Changed);
        }
        if !changes.is_empty() {
            self.publish_health(changes);
        }
        if !changed.is_empty() {
            let changed = changed.iter().map(|(service, fate)| (service, *fate));
            self.health.indexes.send_modify(|indexes| Arc::make_mut(indexes).advance(changed));
        }
    }

    fn publish_health(&self, changes: Vec<(ServiceName, Option<Arc<ServiceHealth>>)>) {
        self.health.view.send_modify(|view| {
            let view = Arc::make_mut(view);
            for (service, health) in changes {
                let _ = match health {
                    Some(health) => view.insert(service, health),
                    None => view.remove(&service),
                };
            }
        });
    }

    fn start_check(&self, run: Run, check: Check, told: mpsc::Sender<Outcome>) {
        let permits = self.permits.clone();
        let ending = self.tasks.ending();
        self.tasks.spawn("check", async move {
            let stopped = run.stopped();
            tokio::select! {
                () = ending.cancelled() => {}
                () = stopped.cancelled() => {}
                () = watch_instance(run, check, permits, told) => {}
            }
        });
    }
}

/// Probes again and again, and tells what changes: each other status, and another reason to be ill.
async fn watch_instance(run: Run, check: Check, permits: Arc<Semaphore>, told: mpsc::Sender<Outcome>) {
    let interval = Duration::from_millis(check.interval_ms).max(SHORTEST_INTERVAL);
    let timeout = Duration::from_millis(check.timeout_ms.max(1));
    // The first probe is at once, so that a new service is soon usable; the second is brought forward by a share
    // of the interval that is the check's own, so that checks declared together do not keep probing together.
    let mut pause = interval.mul_f64(run.phase());
    let mut streak = Streak::new(check.thresholds);
    let mut last: Option<(Status, Arc<str>)> = None;
    loop {
        let found = {
            let Ok(_permit) = permits.acquire().await else { return };
            probe::run(&check, timeout).await
        };
        if let Some(status) = streak.next(found.status) {
            let is_news = last.as_ref().is_none_or(|(was, why)| {
                *was != status || (status != Status::Passing && *why != found.output)
            });
            if is_news {
                last = Some((status, Arc::clone(&found.output)));
                let outcome = Outcome { run: run.clone(), status, output: found.output };
                if told.send(outcome).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = interval;
    }
}
