//! A real ACME server: Debian's `pebble`, with `pebble-challtestsrv` for the names it looks up, on ports of their own.
//!
//! Pebble takes every certificate and account with it when it ends, and signs with another root at every start. It
//! connects to whatever address a name has, on the one port that it was told, so each test gives it its agent's.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;
use tempfile::TempDir;

use crate::process;
use crate::wait::{LIMIT, wait_for};
use crate::{Agent, free_port};

/// How a pebble is to be.
#[derive(Debug, Clone, Copy)]
pub struct PebbleOptions {
    /// How long its certificates are good for, in seconds.
    pub validity: u32,
    /// Where it looks for TLS-ALPN-01 and HTTP-01, on the address that a name has.
    pub tls_port: u16,
    pub http_port: u16,
    /// How many of a hundred good nonces it refuses.
    pub nonces_refused: u8,
}

impl PebbleOptions {
    /// Validates on the port of this agent, issues for this many seconds, and refuses as many nonces as is usual.
    pub fn of(agent: &Agent, validity: u32) -> Self {
        let port = agent.address().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Self {
            validity,
            tls_port: port.expect("an address has a port"),
            http_port: free_port(),
            nonces_refused: 5,
        }
    }
}

/// A pebble and its names. Killed when dropped.
#[derive(Debug)]
pub struct Pebble {
    folder: TempDir,
    port: u16,
    management: u16,
    dns: u16,
    names_management: u16,
    options: PebbleOptions,
    children: Vec<Child>,
}

impl Pebble {
    /// Starts one and waits until it answers. Every name is an address of this machine until told otherwise.
    pub fn start(options: PebbleOptions) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        own_certificate(folder.path());
        let mut pebble = Self {
            folder,
            port: free_port(),
            management: free_port(),
            dns: free_port(),
            names_management: free_port(),
            options,
            children: Vec::new(),
        };
        pebble.launch();
        pebble
    }

    /// Starts it again, on the same ports, without anything that it knew.
    pub fn launch(&mut self) {
        assert!(self.children.is_empty(), "pebble runs already");
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": self.path("pebble.crt"),
            "privateKey": self.path("pebble.key"),
            "httpPort": self.options.http_port,
            "tlsPort": self.options.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": self.options.validity,
        }});
        std::fs::write(self.path("config.json"), config.to_string()).expect("a file");
        let names = format!("127.0.0.1:{}", self.dns);
        let mut dns = Command::new("pebble-challtestsrv");
        dns.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", ""])
            .args(["-tlsalpn01", "", "-dns01", &names])
            .args(["-management", &format!("127.0.0.1:{}", self.names_management)]);
        self.spawn(dns, "names.log");
        let mut server = Command::new("pebble");
        server
            .arg("-config")
            .arg(self.path("config.json"))
            .args(["-dnsserver", &names])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", self.options.nonces_refused.to_string());
        self.spawn(server, "pebble.log");
        for port in [self.names_management, self.dns, self.management, self.port] {
            wait_for(&format!("pebble listens on {port}"), LIMIT, || {
                TcpStream::connect(("127.0.0.1", port)).ok()
            });
        }
    }

    /// Ends it, as a power cut would.
    pub fn stop(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Has `name` be this address from now on.
    pub fn resolve(&self, name: &str, address: &str) {
        let body = json!({ "host": name, "addresses": [address] }).to_string();
        // What is added goes beside what was there.
        for doing in ["clear-a", "add-a"] {
            curl(&["--data", &body, &format!("http://127.0.0.1:{}/{doing}", self.names_management)]);
        }
    }

    /// What `acme.ca_url` is to be.
    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    /// The CA of its own TLS certificate, for `SSL_CERT_FILE`.
    pub fn trust(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// A file with the root that what it issues now is signed by.
    pub fn root(&self) -> PathBuf {
        let ca = self.trust();
        let url = format!("https://127.0.0.1:{}/roots/0", self.management);
        let pem = curl(&["--cacert", ca.to_str().expect("temporary paths are UTF-8"), &url]);
        let path = self.path("root.crt");
        std::fs::write(&path, pem).expect("a file");
        path
    }

    /// Everything that it has logged since its first start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("pebble.log")).unwrap_or_default()
    }

    fn spawn(&mut self, mut command: Command, log: &str) {
        let log = File::options().create(true).append(true).open(self.path(log)).expect("a log file");
        let child = command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; integration/run installs what is needed"));
        self.children.push(child);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of pebble's log");
            for line in &lines[lines.len().saturating_sub(40)..] {
                eprintln!("{line}");
            }
        }
    }
}

/// Makes `pebble.crt` and `.key`, and `ca.crt`, which signed it. The package brings none.
fn own_certificate(folder: &Path) {
    let made = || -> Result<(String, String, String), rcgen::Error> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, "The CA of an ACME server's own certificate");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let ca = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate()?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        Ok((ca.pem(), leaf.pem(), key.serialize_pem()))
    };
    let (ca, leaf, key) = made().expect("certificates can be made");
    for (name, pem) in [("ca.crt", ca), ("pebble.crt", leaf), ("pebble.key", key)] {
        std::fs::write(folder.join(name), pem).expect("a file");
    }
}

fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail"]).args(arguments);
    process::run(&mut command, &format!("curl {}", arguments.join(" ")), "").success().stdout
}
