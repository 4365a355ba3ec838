//! `comity ca`: what it issues holds before OpenSSL and a real agent, what is wrong is said, and nothing is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use integration::{Agent, Operator, own_only};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with a CA in it.
fn authority(operator: &Operator, options: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    operator.run_in(folder.path(), &[&["ca", "initialize", "mycluster"], options].concat()).success();
    folder
}

/// `openssl ARGUMENTS` in a folder.
fn openssl(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed by integration/run")
}

#[track_caller]
fn verifies(folder: &Path, arguments: &[&str]) {
    let done = openssl(folder, &[&["verify", "-x509_strict", "-CAfile", "cluster.crt"], arguments].concat());
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[track_caller]
fn does_not_verify(folder: &Path, arguments: &[&str], because: &str) {
    let done = openssl(folder, &[&["verify", "-x509_strict", "-CAfile", "cluster.crt"], arguments].concat());
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(!done.status.success() && said.contains(because), "{arguments:?}: {said}");
}

#[test]
fn what_is_issued_holds_before_openssl_and_is_for_one_purpose_only() {
    if own_only() {
        return;
    }
    let operator = Operator::new();
    for options in [&[][..], &["--rsa"]] {
        let folder = authority(&operator, options);
        let folder = folder.path();
        let run =
            |arguments: &[&str]| operator.run_in(folder, &[&["ca"], arguments, options].concat()).success();
        run(&["create-control-certificate", "example.org"]);
        run(&["create-control-certificate", "127.0.0.1"]);
        run(&["create-api-certificate", "alice"]);
        let node = run(&["create-node-certificate", "--quiet"]).stdout;
        let node = format!("{}.crt", node.trim());

        let server = "control-example.org.crt";
        verifies(folder, &["-purpose", "sslserver", "-verify_hostname", "example.org", server]);
        verifies(folder, &["-purpose", "sslserver", "-verify_hostname", "control-service", server]);
        verifies(folder, &["-purpose", "sslserver", "-verify_ip", "127.0.0.1", "control-127.0.0.1.crt"]);
        does_not_verify(folder, &["-verify_hostname", "example.com", server], "hostname mismatch");
        does_not_verify(folder, &["-purpose", "sslclient", server], "purpose");
        for client in ["alice.crt", &node] {
            verifies(folder, &["-purpose", "sslclient", client]);
            does_not_verify(folder, &["-purpose", "sslserver", client], "purpose");
        }
        for file in [server, "alice.crt", &node, "cluster.crt"] {
            let text = openssl(folder, &["x509", "-in", file, "-noout", "-text"]).stdout;
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(text.contains("Version: 3 (0x2)"), "{text}");
            let key = if options.is_empty() { "(384 bit)" } else { "(4096 bit)" };
            let signed = if options.is_empty() { "ecdsa-with-SHA384" } else { "sha256WithRSAEncryption" };
            assert!(text.contains(key) && text.contains(signed), "{text}");
            // The key beside it is its own, and OpenSSL reads it.
            let public = |arguments: &[&str]| openssl(folder, arguments).stdout;
            let own = public(&["x509", "-in", file, "-noout", "-pubkey"]);
            let key = file.replace(".crt", ".key");
            assert_eq!(own, public(&["pkey", "-in", &key, "-pubout"]), "{file}");
        }

        run(&["create-api-certificate", "bob"]);
        operator.run_in(folder, &["ca", "revoke", "bob.crt", "--reason", "keyCompromise"]).success();
        let with_list = ["-crl_check", "-CRLfile", "ca.crl"];
        verifies(folder, &[&with_list[..], &["alice.crt"]].concat());
        does_not_verify(folder, &[&with_list[..], &["bob.crt"]].concat(), "certificate revoked");

        // What is said of an encrypted key does what it says.
        let sealed = ["pkey", "-aes256", "-passout", "pass:open", "-in", "cluster.key", "-out", "sealed.key"];
        assert!(openssl(folder, &sealed).status.success());
        let said = operator.run_in(folder, &["ca", "show", "sealed.key"]).exits(1).stderr;
        assert!(said.contains("openssl pkey -in sealed.key -out sealed.key.plain"), "{said}");
        let opened = ["pkey", "-passin", "pass:open", "-in", "sealed.key", "-out", "sealed.key.plain"];
        assert!(openssl(folder, &opened).status.success());
        let (own, plain) =
            (show(&operator, folder, "cluster.key"), show(&operator, folder, "sealed.key.plain"));
        assert_eq!(own["public_key"], plain["public_key"]);

        // The CA renewed: what it issued holds, what it revoked does not, and both before the new one alone.
        operator.run_in(folder, &["ca", "renew", "cluster.crt"]).success();
        assert_ne!(
            fs::read(folder.join("cluster.crt")).unwrap(),
            fs::read(folder.join("cluster.crt.old")).unwrap()
        );
        verifies(folder, &[&with_list[..], &["alice.crt"]].concat());
        does_not_verify(folder, &[&with_list[..], &["bob.crt"]].concat(), "certificate revoked");
        operator.run_in(folder, &["ca", "renew", "alice.crt"]).success();
        operator.run_in(folder, &["ca", "renew", server, "--new-key"]).success();
        verifies(folder, &["-purpose", "sslclient", "alice.crt", "alice.crt.old"]);
        verifies(folder, &["-purpose", "sslserver", "-verify_hostname", "example.org", server]);
        // A key that went to its machine is not needed for a new one.
        fs::remove_file(folder.join("alice.key")).expect("a file");
        fs::remove_file(folder.join("alice.crt.old")).expect("a file");
        operator.run_in(folder, &["ca", "renew", "alice.crt", "--new-key"]).success();
        assert_eq!(show(&operator, folder, "alice.key")["problems"], serde_json::json!([]));
    }
}

#[test]
fn an_agent_shows_its_control_certificate_to_openssl_and_curl() {
    if own_only() {
        return;
    }
    let operator = Operator::new();
    let folder = authority(&operator, &[]);
    let folder = folder.path();
    operator.run_in(folder, &["ca", "create-control-certificate", "localhost"]).success();
    let etc = tempfile::tempdir().expect("a temporary folder");
    let etc = etc.path();
    for (from, to) in [
        ("control-localhost.crt", "control-service.crt"),
        ("control-localhost.key", "control-service.key"),
        ("cluster.crt", "cluster.crt"),
    ] {
        fs::copy(folder.join(from), etc.join(to)).expect("a file can be copied");
    }
    let at = |name: &str| etc.join(name).to_str().expect("temporary paths are UTF-8").to_owned();
    let mut agent = Agent::prepare("east").arguments(&[
        "--server-cert",
        &at("control-service.crt"),
        "--server-key",
        &at("control-service.key"),
        "--cluster-ca",
        &at("cluster.crt"),
    ]);
    agent.launch();
    agent.wait_ready();
    let connect = agent.address();
    let greet = |name: &str| {
        openssl(
            folder,
            &[
                "s_client",
                "-connect",
                &connect,
                "-CAfile",
                "cluster.crt",
                "-verify_return_error",
                "-verify_hostname",
                name,
            ],
        )
    };
    for name in ["localhost", "control-service"] {
        let done = greet(name);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && said.contains("Verify return code: 0 (ok)"), "{name}: {said}");
    }
    assert!(!greet("example.org").status.success());

    let port = connect.rsplit_once(':').expect("an address has a port").1;
    let done = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--cacert",
            &at("cluster.crt"),
            &format!("https://localhost:{port}/1.0"),
        ])
        .output()
        .expect("curl is installed by integration/run");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.contains("\"untrusted\""), "{said}");
}

