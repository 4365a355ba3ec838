//! Certificates from an ACME server, for clients to see: a real one's, through renewals, restarts and faults.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use integration::{
    Agent, Clusters, LIMIT, Lxc, Operator, Pebble, PebbleOptions, Server, free_port, own_only, wait_for,
};
use serde_json::Value;

mod faults;
mod issued;

const DOMAIN: &str = "east.example";

/// What `agent` says of itself over its socket.
fn status(agent: &Agent) -> Value {
    Operator::new().run_on(agent, &["--format", "json", "status"]).success().json()
}

/// Sets keys over `agent`'s socket.
#[track_caller]
fn set(agent: &Agent, pairs: &[&str]) {
    Operator::new().run_on(agent, &[&["server", "set"], pairs].concat()).success();
}

/// Has `agent` ask `pebble` for a certificate, once it trusts it.
fn ask(agent: &Agent, pebble: &Pebble, more: &[&str]) {
    let directory = format!("acme.ca_url={}", pebble.directory());
    let domain = format!("acme.domain={DOMAIN}");
    let usual = ["acme.email=ops@east.example", "acme.agree_tos=true", &directory, &domain];
    set(agent, &[&usual[..], more].concat());
}

/// Has `agent` know `pebble` by its certificate, from its next start on.
fn trusting(agent: &mut Agent, pebble: &Pebble) {
    agent.set_env("SSL_CERT_FILE", pebble.trust().to_str().expect("temporary paths are UTF-8"));
}

/// Waits until clients are shown a certificate that is not `other`, and gives its fingerprint.
#[track_caller]
fn wait_shown(agent: &Agent, other: &str) -> String {
    wait_for("clients are shown a new certificate", 2 * LIMIT, || {
        let shown = status(agent)["server_fingerprint"].as_str()?.to_owned();
        (shown != other).then_some(shown)
    })
}

/// Waits until `agent`'s status of ACME is as `is` says, and gives it.
#[track_caller]
fn wait_acme(agent: &Agent, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, 2 * LIMIT, || Some(status(agent)["acme"].clone()).filter(|acme| is(acme)))
}

/// The SHA-256 of what is shown to whoever offers `protocols`, as openssl sees it; with `root`, only if that is how a
/// client would check it: its chain, its name, its time.
fn shown(agent: &Agent, protocols: &str, root: Option<&Path>) -> String {
    let verified = root.map_or(String::new(), |root| {
        format!("-CAfile {} -verify_return_error -verify_hostname {DOMAIN}", root.display())
    });
    let script = format!(
        "openssl s_client -connect {} -servername {DOMAIN} -alpn {protocols} {verified} </dev/null 2>/dev/null \
         | openssl x509 -noout -fingerprint -sha256",
        agent.address()
    );
    let done = Command::new("sh").args(["-c", &script]).output().expect("openssl runs");
    let text = String::from_utf8_lossy(&done.stdout);
    text.trim()
        .split_once('=')
        .map_or_else(String::new, |(_, digits)| digits.replace(':', "").to_ascii_lowercase())
}

fn named_by(token: &str) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.decode(token.trim()).expect("a token is base64");
    let token: Value = serde_json::from_slice(&text).expect("a token is JSON");
    token["fingerprint"].as_str().expect("a token names a certificate").to_owned()
}

fn mode(agent: &Agent, name: &str) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(agent.data_dir().join(name)).expect("a file").permissions().mode() & 0o777
}

fn ping(socket: &mut TcpStream) -> Option<()> {
    socket.write_all(b"ping").ok()?;
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).ok()?;
    (&answer == b"ping").then_some(())
}

