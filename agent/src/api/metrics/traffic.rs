//! The families of traffic: for each upstream of this cluster, and for each pair and intention that were decided here.
//! A connection within this cluster is in both.

use std::collections::BTreeMap;

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use schema::name::{LinkName, ServiceName};

use super::exposition::{Exposition, Labels, Sample};
use crate::wire::traffic::{Latency, TrafficRow, Way};

/// In the place of a name where a row stands for all that there was no room for. No service can be called so.
const OTHERS: &str = "(other)";

/// What there is of each of both kinds: name and help text.
struct Words {
    connections: [&'static str; 2],
    open: [&'static str; 2],
    cut: [&'static str; 2],
    denied: [&'static str; 2],
    failed: [&'static str; 2],
    sent: [&'static str; 2],
    received: [&'static str; 2],
    set_up: [&'static str; 2],
}

const UPSTREAM: Words = Words {
    connections: ["comity_upstream_connections", "Connections of apps that were carried by an upstream."],
    open: ["comity_upstream_open_connections", "Those of them that are open."],
    cut: ["comity_upstream_cut_connections", "Those of them that were cut because what allowed them ended."],
    denied: ["comity_upstream_denied_connections", "Connections of apps that were refused, by cause."],
    failed: [
        "comity_upstream_failed_connections",
        "Connections of apps that nothing refused and that were not made, by cause.",
    ],
    sent: ["comity_upstream_sent", "Bytes from the service to the destination."],
    received: ["comity_upstream_received", "Bytes from the destination to the service."],
    set_up: [
        "comity_upstream_setup",
        "From the moment that an app's connection arrived until it was carried to the destination.",
    ],
};

const INTENTION: Words = Words {
    connections: [
        "comity_intention_connections",
        "Connections that an intention allowed and that were made.",
    ],
    open: ["comity_intention_open_connections", "Those of them that are open."],
    cut: ["comity_intention_cut_connections", "Those of them that were cut because what allowed them ended."],
    denied: [
        "comity_intention_denied_connections",
        "Connections that were refused here, by the intention that decided and by cause; without a rule none matched.",
    ],
    failed: [
        "comity_intention_failed_connections",
        "Connections that an intention allowed and that were not made, by cause.",
    ],
    sent: ["comity_intention_sent", "Bytes from the calling service to the destination."],
    received: ["comity_intention_received", "Bytes from the destination to the calling service."],
    set_up: [
        "comity_intention_setup",
        "From the moment that a connection arrived until an instance of the destination had taken it.",
    ],
};

pub(super) fn families(rows: &[TrafficRow], to: &mut Exposition) {
    let name = |service: Option<&ServiceName>| service.map_or_else(|| OTHERS.to_owned(), ToString::to_string);
    let link = |link: Option<&LinkName>| link.map(ToString::to_string).unwrap_or_default();

    // Rules are of the destination's side, so a caller's rows of one upstream are one.
    let mut upstreams = BTreeMap::<Labels, Sum>::new();
    for row in rows.iter().filter(|row| row.way == Way::Upstream) {
        let labels = vec![
            ("service", name(row.source.as_ref())),
            ("destination", name(row.destination.as_ref())),
            ("peer", link(row.destination_peer.as_ref())),
        ];
        upstreams.entry(labels).or_default().add(row);
    }
    tell(&UPSTREAM, &upstreams, to);

    let mut decided = BTreeMap::<Labels, Sum>::new();
    for row in rows.iter().filter(|row| row.destination_peer.is_none()) {
        let labels = vec![
            ("service", name(row.source.as_ref())),
            ("peer", link(row.source_peer.as_ref())),
            ("destination", name(row.destination.as_ref())),
            ("way", row.way.as_str().to_owned()),
            ("rule", row.rule.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("precedence", row.precedence.map(|number| number.to_string()).unwrap_or_default()),
        ];
        decided.entry(labels).or_default().add(row);
    }
    tell(&INTENTION, &decided, to);
}

/// Rows that have the same labels.
#[derive(Default)]
struct Sum {
    connections: u64,
    open: u64,
    cut: u64,
    denied: BTreeMap<&'static str, u64>,
    failed: BTreeMap<&'static str, u64>,
    sent: u64,
    received: u64,
    set_up: Latency,
}

impl Sum {
    fn add(&mut self, row: &TrafficRow) {
        self.connections += row.connections;
        self.open += row.open;
        self.cut += row.cut;
        self.sent += row.sent;
        self.received += row.received;
        self.set_up.add(&row.set_up);
        for (why, count) in &row.denied_because {
            *self.denied.entry(why.as_str()).or_default() += count;
        }
        for (why, count) in &row.failed_because {
            *self.failed.entry(why.as_str()).or_default() += count;
        }
    }
}

fn tell(words: &Words, sums: &BTreeMap<Labels, Sum>, to: &mut Exposition) {
    let each = |of: &dyn Fn(&Sum) -> Sample| -> Vec<(Labels, Sample)> {
        sums.iter().map(|(labels, sum)| (labels.clone(), of(sum))).collect()
    };
    let by_cause = |of: &dyn Fn(&Sum) -> &BTreeMap<&'static str, u64>| -> Vec<(Labels, Sample)> {
        sums.iter()
            .flat_map(|(labels, sum)| {
                of(sum).iter().map(move |(cause, count)| {
                    let mut labels = labels.clone();
                    labels.push(("cause", (*cause).to_owned()));
                    (labels, Sample::Number(*count))
                })
            })
            .collect()
    };
    let (gauge, counter) = (MetricType::Gauge, MetricType::Counter);
    let bytes = Some(Unit::Bytes);
    let [name, help] = words.connections;
    to.add(name, help, counter, each(&|sum| Sample::Number(sum.connections)));
    let [name, help] = words.open;
    to.add(name, help, gauge, each(&|sum| Sample::Number(sum.open)));
    let [name, help] = words.cut;
    to.add(name, help, counter, each(&|sum| Sample::Number(sum.cut)));
    let [name, help] = words.denied;
    to.add(name, help, counter, by_cause(&|sum| &sum.denied));
    let [name, help] = words.failed;
    to.add(name, help, counter, by_cause(&|sum| &sum.failed));
    let [name, help] = words.sent;
    to.add_with((name, bytes.clone()), help, counter, each(&|sum| Sample::Number(sum.sent)));
    let [name, help] = words.received;
    to.add_with((name, bytes), help, counter, each(&|sum| Sample::Number(sum.received)));
    let [name, help] = words.set_up;
    // Of who was never let in there is no time to tell, and such rows are as many as a peer has names.
    let carried = sums.iter().filter(|(_, sum)| sum.set_up.count > 0);
    let set_up = carried.map(|(labels, sum)| (labels.clone(), Sample::Latency(sum.set_up.clone()))).collect();
    to.add_with((name, Some(Unit::Seconds)), help, MetricType::Histogram, set_up);
}

#[cfg(test)]
mod tests;
