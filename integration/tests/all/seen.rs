//! What operators see of the traffic: counters that are exact, denials with their rule, metrics that the reference
//! parser takes, and the live view on a real terminal.

use std::net::TcpStream;

use integration::{Clusters, Http, LIMIT, Server, free_port, openmetrics, own_only, python, shout, wait_for};
use serde_json::{Value, json};

const RULE: &str = "service_intentions/backend/west/frontend";

fn east(port: u16) -> String {
    format!(
        r#"
service "backend" {{
  port = {port}
}}
service_intentions "backend" {{
  sources = [
    {{ name = "frontend", peer = "west", action = "allow" }},
    {{ name = "mallory", peer = "west", action = "deny" }},
  ]
}}
exported_services "default" {{
  services = [{{ name = "backend", consumers = [{{ peer = "west" }}] }}]
}}
"#
    )
}

fn west(callers: &[(&str, u16)]) -> String {
    let service = |(name, port): &(&str, u16)| {
        format!(
            r#"
service "{name}" {{
  upstreams = [{{ destination_name = "backend", destination_peer = "east", local_bind_port = {port} }}]
}}
"#
        )
    };
    callers.iter().map(service).collect()
}

/// The row of traffic that has these values.
fn row(clusters: &Clusters, side: &str, wanted: &Value) -> Option<Value> {
    let agent = if side == "east" { &clusters.east } else { &clusters.west };
    let status = Http::socket(agent).get("/control/v1/status").expect(200).json();
    let rows = status["mesh"]["traffic"].as_array().expect("a list of rows").clone();
    let wanted = wanted.as_object().expect("an object");
    rows.into_iter().find(|row| wanted.iter().all(|(key, value)| &row[key] == value))
}

fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {row}"))
}

/// Waits until `side` has carried a first connection and none is open.
fn settled(clusters: &Clusters, side: &str, wanted: &Value) -> Value {
    wait_for("every connection has ended", LIMIT, || {
        row(clusters, side, wanted).filter(|row| number(row, "open") == 0 && number(row, "connections") > 0)
    })
}

fn wait_answer(local: u16) {
    wait_for("the upstream answers", LIMIT, || (shout(local, "hello").ok()? == "HELLO").then_some(()));
}

/// Prints every sample as a JSON object a line.
const PARSER: &str = r#"
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(open(sys.argv[1]).read()):
    assert family.documentation, family.name
    for sample in family.samples:
        print(json.dumps({"family": family.name, "unit": family.unit, "type": family.type,
                          "name": sample.name, "labels": sample.labels, "value": sample.value}))
"#;

