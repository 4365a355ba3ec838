//! The list of ten thousand identities: by the API, and by the command as people run it.

use agent::store::sqlite::SqliteStore;
use agent::store::value::encode;
use agent::store::{Op, Txn, keys};
use agent::trust::Access;
use agent::trust::certificate::KeyPair;
use agent::trust::identity::{IdentityKind, IdentityRecord};
use integration::measure::{alone, beside, command, median};
use integration::{Agent, Http, Operator};
use serde_json::{Value, json};

const IDENTITIES: usize = 10_000;
/// In one commit.
const AT_ONCE: usize = 500;
const RUNS: usize = 9;

/// Seconds, beside the goal.
pub fn list() -> Value {
    let mut agent = Agent::start("east");
    agent.terminate();
    fill(&agent);
    agent.launch();
    agent.wait_ready();
    let operator = Operator::new();
    operator.trusted_by(&agent);
    let http = Http::trusted(&agent);
    let paths = ["/1.0/auth/identities?recursion=1", "/1.0/certificates?recursion=1"];
    let mut report = json!({ "identities": IDENTITIES });
    for path in paths {
        if http.get(path).status != 200 {
            continue;
        }
        let times = (0..RUNS).map(|_| {
            let began = std::time::Instant::now();
            let answer = http.get(path).expect(200);
            let seconds = began.elapsed().as_secs_f64();
            assert!(answer.metadata().as_array().is_some_and(|rows| rows.len() >= IDENTITIES));
            seconds
        });
        report[path] = beside(median(times.collect::<Vec<_>>()), 0.2, "s");
    }
    for words in [&["auth", "identity", "list"][..], &["trust", "list"]] {
        let arguments = [&["--remote", "east"], words].concat();
        let times: Vec<_> =
            (0..RUNS).map(|_| command(operator.config_dir(), ".".as_ref(), &arguments)).collect();
        if times.iter().any(|cost| cost.code != Some(0)) {
            continue;
        }
        let name = format!("comity {}", words.join(" "));
        report[name.as_str()] = json!({
            "wall": beside(median(times.iter().map(|cost| cost.wall_s)), 0.2, "s"),
            "cpu": alone(median(times.iter().map(|cost| cost.cpu_s)), "s"),
        });
    }
    report
}

fn fill(agent: &Agent) {
    let store = SqliteStore::open(&agent.data_dir().join("store.sqlite"))
        .expect("the store of an agent that is down");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ops: Vec<Op> = (0..IDENTITIES)
        .map(|count| {
            let pair = KeyPair::generate("client", &[]).expect("a key pair can be made");
            let record = IdentityRecord {
                kind: IdentityKind::Client,
                name: format!("client-{count}"),
                access: Access::Unrestricted,
                certificate_pem: pair.pem.clone(),
            };
            Op::Put { key: keys::identity(&pair.fingerprint.to_string()), value: encode(&record) }
        })
        .collect();
    for part in ops.chunks(AT_ONCE) {
        let txn = Txn { guards: Vec::new(), ops: part.to_vec() };
        runtime.block_on(store.commit(txn)).expect("they are committed");
    }
}
