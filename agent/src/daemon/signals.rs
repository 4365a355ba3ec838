//! The signals that end an agent.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from its making on, so that no signal is lost between start and wait.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` where whoever started the agent has it ignore hangups (`nohup`): it goes on then.
    hangup: Option<Signal>,
}

/// Which signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Terminate,
    Interrupt,
    /// The terminal that it was started on is gone. There is nothing to read again: it ends, and in order.
    Hangup,
}

impl Asked {
    pub fn name(self) -> &'static str {
        match self {
            Asked::Terminate => "SIGTERM",
            Asked::Interrupt => "SIGINT",
            Asked::Hangup => "SIGHUP",
        }
    }
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hangup = if ignores_hangups(&status) { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup,
        })
    }

    /// Waits for the next signal to end.
    pub async fn asked(&mut self) -> Asked {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = hangup => Asked::Hangup,
        }
    }
}

/// Whether the kernel's words of a process say that it ignores SIGHUP, the first signal.
fn ignores_hangups(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[test]
    fn hangups_are_left_to_nohup() {
        assert!(ignores_hangups("Name:\tcomity\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n"));
        assert!(!ignores_hangups("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n"));
        assert!(!ignores_hangups(""));
    }

    #[tokio::test]
    async fn each_signal_that_ends_an_agent_is_heard() {
        let mut signals = Signals::listen().unwrap();
        signals.hangup = Some(signal(SignalKind::hangup()).unwrap());
        for (sent, heard) in
            [(Signal::TERM, Asked::Terminate), (Signal::INT, Asked::Interrupt), (Signal::HUP, Asked::Hangup)]
        {
            kill_process(getpid(), sent).unwrap();
            assert_eq!(signals.asked().await, heard);
        }
    }
}
