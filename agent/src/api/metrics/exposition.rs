//! Families of metrics with their samples, and their text.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::wire::traffic::{BOUNDS, Latency};

/// Names of labels and their values. A value may be anything: the encoder quotes it.
pub(super) type Labels = Vec<(&'static str, String)>;

/// The value of one sample.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sample {
    Number(u64),
    Seconds(f64),
    Latency(Latency),
}

/// What has families to tell.
pub(super) trait Families {
    fn families(&self, to: &mut Exposition);
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
    kind: MetricType,
    samples: Vec<(Labels, Sample)>,
}

/// Everything that one answer tells.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    families: Vec<Family>,
}

impl Exposition {
    pub(super) fn of(seen: &impl Families) -> Self {
        let mut exposition = Self::default();
        seen.families(&mut exposition);
        exposition
    }

    pub(super) fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        samples: Vec<(Labels, Sample)>,
    ) {
        self.add_with((name, None), help, kind, samples);
    }

    /// The same for what has a unit, which the text puts behind the name.
    pub(super) fn add_with(
        &mut self,
        (name, unit): (&'static str, Option<Unit>),
        help: &'static str,
        kind: MetricType,
        samples: Vec<(Labels, Sample)>,
    ) {
        self.families.push(Family { name, unit, help, kind, samples });
    }

    /// The text, to its `# EOF`.
    pub(super) fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in self.families.iter().filter(|family| !family.samples.is_empty()) {
            let mut metric =
                encoder.encode_descriptor(family.name, family.help, family.unit.as_ref(), family.kind)?;
            for (labels, sample) in &family.samples {
                // An empty set of labels would be a pair of braces around nothing.
                if labels.is_empty() {
                    write(&mut metric, family.kind, sample)?;
                } else {
                    write(&mut metric.encode_family(labels)?, family.kind, sample)?;
                }
            }
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss)] // Of some 285 years of microseconds none is lost.
fn write(metric: &mut MetricEncoder<'_>, kind: MetricType, sample: &Sample) -> fmt::Result {
    match (sample, kind) {
        (Sample::Number(number), MetricType::Counter) => {
            metric.encode_counter::<NoLabelSet, _, u64>(number, None)
        }
        (Sample::Number(number), _) => metric.encode_gauge(number),
        (Sample::Seconds(seconds), _) => metric.encode_gauge(seconds),
        (Sample::Latency(latency), _) => {
            let seconds = |micros: u64| micros as f64 / 1e6;
            let count = |bound: &u64| latency.up_to_us.get(bound).copied().unwrap_or_default();
            let mut buckets: Vec<(f64, u64)> =
                BOUNDS.iter().map(|bound| (seconds(*bound), count(bound))).collect();
            let told: u64 = buckets.iter().map(|(_, count)| count).sum();
            buckets.push((f64::INFINITY, latency.count.saturating_sub(told)));
            metric.encode_histogram::<NoLabelSet>(seconds(latency.sum_us), latency.count, &buckets, None)
        }
    }
}
