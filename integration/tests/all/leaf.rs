//! Apps and proxies that speak for themselves: openssl and HAProxy with a service's certificate, certificates that nobody
//! should be let in with, and what ends a connection that is open.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use integration::leaf::{Leaf, MeshRoot, cut_after, dial, echoes, params};
use integration::{
    Agent, Clusters, Consul, Done, Http, LIMIT, Operator, Running, Server, free_port, own_only, process,
    wait_for,
};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, SanType};
use serde_json::json;
use time::OffsetDateTime;

/// What is to be cut is cut within this.
const AT_ONCE: Duration = Duration::from_secs(5);

/// East has a backend, for west's frontend and its own web.
fn east(port: u16, more: &str) -> String {
    format!(
        r#"
service "backend" {{
  port = {port}
}}
service_intentions "backend" {{
  sources = [
    {{ name = "frontend", peer = "west", action = "allow" }},
    {{ name = "web", action = "allow" }},
  ]
}}
exported_services "default" {{
  services = [{{ name = "backend", consumers = [{{ peer = "west" }}] }}]
}}
{more}
"#
    )
}

/// East alone, with a backend for its web.
fn alone(port: u16) -> (Agent, MeshRoot) {
    let agent = Agent::start("east");
    let service = json!({ "Name": "backend", "Port": port });
    Consul::socket(&agent).put("/v1/agent/service/register", &service).expect(200);
    Operator::new().run_on(&agent, &["intention", "create", "web", "backend"]).success();
    let root = MeshRoot::of(&agent);
    (agent, root)
}

/// Runs openssl's client, which sends a request and goes when the other end does.
fn s_client(folder: &Path, agent: &Agent, arguments: &[&str]) -> Done {
    let address = agent.address();
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &address, "-brief", "-ign_eof"])
        .args(arguments)
        .current_dir(folder);
    let named = format!("openssl s_client {}", arguments.join(" "));
    process::run(&mut command, &named, "GET / HTTP/1.0\r\n\r\n")
}

#[test]
fn openssl_with_a_leaf_is_accepted_as_any_other() {
    if own_only() {
        return;
    }
    let backend = Server::http("tea");
    let clusters = Clusters::linked(&east(backend.port(), ""), "");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let root = MeshRoot::of(&clusters.east);
    std::fs::write(folder.join("roots.pem"), &root.roots).expect("a file");
    for (agent, service) in [
        (&clusters.west, "frontend"),
        (&clusters.west, "other"),
        (&clusters.east, "web"),
        (&clusters.east, "frontend"),
    ] {
        Leaf::given(agent, service).write(folder, &format!("{service}-{}", agent.name()));
    }
    let host = root.host("backend");
    let ask = |leaf: &str| {
        let server =
            ["-servername", &host, "-verify_hostname", &host, "-CAfile", "roots.pem", "-verify_return_error"];
        s_client(folder, &clusters.east, &[&server[..], &["-cert", leaf, "-key", leaf]].concat())
    };
    wait_for("west's frontend is answered", LIMIT, || {
        ask("frontend-west.pem").stdout.contains("tea").then_some(())
    });
    let done = ask("web-east.pem");
    assert!(done.stdout.contains("tea"), "{done:?}");
    assert!(done.stderr.contains("TLSv1.3") && done.stderr.contains("Verification: OK"), "{done:?}");
    for leaf in ["other-west.pem", "frontend-east.pem"] {
        let done = ask(leaf);
        assert!(!done.stdout.contains("tea"), "{done:?}");
    }
    let log = clusters.east.log();
    for source in ["other@west", "frontend"] {
        let told = |line: &str| {
            line.contains("connection denied")
                && line.contains("no intention matches")
                && line.contains(&format!("source={source} "))
        };
        assert!(log.lines().any(told), "{source} is not told of");
    }

    // Whoever shows no certificate is told so by TLS, and whoever asks for what there is not learns nothing more.
    let done = s_client(folder, &clusters.east, &["-servername", &host]);
    assert!(!done.stdout.contains("tea") && done.stderr.contains("certificate required"), "{done:?}");
    let nobody = root.host("nobody");
    let done = s_client(
        folder,
        &clusters.east,
        &["-servername", &nobody, "-cert", "web-east.pem", "-key", "web-east.pem"],
    );
    assert!(done.stderr.contains("access denied"), "{done:?}");

    let status = Http::socket(&clusters.east).get("/control/v1/status").expect(200).json();
    let rows = status["mesh"]["traffic"].as_array().expect("a list of rows");
    let web = rows.iter().find(|row| row["source"] == "web" && row["way"] == "leaf");
    assert_eq!(web.expect("what web did is counted")["connections"], 1);
}