#[test]
fn commands_at_the_same_time_lose_no_revocation() {
    let operator = Operator::new();
    let folder = authority(&operator, &[]);
    let serials: Vec<String> = (1..=12).map(|number| format!("{number:032x}")).collect();
    std::thread::scope(|scope| {
        for serial in &serials {
            let (operator, folder) = (&operator, folder.path());
            scope.spawn(move || operator.run_in(folder, &["ca", "revoke", serial]).success());
        }
    });
    let shown = show(&operator, folder.path(), "ca.crl");
    assert_eq!(shown["number"], "12");
    let mut listed: Vec<&str> = shown["revoked"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["serial"].as_str())
        .collect();
    listed.sort_unstable();
    let short: Vec<String> = (1..=12).map(|number| format!("{number:02x}")).collect();
    assert_eq!(listed, short);

    // Nothing is taken out, and what is there already is not signed again.
    let again = operator.run_in(folder.path(), &["ca", "revoke", "01", "--format", "json"]).success().json();
    assert_eq!((&again["already"], &again["list"]["number"]), (&true.into(), &"12".into()));
    let signed =
        operator.run_in(folder.path(), &["ca", "crl", "--days", "1", "--format", "json"]).success().json();
    assert_eq!((&signed["number"], &signed["revoked"]), (&"13".into(), &12.into()));
}

