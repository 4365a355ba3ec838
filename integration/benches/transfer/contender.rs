//! One of those that are measured.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed<'a> {
    /// Copies to a target that is not there.
    Copy,
    /// Brings a target that is there to the source's state.
    Refresh,
    /// Takes a snapshot of the source.
    Snapshot(&'a str),
    /// Deletes one.
    Forget(&'a str),
}

/// Something that copies a tree from one place to another.
pub trait Contender {
    fn name(&self) -> &'static str;

    /// Where its source is, for whoever changes it.
    fn source(&self) -> &Path;

    /// Where it puts what it copies.
    fn target(&self) -> PathBuf;

    /// Those who work for it beside the command.
    fn processes(&self) -> Vec<u32>;

    /// Takes the target away, so that the next copy finds none.
    fn clear(&mut self) -> Result<(), String>;

    /// Whether it has such a thing.
    fn does(&self, deed: Deed) -> bool;

    /// Does it.
    fn run(&mut self, deed: Deed) -> Result<(), String>;
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
