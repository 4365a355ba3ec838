//! The state of every check, without I/O: what is declared and what was heard go in, changed statuses come out.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use schema::kind::service::Check;
use schema::name::ServiceName;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Status;
use super::probe::ProbeError;

/// One run of one check. A check that was declared anew has another id, so late words of its past are not heard.
#[derive(Debug, Clone)]
pub(super) struct CheckId {
    service: ServiceName,
    serial: u64,
    stop: CancellationToken,
}

impl CheckId {
    /// Cancelled when the check is no longer declared.
    pub(super) fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// A share, from a tenth to the whole, that differs between checks and is the same in every run.
    pub(super) fn phase(&self) -> f64 {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((&self.service, self.serial));
        #[allow(clippy::cast_precision_loss)] // a share of an interval needs no more than an f64 has
        let share = hash as f64 / u64::MAX as f64;
        0.1 + 0.9 * share
    }
}

#[derive(Debug)]
struct Running {
    check: Check,
    serial: u64,
    status: Status,
    /// Stops the check's task when the row goes.
    _stop: DropGuard,
}

/// Every declared check with its status, and the services whose status changed since last asked.
#[derive(Debug, Default)]
pub(super) struct Board {
    services: BTreeMap<ServiceName, Vec<Running>>,
    published: BTreeMap<ServiceName, Status>,
    touched: BTreeSet<ServiceName>,
    serial: u64,
}

impl Board {
    /// Sets the checks of `service` and gives those to start. Checks that stay as they were keep running.
    pub(super) fn declare(&mut self, service: &ServiceName, checks: &[Check]) -> Vec<(CheckId, Check)> {
        let mut before = self.services.remove(service).unwrap_or_default();
        let mut running = Vec::with_capacity(checks.len());
        let mut start = Vec::new();
        for check in checks {
            if let Some(at) = before.iter().position(|old| old.check == *check) {
                running.push(before.swap_remove(at));
                continue;
            }
            self.serial += 1;
            let stop = CancellationToken::new();
            let id = CheckId { service: service.clone(), serial: self.serial, stop: stop.clone() };
            running.push(Running {
                check: check.clone(),
                serial: self.serial,
                status: Status::Critical,
                _stop: stop.drop_guard(),
            });
            start.push((id, check.clone()));
        }
        if !running.is_empty() {
            self.services.insert(service.clone(), running);
        }
        self.touched.insert(service.clone());
        start
    }

    /// What a check found. Words of a check that is no longer declared are dropped.
    pub(super) fn record(&mut self, id: &CheckId, result: Result<(), ProbeError>) {
        let Some(running) = self
            .services
            .get_mut(&id.service)
            .and_then(|checks| checks.iter_mut().find(|running| running.serial == id.serial))
        else {
            return;
        };
        running.status = match result {
            Ok(()) => {
                tracing::info!(service = %id.service, probe = ?running.check.probe, "check passes");
                Status::Passing
            }
            Err(error) => {
                tracing::warn!(service = %id.service, probe = ?running.check.probe, %error, "check fails");
                Status::Critical
            }
        };
        self.touched.insert(id.service.clone());
    }

    /// The services whose status is another than at the last call; `None` for those that have no checks any more.
    pub(super) fn take_changes(&mut self) -> Vec<(ServiceName, Option<Status>)> {
        let mut changes = Vec::new();
        for service in std::mem::take(&mut self.touched) {
            let status = self.services.get(&service).map(|checks| {
                if checks.iter().all(|running| running.status == Status::Passing) {
                    Status::Passing
                } else {
                    Status::Critical
                }
            });
            let before = match status {
                Some(status) => self.published.insert(service.clone(), status),
                None => self.published.remove(&service),
            };
            if before != status {
                changes.push((service, status));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::kind::service::Probe;

    fn tcp(port: u16) -> Check {
        Check { probe: Probe::Tcp(format!("127.0.0.1:{port}")), interval_ms: 1_000, timeout_ms: 100 }
    }

    #[test]
    fn the_worst_check_wins_and_an_unchanged_check_keeps_its_status() {
        let mut board = Board::default();
        let name: ServiceName = "web".parse().unwrap();
        let started = board.declare(&name, &[tcp(1), tcp(2)]);
        assert_eq!(board.take_changes(), [(name.clone(), Some(Status::Critical))]);
        board.record(&started[0].0, Ok(()));
        assert_eq!(board.take_changes(), []);
        board.record(&started[1].0, Ok(()));
        assert_eq!(board.take_changes(), [(name.clone(), Some(Status::Passing))]);

        // The second check goes, the first stays as it was: nothing to start, nothing to tell.
        assert!(board.declare(&name, &[tcp(1)]).is_empty());
        assert!(started[1].0.stop.is_cancelled() && !started[0].0.stop.is_cancelled());
        board.record(&started[1].0, Err(ProbeError::Timeout));
        assert_eq!(board.take_changes(), []);

        assert!(board.declare(&name, &[]).is_empty());
        assert_eq!(board.take_changes(), [(name, None)]);
        assert!(started[0].0.stop.is_cancelled());
    }
}
