//! Certificates that authorities vouch for: revocation while the agent runs, lists and authorities that are no good,
//! and the roles of a cluster's own authority.

use std::io::{BufReader, Read as _, Write as _};

use integration::authority::put;
use integration::http::{Tls, der_base64, read_answer};
use integration::{Agent, Authority, Http, LIMIT, Lxc, Operator, own_only, wait_for};
use serde_json::{Value, json};
use time::Duration;

const CLUSTER: &str = "5f1f2d2e-7a53-4a77-9d0f-0d1d0a1f3c5b";

/// An agent with a `server.ca` of this authority.
fn agent_of(authority: &Authority) -> Agent {
    let mut agent = Agent::prepare("east");
    put(&agent, "server.ca", &authority.pem());
    agent.launch();
    agent.wait_ready();
    agent
}

/// An agent that knows a cluster's authority, and nothing of a `server.ca`.
fn agent_in(cluster: &Authority) -> Agent {
    let agent = Agent::prepare("east");
    put(&agent, "ca.pem", &cluster.pem());
    let path = agent.data_dir().join("ca.pem");
    let mut agent = agent.arguments(&["--cluster-ca", path.to_str().expect("paths of tests are UTF-8")]);
    agent.launch();
    agent.wait_ready();
    agent
}

fn trust_unknowns(agent: &Agent, value: &str) {
    let body = json!({ "config": { "core.trust_ca_certificates": value } });
    Http::socket(agent).patch("/1.0", &body).expect(200);
}

fn auth(http: &Http) -> Value {
    http.get("/1.0").expect(200).metadata()["auth"].clone()
}

/// Once it is nobody. A connection that is cut because of that has no answer.
fn is_nobody(http: &Http) -> Option<()> {
    let answer = http.try_send("GET", "/1.0", &[], None).ok()?;
    (answer.metadata()["auth"] == "untrusted").then_some(())
}

fn status(agent: &Agent) -> Value {
    Http::socket(agent).get("/control/v1/status").expect(200).json()["pki"].clone()
}

/// Asks over a connection that stays open.
fn ask(connection: &mut BufReader<Tls>, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nhost: agent\r\n\r\n");
    let stream = connection.get_mut();
    stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).expect("the request is taken");
    read_answer(connection).expect("an answer").0
}

/// Waits until the other side hangs up.
fn cut(mut connection: BufReader<Tls>) {
    let mut rest = Vec::new();
    // With or without a goodbye; what fails here is a read that runs into its time limit.
    if let Err(error) = connection.read_to_end(&mut rest) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "the connection is still open");
    }
}

#[test]
fn a_revocation_acts_without_a_restart_and_closes_connections() {
    let ca = Authority::new("ca");
    let agent = agent_of(&ca);
    trust_unknowns(&agent, "true");
    let (gone, stays) = (ca.client("gone", 7), ca.client("stays", 8));
    let stored = ca.client("stored", 9);
    let body = json!({ "type": "client", "name": "stored", "certificate": der_base64(&stored) });
    Http::socket(&agent).post("/1.0/certificates", &body).expect(201);
    let [gone, stays, stored] = [gone, stays, stored].map(|pair| Http::showing(&agent, Some(pair)));
    let open = |http: &Http| {
        let mut connection = BufReader::new(http.connect().expect("the agent listens"));
        assert_eq!(ask(&mut connection, "/1.0/certificates"), 200);
        connection
    };
    let (first, mut second, third) = (open(&gone), open(&stays), open(&stored));
    // One that was handed over to its handler is cut as well.
    let mut events = stored.connect().expect("the agent listens");
    let upgrade = "GET /1.0/events HTTP/1.1\r\nhost: agent\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    events.write_all(upgrade.as_bytes()).expect("the request is taken");
    let mut events = BufReader::new(events);
    assert_eq!(read_answer(&mut events).expect("an answer").0, 101);

    put(&agent, "ca.crl", &ca.list(1, [7, 9]));
    cut(first);
    cut(third);
    cut(events);
    assert_eq!(ask(&mut second, "/1.0/certificates"), 200, "nobody else is cut");
    for http in [&gone, &stored] {
        assert_eq!(auth(http), "untrusted");
        http.get("/1.0/certificates").refused(403, "Forbidden");
    }
    assert_eq!(auth(&stays), "trusted");
    assert_eq!(status(&agent)["authorities"][0]["revoked"], 2);
}

