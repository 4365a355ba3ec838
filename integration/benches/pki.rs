//! What a revocation list of a hundred thousand entries costs whoever connects, and how long anybody waits while one
//! is read anew: `integration/bench pki`. Prints one JSON document.
//!
//! Handshakes go to two agents in turn, alike but for the list, each handshake on a connection of its own and with one
//! small request, so that the client has been judged; the difference of the medians is what the list costs, and what
//! else the machine does then changes both. The same for the lookup alone, in this process. Then one client connects
//! again and again while the file is replaced by newer lists, and the longest handshakes are set beside the longest of
//! as many without that.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::trust::certificate::KeyPair;
use agent::trust::pki::{Pki, Unknowns, Word};
use agent::trust::shown::Shown;
use integration::authority::put;
use integration::measure::{alone, beside, build, median};
use integration::{Agent, Authority, Http, LIMIT, wait_for};
use jiff::Timestamp;
use serde_json::{Value, json};

const ENTRIES: u64 = 100_000;
/// Handshakes with each agent of which the median counts.
const HANDSHAKES: usize = 1500;
/// Times that the file is replaced.
const RELOADS: u64 = 20;
/// What the list may add to a handshake, and for how long anybody may be kept waiting.
const GOAL_US: f64 = 50.0;
const GOAL_STALL_MS: f64 = 5.0;
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
/// A client that is not revoked.
const CLIENT: u64 = ENTRIES * 3 + 1;

fn main() {
    let authority = Authority::new("clients");
    let client = authority.client("laptop", CLIENT);
    let (without, with) = (agent(&authority), agent(&authority));
    load(&with, &authority, 1);
    let (without, loaded) = (Client::new(&without, &client), Client::new(&with, &client));
    let (mut bare, mut checked) = (Vec::new(), Vec::new());
    for _ in 0..HANDSHAKES {
        bare.push(without.once());
        checked.push(loaded.once());
    }
    let (bare, checked) = (micros(&bare), micros(&checked));

    let quiet = longest(|| (0..HANDSHAKES * 2).map(|_| loaded.once()).collect());
    let busy = longest(|| reloading(&with, &authority, &loaded));
    let report = json!({
        "bench": "pki",
        "build": build(),
        "entries": ENTRIES,
        "handshakes": {
            "without_list": alone(bare, "us"),
            "with_list": alone(checked, "us"),
            "added": beside(checked - bare, GOAL_US, "us at most"),
        },
        "lookup": lookup(&authority, &client),
        "stall": { "reloads": RELOADS, "without_reloads": quiet, "while_reloading": busy, "goal_ms": GOAL_STALL_MS },
    });
    println!("{report:#}");
}

/// An agent in PKI mode that trusts whom the authority signed.
fn agent(authority: &Authority) -> Agent {
    let mut agent = Agent::prepare("east");
    put(&agent, "server.ca", &authority.pem());
    agent.launch();
    agent.wait_ready();
    let body = json!({ "config": { "core.trust_ca_certificates": "true" } });
    Http::socket(&agent).patch("/1.0", &body).expect(200);
    agent
}

fn entries() -> impl Iterator<Item = u64> {
    (1..=ENTRIES).map(|number| number * 3)
}

/// Puts a list in place and waits until it is in force.
fn load(agent: &Agent, authority: &Authority, count: u64) {
    put(agent, "ca.crl", &authority.list(count, entries()));
    wait_loaded(agent, count);
}

fn wait_loaded(agent: &Agent, count: u64) {
    wait_for("the list is in force", LIMIT, || {
        let status = Http::socket(agent).get("/control/v1/status").expect(200).json();
        let number = &status["pki"]["authorities"][0]["list_number"];
        (number.as_str()?.parse() == Ok(count)).then_some(())
    });
}

/// Somebody who connects again and again.
struct Client {
    http: Http,
}

impl Client {
    fn new(agent: &Agent, pair: &Arc<KeyPair>) -> Self {
        Self { http: Http::showing(agent, Some(pair.clone())) }
    }

    fn once(&self) -> Duration {
        let began = Instant::now();
        let mut stream = self.http.connect().expect("the agent listens");
        stream.write_all(REQUEST).expect("it takes a request");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("it answers");
        assert_eq!(&head, b"HTTP/1.1 200");
        began.elapsed()
    }
}

/// Handshakes while newer lists come in, one after the other.
fn reloading(agent: &Agent, authority: &Authority, client: &Client) -> Vec<Duration> {
    // Made beforehand: making them is no part of what is measured.
    let lists: Vec<String> = (2..2 + RELOADS).map(|count| authority.list(count, entries())).collect();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            for (count, list) in (2..).zip(&lists) {
                put(agent, "ca.crl", list);
                wait_loaded(agent, count);
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        let mut took = Vec::new();
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            took.push(client.once());
        }
        replacing.join().expect("every list is taken");
        took
    })
}

fn longest(run: impl FnOnce() -> Vec<Duration>) -> Value {
    let mut took = run();
    took.sort_unstable();
    let at = |share: usize| alone(micros(&took[(took.len() - 1) * share / 1000..][..1]) / 1000.0, "ms");
    json!({ "handshakes": took.len(), "median": at(500), "p99": at(990), "longest": at(1000) })
}

/// What it takes to look a certificate up, of a connection that stands: with a list and without.
fn lookup(authority: &Authority, client: &KeyPair) -> Value {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("server.ca"), authority.pem()).expect("a file");
    let without = per_lookup(folder.path(), client);
    let list = authority.list(1, entries());
    std::fs::write(folder.path().join("ca.crl"), list).expect("a file");
    let began = Instant::now();
    open(folder.path());
    let read_ms = began.elapsed().as_secs_f64() * 1000.0;
    let with = per_lookup(folder.path(), client);
    json!({
        "without_list": alone(without, "ns"), "with_list": alone(with, "ns"), "reading_the_list": alone(read_ms, "ms"),
    })
}

fn open(folder: &Path) -> Arc<Pki> {
    let ask = Box::new(|| Unknowns::AreTrusted);
    Pki::open(folder, None, ask, Timestamp::now()).expect("authorities")
}

fn per_lookup(folder: &Path, client: &KeyPair) -> f64 {
    const LOOKUPS: u32 = 10_000;
    let pki = open(folder);
    let (shown, now) = (Shown::new(client.certificate.clone()), Timestamp::now());
    assert_eq!(pki.word(&shown, now).0, Word::Signed);
    median((0..9).map(|_| {
        let began = Instant::now();
        for _ in 0..LOOKUPS {
            black_box(pki.word(black_box(&shown), now));
        }
        began.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS)
    }))
}

fn micros(took: &[Duration]) -> f64 {
    median(took.iter().map(|took| took.as_secs_f64() * 1e6))
}
