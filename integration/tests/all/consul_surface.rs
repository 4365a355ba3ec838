//! Consul's API as a whole: the four ways in, who is let in, what every endpoint has in common, queries that wait.

use std::time::{Duration, Instant};

use integration::measure::cpu_s;
use integration::{Agent, Consul, LIMIT, Operator, wait_for};
use serde_json::json;

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, LIMIT, || holds().then_some(()));
}

const LEADER: &str = "/v1/status/leader";

#[test]
fn an_agent_is_reached_in_four_ways_and_in_no_other() {
    let (east, port) = Consul::agent("east");
    let token = Consul::token(&east, "ci", &[]);
    let ways = [
        Consul::socket(&east),
        Consul::trusted(&east),
        Consul::bearer(&east, &token),
        Consul::anonymous(&east).with("authorization", &format!("Bearer {token}")),
        Consul::plain(port, &token),
    ];
    for way in &ways {
        assert_eq!(way.get(LEADER).expect(200).json(), json!(east.address()));
        let own = way.get("/v1/agent/self").expect(200).json();
        assert_eq!(own["Config"]["NodeName"], "east");
    }
    for way in [Consul::anonymous(&east), Consul::plain_anonymous(port)] {
        way.get(LEADER).says(403, "Permission denied: anonymous token lacks permission");
    }
    for way in [Consul::bearer(&east, "nobodys"), Consul::plain(port, "nobodys")] {
        way.get(LEADER).says(403, "ACL not found");
    }
    let page = Consul::plain(port, &token).with("origin", "http://localhost:3000");
    page.get(LEADER).says(403, "not for pages in a browser");
    let rebound = Consul::plain(port, &token).with("host", "rebound.example");
    rebound.get(LEADER).says(403, "under localhost");
    Consul::plain(port, &token).get("/1.0").says(404, "not a recognized HTTP API endpoint");

    let in_url = format!("{LEADER}?token={token}");
    Consul::plain(port, &token).get(&in_url).says(400, "X-Consul-Token");
    assert!(!east.log().contains(&token), "a token is in the log");

    Operator::new().run_on(&east, &["auth", "identity", "token", "revoke", "bearer/ci"]).success();
    until("a token that was revoked is worth nothing", || {
        Consul::plain(port, &token).get(LEADER).status == 403
    });
}

#[test]
fn plain_http_is_for_this_machine_only() {
    let operator = Operator::new();
    for address in ["0.0.0.0:8500", "[::]:8500", "192.0.2.1:8500"] {
        let arguments = ["agent", "--name", "east", "--data-dir", "/nonexistent", "--consul-http", address];
        let refused = operator.run(&arguments);
        assert_eq!(refused.code, Some(64), "{}", refused.stderr);
        assert!(refused.stderr.contains("give a loopback address"), "{}", refused.stderr);
    }
}

#[test]
fn what_every_endpoint_has_in_common() {
    let east = Agent::start("east");
    let consul = Consul::socket(&east);
    let answer = consul.get(&format!("{LEADER}?pretty&stale&dc=east&ns=default")).expect(200);
    assert_eq!(answer.text(), format!("\"{}\"\n", east.address()));
    assert_eq!(answer.header("x-consul-lastcontact"), Some("0"));
    for (path, status, text) in [
        ("/v1/nothing", 404, "Invalid URL path: not a recognized HTTP API endpoint"),
        ("/v1/status/leader?ns=team", 400, "Invalid query parameter: \"ns\" - Namespaces are a Consul"),
        ("/v1/status/leader?partition=p", 400, "Invalid query parameter: \"partition\" - Partitions are"),
        ("/v1/status/leader?stale&consistent", 400, "Cannot specify ?stale with ?consistent"),
        ("/v1/status/leader?index=x", 400, "Invalid index"),
        ("/v1/status/leader?wait=x", 400, "Invalid wait time"),
        ("/v1/status/leader?dc=west", 500, "No path to datacenter"),
    ] {
        let refused = consul.get(path).says(status, text);
        assert_eq!(refused.header("content-type"), Some("text/plain; charset=utf-8"), "{path}");
    }
    let refused = consul.send("POST", LEADER, &[], None).says(405, "method POST not allowed");
    assert_eq!(refused.header("allow"), Some("OPTIONS,GET"));
    let told = consul.send("OPTIONS", LEADER, &[], None).expect(200);
    assert_eq!(told.header("allow"), Some("OPTIONS,GET"));
}

/// Waits until the agent has had nothing to do for a second.
fn until_rest(pid: u32) {
    let mut quiet = (cpu_s(pid).expect("a running agent"), Instant::now());
    until("the agent rests", || {
        let now = cpu_s(pid).expect("a running agent");
        if now > quiet.0 {
            quiet = (now, Instant::now());
        }
        quiet.1.elapsed() > Duration::from_secs(1)
    });
}

/// The sockets that a process has open.
fn sockets(pid: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a running agent");
    let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Queries that wait, each with a connection and a thread of its own.
const WAITING: usize = 1000;

#[test]
fn a_thousand_waiting_queries_cost_nothing_and_are_all_answered() {
    let mut east = Agent::start("east");
    let consul = Consul::socket(&east);
    let list = "/v1/config/service-intentions";
    let entry = |action: &str| json!({"Kind": "service-intentions", "Name": "db", "Sources": [{"Name": "web", "Action": action}]});
    consul.put("/v1/config", &entry("allow")).expect(200);
    let index = consul.get(list).expect(200).index();
    let waiting: Vec<_> = (0..WAITING)
        .map(|_| {
            let consul = consul.clone();
            std::thread::spawn(move || consul.get(&format!("{list}?index={index}&wait=10m")).expect(200))
        })
        .collect();
    let pid = east.pid().expect("a running agent");
    // They have arrived once the agent has nothing to do any more; and they cost nothing if that stays so.
    until_rest(pid);
    assert!(waiting.iter().all(|query| !query.is_finished()));
    consul.put("/v1/config", &entry("deny")).expect(200);
    let begun = Instant::now();
    for query in waiting {
        let answer = query.join().expect("a query is answered");
        assert!(answer.index() > index && answer.text().contains("deny"), "{}", answer.text());
    }
    assert!(begun.elapsed() < LIMIT);
    east.terminate();
}

#[test]
fn a_waiting_query_is_answered_when_the_agent_ends() {
    let mut east = Agent::start("east");
    let consul = Consul::socket(&east);
    let list = "/v1/config/service-intentions";
    let index = consul.get(list).expect(200).index();
    let pid = east.pid().expect("a running agent");
    until_rest(pid);
    let before = sockets(pid);
    let waiting = std::thread::spawn(move || consul.get(&format!("{list}?index={index}&wait=10m")));
    // Its connection is there, and what came by it has been looked at.
    until("the query has arrived", || sockets(pid) > before);
    until_rest(pid);
    assert!(!waiting.is_finished());
    east.terminate();
    waiting.join().expect("a query is answered").expect(200);
}
