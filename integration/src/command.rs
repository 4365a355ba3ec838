//! The command line, run as an operator runs it.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::process::{self, Done, Running};
use crate::{Agent, binary};

/// Someone with a configuration folder: remotes, a client certificate.
#[derive(Debug)]
pub struct Operator {
    folder: TempDir,
    environment: Vec<(String, String)>,
    namespace: Option<String>,
}

impl Default for Operator {
    fn default() -> Self {
        Self::new()
    }
}

impl Operator {
    /// An operator that no agent knows.
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            environment: Vec::new(),
            namespace: None,
        }
    }

    /// A variable of the environment, for every command from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Runs every command from now on in a network namespace.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Makes this operator known to `agent`, with a token, and `agent` a remote under its own name.
    pub fn trusted_by(&self, agent: &Agent) {
        let token = self.run_on(agent, &["trust", "add", "--name", "operator", "--quiet"]).success().stdout;
        self.run(&["remote", "add", agent.name(), token.trim()]).success();
    }

    /// Runs `comity ARGUMENTS`.
    pub fn run(&self, arguments: &[&str]) -> Done {
        self.run_in(Path::new("."), arguments)
    }

    /// Runs `comity ARGUMENTS` over an agent's unix socket.
    pub fn run_on(&self, agent: &Agent, arguments: &[&str]) -> Done {
        let socket = agent.socket();
        let socket = socket.to_str().expect("temporary paths are UTF-8");
        self.run(&[&["--socket", socket], arguments].concat())
    }

    /// Runs `comity ARGUMENTS` in a folder.
    pub fn run_in(&self, folder: &Path, arguments: &[&str]) -> Done {
        self.run_with(folder, arguments, "")
    }

    /// Runs `comity ARGUMENTS` in a folder, with `input` on its standard input.
    pub fn run_with(&self, folder: &Path, arguments: &[&str], input: &str) -> Done {
        let mut command = self.command(arguments);
        process::run(command.current_dir(folder), &format!("comity {}", arguments.join(" ")), input)
    }

    /// Begins `comity ARGUMENTS`, and leaves it running.
    pub fn begin(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments), &format!("comity {}", arguments.join(" ")))
    }

    /// Begins `comity ARGUMENTS` on a terminal of its own, which is not this test's.
    pub fn begin_on_terminal(&self, arguments: &[&str]) -> Running {
        let line = format!("{} {}", binary::comity().display(), arguments.join(" "));
        let mut command = Command::new("script");
        self.set(command.args(["-qec", &line, "/dev/null"]));
        command.env("LC_ALL", "C.UTF-8");
        Running::start(&mut command, &format!("comity {} (on a terminal)", arguments.join(" ")))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(binary::comity());
                command
            }
            None => Command::new(binary::comity()),
        };
        self.set(command.args(arguments));
        command
    }

    fn set(&self, command: &mut Command) {
        command
            .env_remove("COMITY_SOCKET")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("COMITY_CONFIG_DIR", self.folder.path())
            .env("NO_COLOR", "1");
    }

    pub fn config_dir(&self) -> &Path {
        self.folder.path()
    }
}
