//! Stock clients, unmodified: Debian's `lxc`, pylxd and py-consul in Python environments of their own, and where
//! Consul's command is.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::http::fingerprint_of;
use crate::process::{self, Done};
use crate::{Agent, Host, golden};

/// Whether only what needs nothing from outside Rust and a C compiler is to run.
pub fn own_only() -> bool {
    std::env::var_os("COMITY_OWN_ONLY").is_some()
}

/// Someone who uses `lxc`, with a configuration folder of their own.
#[derive(Debug)]
pub struct Lxc {
    folder: TempDir,
    host: Option<Host>,
}

impl Default for Lxc {
    fn default() -> Self {
        Self::new()
    }
}

impl Lxc {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Without one, its first command greets whoever runs it, and lists remotes on the internet ever after.
        let config = "default-remote: local\nremotes: {}\naliases: {}\n";
        std::fs::write(folder.path().join("config.yml"), config).expect("a file");
        Self { folder, host: None }
    }

    /// Somebody on this host.
    #[must_use]
    pub fn on(host: &Host) -> Self {
        Self { host: Some(host.clone()), ..Self::new() }
    }

    /// Somebody whom `agent` trusts, with `agent` as a remote under its own name and as the default.
    pub fn trusted_by(agent: &Agent) -> Self {
        let lxc = Self::new();
        lxc.add(agent);
        lxc.run(&["remote", "switch", agent.name()]).success();
        lxc
    }

    /// Makes `agent` a remote under its own name, with a token.
    pub fn add(&self, agent: &Agent) {
        let token = Self::token(agent, "lxc");
        self.run(&["remote", "add", agent.name(), &token]).success();
    }

    /// A token for a new client of `agent`, as its administrator makes one.
    pub fn token(agent: &Agent, name: &str) -> String {
        let done = crate::Operator::new().run_on(agent, &["trust", "add", "--quiet", "--name", name]);
        done.success().stdout.trim().to_owned()
    }

    /// Runs `lxc ARGUMENTS`.
    pub fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, "")
    }

    /// Runs `lxc ARGUMENTS`, with `input` on its standard input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Done {
        process::run(&mut self.command(arguments), &format!("lxc {}", arguments.join(" ")), input)
    }

    /// Runs `lxc ARGUMENTS`, and types each answer once its question is there: `lxc` reads ahead, so that what is
    /// typed before its question is lost.
    pub fn converse(&self, arguments: &[&str], answers: &[(&str, &str)]) -> Done {
        process::converse(&mut self.command(arguments), &format!("lxc {}", arguments.join(" ")), answers)
    }

    /// The command, for those who run it beside something else.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.host {
            None => Command::new("lxc"),
            Some(host) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", host.namespace(), "lxc"]);
                command
            }
        };
        command
            .args(arguments)
            .env("LXD_CONF", self.folder.path())
            .env("HOME", self.folder.path())
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .env("NO_COLOR", "1")
            // Its own daemon's socket is not to be looked for.
            .env("LXD_DIR", self.folder.path());
        command
    }

    pub fn config_dir(&self) -> &Path {
        self.folder.path()
    }
}

/// A record of commands and what they printed, in which two runs do not differ.
#[derive(Debug, Default)]
pub struct Transcript {
    text: String,
    known: Vec<(String, String)>,
}

impl Transcript {
    /// A transcript in which what belongs to these agents is called by their names.
    pub fn of(agents: &[&Agent]) -> Self {
        let mut known = Vec::new();
        for agent in agents {
            let name = agent.name().to_uppercase();
            known.push((agent.address(), format!("{name}-ADDRESS")));
            known.push((fingerprint_of(agent).to_string(), format!("{name}-FINGERPRINT")));
        }
        Self { text: String::new(), known }
    }

    /// What else is not the same twice.
    pub fn call(&mut self, value: &str, name: &str) {
        self.known.push((value.to_owned(), name.to_owned()));
    }

    /// Adds a command and its output.
    #[allow(clippy::needless_pass_by_value)] // a command that was recorded is done with
    pub fn add(&mut self, done: Done) {
        let code = done.code.map_or_else(|| "signal".to_owned(), |code| code.to_string());
        self.text.extend(["$ ", &done.command, "\n", &done.stdout]);
        if !done.stdout.is_empty() && !done.stdout.ends_with('\n') {
            self.text.push('\n');
        }
        for line in done.stderr.lines() {
            self.text.extend(["! ", line, "\n"]);
        }
        if done.code != Some(0) {
            self.text.extend(["(exit ", &code, ")\n"]);
        }
    }

    /// Compares with `testdata/lxc/NAME.txt`.
    #[track_caller]
    pub fn matches(self, name: &str) {
        self.matches_in("lxc", name);
    }

    /// Compares with `testdata/FOLDER/NAME.txt`.
    #[track_caller]
    pub fn matches_in(self, folder: &str, name: &str) {
        golden::matches(&format!("{folder}/{name}.txt"), &self.text());
    }

    /// All of it, for whoever compares it otherwise.
    #[allow(clippy::needless_pass_by_value)] // a transcript that was read is done with
    pub fn text(self) -> String {
        let known: Vec<(&str, &str)> = self.known.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        golden::normal(&self.text, &known)
    }
}

/// The Python that has pylxd, made by `integration/run`; `None` where it was not made.
pub fn pylxd() -> Option<PathBuf> {
    installed("pylxd/bin/python")
}

/// The Python that has py-consul, made the same way.
pub fn py_consul() -> Option<PathBuf> {
    installed("py-consul/bin/python")
}

/// The Python that has the reference parser of OpenMetrics, made the same way.
pub fn openmetrics() -> Option<PathBuf> {
    installed("openmetrics/bin/python")
}

/// Consul's own command, which `integration/consul/install` builds.
pub fn consul() -> Option<PathBuf> {
    installed("consul/consul")
}

fn installed(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(path);
    path.exists().then_some(path)
}

/// Runs a Python program with these arguments.
pub fn python(interpreter: &Path, program: &str, arguments: &[&str]) -> Done {
    let mut command = Command::new(interpreter);
    // Set where this machine's own tools need it; pylxd is told what to trust.
    command
        .args(["-c", program])
        .args(arguments)
        .env_remove("REQUESTS_CA_BUNDLE")
        .env_remove("CURL_CA_BUNDLE");
    process::run(&mut command, "python", "")
}
