//! The command line, run as an operator runs it.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::wait::{LIMIT, wait_for};
use crate::{Agent, binary};

/// Someone with a configuration folder: remotes, a client certificate.
#[derive(Debug)]
pub struct Operator {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Done {
    pub command: String,
    pub stdout: String,
    pub stderr: String,
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
}

impl Default for Operator {
    fn default() -> Self {
        Self::new()
    }
}

impl Operator {
    /// An operator that no agent knows.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), environment: Vec::new() }
    }

    /// A variable of the environment, for every command from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
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
        let (mut stdout, mut stderr) = (scratch(), scratch());
        let command = format!("comity {}", arguments.join(" "));
        let mut child = Command::new(binary::comity())
            .args(arguments)
            .current_dir(folder)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("COMITY_CONFIG_DIR", self.folder.path())
            .env_remove("COMITY_SOCKET")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().expect("a second handle"))
            .stderr(stderr.try_clone().expect("a second handle"))
            .spawn()
            .expect("the command starts");
        let began = std::time::Instant::now();
        let status = wait_for(&command, 2 * LIMIT, || {
            if began.elapsed() > LIMIT {
                let _ = child.kill();
            }
            child.try_wait().expect("a child can be asked")
        });
        Done { command, stdout: text(&mut stdout), stderr: text(&mut stderr), code: status.code() }
    }

    pub fn config_dir(&self) -> &Path {
        self.folder.path()
    }
}

impl Done {
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// The command, if it ended well.
    #[track_caller]
    #[allow(clippy::return_self_not_must_use)] // most callers want no more than that it ended so
    pub fn success(self) -> Self {
        self.exits(0)
    }

    /// The command, if it ended with this code.
    #[track_caller]
    #[allow(clippy::return_self_not_must_use)] // as above
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}{}", self.command, self.stdout, self.stderr);
        self
    }

    /// Its output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}{}", self.command, self.stdout, self.stderr))
    }
}

/// A file, and not a pipe: a command that prints much must not wait for a reader.
fn scratch() -> File {
    tempfile::tempfile().expect("a temporary file")
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("a temporary file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
