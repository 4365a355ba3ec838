//! What is meant to fail, as seed 002 lists it: each with words of its own, and with what to do.

use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use integration::http::{fingerprint_of, read_answer};
use integration::{Agent, Done, Http, LIMIT, Operator, certificate, free_port, own_only, wait_for};
use serde_json::json;
use time::Duration;

#[track_caller]
fn told(done: &Done, words: &[&str]) {
    for word in words {
        assert!(done.stderr.contains(word), "{word:?} is not in\n{}", done.stderr);
    }
    let (message, hint) = done.stderr.split_once("Hint: ").expect("a failure has a hint");
    assert!(message.starts_with("Error: ") && !hint.trim().is_empty(), "{}", done.stderr);
}

#[test]
fn a_server_whose_certificate_changed_is_refused() {
    let mut agent = Agent::start("east");
    let operator = Operator::new();
    operator.trusted_by(&agent);
    let before = fingerprint_of(&agent).to_string();
    agent.terminate();
    for file in ["cluster.crt", "cluster.key"] {
        std::fs::remove_file(agent.data_dir().join(file)).expect("it was there");
    }
    agent.launch();
    agent.wait_ready();
    let after = fingerprint_of(&agent).to_string();
    let done = operator.run(&["--remote", "east", "status"]).exits(1);
    told(&done, &["does not match", &before, &after, "remote remove", "comity status"]);
    let done = operator.run(&["--remote", "east", "--format", "json", "status"]).exits(1);
    let error: serde_json::Value = serde_json::from_str(&done.stderr).expect("an error is JSON");
    assert_eq!(error["error"]["code"], "wrong-certificate");
    assert!(
        !agent.log().contains("caller=\"client operator\" ms")
            || agent.log().matches("ready name").count() == 2
    );
}

#[test]
fn trust_that_is_taken_back_ends_at_the_next_request_and_on_open_connections() {
    let agent = Agent::start("east");
    let operator = Operator::new();
    operator.trusted_by(&agent);
    let client = Http::trusted(&agent);
    let mut open = client.connect().expect("a connection");
    open.write_all(b"GET /1.0/certificates HTTP/1.1\r\nhost: x\r\n\r\n").expect("the connection lives");
    let (status, _, _) = read_answer(&mut BufReader::new(&mut open)).expect("an answer");
    assert_eq!(status, 200);

    let socket = Http::socket(&agent);
    socket.delete(&format!("/1.0/certificates/{}", client.fingerprint())).expect(200);
    client.get("/1.0/certificates").refused(403, "Forbidden");
    // Nothing more is said on the open one, and it is closed though nothing was asked on it.
    let mut rest = Vec::new();
    let _ = open.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains(" 200 "), "{}", String::from_utf8_lossy(&rest));

    let rows = socket.get("/1.0/certificates?recursion=1").metadata();
    let mine = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == "operator"));
    let mine = mine.and_then(|row| row["fingerprint"].as_str()).expect("the operator is trusted");
    socket.delete(&format!("/1.0/certificates/{mine}")).expect(200);
    for command in [&["trust", "list"][..], &["link", "list"], &["status"], &["operation", "list"]] {
        let done = operator.run(&[&["--remote", "east"], command].concat());
        if done.code == Some(64) {
            continue; // No such command yet.
        }
        told(&done.exits(1), &["does not trust this client", mine, "trust add", "remote add"]);
    }
}

#[test]
fn who_is_not_trusted_sees_how_to_become_so_and_no_more() {
    let agent = Agent::start("east");
    for (who, shows) in [(Http::anonymous(&agent), false), (Http::stranger(&agent), true)] {
        let server = who.get("/1.0").expect(200).metadata();
        let keys: Vec<&String> = server.as_object().expect("an object").keys().collect();
        let mut sorted = keys.clone();
        sorted.sort();
        assert_eq!(
            sorted,
            [
                "api_extensions",
                "api_status",
                "api_version",
                "auth",
                "auth_methods",
                "client_certificate",
                "config",
                "public"
            ]
        );
        assert_eq!((&server["auth"], &server["client_certificate"]), (&json!("untrusted"), &json!(shows)));
        for path in [
            "/1.0/certificates",
            "/1.0/operations",
            "/1.0/cluster/links",
            "/1.0/events",
            "/1.0/auth/groups",
            "/1.0/projects",
        ] {
            let answer = who.get(path);
            assert!([403, 404].contains(&answer.status), "{path}: {}", answer.status);
        }
    }
}

#[test]
fn a_certificate_past_its_time_is_nobody_s() {
    let agent = Agent::start("east");
    let operator = Operator::new();
    let pair =
        certificate::timed(operator.config_dir(), "client", Duration::minutes(-10), Duration::seconds(4));
    operator.trusted_by(&agent);
    let http = Http::showing(&agent, Some(pair.clone()));
    http.get("/1.0/certificates").expect(200);
    let mut open = http.connect().expect("a connection");
    open.write_all(b"GET /1.0/certificates HTTP/1.1\r\nhost: x\r\n\r\n").expect("it is taken");
    let (status, _, _) = read_answer(&mut BufReader::new(&mut open)).expect("an answer");
    assert_eq!(status, 200);
    wait_for("the certificate expires", LIMIT, || {
        (http.get("/1.0").metadata()["auth"] == "untrusted").then_some(())
    });
    open.write_all(b"GET /1.0/certificates HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .expect("it is taken");
    let (status, _, _) = read_answer(&mut BufReader::new(&mut open)).expect("an answer");
    assert_eq!(status, 403, "a connection that was made in time is no exception");
    let done = operator.run(&["--remote", "east", "trust", "list"]).exits(1);
    told(&done, &["expired at", "client.crt", "trust add"]);

    let late = certificate::timed(operator.config_dir(), "late", Duration::hours(-2), Duration::hours(-1));
    let early = certificate::timed(operator.config_dir(), "early", Duration::hours(1), Duration::hours(2));
    for (pair, why) in [(late, "expired"), (early, "not valid yet")] {
        let body =
            json!({ "type": "client", "name": "x", "certificate": integration::http::der_base64(&pair) });
        Http::socket(&agent).post("/1.0/certificates", &body).refused(400, why);
    }
}

#[test]
fn a_server_that_speaks_no_tls_1_3_is_told_apart_from_one_that_is_down() {
    if own_only() {
        return;
    }
    let agent = Agent::start("east");
    let operator = Operator::new();
    operator.trusted_by(&agent);
    let folder = tempfile::tempdir().expect("a temporary folder");
    certificate::p256(folder.path(), "old");
    let port = free_port().to_string();
    let mut server = Command::new("openssl")
        .args(["s_server", "-quiet", "-tls1_2", "-accept", &port, "-cert", "old.crt", "-key", "old.key"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed by integration/run");
    let address = format!("127.0.0.1:{port}");
    wait_for("it listens", LIMIT, || std::net::TcpStream::connect(&address).ok());
    let done = operator.run(&["remote", "add", "old", &address]).exits(1);
    server.kill().and_then(|()| server.wait()).expect("it ends");
    told(&done, &["does not speak TLS 1.3", "proxy"]);

    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let done = operator.run(&["remote", "add", "down", &closed.to_string()]).exits(1);
    told(&done, &["could not be reached", "connection refused"]);

    let old = Command::new("openssl")
        .args(["s_client", "-connect", &agent.address(), "-tls1_2"])
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed by integration/run");
    assert!(String::from_utf8_lossy(&old.stderr).contains("alert protocol version"));
    wait_for("it is in the log", LIMIT, || agent.log().contains("does not speak TLS 1.3").then_some(()));
}
