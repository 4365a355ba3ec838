//! The state of every check, without I/O: what is declared, what was heard and what time it is go in, changed health
//! comes out.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;
use std::time::Duration;

use schema::kind::service::{Check, Probe, Service};
use schema::name::{InstanceId, ServiceName};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{CheckPlace, CheckState, InstanceHealth, ServiceHealth, Status, UpdateError};
use crate::catalog::Instances;

/// One run of one check. A check that was declared anew has another serial, so late words of its past are not heard.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub place: Arc<CheckPlace>,
    serial: u64,
    stop: CancellationToken,
}

impl Run {
    /// Cancelled when the check is no longer declared.
    pub(super) fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// A share, from a tenth to the whole, that differs between checks and is the same in every run.
    pub(super) fn phase(&self) -> f64 {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((&*self.place, self.serial));
        #[allow(clippy::cast_precision_loss)] // a share of an interval needs no more than an f64 has
        let share = hash as f64 / u64::MAX as f64;
        0.1 + 0.9 * share
    }
}

/// What runs out at a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Limit {
    /// The time within which an instance says how it is.
    Ttl,
    /// The time for which a check may be critical.
    Critical,
}

#[derive(Debug)]
struct Running {
    place: Arc<CheckPlace>,
    serial: u64,
    status: Status,
    output: Arc<str>,
    ttl_ends: Option<Instant>,
    critical_ends: Option<Instant>,
    /// Stops the check's task when the row goes.
    stop: Option<DropGuard>,
}

/// One instance; `checks` are those of `service`, in its order.
#[derive(Debug, Default)]
struct Row {
    service: Arc<Service>,
    checks: Vec<Running>,
    maintenance: Option<Arc<str>>,
}

impl Row {
    /// `None` for one that there is nothing to say about.
    fn health(&self) -> Option<Arc<InstanceHealth>> {
        if self.checks.is_empty() && self.maintenance.is_none() {
            return None;
        }
        let worst = self.checks.iter().map(|check| check.status).max().unwrap_or(Status::Passing);
        let state = |check: &Running| CheckState {
            id: Arc::clone(&check.place.check),
            status: check.status,
            output: Arc::clone(&check.output),
        };
        Some(Arc::new(InstanceHealth {
            status: if self.maintenance.is_some() { Status::Maintenance } else { worst },
            checks: self.checks.iter().map(state).collect(),
            maintenance: self.maintenance.clone(),
        }))
    }
}

/// Every declared check with its status, and what changed since last asked.
#[derive(Debug, Default)]
pub(super) struct Board {
    services: BTreeMap<ServiceName, BTreeMap<InstanceId, Row>>,
    /// Each check by the id that calls have for it; more than one where two services chose the same.
    by_id: HashMap<Arc<str>, Vec<Arc<CheckPlace>>>,
    by_serial: HashMap<u64, Arc<CheckPlace>>,
    deadlines: BTreeSet<(Instant, u64, Limit)>,
    touched: BTreeMap<ServiceName, BTreeSet<InstanceId>>,
    serial: u64,
}

impl Board {
    /// Sets the instances of `service` and gives the checks to start. Checks that stay as they were keep running.
    pub(super) fn declare(
        &mut self,
        service: &ServiceName,
        instances: Option<&Instances>,
        now: Instant,
    ) -> Vec<(Run, Check)> {
        let mut before = self.services.remove(service).unwrap_or_default();
        let mut after = BTreeMap::new();
        let mut start = Vec::new();
        for instance in instances.into_iter().flatten() {
            let known = before.remove(&instance.id).unwrap_or_default();
            if known.service == instance.service && known.checks.len() == instance.service.checks.len() {
                after.insert(instance.id.clone(), known);
                continue;
            }
            let row = self.redeclare(service, &instance.id, known, &instance.service, now, &mut start);
            self.touch(service, &instance.id);
            after.insert(instance.id.clone(), row);
        }
        for (id, row) in before {
            for check in row.checks {
                self.forget(&check);
            }
            self.touch(service, &id);
        }
        if !after.is_empty() {
            self.services.insert(service.clone(), after);
        }
        start
    }

