//! Two real LXD daemons, and `lxc copy` between them: an instance whose root volume holds the tree.
//!
//! Only in a network that reaches nothing: a daemon asks the internet for images as soon as it starts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use integration::{free_port, wait_for};
use tempfile::TempDir;

use super::contender::{Contender, Deed, Process};
use super::cost::{self, Wire};

/// A daemon makes keys and a database when it starts for the first time.
const STARTED: Duration = Duration::from_secs(60);

/// A has the source, B is where it goes.
pub struct Lxd {
    folder: TempDir,
    source: PathBuf,
    daemons: Vec<Process>,
}

impl Lxd {
    /// `None`, with a word why, where it cannot be.
    pub fn start(within: &Path, wire: &Wire) -> Option<Self> {
        if Command::new("lxd").arg("version").output().is_err() {
            eprintln!("transfer: lxd is not installed: not measured");
            return None;
        }
        if !Wire::is_alone() {
            eprintln!("transfer: lxd is measured only in a network of its own, which is root's to make");
            return None;
        }
        let folder = tempfile::tempdir_in(within).expect("a temporary folder");
        let mut lxd = Self { folder, source: PathBuf::new(), daemons: Vec::new() };
        for end in ["A", "B"] {
            let port = free_port();
            wire.count(port);
            let data = lxd.folder.path().join(end);
            std::fs::create_dir(&data).expect("a folder");
            let log = lxd.folder.path().join(format!("{end}.log"));
            lxd.daemons.push(Process::start(
                Command::new("lxd").arg("--logfile").arg(log).env("LXD_DIR", &data).stderr(Stdio::null()),
            ));
            wait_for("lxd is ready", STARTED, || {
                let mut wait = Command::new("lxd");
                wait.args(["waitready", "--timeout=1"]).env("LXD_DIR", &data);
                cost::run(&mut wait).ok()
            });
            let preseed = format!(
                "config: {{core.https_address: \"127.0.0.1:{port}\", images.auto_update_interval: 0}}
storage_pools: [{{name: default, driver: dir}}]
profiles: [{{name: default, devices: {{root: {{path: /, pool: default, type: disk}}}}}}]
"
            );
            let mut init = Command::new("lxd");
            init.args(["init", "--preseed"]).env("LXD_DIR", &data);
            integration::process::run(&mut init, "lxd init", &preseed).success();
            let mut add = lxd.command(end, &["config", "trust", "add", "--name", "me"]);
            let said = integration::process::run(&mut add, "lxc config trust add", "").success().stdout;
            let token = said.lines().last().expect("a token").trim().to_owned();
            lxd.lxc(&["remote", "add", end, &token]).expect("a daemon trusts whoever has its token");
        }
        lxd.lxc(&["init", "--empty", "A:c1"]).expect("an empty instance can be made");
        lxd.source = lxd.folder.path().join("A/storage-pools/default/containers/c1/rootfs");
        // An image would bring it.
        std::fs::create_dir_all(&lxd.source).expect("a folder");
        Some(lxd)
    }

    /// `lxc ARGUMENTS`, whose own daemon is the one of this name.
    fn command(&self, end: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("lxc");
        command
            .args(arguments)
            .env("LXD_DIR", self.folder.path().join(end))
            .env("LXD_CONF", self.folder.path())
            .env("HOME", self.folder.path());
        command
    }

    fn lxc(&self, arguments: &[&str]) -> Result<(), String> {
        cost::run(&mut self.command("A", arguments))
    }
}

impl Contender for Lxd {
    fn name(&self) -> &'static str {
        "lxd"
    }

    fn source(&self) -> &Path {
        &self.source
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("B/storage-pools/default/containers/c1/rootfs")
    }

    fn processes(&self) -> Vec<u32> {
        self.daemons.iter().map(Process::pid).collect()
    }

    fn clear(&mut self) -> Result<(), String> {
        if self.target().exists() {
            return self.lxc(&["delete", "B:c1"]);
        }
        Ok(())
    }

    fn does(&self, _deed: Deed) -> bool {
        true
    }

    fn run(&mut self, deed: Deed) -> Result<(), String> {
        match deed {
            Deed::Copy => self.lxc(&["copy", "A:c1", "B:c1"]),
            Deed::Refresh => self.lxc(&["copy", "A:c1", "B:c1", "--refresh"]),
            Deed::Snapshot(name) => self.lxc(&["snapshot", "A:c1", name]),
            Deed::Forget(name) => self.lxc(&["delete", &format!("A:c1/{name}")]),
        }
    }
}

impl Drop for Lxd {
    fn drop(&mut self) {
        // Before the folder, which they write to until the end. What they have mounted goes with them.
        self.daemons.clear();
        for mount in ["devlxd", "shmounts"] {
            for end in ["A", "B"] {
                let _ =
                    Command::new("umount").arg("-l").arg(self.folder.path().join(end).join(mount)).output();
            }
        }
    }
}
