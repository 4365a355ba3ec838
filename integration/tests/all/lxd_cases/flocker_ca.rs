//! Flocker's `flocker-ca`: the cluster's own certificate authority.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use agent::trust::certificate::KeyPair;
use integration::{Agent, Done, Http};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Case;
use super::world::World;
use crate::pki::joins;

pub const CASES: &[Case] = &[
    ("flocker-ca-001", |w| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let done = ca(w, folder.path(), &["initialize", "mycluster"]).success();
        assert_eq!(
            done.stdout.trim(),
            "Created cluster.key and cluster.crt. Please keep cluster.key secret, as anyone who can access it will be \
             able to control your cluster."
        );
        for name in ["cluster.key", "cluster.crt"] {
            let mode = fs::metadata(folder.path().join(name)).expect("it was made").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2);
        let shown = show(w, folder.path(), "cluster.crt");
        assert!(shown["subject"].as_str().is_some_and(|subject| subject.starts_with("CN=mycluster, OU=")));
        assert_eq!(shown["usages"], json!(["keyCertSign", "cRLSign"]));
    }),
    ("flocker-ca-002", |w| {
        let folder = authority(w, &[]);
        let before = fs::read(folder.path().join("cluster.crt")).expect("it was made");
        let said = ca(w, folder.path(), &["initialize", "mycluster"]).exits(1).stderr;
        assert!(
            said.starts_with("Error: Unable to write certificate file. File exists cluster.crt\n"),
            "{said}"
        );
        assert_eq!(fs::read(folder.path().join("cluster.crt")).expect("it is there"), before);
        // Nor the key, if only that is there; and then no certificate is left behind either.
        fs::remove_file(folder.path().join("cluster.crt")).expect("a file");
        let said = ca(w, folder.path(), &["initialize", "mycluster"]).exits(1).stderr;
        assert!(
            said.starts_with("Error: Unable to write private key file. File exists cluster.key\n"),
            "{said}"
        );
        assert!(!folder.path().join("cluster.crt").exists());
    }),
    ("flocker-ca-004", |w| {
        let folder = authority(w, &[]);
        let done = ca(w, folder.path(), &["create-control-certificate", "example.org"]).success();
        assert!(
            done.stdout.starts_with("Created control-example.org.crt and control-example.org.key."),
            "{}",
            done.stdout
        );
        let shown = show(w, folder.path(), "control-example.org.crt");
        assert!(
            shown["subject"].as_str().is_some_and(|subject| subject.starts_with("CN=control-service, OU="))
        );
        assert_eq!(shown["names"], json!(["DNS:control-service", "DNS:example.org"]));
        assert_eq!(show(w, folder.path(), "control-example.org.key")["problems"], json!([]));
    }),
    ("flocker-ca-008", |w| {
        let folder = authority(w, &[]);
        let own = show(w, folder.path(), "cluster.crt")["cluster"].clone();
        assert!(own.is_string());
        for name in issued(w, folder.path(), &[]) {
            assert_eq!(show(w, folder.path(), &name)["cluster"], own, "{name}");
        }
    }),
    ("flocker-ca-009", |w| {
        // RSA where it is asked for: ECDSA P-384 is what is made otherwise.
        let folder = authority(w, &["--rsa"]);
        for name in issued(w, folder.path(), &["--rsa"]) {
            let shown = show(w, folder.path(), &name);
            assert_eq!(
                (&shown["signed_by_ca"], &shown["algorithm"]),
                (&json!(true), &json!("RSA 4096")),
                "{name}"
            );
            assert_eq!(shown["problems"], json!([]), "{name}");
            let at = |key: &str| shown[key].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
            let (from, until) = (at("not_before").expect("a time"), at("not_after").expect("a time"));
            assert_eq!(until.duration_since(from).as_secs(), 60 * 60 * 24 * 365 * 20, "{name}");
            // The key beside it is its own, or this would say that it is not.
            assert_eq!(
                show(w, folder.path(), &name.replace(".crt", ".key"))["problems"],
                json!([]),
                "{name}"
            );
        }
    }),
    ("flocker-ca-012", |w| {
        let folder = authority(w, &[]);
        fs::write(folder.path().join("file"), "").expect("a file");
        for command in [
            &["create-control-certificate", "example.org"][..],
            &["create-node-certificate"],
            &["create-api-certificate", "alice"],
        ] {
            for (place, why) in [("missing", "No such file or directory"), ("file", "Not a directory")] {
                let said = ca(w, folder.path(), &[command, &["-o", place]].concat()).exits(1).stderr;
                assert!(
                    said.starts_with(&format!("Error: Unable to write certificate file. {why} {place}/")),
                    "{said}"
                );
            }
        }
    }),
    ("flocker-ca-013", |w| {
        let (folder, agent) = agent(w);
        let node = ca(w, folder.path(), &["create-node-certificate", "--quiet"]).success().stdout;
        let node = node.trim();
        let client = Http::showing(&agent, Some(pair(folder.path(), node)));
        for path in ["/1.0", "/1.0/certificates", "/control/v1/status"] {
            let answer = client.get(path).expect(403);
            assert!(String::from_utf8_lossy(&answer.body).contains(node), "{answer:?}");
        }
        // It is known for what it is.
        let known = Http::socket(&agent).get(&format!("/1.0/auth/identities/tls/node-{node}")).expect(200);
        assert_eq!(known.metadata()["type"], "Server certificate");
    }),
    ("flocker-ca-014", |w| {
        let (folder, agent) = agent(w);
        ca(w, folder.path(), &["create-api-certificate", "alice"]).success();
        let alice = pair(folder.path(), "alice");
        let said = joins(&agent, &alice);
        assert!(said.contains("user alice's, who is a client of the API and no agent"), "{said}");
        // As a client she is let in, with nothing to see as yet.
        let client = Http::showing(&agent, Some(alice));
        assert_eq!(client.get("/1.0").expect(200).metadata()["auth"], "trusted");
        assert_eq!(client.get("/1.0/certificates").expect(200).metadata(), json!([]));
    }),
];