    fn redeclare(
        &mut self,
        service: &ServiceName,
        instance: &InstanceId,
        known: Row,
        declared: &Arc<Service>,
        now: Instant,
        start: &mut Vec<(Run, Check)>,
    ) -> Row {
        let Row { service: old, checks, maintenance } = known;
        let mut before: Vec<Option<Running>> = checks.into_iter().map(Some).collect();
        let count = declared.checks.len();
        let mut running = Vec::with_capacity(count);
        for (index, check) in declared.checks.iter().enumerate() {
            let id = check.id_in(instance, index, count);
            let kept = before.iter().enumerate().position(|(at, kept)| {
                kept.as_ref()
                    .is_some_and(|kept| *kept.place.check == *id && old.checks.get(at) == Some(check))
            });
            if let Some(kept) = kept.and_then(|at| before[at].take()) {
                running.push(kept);
                continue;
            }
            let place = CheckPlace { service: service.clone(), instance: instance.clone(), check: id.into() };
            running.push(self.begin(Arc::new(place), check, now, start));
        }
        for gone in before.into_iter().flatten() {
            self.forget(&gone);
        }
        Row { service: Arc::clone(declared), checks: running, maintenance }
    }

    fn begin(
        &mut self,
        place: Arc<CheckPlace>,
        check: &Check,
        now: Instant,
        start: &mut Vec<(Run, Check)>,
    ) -> Running {
        self.serial += 1;
        let serial = self.serial;
        self.by_id.entry(Arc::clone(&place.check)).or_default().push(Arc::clone(&place));
        self.by_serial.insert(serial, Arc::clone(&place));
        let mut running = Running {
            place: Arc::clone(&place),
            serial,
            status: check.status.into(),
            output: Arc::from(""),
            ttl_ends: None,
            critical_ends: None,
            stop: None,
        };
        if let Probe::Ttl(ttl) = check.probe {
            running.ttl_ends = Some(now + Duration::from_millis(ttl));
        } else {
            let stop = CancellationToken::new();
            start.push((Run { place, serial, stop: stop.clone() }, check.clone()));
            running.stop = Some(stop.drop_guard());
        }
        if running.status == Status::Critical && check.deregister_after_ms > 0 {
            running.critical_ends = Some(now + Duration::from_millis(check.deregister_after_ms));
        }
        for (end, limit) in [(running.ttl_ends, Limit::Ttl), (running.critical_ends, Limit::Critical)] {
            self.deadlines.extend(end.map(|end| (end, serial, limit)));
        }
        running
    }

    fn forget(&mut self, gone: &Running) {
        self.by_serial.remove(&gone.serial);
        for (end, limit) in [(gone.ttl_ends, Limit::Ttl), (gone.critical_ends, Limit::Critical)] {
            if let Some(end) = end {
                self.deadlines.remove(&(end, gone.serial, limit));
            }
        }
        if let Some(places) = self.by_id.get_mut(&gone.place.check) {
            // By pointer: the check that takes this one's place may have the same words.
            places.retain(|place| !Arc::ptr_eq(place, &gone.place));
            if places.is_empty() {
                self.by_id.remove(&gone.place.check);
            }
        }
    }

    /// What a probe found. Words of a check that is no longer declared are dropped.
    pub(super) fn record(&mut self, run: &Run, status: Status, output: Arc<str>, now: Instant) {
        if self.by_serial.contains_key(&run.serial) {
            self.set(&run.place, status, output, now);
        }
    }

    /// The service that has a check of this id.
    pub(super) fn places(&self, id: &str) -> Vec<CheckPlace> {
        self.by_id.get(id).into_iter().flatten().map(|place| CheckPlace::clone(place)).collect()
    }

    /// What somebody says of the instance that waits to be told about.
    pub(super) fn update(
        &mut self,
        place: &CheckPlace,
        status: Status,
        output: Arc<str>,
        now: Instant,
    ) -> Result<(), UpdateError> {
        let id = &place.check;
        let found =
            self.find(place).map(|(running, check)| (running.serial, running.ttl_ends, check.probe.clone()));
        let Some((serial, ends, probe)) = found else { return Err(UpdateError::Unknown(id.to_string())) };
        let Probe::Ttl(ttl) = probe else { return Err(UpdateError::NoTtl(id.to_string())) };
        if let Some(ends) = ends {
            self.deadlines.remove(&(ends, serial, Limit::Ttl));
        }
        let ends = now + Duration::from_millis(ttl);
        self.deadlines.insert((ends, serial, Limit::Ttl));
        if let Some((running, _)) = self.find(place) {
            running.ttl_ends = Some(ends);
        }
        self.set(place, status, output, now);
        Ok(())
    }

