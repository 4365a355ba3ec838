//! Queries that wait.

use std::path::Path;
use std::time::{Duration, Instant};

use integration::measure::{alone, beside, cpu_s, median, memory_mib, percentile};
use integration::{Agent, Consul, LIMIT, wait_for};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

const QUERIES: usize = 1000;
const IDLE_FOR: Duration = Duration::from_secs(10);
/// An agent that did nothing for so long has taken in all there was.
const REST: Duration = Duration::from_secs(2);
const LIST: &str = "/v1/config/service-intentions";
const KIB_A_MIB: f64 = 1024.0;

pub fn measure() -> Value {
    let agent = Agent::start("east");
    let pid = agent.pid().expect("the agent runs");
    let consul = Consul::socket(&agent);
    consul.put("/v1/config", &entry("allow")).expect(200);
    let index = consul.get(LIST).expect(200).index();
    let cpu = || cpu_s(pid).expect("the agent runs");
    let resident = || memory_mib(pid, "VmRSS").expect("the agent runs");
    let rests = || {
        let mut quiet = (cpu(), Instant::now());
        wait_for("the agent rests", 10 * LIMIT, || {
            if cpu() > quiet.0 {
                quiet = (cpu(), Instant::now());
            }
            (quiet.1.elapsed() > REST).then_some(())
        });
    };
    rests();
    let before = resident();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let socket = agent.socket();
    let queries: Vec<_> = (0..QUERIES)
        .map(|_| {
            let socket = socket.clone();
            runtime.spawn(async move { wait(&socket, index).await })
        })
        .collect();
    rests();
    assert!(queries.iter().all(|query| !query.is_finished()), "a query was answered too early");
    let kept = resident() - before;
    let idle = cpu();
    // Measured over a time, which is the one thing that must be waited for here.
    std::thread::sleep(IDLE_FOR);
    let idle = cpu() - idle;

    let (begun, spent) = (Instant::now(), cpu());
    consul.put("/v1/config", &entry("deny")).expect(200);
    let told = runtime.block_on(async {
        let mut told = Vec::with_capacity(QUERIES);
        for query in queries {
            let (at, text) = query.await.expect("a query is answered");
            assert!(text.contains("\"deny\""), "{text}");
            told.push(at.duration_since(begun).as_secs_f64() * 1000.0);
        }
        told
    });
    let spent = cpu() - spent;
    let queries = f64::from(u32::try_from(QUERIES).unwrap_or(u32::MAX));
    json!({
        "queries": QUERIES,
        "cpu_while_nothing_changes": beside(idle, 0.0, "s"),
        "over": alone(IDLE_FOR.as_secs_f64(), "s"),
        "memory_each": alone(kept * KIB_A_MIB / queries, "KiB"),
        "told_of_a_change": {
            "p50": alone(median(told.iter().copied()), "ms"),
            "last": alone(percentile(told.iter().copied(), 100), "ms"),
            "cpu_each": alone(spent * 1_000_000.0 / queries, "us"),
        },
    })
}

fn entry(action: &str) -> Value {
    json!({"Kind": "service-intentions", "Name": "db", "Sources": [{"Name": "web", "Action": action}]})
}

/// One query: when it was answered, and what with.
async fn wait(socket: &Path, index: u64) -> (Instant, String) {
    let mut stream = loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => break stream,
            // So many at once do not fit into the socket's backlog.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
            Err(error) => panic!("the agent's socket: {error}"),
        }
    };
    let request =
        format!("GET {LIST}?index={index}&wait=10m HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the answer is text");
    (Instant::now(), answer)
}
