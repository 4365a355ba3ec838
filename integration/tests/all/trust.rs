//! Trust that is refused: tokens that are wrong, used, expired or cut short, another cluster's, a certificate that is
//! not the promised one, a peer that is down or never answers. Each says which and what to do; nothing is left half made.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Instant;

use integration::{Agent, Clusters, LIMIT, Operator};

fn token(clusters: &Clusters, side: &str, link: &str) -> String {
    clusters.run(&["--remote", side, "--quiet", "link", "create", link]).success().stdout.trim().to_owned()
}

/// Tries `token` for west's link `east` and expects a refusal that says `why` and leaves nothing behind.
#[track_caller]
fn refused(clusters: &Clusters, token: &str, why: &str) {
    let began = Instant::now();
    let done = clusters.run(&["--remote", "west", "link", "create", "east", "--token", token]).exits(1);
    assert!(done.stderr.contains(why), "{why:?} is not in {}", done.stderr);
    assert!(done.stderr.len() < 2000 && !done.stderr.contains(token), "the token was echoed");
    assert!(began.elapsed() < LIMIT, "it took {:?}", began.elapsed());
    assert_eq!(clusters.ask("west", &["link", "list"]), serde_json::json!([]));
}

#[test]
fn bad_link_tokens_are_told_apart_and_leave_nothing() {
    let mut clusters = Clusters::start();
    let good = token(&clusters, "east", "west");
    refused(&clusters, &good[..good.len() / 2], "token");
    refused(&clusters, "nonsense", "token");

    // Of the right shape, with a secret that east never issued.
    let decoded = String::from_utf8(decode(&good)).expect("a token is JSON");
    let mut wrong: serde_json::Value = serde_json::from_str(&decoded).expect("a token is JSON");
    wrong["secret"] = "0".repeat(64).into();
    refused(
        &clusters,
        &encode(wrong.to_string().as_bytes()),
        "No pending identities found with given secret",
    );

    // For a certificate that east does not have.
    let mut other: serde_json::Value = serde_json::from_str(&decoded).expect("a token is JSON");
    other["fingerprint"] = "ab".repeat(32).into();
    refused(&clusters, &encode(other.to_string().as_bytes()), "certificate");

    // West's own.
    let own = token(&clusters, "west", "itself");
    clusters.run(&["--remote", "west", "link", "delete", "itself"]).success();
    refused(&clusters, &own, "itself");

    // Where nobody listens, and where somebody takes the connection and never answers.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut hanging: serde_json::Value = serde_json::from_str(&decoded).expect("a token is JSON");
    hanging["addresses"] = serde_json::json!([deaf.local_addr().expect("an address").to_string()]);
    refused(&clusters, &encode(hanging.to_string().as_bytes()), "127.0.0.1:");
    drop(deaf);
    refused(&clusters, &encode(hanging.to_string().as_bytes()), "127.0.0.1:");

    // The good one still works: nothing of the above used it up. Once.
    clusters.run(&["--remote", "west", "link", "create", "east", "--token", &good]).success();
    clusters.wait_active();
    let third = Agent::start("north");
    let operator = Operator::new();
    operator.trusted_by(&third);
    let used = operator.run(&["link", "create", "east", "--token", &good]).exits(1);
    assert!(used.stderr.contains("used"), "{}", used.stderr);

    for agent in [&clusters.east, &clusters.west, &third] {
        let log = agent.log();
        let secret = wrong_secret(&decoded);
        assert!(!log.contains(&secret) && !log.contains(&good), "a secret is in the log of {}", agent.name());
    }
    clusters.west.terminate();
}

#[test]
fn a_client_token_works_once_and_for_its_own_cluster() {
    let east = Agent::start("east");
    let operator = Operator::new();
    let add = |arguments: &[&str]| {
        let all = [&["trust", "add", "--quiet", "--name", "laptop"], arguments].concat();
        operator.run_on(&east, &all).success().stdout.trim().to_owned()
    };
    let good = add(&[]);
    operator.run(&["remote", "add", "east", &good]).success();
    let other = Operator::new();
    let used = other.run(&["remote", "add", "east", &good]).exits(1);
    assert!(used.stderr.contains("used"), "{}", used.stderr);
    assert_eq!(other.run(&["remote", "list", "--format", "json"]).json().as_array().map(Vec::len), Some(1));

    let cut = other.run(&["remote", "add", "east", &add(&[])[..40]]).exits(1);
    assert!(!cut.stderr.is_empty());
    let pasted = other.run(&["remote", "add", &good, "127.0.0.1:1"]).exits(1);
    assert!(!pasted.stderr.contains(&good), "a token pasted where a name belongs was echoed");

    let expired = add(&["--expires", "1s"]);
    let made = Instant::now();
    integration::wait_for("the token expires", LIMIT, || (made.elapsed().as_millis() > 1000).then_some(()));
    let late = other.run(&["remote", "add", "east", &expired]).exits(1);
    assert!(late.stderr.contains("expired"), "{}", late.stderr);
}

#[test]
fn the_trust_store_is_managed_over_a_remote_that_an_operand_names() {
    let (east, west) = (Agent::start("east"), Agent::start("west"));
    let operator = Operator::new();
    operator.trusted_by(&east);
    operator.trusted_by(&west);
    let names = |operand: &str| {
        let listed = operator.run(&["--format", "json", "trust", "list", operand]).success().json();
        let listed = listed.as_array().expect("a list").iter().map(|row| row["name"].to_string());
        // They are listed by their fingerprints.
        let mut names: Vec<String> = listed.collect();
        names.sort();
        names.join(" ")
    };
    let certificate = integration::certificate::p256(operator.config_dir(), "laptop");
    let file = operator.config_dir().join("laptop.crt");
    let file = file.to_str().expect("temporary paths are UTF-8");
    operator.run(&["trust", "add", "west:", file, "--name", "laptop"]).success();
    assert_eq!(
        (names("east:"), names("west:")),
        ("\"operator\"".to_owned(), "\"laptop\" \"operator\"".to_owned())
    );
    let called = format!("west:{}", certificate.fingerprint);
    operator.run(&["trust", "show", &called]).success();
    operator.run(&["trust", "remove", &called]).success();
    assert_eq!(names("west:"), "\"operator\"");
    operator.run(&["trust", "add", "west:", "--name", "phone", "--quiet"]).success();
    assert_eq!(
        operator.run(&["--format", "json", "trust", "list-tokens", "east:"]).success().json(),
        serde_json::json!([])
    );
    operator.run(&["trust", "revoke-token", "west:phone"]).success();
    operator.run(&["trust", "add", file, file]).exits(64);
}

#[test]
fn only_tls_1_3_is_spoken() {
    if std::env::var_os("COMITY_OWN_ONLY").is_some() {
        return;
    }
    let east = Agent::start("east");
    let hello = |version: &str| {
        let done = Command::new("openssl")
            .args(["s_client", "-connect", &east.address(), version])
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed by integration/run");
        String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
    };
    assert!(hello("-tls1_3").contains("TLSv1.3"), "TLS 1.3 is spoken");
    let refused = hello("-tls1_2");
    assert!(refused.contains("alert protocol version"), "{refused}");
}

fn wrong_secret(decoded: &str) -> String {
    let token: serde_json::Value = serde_json::from_str(decoded).expect("a token is JSON");
    token["secret"].as_str().expect("a token has a secret").to_owned()
}

fn decode(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).expect("a token is base64")
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
