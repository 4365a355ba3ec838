//! What `comity ca` refuses, in words that say what to do, and where its key must not be.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use integration::{Agent, Operator, binary, golden};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// A folder with a CA in it.
fn authority(operator: &Operator, options: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    operator.run_in(folder.path(), &[&["ca", "initialize", "mycluster"], options].concat()).success();
    folder
}

/// Writes a CA of this name that is valid for this time from now on.
fn write_authority(folder: &Path, name: &str, begins: Duration, ends: Duration) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key can be made");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationalUnitName, "3fa6a6d7-21b5-4bfb-a1a2-1d6d7f9c1a10");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // To the second, so that what is said of it is the same each time.
    let now = OffsetDateTime::from_unix_timestamp(1_700_000_000).expect("a time");
    (params.not_before, params.not_after) = (now + begins, now + ends);
    let certificate = params.self_signed(&key).expect("a certificate can be made");
    write(folder, "cluster.crt", 0o600, certificate.pem().as_bytes());
    write(folder, "cluster.key", 0o600, key.serialize_pem().as_bytes());
}

fn write(folder: &Path, name: &str, mode: u32, content: &[u8]) {
    fs::create_dir_all(folder).expect("a folder");
    let path = folder.join(name);
    fs::write(&path, content).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
}

const ENCRYPTED: &[u8] =
    b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHsMFcGCSqGSIb3DQEFDTBK\n-----END ENCRYPTED PRIVATE KEY-----\n";
