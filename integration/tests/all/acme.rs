//! Certificates from an ACME server, for clients to see.

use integration::{Agent, Pebble, PebbleOptions, own_only};

#[test]
fn pebble_answers() {
    if own_only() {
        return;
    }
    let east = Agent::prepare("east");
    let pebble = Pebble::start(PebbleOptions::of(&east, 12));
    pebble.resolve("east.example", "127.0.0.1");
    let root = std::fs::read_to_string(pebble.root()).unwrap();
    assert!(root.contains("BEGIN CERTIFICATE"), "{root}");
    assert!(pebble.directory().ends_with("/dir"));
}