/// A CA, and an agent that knows it.
fn agent(world: &World) -> (TempDir, Agent) {
    let folder = authority(world, &[]);
    let etc = folder.path().join("etc");
    fs::create_dir(&etc).expect("a folder");
    let public = etc.join("cluster.crt");
    fs::copy(folder.path().join("cluster.crt"), &public).expect("a file can be copied");
    let public = public.to_str().expect("temporary paths are UTF-8");
    let mut agent = Agent::prepare("mycluster").arguments(&["--cluster-ca", public]);
    agent.launch();
    agent.wait_ready();
    (folder, agent)
}

/// What was issued under this name.
fn pair(folder: &Path, stem: &str) -> Arc<KeyPair> {
    let (certificate, key) = (folder.join(format!("{stem}.crt")), folder.join(format!("{stem}.key")));
    Arc::new(KeyPair::load(&certificate, &key).expect("an agent takes what was issued"))
}

fn ca(world: &World, folder: &Path, arguments: &[&str]) -> Done {
    world.operator.run_in(folder, &[&["ca"], arguments].concat())
}

fn authority(world: &World, options: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    ca(world, folder.path(), &[&["initialize", "mycluster"], options].concat()).success();
    folder
}

/// One certificate of each kind.
fn issued(world: &World, folder: &Path, options: &[&str]) -> Vec<String> {
    let node =
        ca(world, folder, &[&["create-node-certificate", "--quiet"], options].concat()).success().stdout;
    ca(world, folder, &[&["create-control-certificate", "example.org"], options].concat()).success();
    ca(world, folder, &[&["create-api-certificate", "alice"], options].concat()).success();
    vec!["control-example.org.crt".to_owned(), "alice.crt".to_owned(), format!("{}.crt", node.trim())]
}

/// The first thing in a file, as `comity ca show` has it.
fn show(world: &World, folder: &Path, file: &str) -> Value {
    ca(world, folder, &["show", file, "--format", "json"]).success().json()["items"][0].clone()
}