const OLD_ENCRYPTED: &[u8] =
    b"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let operator = Operator::new();
    let scratch = authority(&operator, &[]);
    let good = scratch.path();
    operator.run_in(good, &["ca", "create-api-certificate", "alice"]).success();
    operator.run_in(good, &["ca", "crl"]).success();
    let (crt, key) =
        (fs::read(good.join("cluster.crt")).unwrap(), fs::read(good.join("cluster.key")).unwrap());
    let list = fs::read(good.join("ca.crl")).unwrap();

    // Each folder is a CA with one thing wrong about it.
    let far = Duration::days(365 * 40);
    let broken = |name: &str, files: &[(&str, u32, &[u8])]| {
        let folder = good.join(name);
        for (file, mode, content) in [("cluster.crt", 0o600, &crt[..]), ("cluster.key", 0o600, &key)] {
            write(&folder, file, mode, content);
        }
        for (file, mode, content) in files {
            write(&folder, file, *mode, content);
        }
    };
    broken("cut-certificate", &[("cluster.crt", 0o600, &crt[..crt.len() / 2])]);
    broken("cut-key", &[("cluster.key", 0o600, &key[..key.len() / 2])]);
    broken("empty-key", &[("cluster.key", 0o600, b"")]);
    broken(
        "no-base64",
        &[("cluster.crt", 0o600, b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n")],
    );
    broken("no-pem", &[("cluster.crt", 0o600, b"hello\n")]);
    broken("swapped", &[("cluster.crt", 0o600, &key), ("cluster.key", 0o600, &crt)]);
    broken("swapped-key", &[("cluster.key", 0o600, &crt)]);
    broken("encrypted", &[("cluster.key", 0o600, ENCRYPTED)]);
    broken("old-encrypted", &[("cluster.key", 0o600, OLD_ENCRYPTED)]);
    broken("exposed", &[("cluster.key", 0o640, &key)]);
    broken("mismatched", &[("cluster.key", 0o600, &fs::read(good.join("alice.key")).unwrap())]);
    broken("two", &[("cluster.crt", 0o600, &[&crt[..], &crt[..]].concat())]);
    broken(
        "leaf",
        &[
            ("cluster.crt", 0o600, &fs::read(good.join("alice.crt")).unwrap()),
            ("cluster.key", 0o600, &fs::read(good.join("alice.key")).unwrap()),
        ],
    );
    broken("cut-list", &[("ca.crl", 0o644, &list[..list.len() / 2])]);
    broken("swapped-list", &[("ca.crl", 0o644, &crt)]);
    write_authority(&good.join("expired"), "mycluster", -far, Duration::days(1));
    write_authority(&good.join("future"), "mycluster", far, far + far);
    write_authority(&good.join("namesake"), "mycluster", Duration::ZERO, far);
    write(&good.join("namesake"), "ca.crl", 0o644, &list);
    fs::create_dir(good.join("keyless")).unwrap();
    write(&good.join("keyless"), "cluster.crt", 0o600, &crt);
    let long = "x".repeat(60);

    let runs: &[&[&str]] = &[
        &["initialize", "mycluster"],
        &["initialize", ""],
        &["initialize", "user-alice"],
        &["initialize", "other", "-o", "nowhere"],
        &["create-api-certificate", "alice"],
        &["create-api-certificate", "bob", "-o", "nowhere"],
        &["create-api-certificate", "bob", "-o", "alice.crt"],
        &["create-node-certificate", "--count", "0"],
        &["create-control-certificate", "example.org", "-o", "nowhere"],
        &["create-control-certificate", "https://example.org"],
        &["create-control-certificate", "example.org:8443"],
        &["create-control-certificate", "*.example.org"],
        &["create-control-certificate", "../example"],
        &["create-control-certificate", "10.0.0.256"],
        &["create-control-certificate", "bücher.example"],
        &["create-control-certificate", ""],
        &["create-api-certificate", ""],
        &["create-api-certificate", ".."],
        &["create-api-certificate", "../alice"],
        &["create-api-certificate", "a/b"],
        &["create-api-certificate", "Alice Smith"],
        &["create-api-certificate", "a\nb"],
        &["create-api-certificate", &long],
        &["create-api-certificate", "cluster"],
        &["create-api-certificate", "control-service"],
        &["create-api-certificate", "carol", "-i", "nowhere"],
        &["create-api-certificate", "carol", "-i", "keyless"],
        &["create-api-certificate", "carol", "-i", "cut-certificate"],
        &["create-api-certificate", "carol", "-i", "cut-key"],
        &["create-api-certificate", "carol", "-i", "empty-key"],
        &["create-api-certificate", "carol", "-i", "no-base64"],
        &["create-api-certificate", "carol", "-i", "no-pem"],
        &["create-api-certificate", "carol", "-i", "swapped"],
        &["create-api-certificate", "carol", "-i", "swapped-key"],
        &["create-api-certificate", "carol", "-i", "encrypted"],
        &["create-api-certificate", "carol", "-i", "old-encrypted"],
        &["create-api-certificate", "carol", "-i", "exposed"],
        &["create-api-certificate", "carol", "-i", "mismatched"],
        &["create-api-certificate", "carol", "-i", "two"],
        &["create-api-certificate", "carol", "-i", "leaf"],
        &["create-api-certificate", "carol", "-i", "expired"],
        &["crl", "-i", "expired"],
        &["crl", "-i", "cut-list"],
        &["crl", "-i", "swapped-list"],
        &["crl", "-i", "namesake"],
        &["crl", "-i", "nowhere"],
        &["crl", "--days", "0"],
        &["revoke", "alice.crt", "-i", "namesake"],
        &["revoke", "cluster.crt"],
        &["revoke", "alice.key"],
        &["revoke", "nobody"],
        &["revoke", "alice.crt", "--reason", "boredom"],
        &["renew", "nowhere.crt"],
        &["renew", "alice.crt", "-i", "namesake"],
        &["renew", "alice.crt", "-i", "expired"],
        &["renew", "alice.crt", "--rsa"],
        &["renew", "cluster.crt", "--new-key"],
        &["show", "nowhere.crt"],
        &["show", "cut-key/cluster.key"],
        &["show", "."],
    ];
    let before = tree(good);
    let mut shown = String::new();
    for arguments in runs {
        let done = operator.run_in(good, &[&["ca"], *arguments].concat());
        assert_ne!(done.code, Some(0), "{}", done.command);
        assert_eq!(done.stdout, "", "{}", done.command);
        let command = done.command.replace('\n', "\\n");
        let code = done.code.unwrap_or(-1).to_string();
        shown.extend(["$ ", &command, "\n", &done.stderr, "[", &code, "]\n\n"]);
    }
    golden::matches("ca/wrong.txt", &golden::normal(&shown, &[]));
    // The clock is in this one.
    let future =
        operator.run_in(good, &["ca", "create-api-certificate", "carol", "-i", "future"]).exits(1).stderr;
    assert!(future.contains("this machine's clock"), "{future}");
    let name = OsStr::from_bytes(b"\xff\xfe");
    let done =
        Command::new(binary::comity()).args(["ca", "create-api-certificate"]).arg(name).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("Invalid username: Could not be converted to UTF-8"), "{said}");
    let after = tree(good);
    let changed: Vec<&String> =
        before.keys().chain(after.keys()).filter(|name| before.get(*name) != after.get(*name)).collect();
    assert!(changed.is_empty(), "these were written: {changed:?}");
}