/// One HTTP request to a loopback port; empty where nothing comes back.
fn get(port: u16) -> String {
    let mut answer = String::new();
    if let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)) {
        let _ = socket.set_read_timeout(Some(LIMIT));
        let _ = socket.write_all(b"GET / HTTP/1.1\r\nHost: backend\r\nConnection: close\r\n\r\n");
        let _ = socket.read_to_string(&mut answer);
    }
    answer
}

#[test]
fn haproxy_with_a_leaf_is_accepted_as_any_other() {
    if own_only() {
        return;
    }
    let backend = Server::http("tea");
    let speaks = "service_defaults \"backend\" {\n  protocol = \"http\"\n}\n";
    let clusters = Clusters::linked(&east(backend.port(), speaks), "");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = MeshRoot::of(&clusters.east);
    std::fs::write(folder.path().join("roots.pem"), &root.roots).expect("a file");
    let (address, host) = (clusters.east.address(), root.host("backend"));
    let (frontend, other, protocols) = (free_port(), free_port(), free_port());
    let mut config = "global\n  maxconn 200\ndefaults\n  mode http\n  timeout connect 10s\n  timeout client 20s\n  timeout server 20s\n".to_owned();
    for (service, port, more) in
        [("frontend", frontend, ""), ("other", other, ""), ("frontend", protocols, "alpn h2,http/1.1")]
    {
        let leaf = Leaf::given(&clusters.west, service).write(folder.path(), service);
        let (leaf, roots) = (leaf.display(), folder.path().join("roots.pem"));
        config.extend([format!(
            "listen {service}{port}\n  bind 127.0.0.1:{port}\n  server east {address} ssl crt {leaf} ca-file {} verify required sni str({host}) {more}\n",
            roots.display()
        )]);
    }
    let path = folder.path().join("haproxy.cfg");
    std::fs::write(&path, config).expect("a file");
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&path);
    let _haproxy = Running::start(&mut command, "haproxy");
    wait_for("HAProxy's request is answered", LIMIT, || get(frontend).ends_with("tea").then_some(()));
    // It offers h2 as well, and is held to what the service speaks.
    assert!(get(protocols).ends_with("tea"));
    assert!(!get(other).contains("tea"));
}

