//! One agent: a child process with a data folder and a port that stay through its restarts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::wait::{LIMIT, wait_for};
use crate::{Host, Manager, Operator, binary, free_port};

/// Lines of its log that a failed test shows.
const SHOWN: usize = 40;

/// An agent. Killed when dropped.
#[derive(Debug)]
pub struct Agent {
    name: String,
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    manager: Option<Arc<Manager>>,
    host: Option<Host>,
    user: Option<u32>,
    child: Option<Child>,
}

impl Agent {
    /// Starts an agent for a new cluster and waits until it is ready.
    pub fn start(name: &str) -> Self {
        let mut agent = Self::prepare(name);
        agent.launch();
        agent.wait_ready();
        agent
    }

    /// An agent that is still to be launched.
    pub fn prepare(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            folder: tempfile::tempdir().expect("a temporary folder"),
            port: free_port(),
            arguments: Vec::new(),
            environment: Vec::new(),
            manager: None,
            host: None,
            user: None,
            child: None,
        }
    }

    /// More arguments, for every launch from now on.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Has every launch from now on be this manager's.
    #[must_use]
    pub fn managed(mut self, manager: &Arc<Manager>) -> Self {
        self.manager = Some(manager.clone());
        self
    }

    /// Runs it on this host, at its address, from now on.
    #[must_use]
    pub fn on(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// Runs it as this user, with the group of the same number, from now on. Root's to say.
    #[must_use]
    pub fn run_by_user(mut self, user: u32) -> Self {
        let folder = self.folder.path();
        std::os::unix::fs::chown(folder, Some(user), Some(user)).expect("root may give a folder away");
        self.user = Some(user);
        self
    }

    /// A variable of the environment, for every launch from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Takes every variable back that `set_env` set.
    pub fn clear_env(&mut self) {
        self.environment.clear();
    }

    /// Starts the process, without waiting for it to be ready.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "agent {} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut command = self.program();
        let child = command
            .args(["agent", "--name", &self.name, "--listen", &self.address()])
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env_remove("COMITY_SOCKET")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        self.child = Some(child);
    }

    /// What runs the agent with the arguments that are still to come.
    fn program(&self) -> Command {
        let comity = binary::comity();
        if let Some(manager) = &self.manager {
            let mut command = Command::new("sh");
            command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).arg(comity);
            // The shell's own process becomes the agent's.
            command.env("LISTEN_PID", "");
            manager.hand_to(&mut command);
            return command;
        }
        if let Some(host) = &self.host {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", host.namespace()]).arg(comity);
            return command;
        }
        if let Some(user) = self.user {
            let mut command = Command::new("setpriv");
            command
                .args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"])
                .arg(comity);
            return command;
        }
        Command::new(comity)
    }

    /// Waits until the agent answers, or fails with what it ended with.
    pub fn wait_ready(&mut self) {
        let operator = Operator::new();
        wait_for(&format!("agent {} is ready", self.name), LIMIT, || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child can be asked"));
            assert!(ended.is_none(), "agent {} ended: {ended:?}", self.name);
            operator.run_on(self, &["status"]).succeeded().then_some(())
        });
    }

    /// `kill -9`: no destructor, no drain.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child ends");
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.tell_to_end();
        self.wait_end()
    }

    /// SIGTERM.
    pub fn tell_to_end(&self) {
        let child = self.child.as_ref().expect("the agent runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        kill_process(pid, Signal::TERM).expect("a child can be told to end");
    }

    /// Waits for a process that ends by itself.
    pub fn wait_end(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("the agent runs");
        let status = wait_for(&format!("agent {} ends", self.name), LIMIT, || {
            child.try_wait().expect("a child can be asked")
        });
        self.child = None;
        status
    }

    /// Starts it again over the same folder, on the same port, and waits until it is ready.
    pub fn restart(&mut self) {
        self.kill9();
        self.launch();
        self.wait_ready();
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is reached.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host.as_ref().map_or("127.0.0.1", Host::address), self.port)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn socket(&self) -> PathBuf {
        self.data_dir().join("unix.socket")
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The running process, for whoever measures it.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn log_path(&self) -> PathBuf {
        Path::new(self.folder.path()).join("log")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of agent {}'s log", self.name);
            for line in &lines[lines.len().saturating_sub(SHOWN)..] {
                eprintln!("{line}");
            }
        }
    }
}
