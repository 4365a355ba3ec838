//! Supervised tasks with a two-ended shutdown: each watches for the end, and the drain has a deadline.

pub mod crash;
pub mod lines;

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A group of tasks that end together.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    ending: CancellationToken,
    parting: CancellationToken,
    cutting: CancellationToken,
}

/// Time that what was accepted before the drain began has to get under way.
const LAST_CALL: Duration = Duration::from_millis(200);

/// Time that tasks have, once the deadline has passed, to cut off what is left so that others notice.
const CUT: Duration = Duration::from_millis(500);

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every task ended by itself.
    Clean,
    /// This many tasks were still running at the deadline.
    Deadline(usize),
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` under a span called `name`. The work itself must watch `ending()` to take part in a drain.
    pub fn spawn<F>(&self, name: &'static str, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(work.instrument(tracing::debug_span!("task", name)));
    }

    /// Cancelled when the drain begins.
    pub fn ending(&self) -> CancellationToken {
        self.ending.clone()
    }

    /// Cancelled a moment after the drain began: what was accepted by then is under way, and those who wait on us can be
    /// told that nothing new is taken.
    pub fn parting(&self) -> CancellationToken {
        self.parting.clone()
    }

    /// Cancelled when the deadline of the drain has passed: what is still open is cut off now.
    pub fn cutting(&self) -> CancellationToken {
        self.cutting.clone()
    }

    /// A group that ends with this one, or before it.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            tracker: self.tracker.clone(),
            ending: self.ending.child_token(),
            parting: self.parting.child_token(),
            cutting: self.cutting.clone(),
        }
    }

    /// Tells every task to end without waiting for it.
    pub fn end(&self) {
        self.ending.cancel();
        self.parting.cancel();
    }

    /// Tells every task to end and waits until all have. Those that go on beyond `deadline` are told to cut off what
    /// they do, and counted.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.ending.cancel();
        self.tracker.close();
        let last_call = LAST_CALL.min(deadline);
        let at_once = tokio::time::timeout(last_call, self.tracker.wait()).await.is_ok();
        self.parting.cancel();
        if at_once
            || tokio::time::timeout(deadline.saturating_sub(last_call), self.tracker.wait()).await.is_ok()
        {
            return Drained::Clean;
        }
        let late = self.tracker.len();
        self.cutting.cancel();
        // Who does not end now ends with the process.
        let _ = tokio::time::timeout(CUT, self.tracker.wait()).await;
        Drained::Deadline(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_watches_drains_clean_and_one_that_does_not_is_counted() {
        let tasks = Tasks::new();
        let ending = tasks.ending();
        tasks.spawn("watches", async move { ending.cancelled().await });
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, Drained::Clean);

        let tasks = Tasks::new();
        let parting = tasks.parting();
        tasks.spawn("parts", async move { parting.cancelled().await });
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, Drained::Clean);

        let tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        assert_eq!(tasks.drain(Duration::from_millis(1)).await, Drained::Deadline(1));
    }
}
