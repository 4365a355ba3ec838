//! Waiting for what is to come, and no longer.

use std::time::{Duration, Instant};

/// How long anything may take before a test fails. Far more than it does take: the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Asks again and again until there is an answer. `what` names it in the failure.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
