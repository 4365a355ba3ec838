//! Config entries: how fast they are written beside bare SQLite, how long 10,000 of them take at once, and what one
//! decision among 100,000 intentions costs.
//!
//! Prints one JSON document. The bare store commits one row of the same size a time, with the agent's own settings
//! (WAL, `synchronous=FULL`), on the same disk and in turns with the agent, so that both have the same disk.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use integration::http::read_answer;
use integration::measure::{alone, beside, build, command, median, percentile};
use integration::{Agent, Operator};
use rusqlite::Connection;
use schema::access::{Intentions, Source, decide};
use schema::kind::service_intentions::{Action, IntentionSource};
use schema::record::{Record, RecordKey};
use serde_json::json;

const ROUNDS: usize = 5;
const WRITES_A_ROUND: usize = 200;
const ENTRIES: usize = 10_000;
const INTENTIONS: usize = 100_000;
const DECISIONS: usize = 200_000;

fn main() {
    let (agent_rate, bare_rate, p99) = writes();
    let (apply_s, write_s) = many();
    let report = json!({
        "bench": "config",
        "build": build(),
        "write": {
            "agent": alone(agent_rate, "writes/s"),
            "bare_sqlite": alone(bare_rate, "commits/s"),
            "ratio": beside(agent_rate / bare_rate, 0.5, "of bare SQLite"),
            "p99": alone(p99, "ms"),
        },
        "entries_10000": {
            "apply": beside(apply_s, 3.0, "s"),
            "config_write": beside(write_s, 3.0, "s"),
        },
        "check_100000": beside(decision_us(), 10.0, "µs"),
    });
    println!("{report:#}");
}

/// Writes a second over one kept connection, commits a second of bare SQLite, and the slow end of a write, ms.
fn writes() -> (f64, f64, f64) {
    let agent = Agent::start("east");
    let mut stream = UnixStream::connect(agent.socket()).expect("the agent's socket");
    let mut answers = BufReader::new(stream.try_clone().expect("a second handle"));
    let bare = Bare::open(&agent.data_dir().join("bare.db"));
    let (mut ours, mut theirs, mut each) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let began = Instant::now();
        for turn in 0..WRITES_A_ROUND {
            let sent = Instant::now();
            let body = entry(round * WRITES_A_ROUND + turn);
            let length = body.len();
            write!(
                stream,
                "PUT /v1/config HTTP/1.1\r\nhost: agent\r\ncontent-length: {length}\r\n\r\n{body}"
            )
            .expect("the agent listens");
            let (status, _, answer) = read_answer(&mut answers).expect("an answer");
            assert_eq!((status, &answer[..]), (200, &b"true"[..]));
            each.push(sent.elapsed().as_secs_f64() * 1000.0);
        }
        ours.push(rate(began));
        let began = Instant::now();
        for turn in 0..WRITES_A_ROUND {
            bare.commit(turn, &entry(round * WRITES_A_ROUND + turn));
        }
        theirs.push(rate(began));
    }
    (median(ours), median(theirs), percentile(each, 99))
}

/// Another content each time: one that is there already would be no write.
fn entry(number: usize) -> String {
    json!({
        "Kind": "service-intentions",
        "Name": format!("service-{}", number % 100),
        "Sources": [{ "Name": "frontend", "Action": "allow", "Description": format!("write {number}") }],
    })
    .to_string()
}

#[allow(clippy::cast_precision_loss)] // far below what a float counts exactly
fn rate(began: Instant) -> f64 {
    WRITES_A_ROUND as f64 / began.elapsed().as_secs_f64()
}

struct Bare(Connection);

impl Bare {
    fn open(path: &Path) -> Self {
        let connection = Connection::open(path).expect("a database");
        connection.pragma_update(None, "journal_mode", "wal").expect("WAL");
        connection.pragma_update(None, "synchronous", "full").expect("FULL");
        connection
            .execute("CREATE TABLE entry (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID", [])
            .expect("a table");
        Self(connection)
    }

    fn commit(&self, turn: usize, value: &str) {
        let mut insert = self
            .0
            .prepare_cached(
                "INSERT INTO entry VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            )
            .expect("a statement");
        insert.execute((format!("service-{}", turn % 100), value.as_bytes())).expect("a commit");
    }
}

/// Seconds that 10,000 entries take: as files of a manifest, and as one file for `config write`.
fn many() -> (f64, f64) {
    let agent = Agent::start("east");
    let operator = Operator::new();
    operator.trusted_by(&agent);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("east");
    std::fs::create_dir_all(&root).expect("a folder");
    let manifest = "manifest \"bench\" {\n  cluster = \"east\"\n}\n";
    std::fs::write(root.join("manifest.hcl"), manifest).expect("a file");
    let (mut blocks, mut entries) = (String::new(), String::new());
    for number in 0..ENTRIES {
        // Writing to a String does not fail.
        let _ = writeln!(
            blocks,
            "service_intentions \"declared-{number}\" {{\n  sources = [{{ name = \"frontend\", action = \"allow\" }}]\n}}"
        );
        let _ = writeln!(
            entries,
            "Kind = \"service-intentions\"\nName = \"written-{number}\"\nSources = [{{ Name = \"frontend\", Action = \"allow\" }}]"
        );
    }
    std::fs::write(root.join("all.hcl"), blocks).expect("a file");
    std::fs::write(folder.path().join("entries.hcl"), entries).expect("a file");
    let run = |arguments: &[&str]| {
        let cost = command(operator.config_dir(), folder.path(), arguments);
        assert_eq!(cost.code, Some(0), "comity {}", arguments.join(" "));
        cost.wall_s
    };
    let apply = run(&["apply", "east", "--yes"]);
    (apply, run(&["config", "write", "entries.hcl", "--remote", "east"]))
}

/// One decision among many intentions, in this process.
#[allow(clippy::cast_precision_loss)] // far below what a float counts exactly
fn decision_us() -> f64 {
    let rule = |action| {
        Record::ServiceIntentions(IntentionSource {
            action,
            description: String::new(),
            permissions: Vec::new(),
        })
    };
    let records: Vec<(RecordKey, Record)> = (0..INTENTIONS)
        .map(|number| {
            let (destination, source, peer) = (number / 10, number % 10, number % 3);
            let origin = if peer == 0 { "@".to_owned() } else { format!("peer-{peer}") };
            let key = format!("service_intentions/service-{destination}/{origin}/source-{source}");
            let action = if number % 2 == 0 { Action::Allow } else { Action::Deny };
            (key.parse().expect("a key"), rule(action))
        })
        .collect();
    let intentions = Intentions::from_records(records.iter().map(|(key, record)| (key, record)));
    let asked: Vec<_> = (0..1000)
        .map(|number| {
            let peer = if number % 2 == 0 { None } else { Some("peer-1".parse().expect("a name")) };
            let source = Source { peer, service: format!("source-{}", number % 12).parse().expect("a name") };
            (source, format!("service-{}", number * 11 % 12_000).parse().expect("a name"))
        })
        .collect();
    let began = Instant::now();
    for (source, destination) in asked.iter().cycle().take(DECISIONS) {
        black_box(decide(black_box(source), black_box(destination), &intentions));
    }
    began.elapsed().as_secs_f64() * 1e6 / DECISIONS as f64
}
