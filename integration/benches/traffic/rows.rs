//! Rows of rates: each round measures one after the other, and the rounds' medians are compared.

use integration::measure::{alone, beside, median};
use serde_json::{Value, json};

use super::contender::Contender;
use super::load::{self, Connections, Direction, Done};
use super::{Wanted, load_average, steady};

/// One run, with the processor time that A and B took for it.
#[derive(Clone, Copy)]
struct Run {
    done: Done,
    cpu_s: f64,
}

/// The runs of one contender, one a round.
struct Runs<'a> {
    contender: &'a Contender,
    runs: Vec<Run>,
}

impl Runs<'_> {
    fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(of))
    }

    fn rate(&self) -> f64 {
        self.median(|run| run.done.rate)
    }
}

/// What is better.
#[derive(Clone, Copy)]
enum Better {
    More,
    Less,
}

/// Rates of requests, or of connections.
pub fn web(row: &str, contenders: &[Contender], wanted: &Wanted) -> Value {
    let is_new = row == "connections";
    let connections = if is_new { Connections::New } else { Connections::Kept };
    let these: Vec<&Contender> = contenders.iter().filter(|one| is_new || one.bulk.is_some()).collect();
    let all = rounds(&these, wanted.rounds, |contender| load::wrk(contender.web, connections, wanted.time));
    let mut report = table(&all, "1/s", "us of A and B for each", 1e6);
    if is_new {
        let (reuse, fresh): (Vec<&Runs>, Vec<&Runs>) =
            all.iter().partition(|one| one.contender.bulk.is_none());
        compare(&mut report, "ratio", &all, &fresh, 10.0, Better::More, |run| run.done.rate);
        compare(&mut report, "ratio_to_kept_tls_of_http", &all, &reuse, 1.0, Better::More, |run| {
            run.done.rate
        });
    } else {
        let every: Vec<&Runs> = all.iter().collect();
        compare(&mut report, "ratio", &all, &every, 1.0, Better::More, |run| run.done.rate);
        compare(&mut report, "p99_ratio", &all, &every, 1.0, Better::Less, |run| run.done.p99_ms);
    }
    report
}

/// The time of answers at a rate that all of them can bear.
pub fn steady(contenders: &[Contender], wanted: &Wanted, rate: f64) -> Value {
    let these: Vec<&Contender> = contenders.iter().filter(|one| one.bulk.is_some()).collect();
    let all = rounds(&these, wanted.rounds, |contender| steady::run(contender.web, rate, wanted.time));
    let mut report = table(&all, "1/s", "us of A and B for each", 1e6);
    report["asked"] = alone(rate, "1/s");
    let every: Vec<&Runs> = all.iter().collect();
    compare(&mut report, "p50_ratio", &all, &every, 1.0, Better::Less, |run| run.done.p50_ms);
    compare(&mut report, "p99_ratio", &all, &every, 1.0, Better::Less, |run| run.done.p99_ms);
    report
}

/// Rates of bytes.
pub fn bulk(row: &str, contenders: &[Contender], wanted: &Wanted) -> Value {
    let streams = if row == "streams" { 8 } else { 1 };
    let direction = if row == "back" { Direction::ToApp } else { Direction::ToServer };
    let these: Vec<&Contender> = contenders.iter().filter(|one| one.bulk.is_some()).collect();
    let all = rounds(&these, wanted.rounds, |contender| {
        contender.bulk.map_or_else(Done::default, |port| load::iperf(port, streams, direction, wanted.time))
    });
    let mut report = table(&all, "Gbit/s", "s of A and B for each GB", 1.0);
    let every: Vec<&Runs> = all.iter().collect();
    compare(&mut report, "ratio", &all, &every, 1.0, Better::More, |run| run.done.rate);
    report
}

/// The best median that a row of the report has for one that is not ours.
pub fn best_peer_rate(row: &Value) -> Option<f64> {
    let name = row["ratio"]["of"].as_str()?;
    row["measured"][name]["rate"]["value"].as_f64()
}

fn rounds<'a>(
    contenders: &[&'a Contender],
    rounds: usize,
    run: impl Fn(&Contender) -> Done,
) -> Vec<Runs<'a>> {
    let mut all: Vec<Runs> =
        contenders.iter().map(|contender| Runs { contender, runs: Vec::with_capacity(rounds) }).collect();
    for round in 0..rounds {
        for one in &mut all {
            let before = one.contender.cpu_s();
            let done = run(one.contender);
            let cpu_s = one.contender.cpu_s() - before;
            one.runs.push(Run { done, cpu_s });
            let name = one.contender.name;
            eprintln!(
                "traffic: round {round}: {name}: {:.2}/s, p50 {:.3} ms, p99 {:.3} ms, {} errors, {cpu_s:.2} s of A and B, load {}",
                done.rate,
                done.p50_ms,
                done.p99_ms,
                done.errors,
                load_average()
            );
        }
    }
    all
}

/// Everyone's medians.
fn table(all: &[Runs], unit: &str, cost: &str, factor: f64) -> Value {
    let mut measured = json!({});
    for one in all {
        let mut row = json!({
            "rate": alone(one.rate(), unit),
            "errors": one.runs.iter().map(|run| run.done.errors).sum::<f64>(),
        });
        if one.runs.iter().any(|run| run.done.p99_ms > 0.0) {
            row["p50"] = alone(one.median(|run| run.done.p50_ms), "ms");
            row["p99"] = alone(one.median(|run| run.done.p99_ms), "ms");
        }
        if !one.contender.processes.is_empty() {
            row["cpu"] = alone(one.median(|run| run.cpu_s), "s");
            row["cpu_each"] = alone(one.median(|run| run.cpu_s * factor / run.done.amount), cost);
        }
        measured[one.contender.name] = row;
    }
    json!({ "measured": measured })
}

/// Ours against the best of some others: the median of the rounds' ratios, beside the goal.
fn compare(
    report: &mut Value,
    name: &str,
    all: &[Runs],
    others: &[&Runs],
    goal: f64,
    better: Better,
    of: impl Fn(&Run) -> f64,
) {
    let others = others.iter().filter(|one| one.contender.is_peer());
    let order = |a: f64, b: f64| match better {
        Better::More => a.total_cmp(&b),
        Better::Less => b.total_cmp(&a),
    };
    let best = others.max_by(|a, b| order(a.median(&of), b.median(&of)));
    let ours = all.iter().find(|one| one.contender.name == "ours");
    let (Some(ours), Some(best)) = (ours, best) else { return };
    let ratio = median(ours.runs.iter().zip(&best.runs).map(|(ours, best)| of(ours) / of(best)));
    let mut compared = beside(ratio, goal, "of the best");
    compared["of"] = json!(best.contender.name);
    compared["met"] = json!(match better {
        Better::More => ratio >= goal,
        Better::Less => ratio <= goal,
    });
    report[name] = compared;
}
