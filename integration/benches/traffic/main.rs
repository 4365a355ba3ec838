//! What carrying a connection costs, beside the proxies that people use for it, in the same run. Prints one JSON document.
//!
//! An app connects to A in the clear, A speaks mutual TLS 1.3 to B, B connects to a server in the clear, all on loopback.
//! A and B are two agents, or two of haproxy, nginx (`stream`) or stunnel as Debian builds them: one worker thread each,
//! P-256 certificates, the same cipher, each end verified by the other. They run side by side, and each round measures
//! one right after the other, so that what else the machine does meets all of them; of the rounds the median counts,
//! and the ratio is the median of the rounds' ratios to the proxy that was best. The processor time of A and B is
//! beside each rate: it is what other load changes least. `direct` is app and server without anything between.
//!
//! * `stream`, `streams`: Gbit/s over one connection and over eight, by iperf3; `back`: the same from server to app.
//! * `requests`: requests a second over 64 connections that are kept, by wrk; `steady`: the time an answer takes at half
//!   the best proxy's rate, from when its request was due (a request that had to wait for the one before it has waited,
//!   too).
//! * `connections`: connections a second, one request each, 64 at a time, by wrk. Beside the proxies above, haproxy and
//!   nginx also as they would be set up for this: in HTTP mode, keeping their TLS connections between A and B.
//! * `idle`: memory of a carried connection that nothing is sent over, and the time that a new one takes meanwhile.
//!
//! Arguments choose: names of rows, names of those measured, `rounds=N`, `seconds=N`, `idle=N`, `at=N` (requests a
//! second of `steady`). Without any, all is measured: ten minutes.

mod contender;
mod idle;
mod load;
mod origin;
mod ours;
mod peers;
mod rows;
mod steady;

use std::time::Duration;

use contender::Contender;
use integration::measure::build;
use ours::Ours;
use serde_json::json;

/// Rows, in the order in which they are measured.
const ROWS: [&str; 7] = ["stream", "streams", "back", "requests", "steady", "connections", "idle"];
/// Those measured. The last two only make connections.
const CONTENDERS: [&str; 7] = ["direct", "ours", "haproxy", "nginx", "stunnel", "haproxy_http", "nginx_http"];

/// What was asked for.
struct Wanted {
    words: Vec<String>,
    rounds: usize,
    time: Duration,
    idle: usize,
    /// Requests a second of `steady`, instead of half the best proxy's.
    at: Option<f64>,
}

impl Wanted {
    fn from_arguments() -> Self {
        let mut wanted =
            Self { words: Vec::new(), rounds: 3, time: Duration::from_secs(5), idle: 10_000, at: None };
        // Cargo hands its own flags on.
        for word in std::env::args().skip(1).filter(|argument| !argument.starts_with('-')) {
            let known = ROWS.contains(&word.as_str()) || CONTENDERS.contains(&word.as_str());
            match word.split_once('=') {
                Some(("rounds", number)) => wanted.rounds = number.parse().expect("rounds=N"),
                Some(("seconds", number)) => {
                    wanted.time = Duration::from_secs(number.parse().expect("seconds=N"));
                }
                Some(("idle", number)) => wanted.idle = number.parse().expect("idle=N"),
                Some(("at", number)) => wanted.at = Some(number.parse().expect("at=N")),
                None if known => wanted.words.push(word),
                _ => panic!(
                    "{word}: name rows ({ROWS:?}), whom to measure ({CONTENDERS:?}), or rounds=N, seconds=N, idle=N, at=N"
                ),
            }
        }
        wanted
    }

    /// Whether `name`, which is one of `all`, was named, or none of them was.
    fn has(&self, name: &str, all: &[&str]) -> bool {
        let named = |one: &&str| self.words.iter().any(|word| word == one);
        named(&name) || !all.iter().any(named)
    }

    fn row(&self, name: &str) -> bool {
        self.has(name, &ROWS)
    }

    fn contender(&self, name: &str) -> bool {
        self.has(name, &CONTENDERS)
    }
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(origin::COMMAND) {
        return origin::run();
    }
    let wanted = Wanted::from_arguments();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let origin = origin::Origin::start();
    let bulk = load::Receiver::start();
    let ours = wanted.contender("ours").then(|| Ours::start(origin.port(), bulk.port()));
    let mut contenders = Vec::new();
    if wanted.contender("direct") {
        contenders.push(Contender::direct(origin.port(), bulk.port()));
    }
    contenders.extend(ours.as_ref().map(Ours::contender));
    for start in [peers::haproxy, peers::nginx, peers::stunnel, peers::haproxy_http, peers::nginx_http] {
        contenders.extend(start(folder.path(), origin.port(), bulk.port(), &|name| wanted.contender(name)));
    }
    let mut report = json!({
        "bench": "traffic", "build": build(), "rounds": wanted.rounds, "seconds": wanted.time.as_secs(),
        "load_average_before": load_average(),
    });
    for row in ROWS {
        if !wanted.row(row) {
            continue;
        }
        // Whoever waits sees how far it is.
        eprintln!("traffic: {row}, load average {}", load_average());
        report[row] = match row {
            "idle" => idle::measure(&contenders, wanted.idle),
            "steady" => {
                let rate =
                    wanted.at.or_else(|| rows::best_peer_rate(&report["requests"]).map(|best| best / 2.0));
                rows::steady(&contenders, &wanted, rate.unwrap_or(30_000.0))
            }
            "requests" | "connections" => rows::web(row, &contenders, &wanted),
            _ => rows::bulk(row, &contenders, &wanted),
        };
    }
    report["load_average_after"] = json!(load_average());
    println!("{report:#}");
}

/// As the kernel tells it: over one, five and fifteen minutes.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
