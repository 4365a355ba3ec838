//! Many connections that are carried and say nothing: what they cost, and whether a new one notices. For the others,
//! which need two descriptors a connection where a link needs one, with fewer of them, and to compare with only.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use integration::measure::{alone, beside, memory_mib, percentile};
use serde_json::{Value, json};

use super::contender::Contender;
use super::load;

/// New connections, one after the other.
const NEW: usize = 1000;
/// How long nothing is done before memory is looked at.
const SETTLED: Duration = Duration::from_secs(3);
const KIB_A_MIB: f64 = 1024.0;
/// Most that a connection may cost, KiB.
const MEMORY_GOAL: f64 = 40.0;
/// How much longer a new connection may take beside them: what two measurements of the same differ by.
const TIME_GOAL: f64 = 1.1;

/// Most that the others are given: so that all fit within the 20,000 descriptors that a process usually may have.
const OTHERS: usize = 4000;

pub fn measure(contenders: &[Contender], count: usize) -> Value {
    let mut report = json!({});
    // stunnel has a thread for each, and takes minutes.
    let holds = |one: &&Contender| !one.processes.is_empty() && one.bulk.is_some() && one.name != "stunnel";
    for one in contenders.iter().filter(holds) {
        report[one.name] = of(one, if one.is_peer() { count.min(OTHERS) } else { count });
    }
    report
}

fn of(contender: &Contender, count: usize) -> Value {
    let port = contender.web;
    // What the first connections fill, such as the allocator's pools, is not theirs.
    let _ = new_connections(port);
    let empty = new_connections(port);
    let before = memory(contender);
    let held: Vec<TcpStream> = (0..count)
        .map_while(|_| {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
            load::once(&mut socket).ok()?;
            Some(socket)
        })
        .collect();
    let after = memory(contender);
    let beside_them = new_connections(port);
    // Each of them still works.
    let alive = held.into_iter().filter_map(|mut socket| load::once(&mut socket).ok()).count();
    // Of the others, B was started first.
    let (a, b) = if contender.is_peer() { (1, 0) } else { (0, 1) };
    let each = |end: usize| (after[end] - before[end]) * KIB_A_MIB / to_f64(alive);
    let p = |times: &[f64], percent| percentile(times.iter().copied(), percent);
    let mut report = json!({
        "wanted": count, "held": alive,
        "memory_of_each_at_a": beside(each(a), MEMORY_GOAL, "KiB"),
        "memory_of_each_at_b": beside(each(b), MEMORY_GOAL, "KiB"),
        "new_connection": {
            "p50_empty": alone(p(&empty, 50), "ms"), "p99_empty": alone(p(&empty, 99), "ms"),
            "p50_beside_them": alone(p(&beside_them, 50), "ms"), "p99_beside_them": alone(p(&beside_them, 99), "ms"),
            "p50_ratio": beside(p(&beside_them, 50) / p(&empty, 50), TIME_GOAL, "of the empty agent's"),
        },
    });
    if contender.is_peer() {
        return report;
    }
    report["met"] = json!(
        alive == count
            && each(a).max(each(b)) <= MEMORY_GOAL
            && p(&beside_them, 50) / p(&empty, 50) <= TIME_GOAL
    );
    report
}

/// Resident memory of A and B once nothing moves any more, MiB.
fn memory(contender: &Contender) -> Vec<f64> {
    std::thread::sleep(SETTLED);
    contender.processes.iter().map(|pid| memory_mib(*pid, "VmRSS").unwrap_or(f64::NAN)).collect()
}

/// Milliseconds from connecting to the answer, of each that was answered.
fn new_connections(port: u16) -> Vec<f64> {
    let one = || {
        let began = Instant::now();
        let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
        load::once(&mut socket).ok()?;
        Some(began.elapsed().as_secs_f64() * 1000.0)
    };
    (0..NEW).filter_map(|_| one()).collect()
}

fn to_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::NAN, f64::from)
}
