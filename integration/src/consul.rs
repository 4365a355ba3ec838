//! Consul's users: requests as its clients send them, in each of the four ways that an agent takes them, and its own
//! command.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use agent::trust::certificate::KeyPair;
use serde_json::{Value, json};

use crate::http::{Answer, der_base64};
use crate::{Agent, Done, Http, Operator, certificate, consul, free_port, process};

/// Somebody who uses Consul's API of one agent.
#[derive(Clone)]
pub struct Consul {
    http: Http,
    /// What goes with every request, a token for example.
    headers: Vec<(String, String)>,
}

impl Consul {
    /// The machine's own administrator, over the unix socket.
    pub fn socket(agent: &Agent) -> Self {
        Self { http: Http::socket(agent), headers: Vec::new() }
    }

    /// Somebody who shows this certificate.
    pub fn showing(agent: &Agent, identity: Arc<KeyPair>) -> Self {
        Self { http: Http::showing(agent, Some(identity)), headers: Vec::new() }
    }

    /// Somebody whose new certificate was added as unrestricted.
    pub fn trusted(agent: &Agent) -> Self {
        Self { http: Http::trusted(agent), headers: Vec::new() }
    }

    /// Somebody who shows no certificate and has no token.
    pub fn anonymous(agent: &Agent) -> Self {
        Self { http: Http::anonymous(agent), headers: Vec::new() }
    }

    /// Somebody without a certificate, whose token goes over TLS.
    pub fn bearer(agent: &Agent, token: &str) -> Self {
        Self::anonymous(agent).with("x-consul-token", token)
    }

    /// Somebody with a token, at the plain-HTTP listener on this port.
    pub fn plain(port: u16, token: &str) -> Self {
        Self { http: Http::plain(port), headers: Vec::new() }.with("x-consul-token", token)
    }

    /// Somebody at the plain-HTTP listener who has no token.
    pub fn plain_anonymous(port: u16) -> Self {
        Self { http: Http::plain(port), headers: Vec::new() }
    }

    /// The same, with one more header on every request.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, &[], Some(&body.to_string()))
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], Some(&body.to_string()))
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None)
    }

    /// A body as `curl --data` sends it: whatever it is, it is called a form.
    #[track_caller]
    pub fn curl(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(method, path, &[("content-type", "application/x-www-form-urlencoded")], Some(body))
    }

    /// Sends one request over a connection of its own.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers: Vec<_> = own.chain(headers.iter().copied()).collect();
        self.http.send(method, path, &headers, body)
    }

    /// Waits for what comes after `index`, and gives it.
    #[track_caller]
    pub fn after(&self, path: &str, index: u64) -> Answer {
        let join = if path.contains('?') { '&' } else { '?' };
        self.get(&format!("{path}{join}index={index}&wait=10s"))
    }

    /// An agent with a plain-HTTP listener for Consul's tools, and that listener's port.
    pub fn agent(name: &str) -> (Agent, u16) {
        let port = free_port();
        let mut agent = Agent::prepare(name).arguments(&["--consul-http", &format!("127.0.0.1:{port}")]);
        agent.launch();
        agent.wait_ready();
        (agent, port)
    }

    /// The token of a new bearer called `name`, in a new group of the same name with these permissions, each a type
    /// of entity and an entitlement on all of it.
    #[track_caller]
    pub fn token(agent: &Agent, name: &str, permissions: &[(&str, &str)]) -> String {
        let operator = Operator::new();
        operator.run_on(agent, &["auth", "group", "create", name]).success();
        for (entity, entitlement) in permissions {
            let add = ["auth", "group", "permission", "add", name, entity, entitlement];
            operator.run_on(agent, &add).success();
        }
        let bearer = format!("bearer/{name}");
        operator.run_on(agent, &["auth", "identity", "create", &bearer, "--group", name]).success();
        let issued = operator.run_on(agent, &["auth", "identity", "token", "issue", &bearer]).success();
        let word = issued.stdout.split_whitespace().find(|word| word.starts_with("eyJ"));
        word.unwrap_or_else(|| panic!("no token: {}", issued.stdout)).to_owned()
    }
}

/// Somebody who uses Consul's own command with one agent.
#[derive(Debug, Clone)]
pub struct ConsulCommand {
    program: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl ConsulCommand {
    /// The machine's own administrator, over the unix socket; `None` where the command was not built.
    pub fn socket(agent: &Agent) -> Option<Self> {
        let address = format!("unix://{}", agent.socket().display());
        Some(Self { program: consul()?, environment: vec![("CONSUL_HTTP_ADDR", address)] })
    }

    /// Somebody whose new certificate, made in `folder`, was added as unrestricted.
    pub fn mutual(agent: &Agent, folder: &Path) -> Option<Self> {
        let program = consul()?;
        let pair = certificate::p256(folder, "consul");
        let body = json!({ "type": "client", "name": "consul", "certificate": der_base64(&pair) });
        Http::socket(agent).post("/1.0/certificates", &body).expect(201);
        let path = |name: &str| folder.join(name).display().to_string();
        let environment = vec![
            ("CONSUL_HTTP_ADDR", format!("https://{}", agent.address())),
            ("CONSUL_CLIENT_CERT", path("consul.crt")),
            ("CONSUL_CLIENT_KEY", path("consul.key")),
            ("CONSUL_CACERT", agent.data_dir().join("cluster.crt").display().to_string()),
            ("CONSUL_TLS_SERVER_NAME", agent.name().to_owned()),
        ];
        Some(Self { program, environment })
    }

    /// Somebody with a token at the plain-HTTP listener on this port.
    pub fn plain(port: u16, token: &str) -> Option<Self> {
        let environment =
            vec![("CONSUL_HTTP_ADDR", format!("127.0.0.1:{port}")), ("CONSUL_HTTP_TOKEN", token.to_owned())];
        Some(Self { program: consul()?, environment })
    }

    /// Runs `consul ARGUMENTS` in a folder, with `input` on its standard input.
    pub fn run_with(&self, folder: &Path, arguments: &[&str], input: &str) -> Done {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(folder).env_clear();
        // Times are shown in the time zone of whoever asks.
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).env("TZ", "UTC");
        process::run(&mut command, &format!("consul {}", arguments.join(" ")), input)
    }
}
