//! The lines of the log, for whoever listens to them while the agent runs.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::broadcast;

/// How many lines a listener may be behind before it misses some.
const BEHIND: usize = 512;

static TOLD: LazyLock<broadcast::Sender<Arc<Line>>> = LazyLock::new(|| broadcast::Sender::new(BEHIND));

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub time: Timestamp,
    /// `error`, `warning`, `info`, `debug`.
    pub level: &'static str,
    pub message: String,
    pub context: Map<String, Value>,
}

/// Every line from now on.
pub fn subscribe() -> broadcast::Receiver<Arc<Line>> {
    TOLD.subscribe()
}

/// Whether anybody listens: if not, a line need not be made.
pub fn are_heard() -> bool {
    TOLD.receiver_count() > 0
}

pub fn tell(line: Line) {
    // Nobody may be listening any more.
    let _ = TOLD.send(Arc::new(line));
}
