//! Consul's own cases for the two config entry kinds that are taken: `testdata/cases/consul.jsonl`.

use std::fs;

use schema::config::{NoInputs, load};
use schema::diagnostic::Severity;
use serde_json::Value;

use crate::support::{source, testdata};

/// Cases that are not met, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("es-011", "a namespace other than default is refused rather than silently dropped"),
    ("es-012", "a namespace other than default is refused rather than silently dropped"),
    ("es-018", "a partition other than default is refused rather than silently exporting to no one"),
    (
        "dec-006",
        "the case decodes without validating; its Name, namespaces and partitions are refused by validation",
    ),
    (
        "dec-007",
        "the case decodes without validating; its Name, namespaces and partitions are refused by validation",
    ),
    ("dec-013", "the namespace default is accepted: seed 001's own files name it"),
    ("dec-016", "the partition default is accepted, as the namespace is"),
    ("es-009", "sameness groups work here, which Consul's free edition has not"),
    ("si-037", "sameness groups work here, which Consul's free edition has not"),
    ("si-043", "the legacy write path is an API, not a file"),
    ("si-044", "the legacy write path is an API, not a file"),
    ("nrm-003", "the legacy write path is an API, not a file"),
];

#[test]
fn consuls_cases_hold() {
    let cases = fs::read_to_string(testdata().join("cases/consul.jsonl")).unwrap();
    let mut run = 0;
    let mut failures = Vec::new();
    for case in cases.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let Some((name, text)) = file_of(&case) else { continue };
        let id = case["id"].as_str().unwrap();
        run += 1;
        let outcome = check(&case["expect"], name, &text);
        let excepted = EXCEPTIONS.iter().any(|(known, _)| *known == id);
        match outcome {
            Err(_) if excepted => {}
            Ok(()) if excepted => failures.push(format!("{id} is met now: take it off the list")),
            Err(why) => failures.push(format!("{id}: {why}\n  {text}")),
            Ok(()) => {}
        }
    }
    assert!(run >= 70, "only {run} cases were run");
    assert!(failures.is_empty(), "{} of {run}:\n{}", failures.len(), failures.join("\n"));
}

/// The file that a case is about, if it is about one of these kinds.
fn file_of(case: &Value) -> Option<(&'static str, String)> {
    if !["validate", "normalise", "decode"].contains(&case["area"].as_str()?) {
        return None;
    }
    let input = &case["input"];
    let taken =
        |kind: &str| !["proxy-defaults", "mesh", "service-router", "service-resolver"].contains(&kind);
    if let Some(config) = input.get("config") {
        let kind = config.get("Kind").or(config.get("kind")).and_then(Value::as_str).unwrap_or_default();
        return taken(kind).then(|| ("entry.json", config.to_string()));
    }
    let hcl = input.get("hcl")?.as_str()?;
    let kinds = ["exported-services", "service-intentions", "service-defaults", "sameness-group"];
    kinds.iter().any(|kind| hcl.contains(kind)).then(|| ("entry.hcl", hcl.to_owned()))
}

fn check(expect: &Value, name: &str, text: &str) -> Result<(), String> {
    let loaded = load(&[source(name, text)], &NoInputs);
    let errors: Vec<String> = loaded
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .map(|diagnostic| format!("{} {}", diagnostic.summary, diagnostic.detail))
        .collect();
    match expect.get("error").and_then(Value::as_str) {
        Some(error) if errors.iter().any(|told| told.contains(error)) => Ok(()),
        Some(error) => Err(format!("expected {error:?}, got {errors:?}")),
        None if errors.is_empty() => Ok(()),
        None => Err(format!("expected no error, got {errors:?}")),
    }
}
