//! PKI mode: `server.ca`, `ca.crl`, `client.ca`. Each case has agents of its own: the mode is a matter of the start.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use integration::authority::put;
use integration::http::der_base64;
use integration::{Agent, Authority, Http, LIMIT, Operator, wait_for};
use serde_json::{Value, json};

use super::Case;
use super::world::{encode, last_parts};

pub const CASES: &[Case] = &[
    ("pki-003", |_| revoked_in_the_store(&json!({ "restricted": false, "projects": [] }))),
    ("pki-004", |_| revoked_and_removed(&json!({ "restricted": false, "projects": [] }))),
    ("pki-006", |_| {
        let pki = Pki::start();
        // An entry of the trust store, by the command line, which shows a certificate of the authority.
        let client = pki.client("restricted", 6);
        let token = pki.token("c006", &json!({ "restricted": true, "projects": ["default"] }));
        client.post("/1.0/certificates", &json!({ "trust_token": token })).expect(201);
        assert!(pki.certificates().contains(&client.fingerprint()));
        assert_eq!(client.get("/1.0").metadata()["auth"], "trusted");
        let operator = Operator::new();
        pki.authority.client_in(operator.config_dir(), "laptop", 66);
        let minted = pki.admin.post("/1.0/auth/identities/tls", &json!({ "name": "f006", "token": true }));
        operator.run(&["remote", "add", "east", &encode(&minted.expect(201).metadata())]).success();
        assert!(pki.identities().contains(&"f006 Client certificate".to_owned()), "{:?}", pki.identities());
        assert_eq!(pki.certificates().len(), 1, "an identity with groups is not in the trust list");
    }),
    ("pki-007", |_| revoked_in_the_store(&json!({ "restricted": true, "projects": ["default"] }))),
    ("pki-008", |_| revoked_and_removed(&json!({ "restricted": true, "projects": ["default"] }))),
    ("pki-009", |_| {
        let pki = Pki::start();
        let client = pki.client("grained", 9);
        client.post("/1.0/auth/identities/tls", &json!({ "trust_token": "bar" })).expect(403);
        client.post("/1.0/certificates", &json!({ "trust_token": "bar" })).expect(403);
        assert_eq!(client.get("/1.0").metadata()["auth"], "untrusted");
    }),
    ("pki-013", |_| {
        let pki = Pki::start();
        let client = pki.client("restricted", 13);
        pki.store(&client, "c013", &json!({ "restricted": true, "projects": ["default"] }));
        pki.trust_unknowns("true");
        let server = client.get("/1.0").expect(200).metadata();
        assert!(server["config"].is_null() && server["auth_user_method"] == "tls", "{server}");
    }),
    ("pki-014", |_| {
        let pki = Pki::start();
        let client = pki.client("grained", 14);
        let body = json!({ "name": "i014", "certificate": pem(&client), "groups": [] });
        pki.admin.post("/1.0/auth/identities/tls", &body).expect(201);
        pki.trust_unknowns("true");
        let server = client.get("/1.0").expect(200).metadata();
        assert!(server["config"].is_null() && server["auth_user_method"] == "tls", "{server}");
    }),
    ("pki-015", |_| {
        let pki = Pki::start();
        pki.trust_unknowns("true");
        let operator = Operator::new();
        pki.authority.client_in(operator.config_dir(), "laptop", 15);
        let address = pki.agent.address();
        operator.run(&["remote", "add", "east", &address, "--accept-certificate"]).success();
        operator.run(&["remote", "switch", "east"]).success();
        operator.run(&["auth", "group", "create", "g015"]).success();
        assert_eq!(pki.certificates(), Vec::<String>::new());
        assert_eq!(pki.identities(), Vec::<String>::new());
    }),
    ("pki-017", |_| {
        let mut pki = Pki::start();
        pki.trust_unknowns("true");
        let client = pki.client("laptop", 17);
        assert_eq!(client.get("/1.0").metadata()["auth_user_method"], "pki");
        pki.revoke_and_restart(17);
        untrusted(&client);
    }),
    ("pki-020", |_| {
        let pki = Pki::start();
        let stranger = Http::stranger(&pki.agent);
        for trusting in ["", "true"] {
            pki.trust_unknowns(trusting);
            let token = pki.token("c020", &json!({}));
            let words = "The certificate is not trusted by the CA or has been revoked";
            stranger.post("/1.0/certificates", &json!({ "trust_token": token })).refused(403, words);
            // Used up by that, as with LXD: the very holder of a good certificate cannot take it any more.
            let client = pki.client("late", 20);
            client
                .post("/1.0/certificates", &json!({ "trust_token": token }))
                .expect(if trusting.is_empty() { 403 } else { 409 });
            let minted = pki.admin.post(
                "/1.0/auth/identities/tls",
                &json!({ "name": format!("i020{trusting}"), "token": true }),
            );
            let token = encode(&minted.expect(201).metadata());
            stranger.post("/1.0/auth/identities/tls", &json!({ "trust_token": token })).refused(403, words);
            let pending = format!("i020{trusting} Client certificate (pending)");
            assert!(pki.identities().contains(&pending), "{:?}", pki.identities());
            let body = json!({ "type": "client", "name": "x", "certificate": der_base64(stranger.identity.as_ref().expect("one")) });
            pki.admin.post("/1.0/certificates", &body).refused(403, words);
            assert_eq!(pki.certificates(), Vec::<String>::new());
        }
    }),
    ("pki-024", |_| {
        let (agent, operator) = (Agent::start("east"), Operator::new());
        operator.trusted_by(&agent);
        // Closed to everybody else, where LXD lets the group read.
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode(&agent.data_dir()), 0o700);
        for (folder, stem) in [(agent.data_dir(), "cluster"), (operator.config_dir().to_owned(), "client")] {
            assert_eq!(mode(&folder.join(format!("{stem}.key"))), 0o600, "{stem}");
            let text = std::process::Command::new("openssl")
                .args(["x509", "-noout", "-text", "-in"])
                .arg(folder.join(format!("{stem}.crt")))
                .output()
                .expect("openssl runs");
            let text = String::from_utf8_lossy(&text.stdout).into_owned();
            assert!(text.contains("secp384r1") && text.contains("Version: 3"), "{text}");
            let years = std::process::Command::new("openssl")
                .args(["x509", "-noout", "-checkend", &(3649 * 86400).to_string(), "-in"])
                .arg(folder.join(format!("{stem}.crt")))
                .output()
                .expect("openssl runs");
            assert!(years.status.success(), "it is valid for ten years");
        }
    }),
    ("pki-022", |_| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name).to_str().expect("it is UTF-8").to_owned();
        for arguments in
            [["ca", "initialize", "mycluster"], ["ca", "create-control-certificate", "127.0.0.1"]]
        {
            Operator::new().run_in(folder.path(), &arguments).success();
        }
        let (certificate, key) = (path("control-127.0.0.1.crt"), path("control-127.0.0.1.key"));
        let arguments = ["--server-cert", certificate.as_str(), "--server-key", key.as_str()];
        let mut agent = Agent::prepare("east").arguments(&arguments);
        agent.launch();
        agent.wait_ready();
        let add = |ca: Option<&str>| {
            let operator = Operator::new();
            if let Some(ca) = ca {
                std::fs::copy(ca, operator.config_dir().join("client.ca")).expect("a file");
            }
            let token = operator.run_on(&agent, &["trust", "add", "--name", "laptop", "--quiet"]).success();
            // The one line that is typed is the token: an answer to a question about the certificate it is not.
            operator.run_with(Path::new("."), &["remote", "add", "east", &agent.address()], &token.stdout)
        };
        let known = add(Some(&path("cluster.crt"))).success();
        assert!(!known.stderr.contains("ok (y/n"), "{}", known.stderr);
        assert!(add(None).exits(1).stderr.contains("ok (y/n"));
    }),
];