#[test]
fn who_is_trusted_by_a_setting_is_cut_when_it_is_taken_back() {
    let ca = Authority::new("ca");
    let agent = agent_of(&ca);
    let client = Http::showing(&agent, Some(ca.client("laptop", 7)));
    assert_eq!(auth(&client), "untrusted");
    trust_unknowns(&agent, "true");
    let server = client.get("/1.0").expect(200).metadata();
    assert_eq!((&server["auth"], &server["auth_user_method"]), (&json!("trusted"), &json!("pki")));
    assert_eq!(server["auth_user_name"], client.fingerprint());
    assert!(server["config"].is_object(), "it may do everything: {server}");
    let mut open = BufReader::new(client.connect().expect("the agent listens"));
    assert_eq!(ask(&mut open, "/1.0/certificates"), 200);
    trust_unknowns(&agent, "");
    cut(open);
    assert_eq!(auth(&client), "untrusted");
}

#[test]
fn a_list_that_is_no_good_is_refused_and_said_and_the_last_good_one_stays() {
    let (ca, other) = (Authority::new("ca"), Authority::new("ca"));
    let mut agent = agent_of(&ca);
    trust_unknowns(&agent, "true");
    put(&agent, "ca.crl", &ca.list(5, [7]));
    wait_for("the list is taken", LIMIT, || (status(&agent)["authorities"][0]["revoked"] == 1).then_some(()));
    let good = ca.list(6, [7, 8]);
    let bad = [
        (other.list(9, [8]), "not signed by the key"),
        (ca.list(4, [8]), "older"),
        (ca.timed_list(6, [8], Duration::days(-2), Duration::minutes(-1)), "stale"),
        (ca.timed_list(6, [8], Duration::hours(1), Duration::days(1)), "check the clock"),
        (good[..good.len() / 2].to_owned(), "has no end"),
    ];
    let (gone, stays) = (ca.client("gone", 7), ca.client("stays", 8));
    let [gone, stays] = [gone, stays].map(|pair| Http::showing(&agent, Some(pair)));
    let operator = Operator::new();
    for (text, why) in bad {
        put(&agent, "ca.crl", &text);
        wait_for(&format!("the list is refused: {why}"), LIMIT, || {
            let refused = status(&agent)["refused"]["reason"].as_str().unwrap_or_default().to_owned();
            refused.contains(why).then_some(())
        });
        assert_eq!((auth(&gone), auth(&stays)), (json!("untrusted"), json!("trusted")), "{why}");
        let shown = operator.run_on(&agent, &["status"]).success().stdout;
        assert!(shown.contains(why) && shown.contains("1 revoked"), "{shown}");
    }
    assert!(agent.log().contains("the last good one stays in force"), "it is in the log");
    // At a start there is no last good one.
    put(&agent, "ca.crl", &other.list(9, []));
    agent.restart();
    assert_eq!((auth(&gone), auth(&stays)), (json!("untrusted"), json!("untrusted")));
    assert!(
        operator.run_on(&agent, &["status"]).success().stdout.contains("nothing that they signed is trusted")
    );
    put(&agent, "ca.crl", &good);
    wait_for("the good list is taken", LIMIT, || {
        (status(&agent)["authorities"][0]["revoked"] == 2).then_some(())
    });
    put(&agent, "ca.crl", &ca.list(7, [7]));
    wait_for("it is trusted again", LIMIT, || (auth(&stays) == "trusted").then_some(()));
}

#[test]
fn a_server_ca_that_is_none_stops_the_start_and_an_expired_one_trusts_nobody() {
    let ca = Authority::new("ca");
    let leaf = ca.client("laptop", 1).pem.clone();
    for (text, why) in [
        (leaf, "is no authority's"),
        (String::new(), "holds no certificate"),
        (ca.pem()[..200].to_owned(), "has no end"),
        (rcgen_key(), "holds a private key"),
    ] {
        let mut agent = Agent::prepare("east");
        put(&agent, "server.ca", &text);
        agent.launch();
        assert!(!agent.wait_end().success());
        let log = agent.log();
        assert!(log.contains(why) && log.contains("server.ca"), "{why}: {log}");
        assert!(!log.contains("MII") && !log.contains("MIG"), "nothing of the file is repeated: {log}");
    }
    let old = Authority::timed("old", Duration::days(-9), Duration::hours(-1));
    let agent = agent_of(&old);
    trust_unknowns(&agent, "true");
    let client = Http::showing(&agent, Some(old.client("laptop", 1)));
    assert_eq!(auth(&client), "untrusted");
    let log = agent.log();
    assert!(log.contains("expired") && log.contains("nothing that it signed is trusted"), "{log}");
}

