//! What replication to many peers costs: one agent exports a thousand services of ten instances each to fifty linked
//! clusters, which live in this process and speak the link's own protocol over TLS.
//!
//! Prints one JSON document.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use agent::tunnel::Session;
use agent::wire::sync::{OfferedStatus, SyncFrame};
use integration::measure::{alone, beside, build, cpu_s, median, memory_mib, percentile};
use integration::peer::{Peer, Script};
use integration::{Agent, Consul, LIMIT, Operator};
use serde_json::json;
use tokio::sync::mpsc;

const SERVICES: usize = 1000;
const INSTANCES: usize = 10;
const PEERS: usize = 50;
const CHANGES: usize = 200;
const KIB_A_MIB: f64 = 1024.0;
/// How long nothing is done before memory is measured.
const SETTLED: Duration = Duration::from_secs(3);
const IDLE_FOR: Duration = Duration::from_secs(10);

/// A peer has been told of a service, by which its instances are so.
struct Seen {
    peer: usize,
    service: String,
    passing: usize,
    at: Instant,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let operator = Operator::new();
    let mut agent = Agent::start("east");
    operator.trusted_by(&agent);
    let apply = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("a file");
        operator.run_in(folder.path(), &["apply", ".", "--remote", "east", "--yes"]).success();
    };

    agent.restart();
    let empty = settled(&agent);
    let began = Instant::now();
    apply("services.hcl", &services());
    let applied_s = began.elapsed().as_secs_f64();
    let declared = settled(&agent);
    agent.restart();
    let restarted = settled(&agent);

    let peers: Vec<Peer> = runtime.block_on(async {
        let mut peers = Vec::with_capacity(PEERS);
        for number in 0..PEERS {
            peers.push(Peer::linked(&agent, &name(number)).await);
        }
        peers
    });
    apply("exports.hcl", &exports());

    let (tell, mut seen) = mpsc::unbounded_channel();
    let mut syncs = Vec::with_capacity(PEERS);
    let mut bytes = 0;
    let mut sessions = Vec::with_capacity(PEERS);
    for (number, peer) in peers.iter().enumerate() {
        let (session, took, received) = runtime.block_on(sync(peer, number, tell.clone()));
        syncs.push(took.as_secs_f64());
        bytes = received;
        sessions.push(session);
    }
    let linked = settled(&agent);
    let idle = {
        let before = cpu(&agent);
        // Measured over a time, which is the one thing that must be waited for here.
        std::thread::sleep(IDLE_FOR);
        cpu(&agent) - before
    };
    let (every, slowest) = changes(&agent, &mut seen);

    let instance = |after: f64| (after - empty) * KIB_A_MIB / to_f64(SERVICES * INSTANCES);
    let report = json!({
        "bench": "stream", "build": build(),
        "services": SERVICES, "instances_each": INSTANCES, "peers": PEERS, "changes": CHANGES,
        "initial_sync_of_one_peer": {
            "slowest": beside(percentile(syncs.iter().copied(), 100), 1.0, "s"),
            "p50": alone(median(syncs.iter().copied()), "s"),
            "bytes": alone(to_f64(bytes), "bytes"),
        },
        "health_change": {
            "at_all_peers_p99": beside(percentile(slowest.iter().copied(), 99) * 1000.0, 250.0, "ms"),
            "at_all_peers_p50": alone(median(slowest.iter().copied()) * 1000.0, "ms"),
            "at_one_peer_p50": alone(median(every.iter().copied()) * 1000.0, "ms"),
        },
        "memory_of_the_exporting_agent": {
            "empty": alone(empty, "MiB"),
            "an_instance": beside(instance(restarted), 1.0, "KiB"),
            "an_instance_after_its_apply": alone(instance(declared), "KiB"),
            "a_peer": beside((linked - restarted) * KIB_A_MIB / to_f64(PEERS), 64.0, "KiB"),
        },
        "idle_with_all_peers": { "cpu": alone(idle, "s"), "over": alone(IDLE_FOR.as_secs_f64(), "s") },
        "apply_of_all_instances": alone(applied_s, "s"),
    });
    println!("{report:#}");
    drop(sessions);
}

fn to_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::NAN, f64::from)
}

fn name(peer: usize) -> String {
    format!("p{peer:02}")
}

fn instance(service: usize, instance: usize) -> String {
    format!("s{service:04}-{instance}")
}

