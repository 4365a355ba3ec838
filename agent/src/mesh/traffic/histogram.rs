//! How long things took, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::wire::traffic::{BOUNDS, Latency};

/// A bucket for each bound, and one for what is above all of them.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < took);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(took, Relaxed);
    }

    pub(super) fn read(&self) -> Latency {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        Latency {
            count: counts.iter().sum(),
            sum_us: self.sum_us.load(Relaxed),
            up_to_us: BOUNDS.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_bucket_that_it_does_not_exceed() {
        let histogram = Histogram::default();
        for took in [0, 100, 101, 5_000_000, 5_000_001] {
            histogram.observe(Duration::from_micros(took));
        }
        let read = histogram.read();
        assert_eq!(read.count, 5);
        assert_eq!(read.sum_us, 10_000_202);
        assert_eq!(read.up_to_us, [(100, 2), (250, 1), (5_000_000, 1)].into());
    }
}
