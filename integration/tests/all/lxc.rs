//! Debian's own `lxc` 5.0.2, unmodified, against our agents. What it prints is kept in `testdata/lxc`.

use std::process::Stdio;

use integration::http::{der_base64, fingerprint_of};
use integration::{Agent, Http, LIMIT, Lxc, Transcript, own_only, wait_for};
use serde_json::json;

#[test]
fn remotes_are_added_by_token_in_all_three_ways() {
    if own_only() {
        return;
    }
    let (east, west) = (Agent::start("east"), Agent::start("west"));
    let mut shown = Transcript::of(&[&east, &west]);
    let lxc = Lxc::new();
    let first = Lxc::token(&east, "positional");
    shown.add(lxc.run(&["remote", "add", "east", &first]).success());
    let second = Lxc::token(&west, "as-password");
    let address = west.address();
    shown.add(
        lxc.run(&["remote", "add", "west", &address, "--accept-certificate", "--password", &second])
            .success(),
    );
    shown.add(lxc.run(&["remote", "list"]).success());
    shown.add(lxc.run(&["remote", "switch", "east"]).success());
    shown.add(lxc.run(&["remote", "rename", "east", "sunrise"]).success());
    shown.add(lxc.run(&["remote", "get-default"]).success());
    shown.add(lxc.run(&["remote", "remove", "sunrise"]).exits(1));

    let other = Lxc::new();
    let third = Lxc::token(&east, "prompted");
    let prompt = [("ok (y/n", "y"), ("(or token) for east: ", third.as_str())];
    shown.add(other.converse(&["remote", "add", "east", &east.address()], &prompt).success());
    // Whoever is trusted already is asked for nothing but the fingerprint.
    let again = other.converse(&["remote", "add", "twice", &east.address()], &[("ok (y/n", "y")]);
    shown.add(again.success());
    // A token is for one.
    let late = Lxc::new();
    shown.add(late.run(&["remote", "add", "east", &third]).exits(1));
    shown.add(
        late.run(&["remote", "add", "east", &east.address(), "--accept-certificate", "--password", "secret"])
            .exits(1),
    );
    shown.matches("remote-add");
}

#[test]
fn the_fingerprint_is_asked_about() {
    if own_only() {
        return;
    }
    let east = Agent::start("east");
    let mut shown = Transcript::of(&[&east]);
    let address = east.address();
    let add = ["remote", "add", "east", address.as_str()];
    for answer in ["n", "", "who knows", &"0".repeat(64)] {
        let lxc = Lxc::new();
        shown.add(lxc.converse(&add, &[("ok (y/n", answer)]).exits(1));
        assert!(!lxc.config_dir().join("servercerts/east.crt").exists());
    }
    let lxc = Lxc::new();
    let fingerprint = fingerprint_of(&east).to_string();
    let token = Lxc::token(&east, "typed");
    let answers = [("ok (y/n", fingerprint.as_str()), ("(or token) for east: ", token.as_str())];
    shown.add(lxc.converse(&add, &answers).success());
    shown.matches("fingerprint");
}

#[test]
fn clients_are_listed_added_and_removed() {
    if own_only() {
        return;
    }
    let east = Agent::start("east");
    let mut shown = Transcript::of(&[&east]);
    let lxc = Lxc::trusted_by(&east);
    let stranger = Http::stranger(&east);
    let pair = stranger.identity.clone().expect("it shows one");
    let file = lxc.config_dir().join("laptop.crt");
    std::fs::write(&file, &pair.pem).expect("a file");
    let file = file.to_str().expect("temporary paths are UTF-8");
    shown.call(file, "FOLDER/laptop.crt");
    shown.add(lxc.run(&["config", "trust", "add", file]).success());
    stranger.get("/1.0/certificates").expect(200);
    shown.add(lxc.run(&["config", "trust", "add", file]).exits(1));
    let list = lxc.run(&["config", "trust", "list", "--format", "csv"]).success();
    assert_eq!(list.stdout.lines().count(), 2, "{}", list.stdout);
    let short = &pair.fingerprint.to_string()[..12];
    assert!(list.stdout.contains(short), "{}", list.stdout);
    shown.add(lxc.run(&["config", "trust", "remove", &pair.fingerprint.to_string()]).success());
    shown.add(lxc.run(&["config", "trust", "remove", &pair.fingerprint.to_string()]).exits(1));
    stranger.get("/1.0/certificates").refused(403, "Forbidden");
    shown.add(lxc.run(&["config", "trust", "add", "--name", "-x"]).exits(1));
    shown.matches("trust");
}

