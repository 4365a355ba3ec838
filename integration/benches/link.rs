//! How long a link takes to be ACTIVE, how soon a peer sees a change of the exports, and what an idle agent costs.
//!
//! Prints one JSON document.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent::client::Client;
use agent::files::{self, DiskInputs};
use agent::wire::control::ApplyRequest;
use integration::measure::{alone, beside, build, cpu_s, median, memory_mib, percentile};
use integration::{Agent, Clusters, LIMIT};
use schema::plan::{Data, plan};
use serde_json::json;

const LINKS: usize = 5;
const CHANGES: usize = 200;
const IDLE_FOR: Duration = Duration::from_secs(10);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut from_start, mut from_end) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..LINKS {
        let clusters = Clusters::start();
        clusters.declare("east", EAST);
        clusters.declare("west", "");
        let began = Instant::now();
        clusters.apply().success();
        let applied = Instant::now();
        runtime.block_on(async {
            let (east, west) = (client(&clusters.east), client(&clusters.west));
            let (one, other) = (name("west"), name("east"));
            let active =
                tokio::try_join!(east.link_when_active(&one, LIMIT), west.link_when_active(&other, LIMIT));
            active.expect("both halves become ACTIVE");
        });
        from_start.push(began.elapsed().as_secs_f64());
        from_end.push(applied.elapsed().as_secs_f64());
        last = Some(clusters);
    }
    let clusters = last.expect("at least one link was made");
    let idle = idle(&clusters);
    let seen: Vec<f64> = runtime.block_on(changes(&clusters));
    let report = json!({
        "bench": "link", "build": build(), "links": LINKS, "changes": CHANGES,
        "active_after": {
            "start_of_apply": beside(median(from_start), 0.3, "s"),
            "end_of_apply": alone(median(from_end), "s"),
        },
        "export_change_seen": {
            "p99": beside(percentile(seen.iter().copied(), 99) * 1000.0, 100.0, "ms"),
            "p50": alone(median(seen.iter().copied()) * 1000.0, "ms"),
            "slowest": alone(percentile(seen.iter().copied(), 100) * 1000.0, "ms"),
        },
        "idle_agent": {
            "resident": beside(idle.resident_mib, 25.0, "MiB"),
            "cpu": beside(idle.cpu_s, 0.0, "s"),
            "over": alone(IDLE_FOR.as_secs_f64(), "s"),
        },
    });
    println!("{report:#}");
}

const EAST: &str = r#"
service "backend" {
  port = 9090
}
service "other" {
  port = 9091
}
exported_services "default" {
  services = [{ name = "backend", consumers = [{ peer = "west" }] }]
}
"#;

/// The dearer of the two agents.
struct Idle {
    resident_mib: f64,
    cpu_s: f64,
}

fn idle(clusters: &Clusters) -> Idle {
    let pids = [&clusters.east, &clusters.west].map(|agent| agent.pid().expect("the agent runs"));
    let cpu = || pids.map(|pid| cpu_s(pid).unwrap_or(f64::NAN));
    // Measured over a time, which is the one thing that must be waited for here.
    let before = cpu();
    std::thread::sleep(IDLE_FOR);
    let after = cpu();
    let most = |values: [f64; 2]| values.into_iter().fold(f64::NEG_INFINITY, f64::max);
    Idle {
        resident_mib: most(pids.map(|pid| memory_mib(pid, "VmRSS").unwrap_or(f64::NAN))),
        cpu_s: most([after[0] - before[0], after[1] - before[1]]),
    }
}

/// Exports and withdraws a service again and again; seconds from sending the apply until the peer shows it.
async fn changes(clusters: &Clusters) -> Vec<f64> {
    let (east, west) = (client(&clusters.east), client(&clusters.west));
    let mut times = Vec::with_capacity(CHANGES);
    for change in 0..CHANGES {
        let there = change % 2 == 0;
        let exports = if there {
            EAST.replace("consumers = [{ peer = \"west\" }] }", "consumers = [{ peer = \"west\" }] }, { name = \"other\", consumers = [{ peer = \"west\" }] }")
        } else {
            EAST.to_owned()
        };
        clusters.declare("east", &exports);
        let request = planned(&east, clusters.path("east")).await;
        let began = Instant::now();
        east.apply(&request).await.expect("the change is applied");
        while began.elapsed() < LIMIT {
            let imported = west.imported_services().await.expect("west answers");
            if imported.iter().any(|row| row.service.as_str() == "other") == there {
                break;
            }
        }
        assert!(began.elapsed() < LIMIT, "west never saw the change");
        times.push(began.elapsed().as_secs_f64());
    }
    times
}

/// The plan that the command would make.
async fn planned(east: &Client, folder: PathBuf) -> ApplyRequest {
    let (files, _) = files::read(&[folder]);
    let loaded = schema::config::load(&files, &DiskInputs::of_command());
    let live = east.state().await.expect("east tells its state");
    let desired = loaded.desired.first().expect("a manifest is declared");
    let plan = plan(desired, &live, Data::Keep).expect("nobody else owns these");
    ApplyRequest { plan, destroy_data: false }
}

fn client(agent: &Agent) -> Client {
    Client::unix(agent.socket())
}

fn name(link: &str) -> schema::name::LinkName {
    link.parse().expect("a name")
}
