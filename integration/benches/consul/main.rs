//! What Consul's API costs. Prints one JSON document.
//!
//! `waiting`: a thousand queries that wait, each over a connection of its own, as Consul's clients have them: what the
//! agent spends on them while nothing changes, what it keeps for each, and how soon all of them are told of a change.

use integration::measure::build;
use serde_json::json;

mod waiting;

fn main() {
    // Cargo hands its own flags on.
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let mut report = json!({ "bench": "consul", "build": build() });
    if wanted("waiting") {
        report["waiting"] = waiting::measure();
    }
    println!("{report:#}");
}
