//! How many files and sockets the agent may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. Each connection that is carried takes a descriptor or two; the soft limit is
/// kept low for programs that use `select(2)`, which this one does not.
pub(super) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(before = current, now = maximum, "may open more files"),
        Err(error) => tracing::warn!(limit = current, %error, "the limit of open files could not be raised"),
    }
}
