//! How many requests and handshakes a second one worker thread serves, beside nginx in the same run, and how long the
//! list of ten thousand identities takes. Prints one JSON document.
//!
//! Both servers have one worker, the same P-256 certificates, ask for a client's certificate and insist on it (ours:
//! who has none is not trusted, so would get another answer), resume nothing, log no request that went well, and agree
//! on the same key exchange and cipher, which is checked and printed. Each round measures one right after the other,
//! and the ratio is the median of the rounds': what else the machine does then changes both. `per_cpu_second` is what
//! the servers' own processor time allows, which other load hardly changes.
//!
//! What was done for it, and what the ratio of requests was after (two cores, both of them busy with other builds):
//! 0.31 before. A certificate read once for its connection, no line in the log for who is trusted and only looks, no
//! system call for a request's id, answers written without a tree of values: 0.43. The API's state behind one pointer
//! (copying its twenty parts was 13 % of all time), what all requests share as one function round the router instead of
//! two layers in every route, and `GET /1.0` without copies of what never changes: 0.68. Its answers remembered while
//! all that they say is the same: 0.88, and 0.77 of nginx for each second of processor time. What is left is spread
//! thin: the kernel's share, memory for hyper's and axum's boxes, TLS. Handshakes needed nothing: 2.1 to 3.3 times
//! nginx's, whose OpenSSL 3.0 is slower at P-256.

use std::path::Path;
use std::sync::Arc;

use agent::trust::certificate::KeyPair;
use integration::measure::{alone, beside, build, cpu_s, median};
use integration::{Agent, Http, certificate, http};
use serde_json::{Value, json};

mod handshakes;
mod identities;
mod load;
mod nginx;

use load::Load;
use nginx::Nginx;

const ROUNDS: usize = 5;

fn main() {
    // Cargo hands its own flags on.
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let client = certificate::p256(folder.path(), "client");
    let agent = agent(&client);
    let body = Http::showing(&agent, Some(client.clone())).get("/1.0").expect(200).body;
    let nginx = Nginx::start(folder.path(), &agent.data_dir(), &folder.path().join("client.crt"), &body);
    let mut report = json!({ "bench": "api", "build": build(), "rounds": ROUNDS, "body_bytes": body.len() });
    if wanted("requests") {
        let load = Load::new(folder.path());
        report["requests"] = requests(&agent, &nginx, &load, "http/1.1", Some(0.7));
        report["requests_h2"] = requests(&agent, &nginx, &load, "h2", None);
    }
    if wanted("handshakes") {
        report["handshakes"] = handshakes(&agent, &nginx, &client);
    }
    drop((agent, nginx));
    if wanted("identities") {
        report["identities"] = identities::list();
    }
    println!("{report:#}");
}

/// An agent with one worker and a P-256 cluster certificate, by which `client` is trusted.
fn agent(client: &Arc<KeyPair>) -> Agent {
    let mut agent = Agent::prepare("east").arguments(&["--worker-threads", "1"]);
    certificate::p256(&agent.data_dir(), "cluster");
    private(&agent.data_dir());
    agent.launch();
    agent.wait_ready();
    let body = json!({ "type": "client", "name": "load", "certificate": http::der_base64(client) });
    Http::socket(&agent).post("/1.0/certificates", &body).expect(201);
    agent
}

fn private(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).expect("a folder");
}

/// What one server did: how much in a second of the clock, and in a second of its own processor time.
#[derive(Clone, Copy)]
pub struct Rate {
    pub wall: f64,
    pub cpu: f64,
}

/// Measures `run`, which gives how much was done in how many seconds, against the processor time of `pid`.
pub fn rate(pid: u32, run: impl FnOnce() -> (f64, f64)) -> Rate {
    let before = cpu_s(pid).unwrap_or(f64::NAN);
    let (done, seconds) = run();
    let used = cpu_s(pid).unwrap_or(f64::NAN) - before;
    Rate { wall: done / seconds, cpu: done / used }
}

fn requests(agent: &Agent, nginx: &Nginx, load: &Load, protocol: &str, goal: Option<f64>) -> Value {
    let pid = agent.pid().expect("the agent runs");
    let address = agent.address();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut agreed = Vec::new();
    for _ in 0..ROUNDS {
        for (rates, address, pid) in
            [(&mut theirs, nginx.address.as_str(), nginx.worker()), (&mut ours, address.as_str(), pid)]
        {
            rates.push(rate(pid, || {
                let done = load.run(address, protocol);
                agreed.push(done.agreed);
                (done.requests, done.seconds)
            }));
        }
    }
    assert!(agreed.iter().all(|one| one == &agreed[0]), "they did not agree on the same: {agreed:?}");
    compared(&ours, &theirs, goal, json!({ "agreed": agreed[0], "protocol": protocol }))
}

fn handshakes(agent: &Agent, nginx: &Nginx, client: &Arc<KeyPair>) -> Value {
    let pid = agent.pid().expect("the agent runs");
    let address = agent.address();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut agreed = Vec::new();
    for _ in 0..ROUNDS {
        for (rates, address, pid) in
            [(&mut theirs, nginx.address.as_str(), nginx.worker()), (&mut ours, address.as_str(), pid)]
        {
            rates.push(rate(pid, || {
                let done = handshakes::run(address, client);
                agreed.push(done.agreed);
                (done.count, done.seconds)
            }));
        }
    }
    assert!(agreed.iter().all(|one| one == &agreed[0]), "they did not agree on the same: {agreed:?}");
    compared(&ours, &theirs, Some(0.8), json!({ "agreed": agreed[0] }))
}

fn compared(ours: &[Rate], theirs: &[Rate], goal: Option<f64>, mut about: Value) -> Value {
    let middle = |rates: &[Rate], of: fn(&Rate) -> f64| median(rates.iter().map(of));
    let ratio = |of: fn(&Rate) -> f64| median(ours.iter().zip(theirs).map(|(a, b)| of(a) / of(b)));
    let wall = |rate: &Rate| rate.wall;
    let cpu = |rate: &Rate| rate.cpu;
    about["ours"] = alone(middle(ours, wall), "1/s");
    about["nginx"] = alone(middle(theirs, wall), "1/s");
    about["ratio"] = match goal {
        Some(goal) => beside(ratio(wall), goal, "of nginx"),
        None => alone(ratio(wall), "of nginx"),
    };
    about["per_cpu_second"] = json!({
        "ours": alone(middle(ours, cpu), "1/s"),
        "nginx": alone(middle(theirs, cpu), "1/s"),
        "ratio": alone(ratio(cpu), "of nginx"),
    });
    about
}
