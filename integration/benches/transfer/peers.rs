//! The others that copy folders: rsync and tar, each through mutual TLS 1.3 by stunnel, and `cp -a` on one machine.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration::{LIMIT, certificate, free_port, wait_for};

use super::contender::{Contender, Deed, Process};
use super::cost::{self, Wire};

/// The cipher that our own connections agree on, too.
const CIPHER: &str = "TLS_AES_256_GCM_SHA384";
/// What rsync needs to copy what we do.
const FAITHFUL: &str = "-aHAX";

/// The common source, and the folder with everyone's targets.
pub struct Place {
    pub source: PathBuf,
    pub targets: PathBuf,
}

impl Place {
    pub fn within(folder: &Path) -> Self {
        let place = Self { source: folder.join("source"), targets: folder.join("targets") };
        for path in [&place.source, &place.targets] {
            std::fs::create_dir_all(path).expect("a folder");
        }
        place
    }
}

/// A way through TLS to a port: two stunnels, each of which verifies the other.
pub struct Tunnel {
    port: u16,
    children: Vec<Process>,
}

impl Tunnel {
    pub fn to(folder: &Path, name: &str, server: u16, wire: &Wire) -> Self {
        let folder = folder.join(format!("stunnel-{name}"));
        for end in ["a", "b"] {
            certificate::p256(&folder, end);
            let read = |suffix: &str| {
                std::fs::read_to_string(folder.join(format!("{end}.{suffix}"))).expect("a file")
            };
            certificate::write_secret(&folder.join(format!("{end}.pem")), &(read("crt") + &read("key")));
        }
        let (port, tls, dir) = (free_port(), free_port(), folder.display());
        wire.count(tls);
        let head =
            format!("foreground = yes\npid =\ndebug = 2\nsslVersionMin = TLSv1.3\nciphersuites = {CIPHER}\n");
        let a = format!(
            "{head}[way]\nclient = yes\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{tls}\ncert = {dir}/a.pem\n\
             verifyPeer = yes\nCAfile = {dir}/b.crt\n"
        );
        let b = format!(
            "{head}[way]\naccept = 127.0.0.1:{tls}\nconnect = 127.0.0.1:{server}\ncert = {dir}/b.pem\n\
             verifyPeer = yes\nCAfile = {dir}/a.crt\n"
        );
        let children: Vec<Process> = [("b.conf", b), ("a.conf", a)]
            .into_iter()
            .map(|(file, text)| {
                let path = folder.join(file);
                std::fs::write(&path, text).expect("a file");
                Process::start(Command::new("stunnel4").arg(path).stderr(Stdio::null()))
            })
            .collect();
        for port in [tls, port] {
            wait_for("stunnel listens", LIMIT, || listens(port));
        }
        Self { port, children }
    }

    fn processes(&self) -> Vec<u32> {
        self.children.iter().map(Process::pid).collect()
    }
}

/// Whether somebody does, without a connection being made: the server behind it would count it as one.
fn listens(port: u16) -> Option<()> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(std::fs::read_to_string);
    let mark = format!(":{port:04X} ");
    tables
        .into_iter()
        .flatten()
        .any(|table| {
            table.lines().any(|line| line.contains(&mark) && line.split_whitespace().nth(3) == Some("0A"))
        })
        .then_some(())
}

/// rsync to a daemon behind TLS.
pub struct Rsync {
    name: &'static str,
    options: &'static [&'static str],
    source: PathBuf,
    target: PathBuf,
    tunnel: Tunnel,
    daemon: Process,
}

impl Rsync {
    pub const NAMES: [(&'static str, &'static [&'static str]); 4] = [
        ("rsync", &[]),
        ("rsync_fsync", &["--fsync"]),
        ("rsync_zstd", &["-z", "--zc=zstd"]),
        ("rsync_zstd_fsync", &["-z", "--zc=zstd", "--fsync"]),
    ];

    pub fn start(
        folder: &Path,
        name: &'static str,
        options: &'static [&'static str],
        place: &Place,
        wire: &Wire,
    ) -> Self {
        let (port, target) = (free_port(), place.targets.join(name));
        let config = folder.join(format!("{name}.conf"));
        let user = if rustix::process::geteuid().is_root() { "uid = 0\ngid = 0\n" } else { "" };
        let text = format!(
            "port = {port}\naddress = 127.0.0.1\nuse chroot = no\nlog file = /dev/null\n{user}[target]\npath = {}\n\
             read only = no\n",
            target.display()
        );
        std::fs::write(&config, text).expect("a file");
        let daemon = Process::start(
            Command::new("rsync")
                .args(["--daemon", "--no-detach"])
                .arg(format!("--config={}", config.display())),
        );
        wait_for("rsync listens", LIMIT, || listens(port));
        let tunnel = Tunnel::to(folder, name, port, wire);
        Self { name, options, source: place.source.clone(), target, tunnel, daemon }
    }

    fn rsync(&self) -> Result<(), String> {
        let mut command = Command::new("rsync");
        command
            .args([FAITHFUL, "--delete"])
            .args(self.options)
            .arg(format!("{}/", self.source.display()))
            .arg(format!("rsync://127.0.0.1:{}/target/", self.tunnel.port));
        cost::run(&mut command)
    }
}

impl Contender for Rsync {
    fn name(&self) -> &'static str {
        self.name
    }

