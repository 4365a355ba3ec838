//! One of those that are measured: where an app finds it, and which processes carry.

use std::process::{Child, Command, Stdio};

use integration::measure::cpu_s;
use rustix::process::{Pid, Signal, kill_process};

/// A way from the app to the server.
pub struct Contender {
    pub name: &'static str,
    /// Leads to the server that answers requests.
    pub web: u16,
    /// Leads to iperf3; `None` for what carries requests only.
    pub bulk: Option<u16>,
    /// A and B.
    pub processes: Vec<u32>,
    /// Ended when this is dropped.
    _children: Vec<Process>,
}

impl Contender {
    pub fn new(
        name: &'static str,
        web: u16,
        bulk: Option<u16>,
        processes: Vec<u32>,
        children: Vec<Process>,
    ) -> Self {
        Self { name, web, bulk, processes, _children: children }
    }

    /// Nothing between app and server.
    pub fn direct(web: u16, bulk: u16) -> Self {
        Self::new("direct", web, Some(bulk), Vec::new(), Vec::new())
    }

    /// Whether it is one to be compared with.
    pub fn is_peer(&self) -> bool {
        !matches!(self.name, "direct" | "ours")
    }

    /// Processor time of A and B so far, seconds.
    pub fn cpu_s(&self) -> f64 {
        self.processes.iter().map(|pid| cpu_s(*pid).unwrap_or(f64::NAN)).sum()
    }
}

/// A program that serves until this is dropped.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; integration/bench installs it"));
        Self { child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The one process that it has begun, which does its work.
    pub fn worker(&self) -> Option<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        std::fs::read_to_string(children).ok()?.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // By a signal that they take their workers along for.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
