//! Consul's own cases (`testdata/cases/consul.jsonl`), by id: each is run against real agents by what its input looks
//! like, or has a reason in `testdata/cases/consul-exceptions.toml` why it does not hold.
//! `integration/CONSUL-CASES.md` is the table of both.
//!
//! An exception that holds is a failure too: `COMITY_BLESS=1` takes it out. (`schema/tests/suite/consul.rs` runs those about
//! entries a second time, as files.)

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use integration::golden::testdata;
use serde_json::Value;

mod command;
mod entries;
mod intentions;
mod peering;
mod world;

use world::World;

/// Why a case does not hold.
type Failure = String;

fn rows() -> Vec<Value> {
    let text = std::fs::read_to_string(testdata().join("cases/consul.jsonl")).expect("the cases");
    text.lines().map(|line| serde_json::from_str(line).expect("a case is JSON")).collect()
}

fn exceptions() -> BTreeMap<String, String> {
    let path = testdata().join("cases/consul-exceptions.toml");
    let text = std::fs::read_to_string(path).expect("the exceptions");
    // `id = "reason"`, one a line; the string as JSON has it.
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = lines.map(|line| {
        let (id, reason) = line.split_once(" = ").expect("id = \"reason\"");
        (id.to_owned(), serde_json::from_str(reason).expect("a reason is a string"))
    });
    pairs.collect()
}

/// Runs a case, by the shape of its input.
fn run(world: &World, row: &Value) -> Result<(), Failure> {
    let (input, expect) = (&row["input"], &row["expect"]);
    let id = row["id"].as_str().expect("a case has an id");
    let has = |key: &str| input.get(key).is_some();
    match () {
        () if has("legacy") => Err("entries are not written in Consul's legacy way".to_owned()),
        () if has("cli") => command::run(world, input, expect),
        () if has("config") || has("hcl") || has("raw") => entries::write(world, input, expect),
        () if has("op") => entries::conditional(world, id, input, expect),
        () if has("token") || has("establish") || has("generate_token") || has("peer_name") => {
            peering::run(world, input, expect)
        }
        () if has("steps") => peering::steps(world, id),
        () if has("legacy_intention") => intentions::legacy(world, input, expect),
        () if has("source") && has("destination") || has("sort") => {
            intentions::precedence(world, input, expect)
        }
        () if has("parse") => intentions::parse(world, input, expect),
        () if has("check") || has("decide") || has("by") || has("http") => {
            intentions::ask(world, input, expect)
        }
        () if has("peer") => intentions::exported(world, input, expect),
        () => Err("it is about the inside of Consul".to_owned()),
    }
}

#[test]
fn consul_cases() {
    let world = World::new();
    let (rows, exceptions) = (rows(), exceptions());
    let (mut failed, mut held) = (Vec::new(), Vec::new());
    for row in &rows {
        let id = row["id"].as_str().expect("a case has an id");
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| run(&world, row)));
        let outcome = outcome.unwrap_or_else(|_| Err("it panicked".to_owned()));
        world.clear();
        match (outcome, exceptions.contains_key(id)) {
            (Err(why), false) => failed.push(format!("{id}: {why}")),
            (Ok(()), true) => held.push(id),
            _ => {}
        }
    }
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), rows.len(), failed.join("\n"));
    assert!(held.is_empty(), "these hold now, take their exceptions out: {}", held.join(", "));
}

#[test]
fn the_table_of_consuls_cases_is_up_to_date() {
    let (rows, exceptions) = (rows(), exceptions());
    for id in exceptions.keys() {
        assert!(rows.iter().any(|row| row["id"] == id.as_str()), "{id} is no case");
    }
    let mut areas: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for row in &rows {
        let counts = areas.entry(row["area"].as_str().expect("an area")).or_default();
        counts.0 += 1;
        counts.1 += usize::from(!exceptions.contains_key(row["id"].as_str().expect("an id")));
    }
    let mut table = String::from(
        "# Consul's cases, by area\n\n\
         Written by `COMITY_BLESS=1 cargo test -p integration --test all table_of_consuls`; a test keeps it up to date. The\n\
         cases are `testdata/cases/consul.jsonl`, what runs them is `integration/tests/all/consul_cases/`.\n\n\
         | area | cases | pass | exceptions |\n|---|---|---|---|\n",
    );
    for (area, (all, passing)) in &areas {
        writeln!(table, "| {area} | {all} | {passing} | {} |", all - passing).expect("a string takes text");
    }
    table += "\n## Exceptions\n\n| case | input | expected of Consul | why it is not so here |\n|---|---|---|---|\n";
    for row in &rows {
        if let Some(reason) = row["id"].as_str().and_then(|id| exceptions.get(id)) {
            let cell = |key: &str| {
                let text: String = row[key].to_string().chars().take(200).collect();
                text.replace('|', "\\|")
            };
            let id = row["id"].as_str().expect("an id");
            writeln!(table, "| {id} | `{}` | `{}` | {reason} |", cell("input"), cell("expect"))
                .expect("a string takes text");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CONSUL-CASES.md");
    if std::env::var_os("COMITY_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &table).expect("a file");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == table, "integration/CONSUL-CASES.md is out of date; COMITY_BLESS=1 rewrites it");
}

/// Whether `found` says all that `wanted` says: objects may have more fields, lists may not have more elements.
fn says(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|found| says(found, value)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| says(found, wanted))
        }
        (found, wanted) => found == wanted,
    }
}

/// What was answered against what a case expects: an error by its text, anything else by `ok`.
fn compare(
    answer: &integration::Answer,
    expect: &Value,
    ok: impl FnOnce(&Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let text = answer.text();
    let shown = || format!("{} answered {} {text:?}", answer.asked, answer.status);
    match expect["error"].as_str() {
        Some(error) if answer.status >= 400 && text.contains(error) => Ok(()),
        Some(error) => Err(format!("expected {error:?}; {}", shown())),
        None if answer.status == 200 => ok(&expect["ok"]),
        None => Err(shown()),
    }
}
