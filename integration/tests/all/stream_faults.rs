//! What two agents know of each other's services, while the network is cut, agents are killed, and peers do what no
//! agent would.

use std::time::Duration;

use agent::wire::sync::{Offered, Part, SyncAnswer, SyncFrame};
use integration::peer::{self, Peer, Script, encoded, framed, hello};
use integration::{Agent, Clusters, LIMIT, Proxy, wait_for};
use serde_json::{Value, json};

/// Services enough for a snapshot of many frames.
const MANY: usize = 300;

/// `count` services with some words about each, exported to west but for those that `withdrawn` says.
fn services(count: usize, withdrawn: impl Fn(usize) -> bool) -> String {
    let note = "x".repeat(400);
    let declared = (0..count).map(|n| {
        format!(
            "service \"s{n:03}\" {{\n  port = 9090\n  meta = {{ note = \"{note}\", more = \"{note}\" }}\n}}\n"
        )
    });
    let rows: Vec<String> = (0..count)
        .filter(|n| !withdrawn(*n))
        .map(|n| format!("{{ name = \"s{n:03}\", consumers = [{{ peer = \"west\" }}] }}"))
        .collect();
    format!(
        "{}\nexported_services \"default\" {{\n  services = [{}]\n}}\n",
        declared.collect::<String>(),
        rows.join(", ")
    )
}

fn names(rows: &Value) -> Vec<String> {
    let rows = rows.as_array().into_iter().flatten();
    rows.filter_map(|row| row["service"].as_str().map(str::to_owned)).collect()
}

/// Waits until west has what east exports, all of it as of now.
#[track_caller]
fn wait_converged(clusters: &Clusters, count: usize, withdrawn: impl Fn(usize) -> bool) {
    let wanted: Vec<String> = (0..count).filter(|n| !withdrawn(*n)).map(|n| format!("s{n:03}")).collect();
    let mut last = Vec::new();
    wait_for(&format!("west imports {} services", wanted.len()), 3 * LIMIT, || {
        let rows = clusters.ask("west", &["service", "imported"]);
        last = names(&rows);
        let current = rows.as_array()?.iter().all(|row| row["status"] == "passing");
        (current && last == wanted).then_some(())
    });
}

#[test]
fn a_network_that_is_cut_in_the_middle_of_a_snapshot_leaves_nothing_stale() {
    let east = Agent::prepare("east");
    let proxy = Proxy::to(east.address());
    let east = east.arguments(&["--advertise", &proxy.address()]);
    let clusters = Clusters::between(east, Agent::prepare("west"));
    // Its peer reaches it over the proxy alone, and the operator by the way around.
    clusters.run(&["remote", "set-url", "east", &clusters.east.address()]).success();
    clusters.declare("east", &services(3, |_| false));
    clusters.declare("west", "");
    clusters.apply().success();
    clusters.wait_active();
    wait_converged(&clusters, 3, |_| false);

    // Each new connection carries a little more of the snapshot, and none of the first few all of it.
    proxy.cut();
    clusters.wait_state("west", "east", "FAILING");
    clusters.declare("east", &services(MANY, |n| n == 1));
    clusters.run(&["apply", "east", "--yes"]).success();
    let limits = [20_000, 60_000, 100_000, 140_000, 180_000];
    proxy.mend(&limits);
    wait_for("each short connection was used", LIMIT, || (proxy.limits_left() == 0).then_some(()));
    wait_converged(&clusters, MANY, |n| n == 1);
    assert!(proxy.carried() > limits.iter().sum(), "{} bytes", proxy.carried());

    // Cut once more, and nothing but the difference is told: what has arrived is not sent again.
    proxy.cut();
    clusters.wait_state("west", "east", "FAILING");
    clusters.declare("east", &services(MANY, |n| n < 5));
    clusters.run(&["apply", "east", "--yes"]).success();
    proxy.mend(&[]);
    wait_converged(&clusters, MANY, |n| n < 5);
    clusters.wait_active();
    assert!(proxy.carried() < 60_000, "{} bytes", proxy.carried());
}