fn rcgen_key() -> String {
    let dir = tempfile::tempdir().expect("a temporary folder");
    Authority::new("x").client_in(dir.path(), "x", 1);
    std::fs::read_to_string(dir.path().join("client.key")).expect("the key")
}

#[test]
fn a_clock_that_is_an_hour_off_is_named() {
    let ca = Authority::new("ca");
    let agent = agent_of(&ca);
    trust_unknowns(&agent, "true");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let early = ca.timed_client(dir.path(), "early", 1, Duration::hours(1), Duration::days(1));
    let client = Http::showing(&agent, Some(early.clone()));
    assert_eq!(auth(&client), "untrusted");
    let body = json!({ "type": "client", "name": "early", "certificate": der_base64(&early) });
    Http::socket(&agent).post("/1.0/certificates", &body).refused(400, "clock");
    assert!(agent.log().contains("clock"), "{}", agent.log());
}

#[test]
fn a_user_of_the_cluster_has_no_rights_until_it_is_given_some() {
    let cluster = Authority::of_cluster("mycluster", CLUSTER);
    let mut agent = agent_in(&cluster);
    trust_unknowns(&agent, "true");
    let admin = Http::socket(&agent);
    let alice = Http::showing(&agent, Some(cluster.client("user-alice", 1)));
    // Without a server.ca the store alone counts for everybody else.
    let trusted = Http::trusted(&agent);
    trusted.get("/1.0/certificates").expect(200);
    assert_eq!(auth(&alice), "trusted");
    assert_eq!(alice.get("/1.0/certificates").expect(200).metadata(), json!([]));
    alice.post("/1.0/auth/groups", &json!({ "name": "mine" })).expect(403);
    let known = |name: &str| admin.get(&format!("/1.0/auth/identities/tls/{name}")).expect(200).metadata();
    let identity = known("alice");
    assert_eq!(identity["type"], "Client certificate (pending)");
    assert_eq!(identity["id"], alice.fingerprint());

    // Somebody else of the same name gets another.
    let operator = Operator::new();
    let dir = tempfile::tempdir().expect("a temporary folder");
    integration::certificate::p256(dir.path(), "dave");
    let file = dir.path().join("dave.crt");
    let file = file.to_str().expect("paths of tests are UTF-8");
    operator.run_on(&agent, &["auth", "identity", "create", "tls/dave", file]).success();
    let dave = Http::showing(&agent, Some(cluster.client("user-dave", 2)));
    assert_eq!(auth(&dave), "trusted");
    assert_eq!(known("dave-2")["id"], dave.fingerprint());

    for command in [
        &["auth", "group", "create", "viewers"][..],
        &["auth", "group", "permission", "add", "viewers", "server", "can_create_groups"],
        &["auth", "identity", "group", "add", "tls/alice", "viewers"],
    ] {
        operator.run_on(&agent, command).success();
    }
    assert_eq!(known("alice")["type"], "Client certificate");
    alice.post("/1.0/auth/groups", &json!({ "name": "mine" })).expect(201);
    dave.post("/1.0/auth/groups", &json!({ "name": "other" })).expect(403);

    // With a newer certificate, of a new key, it is the same user, and the older one is nobody's.
    let (begins, ends) = (time::Duration::minutes(-5), time::Duration::days(30));
    let renewed = cluster.timed_client(dir.path(), "user-alice", 5, begins, ends);
    let renewed = Http::showing(&agent, Some(renewed));
    renewed.post("/1.0/auth/groups", &json!({ "name": "renewed" })).expect(201);
    assert_eq!(known("alice")["id"], renewed.fingerprint());
    assert_eq!((auth(&alice), auth(&renewed)), (json!("untrusted"), json!("trusted")));
    assert_eq!(known("alice")["id"], renewed.fingerprint());

    // Made by the administrator beforehand, it is no newcomer.
    let bob = cluster.client_in(dir.path(), "user-bob", 3);
    let file = dir.path().join("client.crt");
    let file = file.to_str().expect("paths of tests are UTF-8");
    operator.run_on(&agent, &["auth", "identity", "create", "tls/bob", file]).success();
    assert_eq!(known("bob")["type"], "Client certificate");
    assert_eq!(auth(&Http::showing(&agent, Some(bob))), "trusted");

    // A token that a newcomer brings makes of it what the token is for.
    let body = json!({ "name": "carol", "token": true, "groups": ["viewers"] });
    let token = admin.post("/1.0/auth/identities/tls", &body).expect(201).metadata();
    let carol = Http::showing(&agent, Some(cluster.client("user-c", 4)));
    assert_eq!(auth(&carol), "trusted");
    let text = base64(&token.to_string());
    carol.post("/1.0/auth/identities/tls", &json!({ "trust_token": text })).expect(201);
    assert_eq!(known("carol")["id"], carol.fingerprint());
    carol.post("/1.0/auth/groups", &json!({ "name": "carols" })).expect(201);

    put(&agent, "ca.crl", &cluster.list(1, [3, 5]));
    wait_for("the users are nobody", LIMIT, || is_nobody(&renewed));
    assert_eq!(auth(&dave), "trusted");
    renewed.get("/1.0/certificates").refused(403, "Forbidden");
    trusted.get("/1.0/certificates").expect(200);
    let record = Http::socket(&agent).get("/control/v1/audit?limit=1000").expect(200);
    let text = String::from_utf8_lossy(&record.body).into_owned();
    assert!(text.contains("identity-created") && text.contains("dave-2"), "{text}");

    // Users are trusted for as long as the authority is that vouched for them, whatever they were given, so one that
    // was revoked does not come back when another authority takes its place.
    std::fs::remove_file(agent.data_dir().join("ca.crl")).expect("the list");
    put(&agent, "ca.pem", &Authority::of_cluster("mycluster", CLUSTER).pem());
    agent.restart();
    for user in [&renewed, &dave, &carol] {
        assert_eq!(auth(user), "untrusted");
    }
    assert_eq!(auth(&trusted), "trusted");
    put(&agent, "ca.pem", &cluster.pem());
    agent.restart();
    assert_eq!(auth(&carol), "trusted");
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn a_node_is_no_client_and_a_user_no_agent() {
    let cluster = Authority::of_cluster("mycluster", CLUSTER);
    let agent = agent_in(&cluster);
    let admin = Http::socket(&agent);
    let name = "node-0d5a3c8e-4f6b-4a39-9c6e-0a3d3ad3a111";
    let node = Http::showing(&agent, Some(cluster.client(name, 1)));
    for path in ["/1.0", "/1.0/certificates", "/control/v1/status", "/healthz"] {
        let answer = node.get(path).expect(403);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            text.contains(name.strip_prefix("node-").expect("a node")) && text.contains("joins"),
            "{text}"
        );
    }
    let place = format!("/1.0/auth/identities/tls/{name}");
    let known = admin.get(&place).expect(200).metadata();
    assert_eq!(known["type"], "Server certificate");
    admin.patch(&place, &json!({ "groups": [] })).refused(501, "cannot be modified");
    admin.delete(&place).expect(200);
    // By a token it becomes no client either.
    let body = json!({ "name": "x", "token": true, "groups": [] });
    let token = base64(&admin.post("/1.0/auth/identities/tls", &body).expect(201).metadata().to_string());
    node.post("/1.0/auth/identities/tls", &json!({ "trust_token": token })).expect(403);

    // Over the protocol of agents it is the other way round: each is told apart, and a node is listed.
    let joining = |name: &str, number| {
        let pair = cluster.client(name, number);
        (joins(&agent, &pair), pair)
    };
    let other = "node-0d5a3c8e-4f6b-4a39-9c6e-0a3d3ad3a222";
    let (said, _) = joining(other, 2);
    assert!(said.contains("is recognised as a node of this cluster"), "{said}");
    admin.get(&format!("/1.0/auth/identities/tls/{other}")).expect(200);
    let (said, _) = joining("user-alice", 3);
    assert!(said.contains("a client of the API and no agent"), "{said}");
    put(&agent, "ca.crl", &cluster.list(1, [1, 4]));
    wait_for("the node is revoked", LIMIT, || {
        let answer = node.get("/1.0");
        (answer.status == 200 && answer.metadata()["auth"] == "untrusted").then_some(())
    });
    let (said, _) = joining("node-0d5a3c8e-4f6b-4a39-9c6e-0a3d3ad3a333", 4);
    assert!(said.contains("revoked"), "{said}");
    // Nobody at all: another name than the scheme's, and the control service's own.
    for (number, name) in [(5, "alice"), (6, "control-service"), (7, "user-a/b"), (8, "node-1")] {
        assert_eq!(auth(&Http::showing(&agent, Some(cluster.client(name, number)))), "untrusted", "{name}");
    }
}