fn parsed(text: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("metrics");
    std::fs::write(&file, text).expect("a file");
    let interpreter = openmetrics().expect("asked before");
    let done = python(&interpreter, PARSER, &[file.to_str().expect("temporary paths are UTF-8")]).success();
    done.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn what_passed_is_counted_to_the_byte_on_both_sides_and_told_as_openmetrics() {
    let (backend, local) = (Server::shouting(), free_port());
    let clusters = Clusters::linked(&east(backend.port()), &west(&[("frontend", local)]));
    wait_answer(local);
    let inbound = json!({ "way": "link", "source": "frontend", "source_peer": "west", "rule": RULE });
    let outbound = json!({ "way": "upstream", "source": "frontend", "destination_peer": "east" });
    let before = [settled(&clusters, "east", &inbound), settled(&clusters, "west", &outbound)];
    let text = "x".repeat(1_000);
    for _ in 0..20 {
        assert_eq!(shout(local, &text).unwrap().len(), 1_000);
    }
    let after = [settled(&clusters, "east", &inbound), settled(&clusters, "west", &outbound)];
    for (before, after) in before.iter().zip(&after) {
        let more = |key| number(after, key) - number(before, key);
        assert_eq!(
            [more("connections"), more("sent"), more("received"), more("denied"), more("failed")],
            [20, 20_000, 20_000, 0, 0],
            "{before}\n{after}"
        );
        assert_eq!(after["set_up"]["count"], after["connections"]);
    }
    assert_eq!((&after[0]["precedence"], &after[0]["destination"]), (&json!(9), &json!("backend")));

    // Nobody else may look, and what is told is OpenMetrics.
    Http::anonymous(&clusters.east).get("/metrics").expect(403);
    let answer = Http::socket(&clusters.east).get("/metrics").expect(200);
    let kind = answer.header("content-type").map(str::to_owned);
    assert_eq!(kind.as_deref(), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(answer.text().ends_with("# EOF\n"));
    // A certificate for metrics sees all of it and nothing else; who is kept to projects hears nothing of services.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let client = |name: &str, more: Value| {
        let pair = integration::certificate::p256(folder.path(), name);
        let mut body = json!({ "name": name, "certificate": integration::http::der_base64(&pair) });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        Http::socket(&clusters.east).post("/1.0/certificates", &body).expect(201);
        Http::showing(&clusters.east, Some(pair))
    };
    let monitor = client("monitor", json!({ "type": "metrics" }));
    assert!(monitor.get("/metrics").expect(200).text().contains(RULE));
    monitor.get("/control/v1/status").expect(403);
    let kept = client("kept", json!({ "type": "client", "restricted": true, "projects": ["default"] }));
    let told = kept.get("/metrics").expect(200).text();
    assert!(told.contains("comity_uptime_seconds ") && !told.contains("frontend"), "{told}");
    assert!(!told.contains("west"), "{told}");
    if own_only() || openmetrics().is_none() {
        return;
    }
    let metrics =
        [parsed(&answer.text()), parsed(&Http::socket(&clusters.west).get("/metrics").expect(200).text())];
    let sample = |side: usize, name: &str, labels: Value| {
        let wanted = labels.as_object().expect("an object").clone();
        let found: Vec<&Value> = metrics[side]
            .iter()
            .filter(|sample| sample["name"] == name)
            .filter(|sample| wanted.iter().all(|(key, value)| &sample["labels"][key] == value))
            .collect();
        let [one] = found[..] else { panic!("{name} {labels}: {found:?}") };
        one.clone()
    };
    let intention = json!({ "service": "frontend", "peer": "west", "destination": "backend", "rule": RULE });
    let upstream = json!({ "service": "frontend", "peer": "east", "destination": "backend" });
    for (side, kind, labels) in [(0, "intention", &intention), (1, "upstream", &upstream)] {
        for (what, key) in [
            ("connections_total", "connections"),
            ("open_connections", "open"),
            ("sent_bytes_total", "sent"),
            ("received_bytes_total", "received"),
            ("setup_seconds_count", "connections"),
        ] {
            let one = sample(side, &format!("comity_{kind}_{what}"), labels.clone());
            assert_eq!(one["value"].as_f64(), after[side][key].as_f64(), "{one}");
        }
        let seconds = sample(side, &format!("comity_{kind}_setup_seconds_sum"), labels.clone());
        assert_eq!((&seconds["unit"], &seconds["type"]), (&json!("seconds"), &json!("histogram")));
        assert!(seconds["value"].as_f64().unwrap() > 0.0);
        // The parser itself checks that buckets only rise and end in the count.
        let bytes = sample(side, &format!("comity_{kind}_sent_bytes_total"), labels.clone());
        assert_eq!((&bytes["unit"], &bytes["type"]), (&json!("bytes"), &json!("counter")));
    }
    assert_eq!(sample(0, "comity_link_sessions", json!({ "peer": "west" }))["value"], 1.0);
    assert_eq!(sample(1, "comity_link_state", json!({ "peer": "east", "state": "active" }))["value"], 1.0);
    assert_eq!(sample(1, "comity_upstream_listening", upstream)["value"], 1.0);
    assert_eq!(sample(1, "comity_draining", json!({}))["value"], 0.0);
}

#[test]
fn a_flood_of_denials_is_counted_whole_shown_with_its_rule_and_is_two_lines_of_log() {
    const FLOOD: u64 = 300;
    let backend = Server::shouting();
    let (allowed, denied, unmatched) = (free_port(), free_port(), free_port());
    let declared = west(&[("frontend", allowed), ("mallory", denied), ("visitor", unmatched)]);
    let clusters = Clusters::linked(&east(backend.port()), &declared);
    wait_answer(allowed);
    let rule = "service_intentions/backend/west/mallory";
    for _ in 0..FLOOD {
        assert_eq!(shout(denied, "hello").unwrap_or_default(), "");
    }
    assert_eq!(shout(unmatched, "hello").unwrap_or_default(), "");

    let by_rule = json!({ "source": "mallory", "source_peer": "west", "rule": rule });
    let row_of = |wanted: &Value, count: u64| {
        wait_for("every denial is counted", LIMIT, || {
            row(&clusters, "east", wanted).filter(|row| number(row, "denied") == count)
        })
    };
    let counted = row_of(&by_rule, FLOOD);
    assert_eq!((number(&counted, "connections"), &counted["denied_because"]), (0, &json!({ "rule": FLOOD })));
    let none = row_of(&json!({ "source": "visitor", "source_peer": "west" }), 1);
    assert_eq!((&none["rule"], &none["denied_because"]), (&Value::Null, &json!({ "no_rule": 1 })));
    let caller = row(&clusters, "west", &json!({ "source": "mallory", "destination_peer": "east" }));
    assert_eq!(caller.expect("the caller counts as well")["denied_because"], json!({ "peer": FLOOD }));

    // The log: the first at once with both names and the rule, the others as a number, and nobody else is hidden.
    let lines = |mark: &str, source: &str| -> Vec<String> {
        let log = clusters.east.log();
        let ours = |line: &&str| line.contains(mark) && line.contains(&format!("source={source}@west"));
        log.lines().filter(ours).map(str::to_owned).collect()
    };
    let first = lines("connection denied", "mallory");
    let [first] = &first[..] else { panic!("{first:?}") };
    for field in ["destination=backend", "precedence=9", &format!("rule={rule}"), "cause=\"rule\""] {
        assert!(first.contains(field), "{field} is not in {first}");
    }
    assert_eq!(lines("connection denied", "visitor").len(), 1);
    assert!(lines("connection denied", "visitor")[0].contains("no intention matches"));
    wait_for("the others are summed up", LIMIT, || {
        let count = |line: &String| {
            let (_, rest) = line.split_once("count=")?;
            rest.split(' ').next()?.parse::<u64>().ok()
        };
        let summed: u64 = lines("more connections denied", "mallory").iter().filter_map(count).sum();
        (summed == FLOOD - 1).then_some(())
    });

    // The same by the command.
    let shown = clusters.ask("east", &["status", "--traffic", "--interval", "100ms"]);
    let rows = shown["rows"].as_array().expect("a list");
    let of = |source: &str| rows.iter().find(|row| row["source"] == source).expect("its row");
    assert_eq!((&of("mallory")["denied"], &of("mallory")["rule"]), (&json!(FLOOD), &json!(rule)));
    assert_eq!(of("mallory")["denied_per_second"], 0.0, "it is over");
    let args = ["--remote", "east", "status", "--traffic", "--interval", "100ms", "--service", "mallory"];
    let table = clusters.run(&args).success().stdout;
    assert!(table.contains("mallory@west") && table.contains(&format!("{rule} (9)")), "{table}");
    assert!(!table.contains("frontend"), "{table}");
}

#[test]
fn an_upstream_with_several_targets_shows_which_one_is_used_now() {
    let (near, far, local) = (Server::shouting(), Server::shouting(), free_port());
    let declared = format!(
        r#"
service "backend" {{
  port = {}
}}
service_intentions "backend" {{
  sources = [{{ name = "frontend", action = "allow" }}]
}}
service "frontend" {{
  upstreams = [{{
    destination_name = "backend"
    destination_peer = "east"
    local_bind_port  = {local}
    failover         = [{{ name = "backend" }}]
  }}]
}}
"#,
        near.port()
    );
    let mut clusters = Clusters::linked(&east(far.port()), &declared);
    let shows = |clusters: &Clusters, wanted: [&str; 2]| {
        wait_for(&format!("the targets are {wanted:?}"), LIMIT, || {
            let listed = clusters.ask("west", &["service", "list"]);
            let frontend = listed.as_array()?.iter().find(|row| row["service"] == "frontend")?.clone();
            let targets = frontend["upstreams"][0]["targets"].as_array()?.clone();
            let states: Vec<&str> = targets.iter().filter_map(|target| target["state"].as_str()).collect();
            (states == wanted).then_some(())
        });
    };
    shows(&clusters, ["in_use", "ready"]);
    wait_answer(local);
    clusters.east.kill9();
    shows(&clusters, ["down", "in_use"]);
    wait_answer(local);
    let text = clusters.run(&["--remote", "west", "service", "list"]).success().stdout;
    let shown =
        format!("127.0.0.1:{local} → backend@east (no connection to the peer), else backend (in use)");
    assert!(text.contains(&shown), "{text}");
}

/// Runs a command on a terminal of its own: it draws, the terminal shrinks, it draws anew, `q` is pressed.
const TERMINAL: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
def size(lines, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
def until(mark, seen=b""):
    end = time.time() + 20
    while mark not in seen:
        ready = select.select([fd], [], [], max(0, end - time.time()))[0]
        assert ready, f"{mark!r} never came: {seen!r}"
        seen += os.read(fd, 65536)
    return seen
size(24, 200)
before = termios.tcgetattr(fd)
seen = until(b"DECIDED BY")
assert b"\x1b[?1049h" in seen, seen
assert not termios.tcgetattr(fd)[3] & termios.ICANON, "keys come at once"
size(4, 20)
while True:
    drawn = until(b"\x1b[K\x1b[J").split(b"\x1b[H")[-1]
    lines = drawn.replace(b"\x1b[K", b"").replace(b"\x1b[J", b"").replace(b"\r", b"").split(b"\n")
    if all(len(line.decode()) <= 20 for line in lines):
        break
assert len(lines) <= 4 and lines[2].startswith(b"SOURCE"), lines
os.write(fd, b"x")
until(b"\x1b[J")
os.write(fd, b"q")
end = until(b"\x1b[?1049l")
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert termios.tcgetattr(fd)[3] == before[3], "the terminal is as it was"
print("done")
"#;

#[test]
fn the_live_view_follows_the_terminal_and_gives_it_back_and_without_one_is_documents() {
    let (backend, local) = (Server::echo(), free_port());
    let clusters = Clusters::linked(&east(backend.port()), &west(&[("frontend", local)]));
    let open = wait_for("a connection through both agents", LIMIT, || {
        let socket = TcpStream::connect(("127.0.0.1", local)).ok()?;
        let found = row(&clusters, "east", &json!({ "rule": RULE }));
        found.filter(|row| number(row, "open") > 0).map(|_| socket)
    });
    let args =
        ["--remote", "east", "--format", "json", "status", "--traffic", "--watch", "--interval", "100ms"];
    let mut running = clusters.operator.begin(&args);
    let line = running.says("{\"cluster\":\"east\",");
    let document: Value = serde_json::from_str(&format!("{{{line}")).expect("a document a line");
    assert_eq!(document["rows"][0]["source"], "frontend");
    assert!(number(&document["rows"][0], "open") > 0, "{document}");
    running.interrupt();
    running.end();
    drop(open);

    if own_only() {
        return;
    }
    let socket = clusters.east.socket();
    let socket = socket.to_str().expect("temporary paths are UTF-8");
    let comity = integration::binary::comity().to_str().expect("a path in UTF-8");
    let args = [comity, "--socket", socket, "status", "--traffic", "--watch", "--interval", "100ms"];
    let done = python(std::path::Path::new("python3"), TERMINAL, &args).success();
    assert_eq!(done.stdout.trim(), "done");
}