/// An agent in PKI mode.
struct Pki {
    authority: Authority,
    agent: Agent,
    admin: Http,
}

impl Pki {
    fn start() -> Self {
        let (authority, mut agent) = (Authority::new("clients"), Agent::prepare("east"));
        put(&agent, "server.ca", &authority.pem());
        agent.launch();
        agent.wait_ready();
        let admin = Http::socket(&agent);
        Self { authority, agent, admin }
    }

    fn client(&self, name: &str, number: u64) -> Http {
        Http::showing(&self.agent, Some(self.authority.client(name, number)))
    }

    fn trust_unknowns(&self, value: &str) {
        let body = json!({ "config": { "core.trust_ca_certificates": value } });
        self.admin.patch("/1.0", &body).expect(200);
    }

    fn token(&self, name: &str, access: &Value) -> String {
        let mut body = json!({ "type": "client", "name": name, "token": true });
        body.as_object_mut().expect("an object").extend(access.as_object().cloned().unwrap_or_default());
        let made = self.admin.post("/1.0/certificates", &body).expect(202).metadata();
        let metadata = &made["metadata"];
        encode(&json!({
            "client_name": name, "fingerprint": metadata["fingerprint"], "addresses": metadata["addresses"],
            "secret": metadata["secret"], "expires_at": metadata["expiresAt"],
        }))
    }