    fn source(&self) -> &Path {
        &self.source
    }

    fn target(&self) -> PathBuf {
        self.target.clone()
    }

    fn processes(&self) -> Vec<u32> {
        [self.tunnel.processes(), vec![self.daemon.pid()]].concat()
    }

    fn clear(&mut self) -> Result<(), String> {
        cleared(&self.target)
    }

    fn does(&self, deed: Deed) -> bool {
        matches!(deed, Deed::Copy | Deed::Refresh)
    }

    fn run(&mut self, _deed: Deed) -> Result<(), String> {
        self.rsync()
    }
}

/// An empty folder.
fn cleared(target: &Path) -> Result<(), String> {
    if target.exists() {
        std::fs::remove_dir_all(target).map_err(|error| error.to_string())?;
    }
    std::fs::create_dir(target).map_err(|error| error.to_string())
}

/// `tar | TLS | tar`, and a sync of the file system.
pub struct Tar {
    source: PathBuf,
    target: PathBuf,
    listener: TcpListener,
    tunnel: Tunnel,
}

impl Tar {
    pub fn start(folder: &Path, place: &Place, wire: &Wire) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let tunnel = Tunnel::to(folder, "tar", port, wire);
        Self { source: place.source.clone(), target: place.targets.join("tar"), listener, tunnel }
    }
}

impl Contender for Tar {
    fn name(&self) -> &'static str {
        "tar"
    }

    fn source(&self) -> &Path {
        &self.source
    }

    fn target(&self) -> PathBuf {
        self.target.clone()
    }

    fn processes(&self) -> Vec<u32> {
        self.tunnel.processes()
    }

    fn clear(&mut self) -> Result<(), String> {
        cleared(&self.target)
    }

    fn does(&self, deed: Deed) -> bool {
        deed == Deed::Copy
    }

    fn run(&mut self, _deed: Deed) -> Result<(), String> {
        let options = ["--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner"];
        let there = TcpStream::connect(("127.0.0.1", self.tunnel.port)).map_err(|error| error.to_string())?;
        let mut reads = {
            let mut tar = Command::new("tar");
            tar.args(options).arg("-C").arg(&self.source).args(["-cf", "-", "."]);
            // The command's handle of the connection goes with it, so that the end of tar is the connection's.
            tar.stdout(Stdio::from(OwnedFd::from(there))).spawn().map_err(|error| error.to_string())?
        };
        let (here, _) = self.listener.accept().map_err(|error| error.to_string())?;
        let written = {
            let mut tar = Command::new("tar");
            tar.args(options).arg("-C").arg(&self.target).args(["-xpf", "-"]);
            tar.stdin(Stdio::from(OwnedFd::from(here))).status().map_err(|error| error.to_string())?
        };
        let read = reads.wait().map_err(|error| error.to_string())?;
        cost::sync(&self.target);
        (written.success() && read.success()).then_some(()).ok_or_else(|| format!("tar: {read}, {written}"))
    }
}

/// `cp -a`, with nothing between: how fast this file system is.
pub struct Cp {
    pub is_synced: bool,
    source: PathBuf,
    target: PathBuf,
}

impl Cp {
    pub fn new(place: &Place, is_synced: bool) -> Self {
        let name = if is_synced { "cp_sync" } else { "cp" };
        Self { is_synced, source: place.source.clone(), target: place.targets.join(name) }
    }
}

impl Contender for Cp {
    fn name(&self) -> &'static str {
        if self.is_synced { "cp_sync" } else { "cp" }
    }

    fn source(&self) -> &Path {
        &self.source
    }

    fn target(&self) -> PathBuf {
        self.target.clone()
    }

    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }

    fn clear(&mut self) -> Result<(), String> {
        cleared(&self.target)
    }

    fn does(&self, deed: Deed) -> bool {
        deed == Deed::Copy
    }

    fn run(&mut self, _deed: Deed) -> Result<(), String> {
        cost::run(Command::new("cp").arg("-a").arg(self.source.join(".")).arg(&self.target))?;
        if self.is_synced {
            cost::sync(&self.target);
        }
        Ok(())
    }
}