    /// Takes an instance out of service, or back into it. One that is not declared has no service to be out of.
    pub(super) fn maintain(
        &mut self,
        service: &ServiceName,
        instance: &InstanceId,
        reason: Option<Arc<str>>,
    ) {
        let row = self.services.get_mut(service).and_then(|rows| rows.get_mut(instance));
        let Some(row) = row else { return };
        if row.maintenance != reason {
            row.maintenance = reason;
            self.touch(service, instance);
        }
    }

    /// When [`Board::expire`] has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(end, ..)| *end)
    }

    /// Lets run out what has by `now`, and gives the instances that have been critical for too long.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Arc<CheckPlace>> {
        let mut overdue = Vec::new();
        while let Some(&(end, serial, limit)) = self.deadlines.first() {
            if end > now {
                break;
            }
            self.deadlines.remove(&(end, serial, limit));
            let Some(place) = self.by_serial.get(&serial).cloned() else { continue };
            let Some((running, check)) = self.find(&place) else { continue };
            match limit {
                Limit::Ttl => {
                    running.ttl_ends = None;
                    let output = if running.output.is_empty() {
                        Arc::from("TTL expired")
                    } else {
                        let last =
                            format!("TTL expired (last output before timeout follows): {}", running.output);
                        super::cut(&last).into()
                    };
                    self.set(&place, Status::Critical, output, now);
                }
                Limit::Critical => {
                    // Whoever deregisters may fail to; then it is named again after as long.
                    let again = now + Duration::from_millis(check.deregister_after_ms);
                    running.critical_ends = Some(again);
                    self.deadlines.insert((again, serial, Limit::Critical));
                    overdue.push(place);
                }
            }
        }
        overdue
    }

    fn find(&mut self, place: &CheckPlace) -> Option<(&mut Running, &Check)> {
        let row = self.services.get_mut(&place.service)?.get_mut(&place.instance)?;
        let at = row.checks.iter().position(|running| running.place.check == place.check)?;
        Some((&mut row.checks[at], &row.service.checks[at]))
    }

    fn set(&mut self, place: &CheckPlace, status: Status, output: Arc<str>, now: Instant) {
        let Some((running, check)) = self.find(place) else { return };
        if running.status == status && running.output == output {
            return;
        }
        let was = running.critical_ends;
        if status != running.status {
            let CheckPlace { service, instance, check } = place;
            match status {
                Status::Passing => tracing::info!(%service, %instance, check = &**check, "check passes"),
                status => {
                    tracing::warn!(%service, %instance, check = &**check, status = status.as_str(), "check fails");
                }
            }
        }
        running.critical_ends = match (status, was, check.deregister_after_ms) {
            (Status::Critical, Some(end), _) => Some(end),
            (Status::Critical, None, after) if after > 0 => Some(now + Duration::from_millis(after)),
            _ => None,
        };
        running.status = status;
        running.output = output;
        let (is, serial) = (running.critical_ends, running.serial);
        if was != is {
            if let Some(end) = was {
                self.deadlines.remove(&(end, serial, Limit::Critical));
            }
            self.deadlines.extend(is.map(|end| (end, serial, Limit::Critical)));
        }
        self.touch(&place.service, &place.instance);
    }

    fn touch(&mut self, service: &ServiceName, instance: &InstanceId) {
        if let Some(instances) = self.touched.get_mut(service) {
            instances.insert(instance.clone());
        } else {
            self.touched.insert(service.clone(), BTreeSet::from([instance.clone()]));
        }
    }

    /// The services whose health is another than `published` says; `None` for those of which nothing is to be said.
    pub(super) fn take_changes(
        &mut self,
        published: impl Fn(&ServiceName) -> Option<Arc<ServiceHealth>>,
    ) -> Vec<(ServiceName, Option<Arc<ServiceHealth>>)> {
        let mut changes = Vec::new();
        for (service, instances) in std::mem::take(&mut self.touched) {
            let before = published(&service);
            let mut after = before.clone().unwrap_or_default();
            let rows = self.services.get(&service);
            for id in instances {
                let health = rows.and_then(|rows| rows.get(&id)).and_then(Row::health);
                if after.get(&id) == health.as_ref() {
                    continue;
                }
                let all = &mut Arc::make_mut(&mut after).0;
                match health {
                    Some(health) => _ = all.insert(id, health),
                    None => _ = all.remove(&id),
                }
            }
            let after = (!after.0.is_empty()).then_some(after);
            if after != before {
                changes.push((service, after));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests;
