//! LXD's own cases (`testdata/cases/lxd.jsonl`), by id: each has a body here that runs against real agents, or a reason
//! in `testdata/cases/lxd-exceptions.toml` why it cannot hold. `integration/CASES.md` is the table of both.
//!
//! A case whose surface is not served yet may have both: its body is run all the same, and must fail; once it holds,
//! `COMITY_BLESS=1` takes its exception out. The cases of an area share their agents: each uses names of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Mutex;

use integration::golden::testdata;
use serde_json::Value;

mod auth;
mod flocker_ca;
mod link;
mod oidc;
mod pki;
mod remote;
mod token;
mod trust;
mod world;

use world::World;

/// A case's id and its body.
type Case = (&'static str, fn(&World));

const AREAS: &[(&str, &[Case])] = &[
    ("auth", auth::CASES),
    ("flocker-ca", flocker_ca::CASES),
    ("link", link::CASES),
    ("oidc", oidc::CASES),
    ("pki", pki::CASES),
    ("remote", remote::CASES),
    ("token", token::CASES),
    ("trust", trust::CASES),
];

/// How the reason of an exception begins that is to go.
const NOT_YET: &str = "Not served yet";

/// Runs all cases of an area, and tells of every one that fails.
fn run(area: &str) {
    let (_, cases) = AREAS.iter().find(|(name, _)| *name == area).expect("an area");
    let world = World::new();
    let exceptions = exceptions();
    let (mut failed, mut held) = (Vec::new(), Vec::new());
    for (id, body) in *cases {
        let holds = std::panic::catch_unwind(AssertUnwindSafe(|| body(&world))).is_ok();
        match (holds, exceptions.contains_key(*id)) {
            (false, false) => failed.push(*id),
            (true, true) => held.push(*id),
            _ => {}
        }
    }
    if !held.is_empty() && std::env::var_os("COMITY_BLESS").is_some_and(|value| value == "1") {
        forget(&held);
        held.clear();
    }
    assert!(
        held.is_empty(),
        "these hold now, take their exceptions out (COMITY_BLESS=1 does): {}",
        held.join(", ")
    );
    assert!(failed.is_empty(), "of {} cases {} failed: {}", cases.len(), failed.len(), failed.join(", "));
}

#[test]
fn auth_cases() {
    run("auth");
}

#[test]
fn flocker_ca_cases() {
    run("flocker-ca");
}

#[test]
fn oidc_cases() {
    run("oidc");
}

#[test]
fn pki_cases() {
    run("pki");
}

#[test]
fn link_cases() {
    run("link");
}

#[test]
fn remote_cases() {
    run("remote");
}

#[test]
fn token_cases() {
    run("token");
}

#[test]
fn trust_cases() {
    run("trust");
}

/// Takes exceptions out of their file.
fn forget(ids: &[&str]) {
    // Areas end at the same time.
    static FILE: Mutex<()> = Mutex::new(());
    let _alone = FILE.lock();
    let path = testdata().join("cases/lxd-exceptions.toml");
    let text = std::fs::read_to_string(&path).expect("the exceptions");
    let kept = text.lines().filter(|line| !ids.iter().any(|id| line.starts_with(&format!("{id} = "))));
    let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
    std::fs::write(&path, kept).expect("a file");
}

fn rows() -> Vec<Value> {
    let text = std::fs::read_to_string(testdata().join("cases/lxd.jsonl")).expect("the cases");
    text.lines().map(|line| serde_json::from_str(line).expect("a case is JSON")).collect()
}

fn exceptions() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(testdata().join("cases/lxd-exceptions.toml")).expect("the exceptions");
    // `id = "reason"`, one a line; the string as JSON has it.
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = lines.map(|line| {
        let (id, reason) = line.split_once(" = ").expect("id = \"reason\"");
        (id.to_owned(), serde_json::from_str(reason).expect("a reason is a string"))
    });
    pairs.collect()
}

#[test]
fn every_case_is_run_or_excepted_and_the_table_says_so() {
    let (rows, exceptions) = (rows(), exceptions());
    let bodies: BTreeSet<&str> =
        AREAS.iter().flat_map(|(_, cases)| cases.iter().map(|(id, _)| *id)).collect();
    let count: usize = AREAS.iter().map(|(_, cases)| cases.len()).sum();
    assert_eq!(bodies.len(), count, "a case has two bodies");
    let mut known = BTreeSet::new();
    for row in &rows {
        let id = row["id"].as_str().expect("a case has an id");
        assert!(known.insert(id), "{id} is there twice");
        let reason = exceptions.get(id);
        let either = bodies.contains(id) != reason.is_some()
            || reason.is_some_and(|reason| reason.starts_with(NOT_YET));
        assert!(either, "{id} needs a body or an exception, and not both");
        let area = AREAS.iter().find(|(_, cases)| cases.iter().any(|(one, _)| *one == id));
        assert!(area.is_none_or(|(area, _)| row["area"] == *area), "{id} has its body in another area");
    }
    for id in bodies.iter().copied().chain(exceptions.keys().map(String::as_str)) {
        assert!(known.contains(id), "{id} is no case");
    }

    let mut table = String::from(
        "# LXD's cases, by area\n\n\
         Written by `COMITY_BLESS=1 cargo test -p integration --test all every_case`; a test keeps it up to date. The\n\
         cases are `testdata/cases/lxd.jsonl`, what runs them is `integration/tests/all/lxd_cases/`.\n\n\
         | area | cases | pass | exceptions |\n|---|---|---|---|\n",
    );
    for (area, cases) in AREAS {
        let all = rows.iter().filter(|row| row["area"] == *area).count();
        let passing = cases.iter().filter(|(id, _)| !exceptions.contains_key(*id)).count();
        writeln!(table, "| {area} | {all} | {passing} | {} |", all - passing).expect("a string takes text");
    }
    table += "\n## Exceptions\n\n| case | given | action | expected of LXD | why it is not so here |\n|---|---|---|---|---|\n";
    for row in &rows {
        if let Some(reason) = row["id"].as_str().and_then(|id| exceptions.get(id)) {
            let cell = |key: &str| row[key].as_str().unwrap_or_default().replace('|', "\\|");
            let (id, given, action, expect) = (cell("id"), cell("given"), cell("action"), cell("expect"));
            writeln!(table, "| {id} | {given} | {action} | {expect} | {reason} |")
                .expect("a string takes text");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CASES.md");
    if std::env::var_os("COMITY_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &table).expect("a file");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == table, "integration/CASES.md is out of date; COMITY_BLESS=1 rewrites it");
}
