//! `kill -9` of either agent at each step of an apply with a token exchange: after a restart and the same apply both
//! halves are ACTIVE, nothing is there twice and nothing is left over.

use agent::store::sqlite::SqliteStore;
use integration::{Agent, Clusters};

const SERVICES: &str = "volume \"default/orders\" {}\n";

/// Where an agent can be ended: see `crash::point` in the agent. East, whose name comes first, issues the token.
const STEPS: [(&str, &str); 12] = [
    ("east", "apply-before-commit"),
    ("east", "apply-after-commit"),
    ("east", "apply-before-step"),
    ("east", "apply-after-step"),
    ("west", "apply-before-commit"),
    ("west", "apply-after-commit"),
    ("east", "link-minted"),
    ("east", "link-activate-before-commit"),
    ("east", "link-activated"),
    ("west", "link-redeem-begun"),
    ("west", "link-redeemed-before-commit"),
    ("west", "link-redeemed"),
];

#[test]
fn killed_at_any_step_it_converges() {
    for (side, step) in STEPS {
        converges(side, step);
    }
}

fn converges(side: &str, step: &str) {
    let mut clusters = Clusters::start();
    clusters.declare("east", SERVICES);
    clusters.declare("west", SERVICES);
    let victim = agent(&mut clusters, side);
    victim.terminate();
    victim.set_env("COMITY_CRASH_AT", step);
    victim.launch();
    victim.wait_ready();

    // Whether the command noticed depends on the step; that the agent died there does not.
    clusters.apply();
    let victim = agent(&mut clusters, side);
    let ended = victim.wait_end();
    assert_eq!(signal(ended), Some(9), "{side} was to be killed at {step}:\n{}", victim.log());
    victim.clear_env();
    victim.launch();
    victim.wait_ready();

    clusters.apply().success();
    clusters.wait_active();
    let again = clusters.run(&["plan", "east", "west", "--detailed-exitcode"]);
    assert_eq!(
        again.code,
        Some(0),
        "after a crash of {side} at {step} the plan is not empty:\n{}",
        again.stdout
    );

    for (name, peer) in [("east", "west"), ("west", "east")] {
        let agent = agent(&mut clusters, name);
        agent.terminate();
        let what = format!("{name}, after a crash of {side} at {step}");
        let keys = keys_of(agent);
        let under = |prefix: &str| keys.iter().filter(|key| key.starts_with(prefix)).count();
        assert_eq!(under("/link/"), 1, "{what}: {keys:?}");
        assert!(keys.contains(&format!("/link/{peer}")), "{what}: {keys:?}");
        assert_eq!(under("/identity/"), 2, "the operator and the peer; {what}: {keys:?}");
        assert_eq!(under("/step/"), 0, "{what}: {keys:?}");
        assert_eq!(under("/tombstone/"), 0, "{what}: {keys:?}");
        assert_eq!(under("/declared/"), 3, "{what}: {keys:?}");
    }
}

fn agent<'a>(clusters: &'a mut Clusters, side: &str) -> &'a mut Agent {
    if side == "east" { &mut clusters.east } else { &mut clusters.west }
}

fn signal(status: std::process::ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

/// Every key of a stopped agent's store.
fn keys_of(agent: &Agent) -> Vec<String> {
    let store = SqliteStore::open(&agent.data_dir().join("store.sqlite")).expect("the agent's store");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let snapshot = runtime.block_on(store.range("/")).expect("its keys");
    snapshot.entries.into_iter().map(|entry| entry.key).collect()
}
