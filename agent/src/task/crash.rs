//! Places where a test may end the process as `kill -9` would, to prove that what follows a crash converges.
//!
//! Only in debug builds, and only when `COMITY_CRASH_AT` names the place: a release binary has none of it. Tried
//! before: killing the process from outside at random moments, which rarely hit the few microseconds that matter.

/// Ends the process with SIGKILL if `COMITY_CRASH_AT` is `place`.
#[cfg(debug_assertions)]
pub fn point(place: &'static str) {
    use std::sync::LazyLock;

    static CRASH_AT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("COMITY_CRASH_AT").ok());
    if CRASH_AT.as_deref() == Some(place) {
        tracing::warn!(place, "crash point reached: ending as by kill -9");
        // A failed kill leaves the process running, which the test that asked for it then reports.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub fn point(_place: &'static str) {}
