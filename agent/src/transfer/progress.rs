//! Where a transfer stands: counted by whoever works, looked at by whoever tells people.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Told where a transfer stands, about ten times a second, and once more at its end.
pub type Report = Arc<dyn Fn(&Progress) + Send + Sync>;

/// Progress is told this often: people read it.
pub const TOLD_EVERY: Duration = Duration::from_millis(100);
/// The rate is that of this long.
const RATE_OVER: Duration = Duration::from_secs(5);
/// What is left is told from so long a rate on: before, it would be a guess that jumps.
const STEADY_AFTER: Duration = Duration::from_secs(3);

/// Where a transfer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub stage: Stage,
    /// Bytes of file data of the trees, and of what is in its place (or was sent) already.
    pub done: u64,
    /// `None` until it is known.
    pub total: Option<u64>,
    pub files_done: u64,
    pub files_total: Option<u64>,
    /// Bytes of `done` that did not have to be sent.
    pub reused: u64,
    /// Bytes that went over the wire, as packed as they were.
    pub sent: u64,
    /// Bytes of `done` that were sent or read in each of the last seconds; what is reused is no speed.
    pub rate: u64,
    /// Seconds until all is done, once that can be told.
    pub left: Option<u64>,
}

/// What a side is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// The source reads its tree.
    Reading,
    /// The target looks for what it has.
    Comparing,
    Sending,
    Receiving,
    Verifying,
    /// The target makes everything durable and switches it in.
    Switching,
}

impl Stage {
    const ALL: [Stage; 6] = [
        Stage::Reading,
        Stage::Comparing,
        Stage::Sending,
        Stage::Receiving,
        Stage::Verifying,
        Stage::Switching,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Reading => "reading",
            Stage::Comparing => "comparing",
            Stage::Sending => "sending",
            Stage::Receiving => "receiving",
            Stage::Verifying => "verifying",
            Stage::Switching => "switching",
        }
    }
}

/// The counters of one transfer.
#[derive(Debug)]
pub struct Meter {
    stage: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    files_done: AtomicU64,
    files_total: AtomicU64,
    /// What of the totals is the present tree's.
    tree: AtomicU64,
    tree_files: AtomicU64,
    /// Files of it that were counted one by one.
    tree_files_done: AtomicU64,
    reused: AtomicU64,
    sent: AtomicU64,
    /// What was moved when, over the time of the rate.
    past: Mutex<VecDeque<(Instant, u64)>>,
}

/// Stands for a total that is not known.
const UNKNOWN: u64 = u64::MAX;
/// Most that one tree may be announced to have.
const MOST: u64 = 1 << 60;

impl Default for Meter {
    fn default() -> Self {
        Self {
            stage: AtomicU8::new(Stage::Reading as u8),
            done: AtomicU64::default(),
            total: AtomicU64::new(UNKNOWN),
            files_done: AtomicU64::default(),
            files_total: AtomicU64::new(UNKNOWN),
            tree: AtomicU64::default(),
            tree_files: AtomicU64::default(),
            tree_files_done: AtomicU64::default(),
            reused: AtomicU64::default(),
            sent: AtomicU64::default(),
            past: Mutex::default(),
        }
    }
}

impl Meter {
    pub fn stage(&self, stage: Stage) {
        if self.stage.swap(stage as u8, Relaxed) != stage as u8 {
            // Each stage has a rate of its own.
            self.past().clear();
        }
    }

    pub fn done(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }

    /// So many files of the present tree are in place before its end.
    pub fn some_files(&self, count: u64) {
        self.tree_files_done.fetch_add(count, Relaxed);
        self.files_done.fetch_add(count, Relaxed);
    }

    /// All files of the present tree, which are so many, are done.
    pub fn files(&self, count: u64) {
        let counted = self.tree_files_done.swap(0, Relaxed);
        self.files_done.fetch_add(count.saturating_sub(counted), Relaxed);
    }

    /// Done, without having been sent.
    pub fn reused(&self, bytes: u64) {
        self.reused.fetch_add(bytes, Relaxed);
        self.done.fetch_add(bytes, Relaxed);
    }

