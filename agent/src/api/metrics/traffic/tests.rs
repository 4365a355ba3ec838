use crate::wire::traffic::{Cause, Denial};

use super::*;
use crate::api::metrics::exposition::Families;

fn row(source: Option<&str>, way: Way) -> TrafficRow {
    TrafficRow {
        source: source.map(|name| name.parse().unwrap()),
        source_peer: (way == Way::Link).then(|| "west".parse().unwrap()),
        destination: source.map(|_| "backend".parse().unwrap()),
        destination_peer: None,
        way,
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

struct Rows(Vec<TrafficRow>);

impl Families for Rows {
    fn families(&self, to: &mut Exposition) {
        families(&self.0, to);
    }
}

fn text(rows: Vec<TrafficRow>) -> String {
    Exposition::of(&Rows(rows)).text().unwrap()
}

#[test]
fn a_pair_is_told_with_its_rule_its_units_and_a_cumulative_histogram() {
    let carried = TrafficRow {
        rule: Some("service_intentions/backend/west/frontend".parse().unwrap()),
        precedence: Some(9),
        connections: 4,
        open: 1,
        sent: 10,
        received: 20,
        failed: 1,
        failed_because: [(Cause::NoInstance, 1)].into(),
        set_up: Latency { count: 4, sum_us: 6_000_300, up_to_us: [(100, 2), (250, 1)].into() },
        ..row(Some("frontend"), Way::Link)
    };
    let denied = TrafficRow {
        denied: 3,
        denied_because: [(Denial::NoRule, 2), (Denial::NotExported, 1)].into(),
        ..row(Some("frontend"), Way::Link)
    };
    let text = text(vec![denied, carried]);
    let labels = r#"service="frontend",peer="west",destination="backend",way="link",rule="service_intentions/backend/west/frontend",precedence="9""#;
    for line in [
        "# TYPE comity_intention_connections counter".to_owned(),
        format!("comity_intention_connections_total{{{labels}}} 4"),
        "# UNIT comity_intention_sent_bytes bytes".to_owned(),
        format!("comity_intention_sent_bytes_total{{{labels}}} 10"),
        format!("comity_intention_failed_connections_total{{{labels},cause=\"no_instance\"}} 1"),
        "# TYPE comity_intention_setup_seconds histogram".to_owned(),
        format!("comity_intention_setup_seconds_count{{{labels}}} 4"),
        format!("comity_intention_setup_seconds_sum{{{labels}}} 6.0003"),
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\nis not in\n{text}");
    }
    let bucket = |bound: &str, count: u64| {
        let found = text.lines().any(|line| {
            line.starts_with("comity_intention_setup_seconds_bucket")
                && line.contains(&format!("le=\"{bound}\""))
                && line.contains(labels)
                && line.ends_with(&format!(" {count}"))
        });
        assert!(found, "{bound} {count}\n{text}");
    };
    bucket("0.0001", 2);
    bucket("0.00025", 3);
    bucket("5.0", 3);
    bucket("+Inf", 4);
    assert!(text.contains(r#"way="link",rule="",precedence="",cause="no_rule"} 2"#), "{text}");
    assert!(text.ends_with("# EOF\n"));
    // Neither end of it is an upstream of ours.
    assert!(!text.contains("comity_upstream"), "{text}");
}

#[test]
fn rows_of_one_upstream_are_one_whatever_the_rule_and_what_had_no_room_has_a_name_of_its_own() {
    let allowed = TrafficRow {
        rule: Some("service_intentions/backend/@/frontend".parse().unwrap()),
        connections: 2,
        ..row(Some("frontend"), Way::Upstream)
    };
    let other = TrafficRow { connections: 3, rule: None, ..row(Some("frontend"), Way::Upstream) };
    let rest = TrafficRow { denied: 7, denied_because: [(Denial::Rule, 7)].into(), ..row(None, Way::Link) };
    let text = text(vec![allowed, other, rest]);
    let upstream = r#"comity_upstream_connections_total{service="frontend",destination="backend",peer=""} 5"#;
    assert!(text.contains(upstream), "{text}");
    // Of this cluster, so decided here as well.
    assert!(text.contains(r#"comity_intention_connections_total{service="frontend",peer="",destination="backend",way="upstream",rule="service_intentions/backend/@/frontend""#), "{text}");
    let rest = r#"comity_intention_denied_connections_total{service="(other)",peer="west",destination="(other)",way="link",rule="",precedence="",cause="rule"} 7"#;
    assert!(text.contains(rest), "{text}");
}

#[test]
fn a_label_cannot_break_out_of_its_line() {
    struct Hostile;
    impl Families for Hostile {
        fn families(&self, to: &mut Exposition) {
            let value = "a\"} 1\ncomity_forged 9\n\\".to_owned();
            to.add(
                "comity_hostile",
                "A test.",
                MetricType::Gauge,
                vec![(vec![("value", value)], Sample::Number(1))],
            );
        }
    }
    let text = Exposition::of(&Hostile).text().unwrap();
    let sample = r#"comity_hostile{value="a\"} 1\ncomity_forged 9\n\\"} 1"#;
    assert_eq!(text.lines().collect::<Vec<_>>()[2..], [sample, "# EOF"]);
}