/// The first thing in a file, as `comity ca show` has it.
fn show(operator: &Operator, folder: &Path, file: &str) -> Value {
    operator.run_in(folder, &["ca", "show", file, "--format", "json"]).success().json()["items"][0].clone()
}

#[test]
fn programs_are_told_what_was_made() {
    let operator = Operator::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let json = |arguments: &[&str]| {
        operator.run_in(folder, &[&["ca"], arguments, &["--format", "json"]].concat()).success().json()
    };
    let own = json(&["initialize", "mycluster"]);
    let cluster = own["cluster"].as_str().expect("a cluster").to_owned();
    assert_eq!((&own["role"], &own["certificate_file"]), (&"authority".into(), &"cluster.crt".into()));
    fs::create_dir(folder.join("out")).expect("a folder");
    let control = json(&["create-control-certificate", "::1", "-o", "out"]);
    assert_eq!(control["names"], serde_json::json!(["DNS:control-service", "IP:::1"]));
    assert_eq!(control["key_file"], "out/control-::1.key");
    let nodes = json(&["create-node-certificate", "--count", "2", "-o", "out"]);
    assert_eq!(nodes.as_array().map(Vec::len), Some(2));
    let alice = json(&["create-api-certificate", "alice", "-o", "out"]);
    for made in [&control, &nodes[0], &nodes[1], &alice] {
        assert_eq!((&made["cluster"], &made["signed_by_ca"]), (&cluster.as_str().into(), &true.into()));
        let path = folder.join(made["certificate_file"].as_str().expect("a path"));
        for path in [path.clone(), path.with_extension("key")] {
            assert_eq!(fs::metadata(&path).expect("it was made").permissions().mode() & 0o777, 0o600);
        }
    }
    // The file's own folder has no CA, so the one that the command runs in counts.
    let revoked = json(&["revoke", "out/alice.crt", "--reason", "superseded"]);
    assert_eq!((&revoked["serial"], &revoked["already"]), (&alice["serial"], &false.into()));
    assert_eq!((&revoked["list"]["file"], &revoked["list"]["number"]), (&"ca.crl".into(), &"1".into()));
    let shown = show(&operator, folder, "out/alice.crt");
    assert_eq!(shown["revoked"]["reason"], "superseded");
    assert_eq!(shown["fingerprint"], alice["fingerprint"]);
    let refused =
        operator.run_in(folder, &["ca", "renew", "out/alice.crt", "--format", "json"]).exits(1).stderr;
    assert!(refused.contains("was revoked"), "{refused}");

    let renewed = json(&["renew", "out/control-::1.crt"]);
    assert_eq!((&renewed["names"], &renewed["key_file"]), (&control["names"], &Value::Null));
    assert_ne!(renewed["serial"], control["serial"]);
    let key = show(&operator, folder, "out/control-::1.key");
    assert_eq!(
        (&key["kind"], &key["mode"], &key["problems"]),
        (&"private-key".into(), &"600".into(), &serde_json::json!([]))
    );
    // DER is read as PEM is.
    fs::write(folder.join("list.crl"), pem_to_der(&folder.join("ca.crl"))).expect("a file");
    assert_eq!(show(&operator, folder, "list.crl")["signed_by_ca"], true);
    fs::write(folder.join("alice.der"), pem_to_der(&folder.join("out/alice.crt"))).expect("a file");
    assert_eq!(show(&operator, folder, "alice.der")["name"], "alice");
}

fn pem_to_der(path: &Path) -> Vec<u8> {
    use base64::Engine as _;
    let text = fs::read_to_string(path).expect("a file");
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    base64::engine::general_purpose::STANDARD.decode(body).expect("base64")
}