#[test]
fn what_nobody_should_be_let_in_with_is_refused_and_told() {
    let backend = Server::echo();
    let clusters = Clusters::linked(&east(backend.port(), ""), "");
    let (own, peer) = (MeshRoot::of(&clusters.east), MeshRoot::of(&clusters.west));
    let host = own.host("backend");
    let ask = |leaf: &Leaf| {
        let mut tls = dial(&clusters.east, &host, &own.roots, Some(leaf))?;
        echoes(&mut tls)
    };
    let hour = time::Duration::hours(1);
    wait_for("west's frontend is answered", LIMIT, || ask(&peer.leaf("frontend", hour)).ok());
    ask(&own.leaf("web", hour)).expect("east's web is answered");

    // Each says that it is another, since the log tells the first of a pair at once and sums the others up.
    let sign = |uris: &[&str]| {
        let uris: Vec<String> = uris.iter().map(|uri| (*uri).to_owned()).collect();
        own.sign(&params(&uris))
    };
    let spoilt = |name: &str, spoil: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = params(&[own.uri(name)]);
        spoil(&mut params);
        own.sign(&params)
    };
    let now = OffsetDateTime::now_utc();
    let good = own.uri("web");
    let named = |from: &str, to: &str| sign(&[&good.replace(from, to)]);
    let before = refused_leaves(&clusters.east);
    let stranger = MeshRoot::of(&Agent::start("north"));
    let for_servers = |params: &mut rcgen::CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let dns_alone = |params: &mut rcgen::CertificateParams| {
        params.subject_alt_names = vec![SanType::DnsName("web".try_into().expect("a host's name"))];
    };
    let late = |params: &mut rcgen::CertificateParams| params.not_after = now - time::Duration::seconds(5);
    let early = |params: &mut rcgen::CertificateParams| params.not_before = now + time::Duration::minutes(10);
    let authority =
        |params: &mut rcgen::CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // What it is, the leaf, what its holder hears, whom it says it is of, and the reason in the log.
    let proven = [
        (
            "of no linked cluster",
            stranger.leaf("a", hour),
            "UnknownCA",
            "a",
            "neither this cluster's nor that of a linked one",
        ),
        (
            "of a peer, with our domain",
            peer.sign(&params(&[own.uri("b")])),
            "UnknownCA",
            "b",
            "none of the roots",
        ),
        (
            "of ours, with a peer's domain",
            own.sign(&params(&[peer.uri("c")])),
            "UnknownCA",
            "c",
            "none of the roots",
        ),
        ("expired", spoilt("d", &late), "CertificateExpired", "d", "expired at"),
        ("not valid yet", spoilt("e", &early), "CertificateExpired", "e", "is not valid before"),
        (
            "of another cluster",
            sign(&[&own.uri("f").replace("/dc/east/", "/dc/west/")]),
            "AccessDenied",
            "f",
            "names another cluster",
        ),
        ("for servers alone", spoilt("g", &for_servers), "UnsupportedCertificate", "g", "is not for clients"),
        ("an authority's", spoilt("h", &authority), "UnsupportedCertificate", "h", "is an authority's own"),
        ("without a URI", sign(&[]), "BadCertificate", "unnamed", "has 0 URIs"),
    ];
    for (what, leaf, alert, claims, reason) in &proven {
        let refused = ask(leaf).expect_err(what).to_string();
        assert!(refused.contains(alert), "{what}: {refused}");
        let told = |line: &str| {
            line.contains("connection denied")
                && line.contains(&format!("source={claims} "))
                && line.contains(reason)
        };
        wait_for(&format!("{what}: the reason is told"), LIMIT, || {
            clusters.east.log().lines().any(told).then_some(())
        });
    }
    let nameless = [
        ("with a DNS name alone", spoilt("web", &dns_alone)),
        ("with two URIs", sign(&[&good, &own.uri("db")])),
        ("of another namespace", named("/ns/default/", "/ns/other/")),
        ("of a partition", named("/ns/", "/ap/default/ns/")),
        ("with an escaped name", named("/svc/web", "/svc/w%65b")),
        ("with a way out of its name", named("/svc/web", "/svc/x%2F..%2Fweb")),
        ("of an agent", named("/ns/default/dc/east/svc/web", "/agent/client/dc/east/id/east")),
    ];
    for (what, leaf) in &nameless {
        let refused = ask(leaf).expect_err(what).to_string();
        assert!(refused.contains("BadCertificate"), "{what}: {refused}");
    }
    ask(&own.leaf("web", hour)).expect("others are as they were");
    let counted = refused_leaves(&clusters.east) - before;
    assert_eq!(counted, u64::try_from(proven.len() + nameless.len()).expect("a few"));
}

/// How many were refused for their leaf.
fn refused_leaves(agent: &Agent) -> u64 {
    let status = Http::socket(agent).get("/control/v1/status").expect(200).json();
    let rows = status["mesh"]["traffic"].as_array().expect("a list of rows").clone();
    rows.iter().filter_map(|row| row["denied_because"]["leaf"].as_u64()).sum()
}

#[test]
fn a_flood_of_names_makes_no_certificates() {
    let backend = Server::echo();
    let (agent, root) = alone(backend.port());
    let leaf = root.leaf("web", time::Duration::hours(1));
    let issued = || {
        let answer = Http::socket(&agent).get("/metrics").expect(200).text();
        let count = answer.lines().find(|line| line.starts_with("comity_leaves_issued_total "));
        count.unwrap_or_else(|| panic!("no count: {answer}")).to_owned()
    };
    echoes(&mut dial(&agent, &root.host("backend"), &root.roots, Some(&leaf)).unwrap()).unwrap();
    let before = issued();
    for number in 0..100 {
        let host = root.host(&format!("nobody-{number}"));
        let refused = dial(&agent, &host, &root.roots, Some(&leaf)).and_then(|mut tls| echoes(&mut tls));
        let refused = refused.expect_err("there is no such service").to_string();
        assert!(refused.contains("AccessDenied"), "{refused}");
    }
    assert_eq!(issued(), before);
    echoes(&mut dial(&agent, &root.host("backend"), &root.roots, Some(&leaf)).unwrap()).unwrap();
}