#[test]
fn a_link_a_stream_and_remotes_live_through_two_renewals_and_clients_are_shown_each() {
    if own_only() {
        return;
    }
    let (backend, local) = (Server::echo(), free_port());
    let exported = format!(
        r#"
service "backend" {{
  port = {}
}}
exported_services "default" {{
  services = [{{ name = "backend", consumers = [{{ peer = "west" }}] }}]
}}
service_intentions "backend" {{
  sources = [{{ name = "frontend", peer = "west", action = "allow" }}]
}}"#,
        backend.port()
    );
    let upstream = format!(
        r#"
service "frontend" {{
  port = 9000
  upstreams = [{{ destination_name = "backend", destination_peer = "east", local_bind_port = {local} }}]
}}"#
    );
    let mut clusters = Clusters::linked(&exported, &upstream);
    let pebble = Pebble::start(PebbleOptions::of(&clusters.east, 24));
    trusting(&mut clusters.east, &pebble);
    clusters.east.restart();
    clusters.wait_active();
    let mut open = wait_for("a connection through both agents", LIMIT, || {
        let mut socket = TcpStream::connect(("127.0.0.1", local)).ok()?;
        socket.set_read_timeout(Some(LIMIT)).ok()?;
        ping(&mut socket)?;
        Some(socket)
    });

    let east = &clusters.east;
    let own = shown(east, "h2", None);
    ask(east, &pebble, &[]);
    let root = pebble.root();
    let mut certificates = vec![wait_shown(east, "")];
    for _ in 0..2 {
        let current = certificates.last().expect("there is one");
        assert_eq!(
            shown(east, "h2,http/1.1", Some(&root)),
            *current,
            "a client that knows the root takes it"
        );
        assert_eq!(
            shown(east, "comity-http/1", None),
            own,
            "who has pinned the cluster is shown the cluster"
        );
        // A token names what its redeemer will be shown, and the remotes made by it do not mind the next renewal.
        let token = Lxc::token(east, "laptop");
        assert_eq!(named_by(&token), *current);
        let operator = Operator::new();
        operator.run(&["remote", "add", "east", &token]).success();
        certificates.push(wait_shown(east, current));
        operator.run(&["--remote", "east", "auth", "group", "list"]).success();
        // The stream that was open before the first certificate, and the link in both directions.
        ping(&mut open).expect("the stream lives");
        clusters.wait_active();
    }
    assert_eq!(clusters.ask("east", &["status"])["fingerprint"], own.as_str());

    let token = clusters.ask("east", &["link", "create", "north"]);
    assert_eq!(named_by(token["token"].as_str().expect("a pending link has a token")), own);

    // One account, whose key nobody else can read; every certificate is in the audit log, and no key.
    let account = std::fs::read_to_string(east.data_dir().join("acme-account.json")).expect("an account");
    assert_eq!(account.matches("key_pkcs8").count(), 1);
    assert_eq!((mode(east, "acme-account.json"), mode(east, "server.key")), (0o600, 0o600));
    let log = clusters.operator.run_on(east, &["audit", "--format", "json", "--since", "1h"]).success();
    let log = log.json();
    let installed: Vec<&Value> = log
        .as_array()
        .expect("a list")
        .iter()
        .filter(|r| r["action"] == "server-certificate-replaced")
        .collect();
    assert!(installed.len() >= 3, "{log:#}");
    assert_eq!(installed[0]["context"]["fingerprint"], certificates[0].as_str());
    assert_eq!(installed[1]["context"]["replaced"], certificates[0].as_str());
    assert!(!log.to_string().contains("PRIVATE") && !east.log().contains("PRIVATE"));

    // Without its server it starts with the last good one, and goes on asking.
    let mut pebble = pebble;
    pebble.stop();
    let last = status(east)["server_fingerprint"].clone();
    clusters.east.restart();
    let east = &clusters.east;
    assert_eq!(status(east)["server_fingerprint"], last);
    let failing = wait_acme(east, "it says that it fails", |acme| acme["failures"].as_u64() > Some(1));
    let message = failing["last_error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("could not be reached") && failing["next_attempt"].is_string(), "{failing:#}");
    assert_eq!(status(east)["server_fingerprint"], last, "the last good one stays, even past its time");
    // A server that was set up anew knows no account, and signs with another root.
    pebble.launch();
    let renewed = wait_shown(east, last.as_str().expect("a fingerprint"));
    assert_eq!(shown(east, "h2", Some(&pebble.root())), renewed);

    // Not wanted any more: said, and shown all the same.
    set(east, &["acme.domain="]);
    let off = wait_acme(east, "it is off", |acme| acme["state"] == "off");
    let shown = status(east)["server_fingerprint"].as_str().expect("a fingerprint").to_owned();
    assert!(off["note"].as_str().unwrap_or_default().contains(&shown), "{off:#}");
    let told = Operator::new().run_on(east, &["status"]).success().stdout;
    assert!(told.contains("is not renewed") && told.contains("from the ACME server"), "{told}");
}

#[test]
fn the_name_is_proved_in_the_clear_where_that_is_set_and_only_meanwhile() {
    if own_only() {
        return;
    }
    let mut east = Agent::prepare("east");
    let options = PebbleOptions::of(&east, 3600);
    let pebble = Pebble::start(options);
    trusting(&mut east, &pebble);
    east.launch();
    east.wait_ready();
    // The name leads elsewhere, at first.
    pebble.resolve(DOMAIN, "127.0.0.9");
    let began = Instant::now();
    ask(
        &east,
        &pebble,
        &["acme.challenge=HTTP-01", &format!("acme.http.port=127.0.0.1:{}", options.http_port)],
    );
    assert!(began.elapsed() < LIMIT / 4, "setting it waits for nobody");
    let failed = wait_acme(&east, "it has failed", |acme| acme["state"] == "failing");
    let message = failed["last_error"]["message"].as_str().expect("a message");
    assert!(message.contains("could not see that east.example is this agent by HTTP-01"), "{message}");
    assert!(message.contains("acme.http.port") && message.contains("Port 80 of every address"), "{message}");
    // The authority has looked and said no, which it counts: it is not asked again for minutes.
    let next: jiff::Timestamp =
        failed["next_attempt"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    assert!(next.duration_since(jiff::Timestamp::now()).as_secs() > 120, "{next}");
    assert!(status(&east)["server_fingerprint"].is_null());

    // Mended, and told by a setting that something is: then at once. The account is told of the new address.
    pebble.resolve(DOMAIN, "127.0.0.1");
    set(&east, &["acme.email=admin@east.example"]);
    let current = wait_shown(&east, "");
    assert_eq!(shown(&east, "h2", Some(&pebble.root())), current);
    let account = std::fs::read_to_string(east.data_dir().join("acme-account.json")).expect("an account");
    assert!(account.contains("admin@east.example") && account.matches("key_pkcs8").count() == 1, "{account}");
    let closed = TcpStream::connect(("127.0.0.1", options.http_port));
    assert!(closed.is_err(), "nothing is open in the clear but while a challenge is");
    let waiting = wait_acme(&east, "it waits", |acme| acme["state"] == "waiting");
    let next: jiff::Timestamp =
        waiting["next_attempt"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    let left = next.duration_since(jiff::Timestamp::now()).as_mins();
    assert!((35..=40).contains(&left), "two thirds of an hour: {left} min");
    // Nobody else is answered on that protocol, and nobody else's name.
    assert_eq!(shown(&east, "acme-tls/1", None), "");
}

#[test]
fn anothers_certificate_is_not_written_over_and_a_half_done_change_is_ended() {
    if own_only() {
        return;
    }
    let mut east = Agent::prepare("east");
    let pebble = Pebble::start(PebbleOptions::of(&east, 3600));
    trusting(&mut east, &pebble);
    let dir = east.data_dir();
    let foreign = integration::certificate::p256(&dir, "server").fingerprint.to_string();
    east.launch();
    east.wait_ready();
    ask(&east, &pebble, &[]);
    let blocked = wait_acme(&east, "it is blocked", |acme| acme["state"] == "blocked");
    let note = blocked["note"].as_str().expect("a note");
    assert!(note.contains("server.crt is not from an ACME server") && note.contains("move it"), "{note}");
    assert_eq!(status(&east)["server_fingerprint"], foreign.as_str());
    assert_eq!(status(&east)["server_certificate"]["origin"], "folder");

    // What is to be written cannot be: what was issued is kept in memory, and not asked for again.
    let in_the_way = dir.join("server.next.key");
    std::fs::create_dir(&in_the_way).expect("a folder");
    std::fs::write(in_the_way.join("x"), "").expect("a file");
    for name in ["server.crt", "server.key"] {
        std::fs::rename(dir.join(name), dir.join(format!("old.{name}"))).expect("a rename");
    }
    let failed = wait_acme(&east, "it could not be written", |acme| acme["failures"].as_u64() > Some(0));
    let message = failed["last_error"]["message"].as_str().expect("a message");
    assert!(message.contains("kept in memory and could not be written"), "{message}");
    assert_eq!(status(&east)["server_fingerprint"], foreign.as_str(), "the last good one stays");
    std::fs::remove_dir_all(&in_the_way).expect("it goes");
    let current = wait_shown(&east, &foreign);
    assert_eq!(shown(&east, "h2", Some(&pebble.root())), current);
    assert_eq!(pebble.log().matches("Issued certificate").count(), 1, "{}", pebble.log());
    assert_eq!(status(&east)["server_certificate"]["origin"], "acme");

    // Killed between the two renames of the next one.
    east.set_env("COMITY_CRASH_AT", "rotate-half-installed");
    east.kill9();
    east.launch();
    east.wait_ready();
    pebble.resolve("other.example", "127.0.0.1");
    let told = Operator::new().run_on(&east, &["server", "set", "acme.domain=other.example"]);
    drop(told);
    east.wait_end();
    east.clear_env();
    trusting(&mut east, &pebble);
    east.launch();
    east.wait_ready();
    let ended = status(&east);
    assert_eq!(ended["server_certificate"]["names"][0], "other.example", "{ended:#}");
    assert_eq!(ended["server_certificate"]["origin"], "acme", "it knows that it is its own");
    wait_acme(&east, "it waits", |acme| acme["state"] == "waiting");

    // One that is named at the start goes before all of this.
    let given = integration::certificate::p256(&dir, "given").fingerprint.to_string();
    let at = |name: &str| dir.join(name).to_str().expect("temporary paths are UTF-8").to_owned();
    east.kill9();
    let mut east = east.arguments(&["--server-cert", &at("given.crt"), "--server-key", &at("given.key")]);
    east.launch();
    east.wait_ready();
    let blocked = wait_acme(&east, "it is blocked", |acme| acme["state"] == "blocked");
    assert!(blocked["note"].as_str().unwrap_or_default().contains("--server-cert"), "{blocked:#}");
    assert_eq!(status(&east)["server_fingerprint"], given.as_str());
}