fn services() -> String {
    let mut text = String::new();
    for service in 0..SERVICES {
        for number in 0..INSTANCES {
            let id = instance(service, number);
            writeln!(
                text,
                "service \"s{service:04}\" {{\n  id = \"{id}\"\n  port = {}\n  tags = [\"v1\"]\n  \
                 checks = [{{ ttl = \"24h\" }}]\n}}",
                9000 + number
            )
            .expect("a text takes it");
        }
    }
    text
}

/// As Consul has it: one list of all, each with all its consumers.
fn exports() -> String {
    let consumers: Vec<String> = (0..PEERS).map(|peer| format!("{{ Peer = \"{}\" }}", name(peer))).collect();
    let consumers = consumers.join(", ");
    let rows: Vec<String> =
        (0..SERVICES).map(|n| format!("{{ Name = \"s{n:04}\", Consumers = [{consumers}] }}")).collect();
    format!("Kind = \"exported-services\"\nName = \"default\"\nServices = [\n  {}\n]\n", rows.join(",\n  "))
}

/// Resident memory once nothing moves any more, MiB.
fn settled(agent: &Agent) -> f64 {
    std::thread::sleep(SETTLED);
    memory_mib(agent.pid().expect("the agent runs"), "VmRSS").unwrap_or(f64::NAN)
}

fn cpu(agent: &Agent) -> f64 {
    cpu_s(agent.pid().expect("the agent runs")).unwrap_or(f64::NAN)
}

/// Connects a peer and waits until it knows all that is exported; then a task of its own tells what it hears.
async fn sync(peer: &Peer, number: usize, tell: mpsc::UnboundedSender<Seen>) -> (Session, Duration, usize) {
    let began = Instant::now();
    let (session, _told) = peer.dial(Script::new()).await;
    let mut stream = Peer::receive(&session, None).await;
    let (mut bytes, mut instances) = (0, 0);
    loop {
        let (frame, size) = stream.next().await.expect("a frame");
        bytes += size;
        let is_end = match frame {
            SyncFrame::Items { services } => {
                instances += services.iter().map(|service| service.instances.len()).sum::<usize>();
                false
            }
            SyncFrame::End { services, .. } => {
                assert_eq!((usize::try_from(services), instances), (Ok(SERVICES), SERVICES * INSTANCES));
                true
            }
            _ => false,
        };
        stream.acknowledge().await.expect("the agent hears");
        if is_end {
            break;
        }
    }
    let took = began.elapsed();
    tokio::spawn(async move {
        while let Ok((frame, _)) = stream.next().await {
            let at = Instant::now();
            if let SyncFrame::Change { services, .. } = frame {
                for service in services {
                    let passing = |status: &OfferedStatus| *status == OfferedStatus::Passing;
                    let passing = service.instances.iter().filter(|one| passing(&one.status)).count();
                    let _ = tell.send(Seen { peer: number, service: service.name.to_string(), passing, at });
                }
            }
            if stream.acknowledge().await.is_err() {
                return;
            }
        }
    });
    (session, took, bytes)
}

/// Changes the health of one instance after another. Seconds from sending the request until each peer has it, and until
/// the last of them has.
fn changes(agent: &Agent, seen: &mut mpsc::UnboundedReceiver<Seen>) -> (Vec<f64>, Vec<f64>) {
    let consul = Consul::socket(agent);
    let (mut every, mut slowest) = (Vec::new(), Vec::with_capacity(CHANGES));
    for change in 0..CHANGES {
        // Each service twice: one of its instances passes, then fails again. All others are critical.
        let service = (change / 2 * 7) % SERVICES;
        let (word, passing) = if change % 2 == 0 { ("pass", 1) } else { ("fail", 0) };
        let name = format!("s{service:04}");
        let began = Instant::now();
        consul
            .put(
                &format!("/v1/agent/check/{word}/service:{}", instance(service, change / 2 % INSTANCES)),
                &json!({}),
            )
            .expect(200);
        let mut arrived = BTreeMap::new();
        while arrived.len() < PEERS {
            assert!(began.elapsed() < LIMIT, "{} of {PEERS} peers saw the change", arrived.len());
            let Ok(this) = seen.try_recv() else {
                std::thread::sleep(Duration::from_micros(100));
                continue;
            };
            if this.service == name && this.passing == passing {
                arrived.entry(this.peer).or_insert(this.at.duration_since(began).as_secs_f64());
            }
        }
        every.extend(arrived.values());
        slowest.push(arrived.values().copied().fold(0.0, f64::max));
    }
    (every, slowest)
}
