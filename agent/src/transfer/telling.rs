//! How far a transfer is, as its operation tells it: a line in the form that LXD's clients print, and the figures.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use super::exchange::unreported;
use super::progress::{Meter, Progress, Report, Stage, TOLD_EVERY};
use super::shipment::Origin;
use crate::dataset::{Dataset, Owner};
use crate::operation::Handle;

/// What is spoken between the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Ours.
    ChunkStream,
    /// LXD's migration websockets with rsync.
    Rsync,
}

/// Why it is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Within,
    BothOurs,
    BothOursRelayed,
    OtherIsLxd,
}

impl Protocol {
    fn as_str(self) -> &'static str {
        match self {
            Protocol::ChunkStream => "chunk stream",
            Protocol::Rsync => "rsync",
        }
    }
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Reason::Within => "both sides are this agent's",
            Reason::BothOurs => "both sides speak it",
            Reason::BothOursRelayed => "both sides speak it; a client relays it",
            Reason::OtherIsLxd => {
                "the other side speaks LXD's migration protocol alone, by rsync; hard links and ACLs are not kept by it"
            }
        }
    }
}

/// Tells an operation how far its transfer is.
#[derive(Clone)]
pub struct Teller {
    handle: Option<Handle>,
    /// What moves, as LXD's line begins.
    name: String,
    protocol: Protocol,
    reason: Reason,
    /// What was told last: its end tells that again.
    last: Arc<Mutex<Option<Progress>>>,
    origin: Origin,
}

/// What an operation tells of where its data comes from.
pub fn origin(origin: &Origin) -> Value {
    let mut told = json!({});
    if let Some(source) = &origin.source {
        merge(&mut told, json!({ "source": source }));
    }
    if let Some(transfer) = &origin.transfer {
        merge(&mut told, json!({ "transfer": transfer }));
    }
    told
}

impl Teller {
    /// Says at once what is spoken, and why.
    pub fn begin(
        handle: Option<Handle>,
        (dataset, origin): (&Dataset, Origin),
        protocol: Protocol,
        reason: Reason,
    ) -> Self {
        let name = match &dataset.owner {
            Owner::Volume(volume) => volume.to_string(),
            Owner::Instance { name, .. } => name.to_string(),
        };
        let teller = Self { handle, name, protocol, reason, last: Arc::default(), origin };
        if let Some(handle) = &teller.handle {
            handle.progress(json!({ "comity": teller.chosen() }));
        }
        teller
    }

    /// What is called with how far it is.
    pub fn report(&self) -> Report {
        let teller = self.clone();
        match &self.handle {
            Some(handle) => {
                let handle = handle.clone();
                Arc::new(move |progress| {
                    *teller.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(*progress);
                    handle.progress(teller.metadata(progress));
                })
            }
            None => unreported(),
        }
    }

    /// What is called with the bytes that go over, where no more is known.
    pub fn count(&self, stage: Stage) -> impl FnMut(u64) + Send + use<> {
        let (meter, report, mut last) = (Meter::default(), self.report(), Instant::now());
        meter.stage(stage);
        move |more| {
            meter.done(more);
            meter.sent(more);
            let now = Instant::now();
            if now - last >= TOLD_EVERY {
                last = now;
                report(&meter.read(now));
            }
        }
    }

    /// What an operation tells that has succeeded.
    pub fn ended(&self, figures: Value) -> Value {
        let mut comity = self.chosen();
        merge(&mut comity, json!({"stage": "done"}));
        if let Some(last) = *self.last.lock().unwrap_or_else(PoisonError::into_inner) {
            merge(&mut comity, json!({"reused": last.reused, "files_total": last.files_total}));
        }
        merge(&mut comity, figures);
        json!({ "comity": comity })
    }

    fn metadata(&self, progress: &Progress) -> Value {
        let mut comity = self.chosen();
        // A count that stands still says nothing: it is told once there is one.
        let files_total = progress.files_total.filter(|_| progress.files_done > 0);
        let figures = json!({
            "stage": progress.stage.as_str(), "done": progress.done, "total": progress.total,
            "rate": progress.rate, "files_done": progress.files_done, "files_total": files_total,
            "reused": progress.reused, "sent": progress.sent, "left": progress.left,
        });
        merge(&mut comity, figures);
        json!({"fs_progress": line(&self.name, progress), "comity": comity})
    }

    fn chosen(&self) -> Value {
        let mut told = origin(&self.origin);
        merge(&mut told, json!({"protocol": self.protocol.as_str(), "reason": self.reason.as_str()}));
        told
    }
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// `c1: 1.65GB (91.42MB/s), 63%, 12s left`: LXD's line, and behind it what is known besides.
fn line(name: &str, progress: &Progress) -> String {
    let Progress { done, total, rate, left, .. } = *progress;
    let mut line = format!("{name}: {} ({}/s)", bytes(done), bytes(rate));
    if let Some(total) = total.filter(|total| *total > 0) {
        let percent = (u128::from(done) * 100 / u128::from(total)).min(100);
        // Writing to a String does not fail.
        let _ = write!(line, ", {percent}%");
        if let Some(left) = left {
            let _ = write!(line, ", {left}s left");
        }
    }
    line
}

/// A number of bytes as LXD prints it, with two digits.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count}B");
    }
    let (mut hundredths, mut unit) = (u128::from(count) / 10, 0);
    while hundredths >= 100_000 && unit + 1 < UNITS.len() {
        hundredths /= 1000;
        unit += 1;
    }
    format!("{}.{:02}{}", hundredths / 100, hundredths % 100, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_lxds_with_more_behind() {
        assert_eq!(bytes(999), "999B");
        assert_eq!(bytes(1000), "1.00kB");
        assert_eq!(bytes(1_650_000_000), "1.65GB");
        assert_eq!(bytes(u64::MAX), "18.44EB");
        let reached = Progress {
            done: 630,
            total: Some(1000),
            rate: 31,
            left: Some(11),
            ..Meter::default().read(Instant::now())
        };
        assert_eq!(line("c1", &reached), "c1: 630B (31B/s), 63%, 11s left");
        assert_eq!(line("c1", &Progress { total: None, left: None, rate: 0, ..reached }), "c1: 630B (0B/s)");
        assert_eq!(line("c1", &Progress { rate: 0, left: None, ..reached }), "c1: 630B (0B/s), 63%");
    }
}
