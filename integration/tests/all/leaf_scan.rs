//! What scanners find at an agent's port, as a client of the API and as a service that speaks for itself meet it: TLS 1.3
//! and nothing else, and no weakness.
//!
//! testssl is asked for protocols, categories of ciphers, forward secrecy and vulnerabilities (`-p -s -f -U`), which takes it
//! half a minute; the rest of it is about websites and trust stores. Neither scanner can offer a protocol by ALPN in its
//! handshakes, so the links' own is left to openssl.

use std::process::Command;
use std::time::Duration;

use integration::leaf::MeshRoot;
use integration::{Agent, Consul, own_only, process, wait_for};
use serde_json::{Value, json};

/// A scan makes some hundred connections, one after the other.
const SCAN: Duration = Duration::from_secs(300);

fn agent() -> (Agent, MeshRoot) {
    let agent = Agent::start("east");
    let service = json!({ "Name": "backend", "Port": 9 });
    Consul::socket(&agent).put("/v1/agent/service/register", &service).expect(200);
    let root = MeshRoot::of(&agent);
    (agent, root)
}

#[test]
fn no_version_before_13_is_spoken_whatever_is_asked_for() {
    if own_only() {
        return;
    }
    let (agent, root) = agent();
    let (address, host) = (agent.address(), root.host("backend"));
    let api = ["-servername", "localhost"].as_slice();
    let (link, mesh) = (["-alpn", "comity-link/2"], ["-servername", &host]);
    for asked in [api, &link, &mesh] {
        let shake = |version: &str| {
            let mut command = Command::new("openssl");
            command.args(["s_client", "-connect", &address, "-brief", version]).args(asked);
            process::run(&mut command, &format!("openssl s_client {version} {asked:?}"), "")
        };
        let done = shake("-tls1_3");
        assert!(done.stderr.contains("Protocol version: TLSv1.3"), "{done:?}");
        for version in ["-tls1_2", "-tls1_1", "-tls1"] {
            let done = shake(version);
            assert!(!done.succeeded() && !done.stderr.contains("CONNECTION ESTABLISHED"), "{done:?}");
        }
    }
}

#[test]
fn sslscan_finds_nothing_but_tls_13() {
    if own_only() {
        return;
    }
    let (agent, root) = agent();
    for name in ["localhost", &root.host("backend")] {
        let mut command = Command::new("sslscan");
        command.args(["--no-colour", &format!("--sni-name={name}"), &agent.address()]);
        let done = process::run(&mut command, &format!("sslscan {name}"), "").success();
        let said = &done.stdout;
        for old in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2"] {
            let line = said.lines().find(|line| line.starts_with(old)).unwrap_or_else(|| panic!("{said}"));
            assert!(line.ends_with("disabled"), "{name}: {line}");
        }
        assert!(said.lines().any(|line| line.starts_with("TLSv1.3") && line.ends_with("enabled")), "{said}");
        let ciphers: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("Accepted") || line.starts_with("Preferred"))
            .collect();
        assert!(!ciphers.is_empty(), "{said}");
        for cipher in ciphers {
            assert!(cipher.contains("TLSv1.3") && cipher.contains(" TLS_"), "{name}: {cipher}");
        }
        assert!(
            !said.contains("vulnerable to heartbleed\n") || said.contains("not vulnerable to heartbleed")
        );
    }
}

#[test]
fn testssl_finds_no_weakness() {
    if own_only() {
        return;
    }
    let (agent, root) = agent();
    let port = agent.address().rsplit_once(':').expect("a port").1.to_owned();
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (number, name) in ["localhost", &root.host("backend")].into_iter().enumerate() {
        let report = folder.path().join(format!("{number}.json"));
        let mut command = Command::new("testssl");
        command
            .args(["--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", "127.0.0.1"])
            .args(["-p", "-s", "-f", "-U", "--jsonfile"])
            .arg(&report)
            .arg(format!("{name}:{port}"))
            .current_dir(folder.path())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut child = command.spawn().expect("testssl runs; integration/run installs what is needed");
        // It ends with the number of what it found worth a remark, so its report says more than its code.
        wait_for("testssl ends", SCAN, || child.try_wait().expect("a child can be asked"));
        let text = std::fs::read_to_string(&report).expect("a report");
        let found: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let of = |id: &str| {
            let row = found.iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("no {id}: {text}"));
            row["finding"].as_str().unwrap_or_default().to_owned()
        };
        for old in ["SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2"] {
            assert_eq!(of(old), "not offered", "{name}: {old}");
        }
        assert!(of("TLS1_3").starts_with("offered"), "{name}: {}", of("TLS1_3"));
        assert!(of("heartbleed").contains("not vulnerable"), "{name}");
        let weak = ["LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"];
        let weak: Vec<&Value> =
            found.iter().filter(|row| weak.iter().any(|weak| row["severity"] == *weak)).collect();
        assert!(weak.is_empty(), "{name}: {weak:?}");
        // Each of the four parts was there.
        for part in ["cipherlist_NULL", "cipherlist_STRONG", "PFS", "ROBOT", "LUCKY13"] {
            of(part);
        }
    }
}
