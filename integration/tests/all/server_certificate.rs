//! A certificate of its own for clients: who is shown what, and what lives through its renewal.

use std::path::Path;
use std::process::Command;

use agent::trust::certificate::{KeyPair, from_pem};
use integration::{Agent, Clusters, Lxc, Operator, certificate, own_only};
use serde_json::Value;

/// The SHA-256 of what `agent` shows to whoever connects and offers these protocols, as openssl sees it.
fn shown(agent: &Agent, protocols: &str) -> String {
    let alpn = if protocols.is_empty() { String::new() } else { format!("-alpn {protocols}") };
    let script = format!(
        "openssl s_client -connect {} {alpn} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256",
        agent.address()
    );
    let done = Command::new("sh").args(["-c", &script]).output().expect("openssl runs");
    let text = String::from_utf8_lossy(&done.stdout);
    let (_, digits) = text.trim().split_once('=').expect("a fingerprint");
    digits.replace(':', "").to_ascii_lowercase()
}

/// The fingerprint that a token carries.
fn named_by(token: &str) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.decode(token.trim()).expect("a token is base64");
    let token: Value = serde_json::from_slice(&text).expect("a token is JSON");
    token["fingerprint"].as_str().expect("a token names a certificate").to_owned()
}

/// A new `server.crt` and `server.key` in an agent's data folder, for its next start.
fn renew(agent: &Agent) -> KeyPair {
    let dir = agent.data_dir();
    for name in ["server.crt", "server.key"] {
        let _ = std::fs::remove_file(dir.join(name));
    }
    certificate::p256(&dir, "server");
    KeyPair::load(&dir.join("server.crt"), &dir.join("server.key")).expect("a pair")
}

fn pinned(operator: &Operator, remote: &str) -> String {
    let file = operator.config_dir().join(format!("servercerts/{remote}.crt"));
    let pem = std::fs::read_to_string(file).expect("a pinned certificate");
    agent::trust::certificate::fingerprint(&from_pem(&pem).expect("a certificate")).to_string()
}

#[test]
fn clients_are_shown_it_and_links_and_remotes_go_on_through_its_renewals() {
    let mut clusters = Clusters::linked("", "");
    let own = shown(&clusters.east, "");
    let mut before = None;
    for _ in 0..2 {
        let pair = renew(&clusters.east);
        clusters.east.restart();
        let (server, east) = (pair.fingerprint.to_string(), &clusters.east);
        assert_eq!(shown(east, "h2,http/1.1"), server);
        assert_eq!(shown(east, ""), server);
        assert_eq!(shown(east, "comity-http/1"), own, "who has pinned the cluster is shown the cluster");
        assert_ne!(before.replace(server.clone()), Some(server.clone()));

        // The old remote, over the network, and the link in both directions.
        let status = clusters.ask("east", &["status"]);
        assert_eq!(
            (&status["fingerprint"], &status["server_fingerprint"]),
            (&own.as_str().into(), &server.as_str().into())
        );
        clusters.wait_active();

        // A new remote by token, and one by address: both end with the cluster's certificate.
        let token = Lxc::token(east, "laptop");
        assert_eq!(named_by(&token), server);
        let operator = Operator::new();
        operator.run(&["remote", "add", "east", &token]).success();
        assert_eq!(pinned(&operator, "east"), own);
        operator.run(&["--remote", "east", "auth", "group", "list"]).success();
        operator.run(&["remote", "add", "again", &east.address(), "--accept-certificate"]).success();
        assert_eq!(pinned(&operator, "again"), own);

        // What another cluster redeems names what it will pin.
        let token = clusters.ask("east", &["link", "create", "north"]);
        let token = token["token"].as_str().expect("a pending link has a token");
        assert_eq!(named_by(token), own);
        clusters.run(&["--remote", "east", "link", "delete", "north"]).success();
    }
    // A token that was made before there was such a certificate is still good.
    let token = Lxc::token(&clusters.west, "early");
    renew(&clusters.west);
    clusters.west.restart();
    Operator::new().run(&["remote", "add", "west", &token]).success();
}

#[test]
fn lxc_is_shown_it_too() {
    if own_only() {
        return;
    }
    let mut east = Agent::prepare("east");
    std::fs::create_dir_all(east.data_dir()).expect("a folder");
    let pair = renew(&east);
    east.launch();
    east.wait_ready();
    let lxc = Lxc::trusted_by(&east);
    let info = lxc.run(&["info"]).success().stdout;
    assert!(info.contains(&pair.fingerprint.to_string()), "{info}");
}

#[test]
fn what_cannot_be_shown_keeps_the_agent_from_starting_and_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (dir, at) = (folder.path(), |name: &str| folder.path().join(name));
    certificate::p256(dir, "good");
    certificate::p256(dir, "other");
    std::fs::write(at("cut.crt"), &std::fs::read(at("good.crt")).expect("a file")[..200]).expect("a file");
    std::fs::copy(at("good.key"), at("open.key")).expect("a copy");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(at("open.key"), open).expect("a mode");
    for (certificate, key, said) in [
        ("good.crt", "other.key", "do not belong together"),
        ("cut.crt", "good.key", "does not hold a certificate"),
        ("good.key", "good.crt", "are swapped"),
        ("good.crt", "open.key", "chmod 600"),
        ("none.crt", "good.key", "none.crt could not be opened"),
    ] {
        let said_by = refused(dir, certificate, key);
        assert!(said_by.contains(said) && said_by.contains(".key") | said_by.contains(".crt"), "{said_by}");
    }
    let alone = Operator::new().run(&["agent", "--name", "x", "--server-cert", "good.crt"]);
    alone.exits(64);
}

/// What an agent says that is started with this pair.
fn refused(dir: &Path, certificate: &str, key: &str) -> String {
    let data = dir.join("data");
    let at = |name: &str| dir.join(name).to_str().expect("temporary paths are UTF-8").to_owned();
    let data = data.to_str().expect("temporary paths are UTF-8");
    let (certificate, key) = (at(certificate), at(key));
    let arguments =
        ["agent", "--name", "east", "--listen", "none", "--data-dir", data, "--server-cert", &certificate];
    Operator::new().run(&[&arguments[..], &["--server-key", &key]].concat()).exits(1).stderr
}
