//! What the cases of an area share: two agents, those who may do everything, and a way to make others.

use std::path::Path;
use std::sync::Arc;

use agent::trust::certificate::KeyPair;
use integration::http::{Answer, der_base64};
use integration::{Agent, Done, Http, Operator};
use serde_json::{Value, json};

pub struct World {
    pub east: Agent,
    pub west: Agent,
    /// Trusted by both, as remotes `east` (the default) and `west`.
    pub operator: Operator,
    /// The administrators of both, over the network.
    pub admin: Http,
    pub western: Http,
}

impl World {
    pub fn new() -> Self {
        let (mut east, mut west) = (Agent::prepare("east"), Agent::prepare("west"));
        east.launch();
        west.launch();
        east.wait_ready();
        west.wait_ready();
        let operator = Operator::new();
        operator.trusted_by(&east);
        operator.trusted_by(&west);
        operator.run(&["remote", "switch", "east"]).success();
        let (admin, western) = (Http::trusted(&east), Http::trusted(&west));
        Self { east, west, operator, admin, western }
    }

    /// Runs `comity ARGUMENTS`.
    pub fn comity(&self, arguments: &[&str]) -> Done {
        self.operator.run(arguments)
    }

    /// Runs `comity ARGUMENTS`, with something on its standard input.
    pub fn comity_with(&self, arguments: &[&str], input: &str) -> Done {
        self.operator.run_with(Path::new("."), arguments, input)
    }

    /// A new auth group on east.
    pub fn group(&self, name: &str) {
        self.admin.post("/1.0/auth/groups", &json!({ "name": name })).expect(201);
    }

    /// Sets what the group may do to these: entity type, URL, entitlement.
    pub fn permissions(&self, group: &str, permissions: &[(&str, &str, &str)]) -> Answer {
        let rows = permissions.iter().map(
            |(kind, url, entitlement)| json!({ "entity_type": kind, "url": url, "entitlement": entitlement }),
        );
        let body = json!({ "description": "", "permissions": rows.collect::<Vec<Value>>() });
        self.admin.put(&format!("/1.0/auth/groups/{group}"), &body)
    }

    /// A client whose rights are those of groups.
    pub fn identity(&self, name: &str, groups: &[&str]) -> Http {
        let http = Http::stranger(&self.east);
        let pair = http.identity.clone().expect("it shows one");
        let body = json!({ "name": name, "certificate": pair.pem, "groups": groups });
        self.admin.post("/1.0/auth/identities/tls", &body).expect(201);
        http
    }

    /// A client in the trust store, restricted to projects or not.
    pub fn client(&self, name: &str, projects: Option<&[&str]>) -> Http {
        let http = Http::stranger(&self.east);
        let pair = http.identity.clone().expect("it shows one");
        let body = json!({
            "type": "client", "name": name, "certificate": der_base64(&pair),
            "restricted": projects.is_some(), "projects": projects.unwrap_or_default(),
        });
        self.admin.post("/1.0/certificates", &body).expect(201);
        http
    }

    /// A token for a client of the trust store, as its text.
    pub fn token(&self, request: &Value) -> String {
        let operation = self.admin.post("/1.0/certificates", request).expect(202).metadata();
        let metadata = &operation["metadata"];
        let token = json!({
            "client_name": metadata["request"]["name"], "fingerprint": metadata["fingerprint"],
            "addresses": metadata["addresses"], "secret": metadata["secret"],
            "expires_at": metadata["expiresAt"],
        });
        encode(&token)
    }

    /// A token of the identities' kind, as its text.
    pub fn identity_token(&self, name: &str, groups: &[&str]) -> String {
        let body = json!({ "name": name, "token": true, "groups": groups });
        encode(&self.admin.post("/1.0/auth/identities/tls", &body).expect(201).metadata())
    }
}

/// A token as text.
pub fn encode(token: &Value) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(token.to_string())
}

/// What a token's text says.
pub fn decode(token: &str) -> Value {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(token.trim()).expect("a token is base64");
    serde_json::from_slice(&bytes).expect("a token is JSON")
}

/// The certificate that somebody shows.
pub fn shown(http: &Http) -> Arc<KeyPair> {
    http.identity.clone().expect("it shows one")
}

/// The last parts of the URLs of a list.
pub fn last_parts(list: &Value) -> Vec<String> {
    let urls = list.as_array().expect("a list").iter().filter_map(Value::as_str);
    urls.map(|url| url.rsplit('/').next().unwrap_or_default().to_owned()).collect()
}