#[test]
fn an_open_connection_ends_with_its_leaf_its_intention_and_its_root() {
    let backend = Server::echo();
    let (agent, root) = alone(backend.port());
    let host = root.host("backend");
    let open = |leaf: &Leaf| {
        let mut tls = dial(&agent, &host, &root.roots, Some(leaf)).expect("a connection");
        echoes(&mut tls).expect("an answer");
        tls
    };
    let now = OffsetDateTime::now_utc();
    let mut short = open(&root.leaf("web", time::Duration::seconds(4)));
    // Certificates end with a second.
    let ends = now + time::Duration::seconds(4);
    cut_after(&mut short, LIMIT);
    let late = OffsetDateTime::now_utc() - ends;
    assert!(late > -time::Duration::SECOND && late < time::Duration::SECOND, "{late} after its end");

    let long = root.leaf("web", time::Duration::hours(1));
    let mut kept = open(&long);
    let consul = Consul::socket(&agent);
    // Another root follows: both vouch, so nothing changes for who is here.
    let operator = Operator::new();
    let rotated = operator.run_on(&agent, &["ca", "rotate-mesh-root", "--format", "json"]).success().json();
    assert_eq!(rotated["roots"].as_array().map(Vec::len), Some(2), "{rotated}");
    assert_eq!(
        (&rotated["roots"][0]["active"], &rotated["roots"][1]["active"]),
        (&true.into(), &false.into())
    );
    operator.run_on(&agent, &["ca", "rotate-mesh-root"]).exits(1);
    echoes(&mut kept).expect("it is open");
    open(&long);
    assert_eq!(
        consul.get("/v1/connect/ca/roots").expect(200).json()["Roots"].as_array().map(Vec::len),
        Some(2)
    );

    // Withdrawn: nothing that was signed before counts.
    let done = operator.run_on(&agent, &["ca", "rotate-mesh-root", "--compromised", "--yes"]).success();
    assert!(done.stdout.contains("yes"), "{done:?}");
    assert!(cut_after(&mut kept, LIMIT) < AT_ONCE);
    let fresh = MeshRoot::of(&agent);
    assert_eq!(fresh.domain, root.domain);
    let refused = dial(&agent, &host, &fresh.roots, Some(&long)).and_then(|mut tls| echoes(&mut tls));
    assert!(refused.expect_err("its root is gone").to_string().contains("UnknownCA"));
    let new = Leaf::given(&agent, "web");
    let mut last = dial(&agent, &host, &fresh.roots, Some(&new)).expect("a connection");
    echoes(&mut last).expect("an answer");

    operator.run_on(&agent, &["intention", "delete", "web", "backend"]).success();
    assert!(cut_after(&mut last, LIMIT) < AT_ONCE);
}

#[test]
fn a_peers_connection_ends_with_its_root_and_with_the_link() {
    let backend = Server::echo();
    let clusters = Clusters::linked(&east(backend.port(), ""), "");
    let own = MeshRoot::of(&clusters.east);
    let open = |leaf: &Leaf| {
        let mut tls = dial(&clusters.east, &own.host("backend"), &own.roots, Some(leaf)).ok()?;
        echoes(&mut tls).ok()?;
        Some(tls)
    };
    let old = Leaf::given(&clusters.west, "frontend");
    let mut first = wait_for("west's frontend is answered", LIMIT, || open(&old));
    let west = |arguments: &[&str]| clusters.run(&[&["--remote", "west"], arguments].concat());
    west(&["ca", "rotate-mesh-root"]).success();
    let next = MeshRoot::all(&clusters.west).pop().expect("a root");
    let early = next.leaf("frontend", time::Duration::hours(1));
    wait_for("east knows the root that is to follow", LIMIT, || open(&early));
    echoes(&mut first).expect("it is open");
    open(&old).expect("the old root vouches as well");
    west(&["ca", "rotate-mesh-root", "--compromised", "--yes"]).success();
    assert!(cut_after(&mut first, LIMIT) < AT_ONCE);
    assert!(open(&old).is_none());
    let new = Leaf::given(&clusters.west, "frontend");
    let mut second = wait_for("east knows west's new root", LIMIT, || open(&new));
    let alone = format!(
        "manifest \"shop\" {{\n  cluster = \"east\"\n}}\nservice \"backend\" {{\n  port = {}\n}}\n",
        backend.port()
    );
    clusters.write("east/shop.hcl", &alone);
    clusters.run(&["apply", "east", "--yes"]).success();
    assert!(cut_after(&mut second, LIMIT) < AT_ONCE);
    assert!(open(&new).is_none());
}