/// What an agent is told that dials with this certificate.
pub fn joins(agent: &Agent, pair: &agent::trust::certificate::KeyPair) -> String {
    let pin = integration::http::fingerprint_of(agent);
    let config = agent::tunnel::tls::client_config_pinned(pin, Some(pair), &[agent::tunnel::ALPN_LINK]);
    let config = config.expect("a TLS configuration");
    let tcp = std::net::TcpStream::connect(agent.address()).expect("the agent listens");
    tcp.set_read_timeout(Some(LIMIT)).expect("a time limit");
    let connection =
        rustls::ClientConnection::new(config, agent::tunnel::tls::server_name()).expect("a client");
    let mut stream = rustls::StreamOwned::new(connection, tcp);
    stream.flush().expect("the handshake succeeds");
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        said.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn what_openssl_and_our_own_commands_sign_and_revoke_is_understood() {
    if own_only() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    let shell = |script: &str| {
        let done = std::process::Command::new("sh").args(["-ec", script]).current_dir(dir).output();
        let done = done.expect("a shell runs");
        assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    };
    shell(
        "printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\ncrlnumber=count\ncertificate=ca.pem\n\
         private_key=ca.key\ndefault_md=sha256\ndefault_crl_days=3\ndefault_days=3\npolicy=p\nnew_certs_dir=.\n\
         [p]\ncommonName=supplied\n[e]\nextendedKeyUsage=clientAuth\n' > cnf
         : > index; echo 01 > serial; echo 01 > count
         openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 3 -subj /CN=corp
         for name in bob dan; do
           openssl req -newkey rsa:2048 -nodes -keyout $name.key -out $name.csr -subj /CN=$name
           openssl ca -batch -config cnf -in $name.csr -out $name.crt -extensions e -notext
           chmod 600 $name.key
         done
         openssl ca -config cnf -revoke bob.crt
         openssl ca -config cnf -gencrl -out first.crl",
    );
    let operator = Operator::new();
    operator.run_in(dir, &["ca", "initialize", "mycluster"]).success();
    for name in ["alice", "carol"] {
        operator.run_in(dir, &["ca", "create-api-certificate", name]).success();
    }
    operator.run_in(dir, &["ca", "revoke", "alice.crt"]).success();
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("a file");

    let agent = Agent::prepare("east");
    put(&agent, "server.ca", &read("ca.pem"));
    put(&agent, "ca.crl", &(read("first.crl") + &read("ca.crl")));
    put(&agent, "cluster-ca.crt", &read("cluster.crt"));
    let path = agent.data_dir().join("cluster-ca.crt");
    let mut agent = agent.arguments(&["--cluster-ca", path.to_str().expect("paths of tests are UTF-8")]);
    agent.launch();
    agent.wait_ready();
    trust_unknowns(&agent, "true");
    let client = |name: &str| {
        let pair = agent::trust::certificate::KeyPair::load(
            &dir.join(format!("{name}.crt")),
            &dir.join(format!("{name}.key")),
        );
        Http::showing(&agent, Some(std::sync::Arc::new(pair.expect("a pair"))))
    };
    for (name, expected) in
        [("bob", "untrusted"), ("dan", "trusted"), ("alice", "untrusted"), ("carol", "trusted")]
    {
        assert_eq!(auth(&client(name)), expected, "{name}");
    }
    shell("openssl ca -config cnf -revoke dan.crt && openssl ca -config cnf -gencrl -out second.crl");
    operator.run_in(dir, &["ca", "revoke", "carol.crt"]).success();
    put(&agent, "ca.crl", &(read("ca.crl") + &read("second.crl")));
    for name in ["dan", "carol"] {
        wait_for(&format!("{name} is revoked"), LIMIT, || is_nobody(&client(name)));
    }
    let revoked = status(&agent)["authorities"]
        .as_array()
        .map(|all| all.iter().map(|one| one["revoked"].clone()).collect::<Vec<_>>());
    assert_eq!(revoked, Some(vec![json!(2), json!(2)]));
}

#[test]
fn stock_lxc_needs_no_token_where_an_authority_is_enough() {
    if own_only() {
        return;
    }
    let ca = Authority::new("ca");
    let agent = agent_of(&ca);
    trust_unknowns(&agent, "true");
    let lxc = Lxc::new();
    ca.client_in(lxc.config_dir(), "laptop", 7);
    let address = format!("https://{}", agent.address());
    lxc.run(&["remote", "add", "east", &address, "--accept-certificate"]).success();
    let info = lxc.run(&["info", "east:"]).success().stdout;
    assert!(info.contains("auth: trusted"), "{info}");
    put(&agent, "ca.crl", &ca.list(1, [7]));
    wait_for("lxc is refused", LIMIT, || {
        let done = lxc.run(&["config", "trust", "list", "east:"]);
        (done.code != Some(0) && done.stderr.contains("Forbidden")).then_some(())
    });
}
