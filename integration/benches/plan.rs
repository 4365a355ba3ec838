//! Plans and applies of many declarations, against a real agent over TLS: what the command costs, what the agent.
//!
//! Prints one JSON document. `COMITY_BENCH_SIZES=5000` measures other sizes than 5,000 and 100,000.

use std::fmt::Write as _;

use integration::measure::{Cost, alone, beside, build, command, cpu_s, median, memory_mib};
use integration::{Agent, Operator};
use serde_json::{Value, json};
use tempfile::TempDir;

const SIZES: [usize; 2] = [5_000, 100_000];
const DECLARATIONS_A_FILE: usize = 500;
const RUNS: usize = 5;

fn main() {
    let sizes = match std::env::var("COMITY_BENCH_SIZES") {
        Ok(sizes) => sizes.split(',').filter_map(|size| size.trim().parse().ok()).collect(),
        Err(_) => SIZES.to_vec(),
    };
    let measured: Vec<(usize, Value, f64)> = sizes.into_iter().map(measure).collect();
    let mut report = json!({ "bench": "plan", "build": build(), "runs": RUNS });
    for (size, result, _) in &measured {
        report[size.to_string()] = result.clone();
    }
    if let [(small, _, small_cpu), .., (large, _, large_cpu)] = &measured[..] {
        let linear = ratio(*large, *small);
        report["no_change_growth"] = beside(large_cpu / small_cpu, linear, "times");
    }
    println!("{report:#}");
}

#[allow(clippy::cast_precision_loss)] // sizes are far below what a float counts exactly
fn ratio(large: usize, small: usize) -> f64 {
    large as f64 / small as f64
}

/// The numbers of one size, and the processor time of its plan without changes.
fn measure(size: usize) -> (usize, Value, f64) {
    let agent = Agent::start("east");
    let operator = Operator::new();
    operator.trusted_by(&agent);
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(&folder, size, "first");
    let pid = agent.pid().expect("the agent runs");
    let run = |arguments: &[&str], code: i32| {
        let cost = command(operator.config_dir(), folder.path(), arguments);
        assert_eq!(cost.code, Some(code), "comity {}", arguments.join(" "));
        cost
    };
    let several =
        |arguments: &[&str], code| -> Vec<Cost> { (0..RUNS).map(|_| run(arguments, code)).collect() };

    let before = cpu_s(pid).unwrap_or(0.0);
    let first = run(&["apply", "east", "--yes"], 0);
    let agent_first = cpu_s(pid).unwrap_or(0.0) - before;
    let agent_after_apply = memory_mib(pid, "VmRSS").unwrap_or(f64::NAN);

    let before = cpu_s(pid).unwrap_or(0.0);
    let unchanged = several(&["plan", "east", "--detailed-exitcode"], 0);
    let agent_unchanged = (cpu_s(pid).unwrap_or(0.0) - before) / ratio(RUNS, 1);

    write(&folder, size, "second");
    let one = several(&["plan", "east", "--detailed-exitcode"], 2);
    let apply_one = run(&["apply", "east", "--yes"], 0);

    let cpu = |costs: &[Cost]| median(costs.iter().map(|cost| cost.cpu_s));
    let wall = |costs: &[Cost]| median(costs.iter().map(|cost| cost.wall_s));
    let peak = |costs: &[Cost]| median(costs.iter().map(|cost| cost.peak_mib));
    let goal = |value: f64, goal: f64, unit: &str| {
        // The goals are for 5,000.
        if size == SIZES[0] { beside(value, goal, unit) } else { alone(value, unit) }
    };
    let result = json!({
        "no_change_plan": {
            "command_cpu": goal(cpu(&unchanged), 0.5, "s"),
            "command_peak": goal(peak(&unchanged), 100.0, "MiB"),
            "command_wall": alone(wall(&unchanged), "s"),
            "agent_cpu": alone(agent_unchanged, "s"),
        },
        "one_change_plan": {
            "command_cpu": goal(cpu(&one), 0.3, "s"),
            "command_peak": alone(peak(&one), "MiB"),
            "command_wall": alone(wall(&one), "s"),
        },
        "one_change_apply": {
            "command_cpu": alone(apply_one.cpu_s, "s"),
            "command_wall": alone(apply_one.wall_s, "s"),
        },
        "first_apply": {
            "command_cpu": goal(first.cpu_s, 2.0, "s"),
            "command_peak": alone(first.peak_mib, "MiB"),
            "command_wall": alone(first.wall_s, "s"),
            "agent_cpu": alone(agent_first, "s"),
        },
        "agent": {
            "resident_after_apply": goal(agent_after_apply, 150.0, "MiB"),
            "resident_at_end": goal(memory_mib(pid, "VmRSS").unwrap_or(f64::NAN), 150.0, "MiB"),
            "peak": alone(memory_mib(pid, "VmHWM").unwrap_or(f64::NAN), "MiB"),
        },
    });
    (size, result, cpu(&unchanged))
}

/// Three services to each set of intentions, in files of a size that people would still open. `text` is what one of
/// them says.
fn write(folder: &TempDir, size: usize, text: &str) {
    let root = folder.path().join("east");
    std::fs::create_dir_all(&root).expect("a folder");
    std::fs::write(root.join("manifest.hcl"), "manifest \"bench\" {\n  cluster = \"east\"\n}\n")
        .expect("a file");
    let numbers: Vec<usize> = (0..size).collect();
    for (file, numbers) in numbers.chunks(DECLARATIONS_A_FILE).enumerate() {
        let mut hcl = String::new();
        for number in numbers {
            let port = 10_000 + number % 50_000;
            let description = if *number == 0 { text } else { "one of many" };
            // Writing to a String does not fail.
            let _ = if number % 4 == 3 {
                let (to, from) = (number - 1, number - 2);
                writeln!(
                    hcl,
                    "service_intentions \"service-{to}\" {{\n  sources = [{{ name = \"service-{from}\", action = \"allow\", description = \"{description}\" }}]\n}}\n"
                )
            } else {
                writeln!(
                    hcl,
                    "service \"service-{number}\" {{\n  port = {port}\n  meta = {{ team = \"shop\", note = \"{description}\" }}\n}}\n"
                )
            };
        }
        std::fs::write(root.join(format!("part-{file:04}.hcl")), hcl).expect("a file");
    }
}