#[test]
fn agents_that_are_killed_and_come_back_in_either_order_converge() {
    let mut clusters = Clusters::linked(&services(40, |_| false), "");
    wait_converged(&clusters, 40, |_| false);
    for east_first in [true, false] {
        // What changed while the other was away must not stay there.
        clusters.west.kill9();
        clusters.declare("east", &services(40, |n| n % 2 == usize::from(east_first)));
        clusters.run(&["apply", "east", "--yes"]).success();
        clusters.east.kill9();
        let [first, second] = if east_first {
            [&mut clusters.east, &mut clusters.west]
        } else {
            [&mut clusters.west, &mut clusters.east]
        };
        first.launch();
        first.wait_ready();
        second.launch();
        second.wait_ready();
        clusters.wait_active();
        wait_converged(&clusters, 40, |n| n % 2 == usize::from(east_first));
    }
    // One alone, each in its turn, while the other stays.
    clusters.east.restart();
    wait_converged(&clusters, 40, |n| n % 2 == 0);
    clusters.west.restart();
    wait_converged(&clusters, 40, |n| n % 2 == 0);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn report(agent: &Agent, link: &str) -> Value {
    let done = integration::Operator::new().run_on(agent, &["--format", "json", "link", "show", link]);
    if done.succeeded() { done.json() } else { Value::Null }
}

fn whole(name: &str) -> Offered {
    Offered {
        name: name.parse().expect("a name"),
        protocol: String::new(),
        part: Part::Whole,
        instances: Vec::new(),
    }
}

#[test]
fn a_peer_that_does_not_keep_to_the_protocol_is_refused_with_its_cause() {
    let agent = Agent::start("east");
    let runtime = runtime();
    let end = |services| SyncFrame::End { position: peer::start(), services };
    let change = |part| SyncFrame::Change {
        services: vec![Offered { part, ..whole("s") }],
        removed: vec![],
        position: Some(peer::start()),
    };
    let script = |frames: &[SyncFrame]| frames.iter().map(encoded).collect::<Script>();
    let greeted = |frames: &[SyncFrame]| {
        let name = "north";
        [script(&[hello(name)]), script(frames)].concat()
    };
    let whole_then = |frames: &[SyncFrame]| greeted(&[&[SyncFrame::Begin, end(0)], frames].concat());
    let oversize = [(64 * 1024 * 1024_u32).to_be_bytes().to_vec(), vec![b' '; 1000]].concat();
    for (number, (sent, says)) in [
        (script(&[SyncFrame::Begin]), "the beginning of a snapshot where a greeting was due"),
        (greeted(&[end(0)]), "the end of a snapshot where a snapshot was due"),
        (greeted(&[SyncFrame::Begin, end(3)]), "said that it has 3"),
        (whole_then(&[SyncFrame::Items { services: vec![whole("s")] }]), "items where a change was due"),
        (whole_then(&[change(Part::Last)]), "a part of service"),
        ([greeted(&[]), vec![oversize]].concat(), "too large"),
        ([greeted(&[]), vec![framed(b"{\"type\":\"surprise\"}")]].concat(), "unknown variant"),
        ([greeted(&[]), vec![framed(b"\xff\xfe\x00")]].concat(), "makes no sense"),
    ]
    .into_iter()
    .enumerate()
    {
        let link = format!("peer{number}");
        runtime.block_on(async {
            let peer = Peer::linked(&agent, &link).await;
            let (_session, told) = peer.dial(sent.clone()).await;
            let answered = async {
                loop {
                    let answers = told.answers();
                    if let Some(SyncAnswer::Refused { reason }) = answers.last() {
                        return reason.clone();
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let reason = tokio::time::timeout(LIMIT, answered).await.expect("the peer is told why");
            assert!(reason.contains(says), "{reason}");
        });
        wait_for(&format!("{link} shows why it fails"), LIMIT, || {
            let shown = report(&agent, &link);
            let failing = shown["state"] == "FAILING";
            (failing && shown["reason"].as_str()?.contains(says)).then_some(())
        });
        let log = agent.log();
        let line = log.lines().find(|line| line.contains(&link) && line.contains(says));
        assert!(line.is_some(), "the log does not name {link} and {says:?}");
    }
    // It lives, and nothing that a refused peer said has been kept.
    assert_eq!(
        integration::Operator::new().run_on(&agent, &["--format", "json", "service", "imported"]).json(),
        json!([])
    );
}

#[test]
fn acknowledgements_of_what_was_never_sent_end_the_stream_and_not_the_agent() {
    let clusters = Clusters::start();
    clusters.write(
        "shop/services.hcl",
        "service \"backend\" {\n  port = 9090\n}\nservice \"secret\" {\n  port = 9091\n}\n",
    );
    clusters.write(
        "shop/exports.hcl",
        "Kind = \"exported-services\"\nName = \"default\"\n\
         Services = [{ Name = \"backend\", Consumers = [{ Peer = \"north\" }] }]\n",
    );
    let runtime = runtime();
    runtime.block_on(async {
        let peer = Peer::linked(&clusters.east, "north").await;
        let (session, _told) = peer.dial(Script::new()).await;
        clusters.run(&["apply", "shop", "--remote", "east", "--yes"]).success();
        let mut stream = Peer::receive(&session, None).await;
        let mut seen = Vec::new();
        while seen.is_empty() {
            let (frame, _) = stream.next().await.expect("a frame");
            stream.acknowledge().await.expect("it is heard");
            let (SyncFrame::Items { services } | SyncFrame::Change { services, .. }) = frame else {
                continue;
            };
            seen.extend(services.into_iter().map(|service| service.name.to_string()));
        }
        // What is not exported to this peer never leaves.
        assert_eq!(seen, ["backend"]);
        stream.answer(&SyncAnswer::Ack { frame: 1_000_000 }).await.expect("it is heard");
        let ended = async { while stream.next().await.is_ok() {} };
        tokio::time::timeout(LIMIT, ended).await.expect("the stream is ended");

        // Another stream, from a position of another process: told anew, from the beginning.
        let mut stream = Peer::receive(&session, Some(peer::start())).await;
        let (frame, _) = stream.next().await.expect("a frame");
        assert!(matches!(frame, SyncFrame::Hello { resumed: None, .. }), "{frame:?}");
        stream.answer(&SyncAnswer::Refused { reason: "not today".to_owned() }).await.expect("it is heard");
        let ended = async { while stream.next().await.is_ok() {} };
        tokio::time::timeout(LIMIT, ended).await.expect("the stream is ended");
    });
    let log = clusters.east.log();
    assert!(log.contains("acknowledged frame 1000000") && log.contains("not today"), "{log}");
    assert!(log.lines().any(|line| line.contains("north") && line.contains("1000000")), "{log}");
}