    pub fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Relaxed);
    }

    /// One more tree begins, of which it is not known yet how much it is.
    pub fn begin(&self) {
        self.tree.store(0, Relaxed);
        self.tree_files.store(0, Relaxed);
    }

    /// One more tree's worth is to be done.
    pub fn expect(&self, bytes: u64, files: u64) {
        self.begin();
        self.correct(bytes, files);
    }

    /// What is to be done of the present tree is known better now.
    pub fn correct(&self, bytes: u64, files: u64) {
        let set = |counter: &AtomicU64, part: &AtomicU64, new: u64| {
            // Whoever says more than that makes no sense, and is to add up with the rest all the same.
            let new = new.min(MOST);
            let old = part.swap(new, Relaxed);
            let _ = counter.fetch_update(Relaxed, Relaxed, |now| {
                let others = if now == UNKNOWN { 0 } else { now.saturating_sub(old) };
                Some(others.saturating_add(new).min(UNKNOWN - 1))
            });
        };
        set(&self.total, &self.tree, bytes);
        set(&self.files_total, &self.tree_files, files);
    }

    /// Bytes done so far, and to be done if that is known.
    pub fn so_far(&self) -> (u64, Option<u64>) {
        let total = self.total.load(Relaxed);
        (self.done.load(Relaxed), (total != UNKNOWN).then_some(total))
    }

    /// Where it stands `now`.
    pub fn read(&self, now: Instant) -> Progress {
        let known = |counter: &AtomicU64| Some(counter.load(Relaxed)).filter(|value| *value != UNKNOWN);
        let (done, reused) = (self.done.load(Relaxed), self.reused.load(Relaxed));
        let total = known(&self.total);
        let (rate, over) = self.rate(now, done.saturating_sub(reused));
        let left = total.and_then(|total| total.saturating_sub(done).checked_div(rate));
        Progress {
            stage: Stage::ALL[usize::from(self.stage.load(Relaxed)) % Stage::ALL.len()],
            done,
            total,
            files_done: self.files_done.load(Relaxed),
            files_total: known(&self.files_total),
            reused,
            sent: self.sent.load(Relaxed),
            rate,
            left: left.filter(|_| over >= STEADY_AFTER),
        }
    }

    /// Bytes a second, and over how long they were counted.
    fn rate(&self, now: Instant, moved: u64) -> (u64, Duration) {
        let mut past = self.past();
        while past.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RATE_OVER) {
            past.pop_front();
        }
        past.push_back((now, moved));
        let Some((since, before)) = past.front() else { return (0, Duration::ZERO) };
        let over = now.saturating_duration_since(*since);
        match u64::try_from(over.as_millis()) {
            Ok(millis) if millis > 0 => (moved.saturating_sub(*before).saturating_mul(1000) / millis, over),
            _ => (0, over),
        }
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<(Instant, u64)>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_rates() {
        let (meter, start) = (Meter::default(), Instant::now());
        assert_eq!(meter.read(start).total, None);
        meter.expect(1000, 3);
        meter.expect(500, 1);
        meter.stage(Stage::Switching);
        meter.read(start);
        meter.done(300);
        meter.reused(200);
        let progress = meter.read(start + Duration::from_secs(2));
        assert_eq!((progress.stage, progress.done, progress.reused), (Stage::Switching, 500, 200));
        // What was reused took no time, and says nothing of what is still to come.
        assert_eq!((progress.total, progress.files_total, progress.rate), (Some(1500), Some(4), 150));
        assert_eq!(meter.read(start + Duration::from_secs(60)).rate, 0);

        // What is known better of one tree changes nothing of those before it.
        meter.begin();
        meter.correct(u64::MAX, 7);
        meter.correct(100, 2);
        assert_eq!((meter.read(start).total, meter.read(start).files_total), (Some(1600), Some(6)));
        meter.some_files(1);
        assert_eq!(meter.read(start).files_done, 1);
        meter.files(2);
        assert_eq!(meter.read(start).files_done, 2);
    }

    #[test]
    fn what_is_left_is_told_once_the_rate_is_no_guess() {
        let (meter, start) = (Meter::default(), Instant::now());
        let after = |secs| start + Duration::from_secs(secs);
        meter.expect(1000, 1);
        meter.stage(Stage::Receiving);
        meter.read(start);
        meter.done(1);
        assert_eq!(meter.read(after(1)).left, None);
        meter.done(299);
        assert_eq!(meter.read(after(3)).left, Some(7));
        // The next stage has a rate of its own.
        meter.stage(Stage::Verifying);
        assert_eq!((meter.read(after(4)).rate, meter.read(after(4)).left), (0, None));
    }
}
