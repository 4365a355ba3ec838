//! Whom the command line believes without asking, and by what it is known itself: `client.ca`, the system's
//! authorities, and `client.crt` and `client.key` from somebody else.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use agent::trust::certificate::from_pem;
use integration::{Agent, Operator};
use tempfile::TempDir;

/// An authority in a folder of its own, by our own command.
struct Authority(TempDir);

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Operator::new().run_in(folder.path(), &["ca", "initialize", "mycluster"]).success();
        Self(folder)
    }

    fn make(&self, arguments: &[&str]) {
        Operator::new().run_in(self.0.path(), &[&["ca"], arguments].concat()).success();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An agent that shows clients a certificate for 127.0.0.1.
    fn agent(&self) -> Agent {
        self.make(&["create-control-certificate", "127.0.0.1"]);
        let (certificate, key) = (self.file("control-127.0.0.1.crt"), self.file("control-127.0.0.1.key"));
        let path = |path: &Path| path.to_str().expect("temporary paths are UTF-8").to_owned();
        let mut agent = Agent::prepare("east").arguments(&[
            "--server-cert",
            &path(&certificate),
            "--server-key",
            &path(&key),
        ]);
        agent.launch();
        agent.wait_ready();
        agent
    }
}

fn token(agent: &Agent) -> String {
    let added = Operator::new().run_on(agent, &["trust", "add", "--name", "laptop", "--quiet"]);
    added.success().stdout.trim().to_owned()
}

fn pinned(operator: &Operator) -> Vec<u8> {
    let pem = fs::read_to_string(operator.config_dir().join("servercerts/east.crt")).expect("a certificate");
    from_pem(&pem).expect("a certificate is PEM").to_vec()
}

/// Adds the agent by its address. Where nobody is asked for the certificate, the one line of input is the token.
fn add(operator: &Operator, agent: &Agent, address: &str) -> integration::Done {
    operator.run_with(Path::new("."), &["remote", "add", "east", address], &format!("{}\n", token(agent)))
}

#[test]
fn an_authority_vouches_and_what_is_pinned_is_the_cluster() {
    let authority = Authority::new();
    let east = authority.agent();
    let own = fs::read_to_string(east.data_dir().join("cluster.crt")).expect("a certificate");
    let own = from_pem(&own).expect("a certificate is PEM").to_vec();

    let operator = Operator::new();
    fs::copy(authority.file("cluster.crt"), operator.config_dir().join("client.ca")).expect("a file");
    let done = add(&operator, &east, &east.address()).success();
    assert!(!done.stderr.contains("Certificate fingerprint"), "{}", done.stderr);
    assert_eq!(pinned(&operator), own);
    operator.run(&["auth", "group", "list"]).success();

    // The system's authorities, where there is no client.ca.
    let mut operator = Operator::new();
    let cluster = authority.file("cluster.crt");
    operator.set_env("SSL_CERT_FILE", cluster.to_str().expect("temporary paths are UTF-8"));
    let done = add(&operator, &east, &format!("https://{}", east.address())).success();
    assert!(!done.stderr.contains("Certificate fingerprint"), "{}", done.stderr);
    assert_eq!(pinned(&operator), own);
}

#[test]
fn where_nobody_vouches_somebody_is_asked_and_told_why() {
    let (authority, other) = (Authority::new(), Authority::new());
    let east = authority.agent();
    let asked = |ca: Option<&Path>, address: &str| {
        let operator = Operator::new();
        if let Some(ca) = ca {
            fs::copy(ca, operator.config_dir().join("client.ca")).expect("a file");
        }
        let done = operator.run_with(Path::new("."), &["remote", "add", "east", address], "n\n").exits(1);
        assert!(done.stderr.contains("Server certificate NACKed by user"), "{}", done.stderr);
        assert!(!operator.config_dir().join("config.toml").exists(), "a half of a remote was left");
        done.stderr
    };
    let plain = asked(None, &east.address());
    assert!(!plain.contains("Nobody vouches"), "nobody was expected to: {plain}");
    let namesake = asked(Some(&other.file("cluster.crt")), &east.address());
    assert!(namesake.contains("Nobody vouches for the certificate: "), "{namesake}");
    let (_, port) =
        east.address().rsplit_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a port");
    let elsewhere = asked(Some(&authority.file("cluster.crt")), &format!("localhost:{port}"));
    assert!(elsewhere.contains("but for control-service, 127.0.0.1, not for localhost"), "{elsewhere}");

    // What is no authority is a fault of its own, before anybody is called.
    for (text, why) in [
        ("garbled".to_owned(), "does not hold a certificate in PEM that can be read to its end"),
        (
            fs::read_to_string(authority.file("control-127.0.0.1.crt")).expect("a certificate"),
            "that is no authority's",
        ),
        (
            fs::read_to_string(authority.file("cluster.crt")).expect("a certificate")[..300].to_owned(),
            "does not hold a certificate in PEM that can be read to its end",
        ),
    ] {
        let operator = Operator::new();
        fs::write(operator.config_dir().join("client.ca"), text).expect("a file");
        let done = operator.run(&["remote", "add", "east", &east.address()]).exits(1);
        assert!(done.stderr.contains("client.ca") && done.stderr.contains(why), "{}", done.stderr);
    }
}

#[test]
fn a_client_is_known_by_a_pair_that_somebody_else_issued() {
    let authority = Authority::new();
    let east = Agent::start("east");
    authority.make(&["create-api-certificate", "alice"]);
    authority.make(&["create-api-certificate", "bob", "--rsa"]);
    let given = |user: &str| {
        let operator = Operator::new();
        for end in ["crt", "key"] {
            let to = operator.config_dir().join(format!("client.{end}"));
            fs::copy(authority.file(&format!("{user}.{end}")), to).expect("a file");
        }
        operator
    };
    for user in ["alice", "bob"] {
        let operator = given(user);
        // With the chain behind it, as authorities hand it out.
        let path = operator.config_dir().join("client.crt");
        let whole = fs::read_to_string(&path).expect("a certificate")
            + &fs::read_to_string(authority.file("cluster.crt")).expect("a certificate");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a mode");
        fs::write(&path, whole).expect("a file");
        operator.run(&["remote", "add", "east", &token(&east)]).success();
        let listed = operator.run(&["trust", "list", "--format", "json"]).success().stdout;
        assert!(listed.contains("laptop"), "{listed}");
        operator.run(&["remote", "remove", "east"]).success();
    }

    let refused = |operator: &Operator, why: &str| {
        let done = operator.run(&["remote", "add", "east", &token(&east)]).exits(1);
        assert!(done.stderr.contains(why), "{}", done.stderr);
    };
    let exposed = given("alice");
    let key = exposed.config_dir().join("client.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("a mode");
    refused(&exposed, &format!("chmod 600 {}", key.display()));

    let swapped = given("alice");
    fs::copy(authority.file("bob.key"), swapped.config_dir().join("client.key")).expect("a file");
    refused(&swapped, "do not belong together");

    let cut = given("alice");
    fs::write(cut.config_dir().join("client.crt"), "-----BEGIN CERTIFICATE-----\nMIIB").expect("a file");
    refused(&cut, "client.crt");
}