#[test]
fn query_reaches_everything() {
    if own_only() {
        return;
    }
    let east = Agent::start("east");
    let lxc = Lxc::trusted_by(&east);
    for path in ["/1.0", "/1.0/certificates?recursion=1", "/1.0/operations", "/1.0/cluster/links?recursion=1"]
    {
        // What is empty is printed as nothing at all.
        lxc.run(&["query", path]).success();
    }
    let mut shown = Transcript::of(&[&east]);
    shown.add(lxc.run(&["query", "/1.0/nonsense"]).exits(1));
    shown.add(lxc.run(&["query", "-X", "POST", "-d", "{\"name\": 5}", "/1.0/certificates"]).exits(1));
    shown.matches("query");
}

#[test]
fn tokens_are_operations_that_can_be_listed_and_revoked() {
    if own_only() {
        return;
    }
    let east = Agent::start("east");
    let lxc = Lxc::trusted_by(&east);
    let mut shown = Transcript::of(&[&east]);
    let made = lxc.run(&["config", "trust", "add", "--name", "laptop"]).success();
    let token = made.stdout.lines().last().expect("a token is printed").to_owned();
    shown.add(made);
    let list = lxc.run(&["config", "trust", "list-tokens", "--format", "csv"]).success();
    assert!(list.stdout.starts_with("laptop,"), "{}", list.stdout);
    let operations = lxc.run(&["operation", "list", "--format", "csv"]).success();
    assert!(operations.stdout.contains(",TOKEN,Certificate add token,RUNNING,"), "{}", operations.stdout);
    let id = operations.stdout.split(',').next().expect("it has an id").to_owned();
    let one = lxc.run(&["operation", "show", &id]).success();
    assert!(one.stdout.contains("class: token"), "{}", one.stdout);
    shown.add(lxc.run(&["config", "trust", "revoke-token", "laptop"]).success());
    shown.add(lxc.run(&["config", "trust", "revoke-token", "laptop"]).exits(1));
    shown.add(lxc.run(&["config", "trust", "list-tokens"]).success());
    Lxc::new().run(&["remote", "add", "east", &token]).exits(1);

    lxc.run(&["config", "trust", "add", "--name", "phone"]).success();
    let operations = lxc.run(&["operation", "list", "--format", "csv"]).success();
    let id = operations.stdout.split(',').next().expect("it has an id").to_owned();
    shown.add(lxc.run(&["operation", "delete", &id]).success());
    shown.add(lxc.run(&["operation", "list"]).success());
    shown.matches("tokens");
}

#[test]
fn what_happens_is_seen_by_monitor() {
    if own_only() {
        return;
    }
    let east = Agent::start("east");
    let lxc = Lxc::trusted_by(&east);
    let seen = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut monitor = lxc
        .command(&["monitor", "--type", "lifecycle"])
        .stdin(Stdio::null())
        .stdout(seen.reopen().expect("a second handle"))
        .stderr(Stdio::null())
        .spawn()
        .expect("lxc is installed by integration/run");
    let socket = Http::socket(&east);
    let mut count = 0;
    wait_for("monitor prints an event", LIMIT, || {
        // One that came before it listened is not told.
        count += 1;
        let pair = Http::stranger(&east).identity.expect("it shows one");
        let body = json!({ "type": "client", "name": format!("c{count}"), "certificate": der_base64(&pair) });
        socket.post("/1.0/certificates", &body).expect(201);
        let text = std::fs::read_to_string(seen.path()).expect("it can be read");
        (text.contains("action: certificate-created") && text.contains("type: lifecycle")).then_some(())
    });
    monitor.kill().and_then(|()| monitor.wait()).expect("it ends");
}