/// All files beneath a folder with their contents, but for the locks that are left where a CA is.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(tree(&entry));
        } else if !entry.ends_with("ca.lock") {
            found.insert(entry.display().to_string(), fs::read(&entry).expect("a file"));
        }
    }
    found
}

#[test]
fn the_key_of_the_ca_is_never_on_an_agent() {
    let operator = Operator::new();
    let mut agent = Agent::start("east");
    let data = agent.data_dir();
    let data_path = data.to_str().expect("temporary paths are UTF-8");
    let inside = data.join("etc");
    fs::create_dir(&inside).expect("a folder");
    for arguments in [
        &["ca", "initialize", "mycluster", "-o", data_path][..],
        &["ca", "initialize", "mycluster", "-o", inside.to_str().expect("it is UTF-8")],
        &["ca", "create-api-certificate", "alice", "-i", data_path],
        &["ca", "crl", "-i", data_path],
    ] {
        let said = operator.run(arguments).exits(1).stderr;
        assert!(said.contains("is an agent's data folder"), "{said}");
    }
    let folder = authority(&operator, &[]);
    let folder = folder.path();
    let said = operator.run_in(folder, &["ca", "create-node-certificate", "-o", data_path]).exits(1).stderr;
    assert!(said.contains("is an agent's data folder"), "{said}");

    // The agent looks too, whatever the file is called and whoever may read it.
    agent.terminate();
    let at = |name: &str| folder.join(name).to_str().expect("it is UTF-8").to_owned();
    operator.run_in(folder, &["ca", "create-control-certificate", "localhost"]).success();
    let etc = tempfile::tempdir().expect("a temporary folder");
    let public = etc.path().join("cluster.crt");
    fs::copy(folder.join("cluster.crt"), &public).expect("a file can be copied");
    let public = public.to_str().expect("it is UTF-8").to_owned();
    let key = fs::read(folder.join("cluster.key")).expect("the key");
    for (place, cluster_ca) in
        [(folder.join("notes"), at("cluster.crt")), (data.join("old.pem"), public.clone())]
    {
        write(
            place.parent().expect("a folder"),
            &place.file_name().expect("a name").to_string_lossy(),
            0o600,
            &key,
        );
        let said = refused(&data, &["--cluster-ca", &cluster_ca]);
        assert!(said.contains("holds the private key of the cluster's CA"), "{said}");
        fs::remove_file(&place).expect("a file");
    }
    let said = refused(
        &data,
        &["--cluster-ca", &public, "--server-cert", &at("cluster.crt"), "--server-key", &at("cluster.key")],
    );
    assert!(said.contains("cluster.key holds the private key of the cluster's CA"), "{said}");
    // Where the agent keeps its own `cluster.key`, the CA's is not taken for it.
    let said = refused(folder, &["--name", "west"]);
    assert!(said.contains("holds the private key of the cluster's CA"), "{said}");
    agent.launch();
    agent.wait_ready();
}

/// What an agent says that does not start.
fn refused(data_dir: &Path, arguments: &[&str]) -> String {
    let done = Command::new(binary::comity())
        .args(["agent", "--listen", "none", "--data-dir"])
        .arg(data_dir)
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("the agent starts");
    assert_eq!(done.status.code(), Some(1));
    String::from_utf8_lossy(&done.stderr).into_owned()
}
