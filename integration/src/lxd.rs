//! A real LXD daemon, on a host that reaches nothing outside: a daemon asks the internet for images as soon as it starts.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::wait::{LIMIT, wait_for};
use crate::{Host, free_port, process};

/// A daemon with one pool of directories, called `default`. Stopped when dropped.
#[derive(Debug)]
pub struct Lxd {
    folder: TempDir,
    host: Host,
    child: Child,
}

impl Lxd {
    /// `None`, with a word why, where it is not installed.
    pub fn start(host: &Host) -> Option<Self> {
        if Command::new("lxd").arg("version").output().is_err() {
            eprintln!("not run: lxd is not installed; integration/run installs it");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        let child = on(host, "lxd", &data)
            .arg("--logfile")
            .arg(folder.path().join("log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("lxd starts");
        let lxd = Self { folder, host: host.clone(), child };
        wait_for("lxd is ready", LIMIT, || {
            let ready = on(host, "lxd", &data).args(["waitready", "--timeout=1"]).output();
            ready.is_ok_and(|done| done.status.success()).then_some(())
        });
        let preseed = format!(
            "config: {{core.https_address: \"{}:{}\", images.auto_update_interval: 0}}
storage_pools: [{{name: default, driver: dir}}]
profiles: [{{name: default, devices: {{root: {{path: /, pool: default, type: disk}}}}}}]
",
            host.address(),
            free_port()
        );
        process::run(on(host, "lxd", &data).args(["init", "--preseed"]), "lxd init", &preseed).success();
        Some(lxd)
    }

    /// A token for a new client.
    pub fn token(&self) -> String {
        let mut command = on(&self.host, "lxc", &self.data());
        command.args(["config", "trust", "add", "--name", "me"]).env("LXD_CONF", self.folder.path());
        let done = process::run(&mut command, "lxc config trust add", "").success();
        done.stdout.lines().last().expect("a token").trim().to_owned()
    }

    /// The tree of an instance.
    pub fn instance(&self, name: &str) -> PathBuf {
        self.pool().join("containers").join(name)
    }

    /// The tree of an instance's snapshot.
    pub fn snapshot(&self, name: &str, snapshot: &str) -> PathBuf {
        self.pool().join("containers-snapshots").join(name).join(snapshot)
    }

    /// The tree of a custom volume.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.pool().join("custom").join(format!("default_{name}"))
    }

    /// The tree of a custom volume's snapshot.
    pub fn volume_snapshot(&self, name: &str, snapshot: &str) -> PathBuf {
        self.pool().join("custom-snapshots").join(format!("default_{name}")).join(snapshot)
    }

    fn pool(&self) -> PathBuf {
        self.data().join("storage-pools/default")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

/// A command of LXD's on `host`, for the daemon whose data is there.
fn on(host: &Host, program: &str, data: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host.namespace(), program]).env("LXD_DIR", data).env("HOME", data);
    command
}

impl Drop for Lxd {
    fn drop(&mut self) {
        // Before the folder, which it writes to until the end. What it has mounted goes with it.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let ended = || self.child.try_wait().ok().flatten();
        if !std::thread::panicking() {
            wait_for("lxd ends", LIMIT, ended);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for mount in ["devlxd", "shmounts"] {
            let _ = Command::new("umount").arg("-l").arg(self.data().join(mount)).output();
        }
    }
}