    fn store(&self, client: &Http, name: &str, access: &Value) {
        let certificate = der_base64(client.identity.as_ref().expect("it shows one"));
        let mut body = json!({ "type": "client", "name": name, "certificate": certificate });
        body.as_object_mut().expect("an object").extend(access.as_object().cloned().unwrap_or_default());
        self.admin.post("/1.0/certificates", &body).expect(201);
    }

    fn revoke_and_restart(&mut self, number: u64) {
        put(&self.agent, "ca.crl", &self.authority.list(1, [number]));
        self.agent.restart();
    }

    fn certificates(&self) -> Vec<String> {
        last_parts(&self.admin.get("/1.0/certificates").expect(200).metadata())
    }

    /// Identities with groups: name and type.
    fn identities(&self) -> Vec<String> {
        let list = self.admin.get("/1.0/auth/identities?recursion=1").expect(200).metadata();
        let shown = list.as_array().expect("a list").iter().map(|one| {
            format!(
                "{} {}",
                one["name"].as_str().unwrap_or_default(),
                one["type"].as_str().unwrap_or_default()
            )
        });
        shown.filter(|one| !one.contains("restricted)")).collect()
    }
}

fn revoked_in_the_store(access: &Value) {
    let mut pki = Pki::start();
    let client = pki.client("laptop", 3);
    pki.store(&client, "laptop", access);
    assert_eq!(client.get("/1.0").metadata()["auth"], "trusted");
    pki.revoke_and_restart(3);
    untrusted(&client);
}

/// As `GET /1.0` and a path that only the trusted may ask show it. (Instances, which LXD's test asks for, are not built.)
fn untrusted(client: &Http) {
    wait_for("it is trusted no more", LIMIT, || {
        (client.get("/1.0").expect(200).metadata()["auth"] == "untrusted").then_some(())
    });
    client.get("/1.0/certificates").refused(403, "Forbidden");
    client.get("/1.0/storage-pools").refused(403, "Forbidden");
}

fn revoked_and_removed(access: &Value) {
    let mut pki = Pki::start();
    let client = pki.client("laptop", 4);
    pki.store(&client, "laptop", access);
    pki.revoke_and_restart(4);
    pki.admin.delete(&format!("/1.0/certificates/{}", client.fingerprint())).expect(200);
    let words = "The certificate is not trusted by the CA or has been revoked";
    let token = pki.token("again", access);
    client.post("/1.0/certificates", &json!({ "trust_token": token })).refused(403, words);
    let minted = pki.admin.post("/1.0/auth/identities/tls", &json!({ "name": "pending", "token": true }));
    let token = encode(&minted.expect(201).metadata());
    client.post("/1.0/auth/identities/tls", &json!({ "trust_token": token })).refused(403, words);
    assert_eq!(pki.certificates(), Vec::<String>::new());
    assert_eq!(pki.identities(), ["pending Client certificate (pending)"]);
    untrusted(&client);
}

fn pem(client: &Http) -> String {
    client.identity.as_ref().expect("it shows one").pem.clone()
}
