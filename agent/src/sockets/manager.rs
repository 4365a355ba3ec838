//! Who manages this process: what it is told, and what it keeps for the next run.

use std::env;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use sd_notify::NotifyState;

/// Beyond the drain's own deadline, before the manager should lose patience.
const PATIENCE: Duration = Duration::from_secs(5);

/// A service manager that listens on `NOTIFY_SOCKET`, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    Absent,
    /// Told what the agent does, and expecting to be told so every `watchdog` if that is set.
    Present {
        watchdog: Option<Duration>,
    },
}

impl Manager {
    pub fn from_environment() -> Self {
        if env::var_os("NOTIFY_SOCKET").is_none() {
            return Manager::Absent;
        }
        Manager::Present { watchdog: sd_notify::watchdog_enabled().filter(|every| !every.is_zero()) }
    }

    pub fn is_there(&self) -> bool {
        matches!(self, Manager::Present { .. })
    }

    /// Every door is open.
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready, NotifyState::Status("running")]);
    }

    /// The agent finishes what is under way, for so long at most.
    pub fn stopping(&self, deadline: Duration) {
        let micros = u32::try_from((deadline + PATIENCE).as_micros()).unwrap_or(u32::MAX);
        let status = NotifyState::Status("finishing what is under way");
        self.tell(&[NotifyState::Stopping, status, NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// How often `alive` is expected; twice as often as asked for, so that one that comes late is not missed.
    pub fn watchdog(&self) -> Option<Duration> {
        match self {
            Manager::Present { watchdog } => watchdog.map(|every| every / 2),
            Manager::Absent => None,
        }
    }

    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// Hands a copy of a socket over, to be handed in again at the next start. Tells whether there was anybody to take
    /// it: whether it keeps it is not told.
    pub(super) fn keep(&self, name: &str, socket: BorrowedFd<'_>) -> bool {
        if !self.is_there() {
            return false;
        }
        let told = sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &[socket]);
        if let Err(error) = &told {
            tracing::warn!(socket = name, %error, "a socket could not be given to the service manager to keep");
        }
        told.is_ok()
    }

    /// The copy of that name is wanted no more.
    pub(super) fn give_back(&self, name: &str) {
        self.tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }

    fn tell(&self, words: &[NotifyState<'_>]) {
        if self.is_there()
            && let Err(error) = sd_notify::notify(words)
        {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }
}
