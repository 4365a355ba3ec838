use std::collections::BTreeMap;

use super::*;
use crate::wire::traffic::{Cause, Denial};

fn row(source: Option<&str>, peer: Option<&str>, destination: &str) -> TrafficRow {
    TrafficRow {
        source: source.map(|name| name.parse().unwrap()),
        source_peer: peer.map(|name| name.parse().unwrap()),
        destination: Some(destination.parse().unwrap()),
        destination_peer: None,
        way: if peer.is_some() { Way::Link } else { Way::Upstream },
        rule: None,
        precedence: None,
        connections: 0,
        open: 0,
        cut: 0,
        denied: 0,
        denied_because: BTreeMap::new(),
        failed: 0,
        failed_because: BTreeMap::new(),
        sent: 0,
        received: 0,
        set_up: Latency::default(),
    }
}

fn look(age: u64, rows: Vec<TrafficRow>) -> Look {
    Look { cluster: "east".parse().unwrap(), at: Instant::now(), age: Duration::from_millis(age), rows }
}

fn allowed(connections: u64, bytes: u64, set_up: &[(u64, u64)]) -> TrafficRow {
    let up_to_us: BTreeMap<u64, u64> = set_up.iter().copied().collect();
    TrafficRow {
        rule: Some("service_intentions/backend/west/frontend".parse().unwrap()),
        precedence: Some(9),
        connections,
        open: 2,
        sent: bytes,
        received: 10 * bytes,
        set_up: Latency { count: up_to_us.values().sum(), sum_us: 0, up_to_us },
        ..row(Some("frontend"), Some("west"), "backend")
    }
}

fn denied(count: u64) -> TrafficRow {
    TrafficRow {
        denied: count,
        denied_because: [(Denial::NoRule, count)].into(),
        ..row(Some("\u{6d}allory"), Some("west"), "backend")
    }
}

fn report() -> Report {
    let abroad = TrafficRow {
        destination_peer: Some("west".parse().unwrap()),
        failed: 3,
        failed_because: [(Cause::LinkDown, 3)].into(),
        ..row(Some("billing"), None, "ledger")
    };
    let rest = row(None, Some("west"), "backend");
    let before = look(10_000, vec![allowed(100, 1_000, &[(100, 100)]), denied(1), abroad.clone()]);
    let after = look(
        12_000,
        vec![
            rest,
            abroad,
            denied(7),
            allowed(120, 1_000 + (4 << 20), &[(100, 100), (1_000, 10), (250_000, 10)]),
        ],
    );
    after.since(&before)
}

#[test]
fn rates_are_the_difference_of_two_looks_and_the_busiest_is_first() {
    let report = report();
    assert!((report.seconds - 2.0).abs() < 1e-9);
    let busiest = &report.rows[0];
    assert!((busiest.connections_per_second - 10.0).abs() < 1e-9);
    assert!((busiest.sent_bytes_per_second - f64::from(2 << 20)).abs() < 1e-6);
    // The twenty of the interval, and not the hundred before.
    assert_eq!(busiest.set_up_p50_us, Some(1_000));
    assert_eq!(busiest.set_up_p99_us.map(|us| us > 100_000), Some(true));
    let order: Vec<_> =
        report.rows.iter().map(|row| row.total.source.as_ref().map_or("", ServiceName::as_str)).collect();
    assert_eq!(order, ["frontend", "mallory", "", "billing"]);
    assert!((report.rows[1].denied_per_second - 3.0).abs() < 1e-9);
}

#[test]
fn an_agent_that_started_anew_is_counted_from_nothing() {
    let before = look(100_000, vec![allowed(1_000, 9_000, &[])]);
    let after = look(500, vec![allowed(5, 50, &[])]);
    let report = after.since(&before);
    assert!((report.rows[0].connections_per_second - 10.0).abs() < 1e-9);
    assert!((report.rows[0].sent_bytes_per_second - 100.0).abs() < 1e-9);
}

#[test]
fn the_table_tells_who_calls_whom_and_what_decided() {
    assert_eq!(
        table::screen(&report(), Duration::from_secs(2), 200, 20),
        "\
east: 2 open, 10/s new, 3.0/s denied, 0/s failed, 2.00 MiB sent, 20.00 MiB received; every 2s, q ends

SOURCE         DESTINATION  CONNECTIONS  OPEN  DENIED  FAILED  NEW/S  SENT/S    RECEIVED/S  P50      P99     DECIDED BY
frontend@west  backend      120          2     0       0       10     2.00 MiB  20.00 MiB   1.00 ms  247 ms  service_intentions/backend/west/frontend (9)
mallory@west   backend      0            0     7       0       0      0 B       0 B                          no intention matches
(others)@west  backend      0            0     0       0       0      0 B       0 B
billing        ledger@west  0            0     0       3       0      0 B       0 B                          the peer west"
    );
}

#[test]
fn a_small_terminal_shows_what_it_has_room_for_and_says_how_many_there_are_besides() {
    let small = table::screen(&report(), Duration::from_secs(1), 30, 5);
    let lines: Vec<&str> = small.lines().collect();
    assert_eq!(lines.len(), 5, "{small}");
    assert!(lines.iter().all(|line| line.chars().count() <= 30), "{small}");
    assert_eq!(lines[3..], ["frontend@west  backend      12", "… and 3 more"]);
    // However small, it is never more than there is.
    for height in 0..8 {
        assert!(table::screen(&report(), Duration::from_secs(1), 1, height).lines().count() <= height);
    }
    let none = Report { rows: Vec::new(), ..report() };
    assert!(table::screen(&none, Duration::from_secs(1), 200, 5).ends_with(table::NOTHING));
}

#[test]
fn a_document_says_what_the_table_does() {
    let document = serde_json::to_value(report()).unwrap();
    let first = &document["rows"][0];
    assert_eq!(document["cluster"], "east");
    assert_eq!((&first["source"], &first["source_peer"]), (&"frontend".into(), &"west".into()));
    assert_eq!((&first["connections"], &first["precedence"]), (&120.into(), &9.into()));
    assert_eq!(first["rule"], "service_intentions/backend/west/frontend");
    assert_eq!(document["rows"][1]["denied_because"]["no_rule"], 7);
}

#[test]
fn the_interval_has_a_floor() {
    assert!(interval("1s").is_ok() && interval("100ms").is_ok());
    assert!(interval("10ms").unwrap_err().contains("shortest"));
}
