//! The mesh CA and `/v1/agent/connect`: certificates that openssl takes, given to who may have them, and whose service one
//! names.

use std::path::Path;
use std::process::Command;

use integration::{Agent, Clusters, Consul, LIMIT, wait_for};
use serde_json::{Value, json};

#[track_caller]
fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let done = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl runs");
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "openssl {}: {said}", arguments.join(" "));
    said
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("a file");
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[test]
fn a_leaf_is_taken_by_openssl_against_the_roots() {
    let agent = Agent::start("east");
    let consul = Consul::socket(&agent);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let roots = consul.get("/v1/connect/ca/roots").expect(200);
    let shown = roots.json();
    let root = &shown["Roots"][0];
    assert_eq!((&root["Active"], &root["ID"]), (&json!(true), &shown["ActiveRootID"]));
    assert_eq!(consul.get("/v1/agent/connect/ca/roots").expect(200).json(), shown);
    let pem = consul.get("/v1/connect/ca/roots?pem=true").expect(200);
    assert_eq!(pem.header("content-type"), Some("application/pem-certificate-chain"));
    assert_eq!(pem.text(), text(root, "RootCert"));
    write(folder, "root.pem", &pem.text());

    let answer = consul.get("/v1/agent/connect/ca/leaf/web").expect(200);
    let leaf = answer.json();
    let uri = format!("spiffe://{}/ns/default/dc/east/svc/web", text(&shown, "TrustDomain"));
    assert_eq!((text(&leaf, "Service"), text(&leaf, "ServiceURI")), ("web", uri.as_str()));
    write(folder, "leaf.pem", text(&leaf, "CertPEM"));
    write(folder, "leaf.key", text(&leaf, "PrivateKeyPEM"));
    openssl(folder, &["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "root.pem", "leaf.pem"]);
    openssl(folder, &["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "root.pem", "leaf.pem"]);
    let described = openssl(folder, &["x509", "-in", "leaf.pem", "-noout", "-text"]);
    assert!(described.contains(&format!("URI:{uri}")), "{described}");
    let public = ["x509", "-in", "leaf.pem", "-noout", "-pubkey"];
    assert_eq!(openssl(folder, &public), openssl(folder, &["pkey", "-in", "leaf.key", "-pubout"]));
    // The same to who asks again, until it is time for another.
    let again = consul.get("/v1/agent/connect/ca/leaf/web").expect(200);
    assert_eq!((again.json(), again.index()), (leaf.clone(), answer.index()));
    let waited = consul.get(&format!("/v1/agent/connect/ca/leaf/web?index={}&wait=50ms", answer.index()));
    assert_eq!(waited.expect(200).json(), leaf);

    // A key that stays where it is.
    openssl(folder, &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "own.key"]);
    let subject = ["-subj", "/CN=evil", "-addext", "subjectAltName=DNS:evil.example"];
    openssl(folder, &[&["req", "-new", "-key", "own.key", "-out", "own.csr"], &subject[..]].concat());
    let request = std::fs::read_to_string(folder.join("own.csr")).expect("a request");
    let signed = consul.curl("PUT", "/v1/agent/connect/ca/leaf/web", &request).expect(200).json();
    assert!(signed.get("PrivateKeyPEM").is_none());
    write(folder, "own.pem", text(&signed, "CertPEM"));
    openssl(folder, &["verify", "-x509_strict", "-CAfile", "root.pem", "own.pem"]);
    let described = openssl(folder, &["x509", "-in", "own.pem", "-noout", "-text"]);
    assert!(described.contains(&uri) && !described.contains("evil"), "{described}");
    consul.curl("PUT", "/v1/agent/connect/ca/leaf/web", "nonsense").says(400, "certificate signing request");
    consul.curl("PUT", "/v1/connect/ca/configuration", "{}").says(405, "method PUT not allowed");
    let key = text(&leaf, "PrivateKeyPEM").lines().nth(1).expect("a key").to_owned();
    assert!(!agent.log().contains(&key));
}

#[test]
fn the_authority_outlives_a_restart() {
    let mut agent = Agent::start("east");
    let roots = || Consul::socket(&agent).get("/v1/connect/ca/roots").expect(200).json();
    let before = roots();
    agent.restart();
    let after = Consul::socket(&agent).get("/v1/connect/ca/roots").expect(200).json();
    assert_eq!(before, after);
}

#[test]
fn a_leaf_is_given_to_who_may_be_the_service_and_to_nobody_else() {
    let agent = Agent::start("east");
    let leaf = "/v1/agent/connect/ca/leaf/web";
    Consul::anonymous(&agent).get(leaf).says(403, "Permission denied");
    let bearer = |name: &str, permissions: &[(&str, &str)]| {
        Consul::bearer(&agent, &Consul::token(&agent, name, permissions))
    };
    let viewer = bearer("viewer", &[("server", "viewer")]);
    viewer.get(leaf).says(403, "can_issue_leaf");
    viewer.get("/v1/connect/ca/roots").expect(200);
    let authorize = json!({ "Target": "web", "ClientCertURI": "spiffe://x.consul/ns/default/dc/x/svc/web" });
    viewer.post("/v1/agent/connect/authorize", &authorize).says(403, "Permission denied");
    bearer("editor", &[("server", "can_edit_services")]).get(leaf).expect(200);
}

#[test]
fn whose_service_a_certificate_names_is_told_by_its_trust_domain() {
    let clusters = Clusters::linked(
        r#"
service "db" {
  port = 9090
}
service_intentions "db" {
  sources = [
    { name = "web", peer = "west", action = "allow" },
    { name = "web", action = "deny" },
    { name = "api", action = "allow" },
  ]
}
"#,
        "",
    );
    let (east, west) = (Consul::socket(&clusters.east), Consul::socket(&clusters.west));
    let uri = |consul: &Consul, service: &str| {
        let leaf = consul.get(&format!("/v1/agent/connect/ca/leaf/{service}")).expect(200).json();
        text(&leaf, "ServiceURI").to_owned()
    };
    let ask = |uri: &str| {
        let body = json!({ "Target": "db", "ClientCertURI": uri, "ClientCertSerial": "01" });
        let answer = east.post("/v1/agent/connect/authorize", &body).expect(200).json();
        (answer["Authorized"].as_bool().expect("true or false"), text(&answer, "Reason").to_owned())
    };
    let peered = uri(&west, "web");
    wait_for("west's trust bundle has arrived", LIMIT, || ask(&peered).0.then_some(()));
    for (uri, authorized, reason) in [
        (
            peered,
            true,
            "Matched L4 intention: peer(west)/default/web => default/db (Precedence: 9, Action: ALLOW)",
        ),
        (
            uri(&east, "web"),
            false,
            "Matched L4 intention: default/web => default/db (Precedence: 9, Action: DENY)",
        ),
        (
            uri(&east, "api"),
            true,
            "Matched L4 intention: default/api => default/db (Precedence: 9, Action: ALLOW)",
        ),
        (uri(&west, "api"), false, "Default intention policy"),
        (
            "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/west/svc/web".to_owned(),
            false,
            "The certificate is of a trust domain that is neither this cluster's nor a known peer's",
        ),
    ] {
        assert_eq!(ask(&uri), (authorized, reason.to_owned()), "{uri}");
    }
    let post = |body: Value| east.post("/v1/agent/connect/authorize", &body);
    post(json!([])).says(400, "Request decode failed: ");
    post(json!({})).says(400, "Target service must be specified");
    let tubes = json!({ "Target": "web", "ClientCertURI": "tubes" });
    post(tubes).says(400, "ClientCertURI not a valid Connect identifier");
    let agent = json!({ "Target": "web", "ClientCertURI": "spiffe://x.consul/agent/server/dc/x" });
    post(agent).says(400, "ClientCertURI not a valid Service identifier");
}
