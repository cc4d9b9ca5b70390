//! Counters, gauges and histograms: plain atomics that a request can afford.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::telemetry::text::{Kind, Series};

/// Linkerd's counters wrap to 0 above this, the largest range in which a double counts exactly.
const WRAP: u64 = (1 << 53) - 1;

/// A value that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A value that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

/// A moment or a length of time, in seconds.
#[derive(Debug, Default)]
pub struct Seconds(AtomicU64);

/// How often a value fell into each bucket, and the sum of all values. Its unit is its family's.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One per bound, and one for what is above the last. Not cumulative.
    buckets: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

/// What a family can hold.
pub trait Metric: Send + Sync + 'static {
    /// What is needed to make one.
    type Shape: Copy + Send + Sync + 'static;
    /// The word in the TYPE line.
    const KIND: Kind;
    /// A new one, at zero.
    fn new(shape: Self::Shape) -> Self;
    /// Changes whenever the value has changed; tells idle label sets.
    fn fingerprint(&self) -> u64;
    /// Writes its samples.
    fn encode(&self, series: &mut Series<'_>);
}

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count so far; it wraps to 0 above 2^53.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed) & WRAP
    }
}

impl Metric for Counter {
    type Shape = ();
    const KIND: Kind = Kind::Counter;

    fn new((): ()) -> Self {
        Self::default()
    }

    fn fingerprint(&self) -> u64 {
        self.value()
    }

    fn encode(&self, series: &mut Series<'_>) {
        series.sample(self.value());
    }
}

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl Metric for Gauge {
    type Shape = ();
    const KIND: Kind = Kind::Gauge;

    fn new((): ()) -> Self {
        Self::default()
    }

    fn fingerprint(&self) -> u64 {
        self.value() as u64
    }

    fn encode(&self, series: &mut Series<'_>) {
        series.sample(self.value());
    }
}

impl Seconds {
    /// Replaces the value.
    pub fn set(&self, seconds: f64) {
        self.0.store(seconds.to_bits(), Relaxed);
    }
}

impl Metric for Seconds {
    type Shape = ();
    const KIND: Kind = Kind::Gauge;

    fn new((): ()) -> Self {
        Self::default()
    }

    fn fingerprint(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn encode(&self, series: &mut Series<'_>) {
        series.sample(f64::from_bits(self.0.load(Relaxed)));
    }
}

impl Histogram {
    /// Counts a zero: into the first bucket, which leaves the sum as it is.
    pub fn observe_zero(&self) {
        self.buckets[0].fetch_add(1, Relaxed);
    }

    /// Counts a value into its bucket: the first whose bound is not below it.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Relaxed);
        let add = |bits: u64| Some((f64::from_bits(bits) + value).to_bits());
        // The closure never answers `None`, so the update can't fail.
        let _added = self.sum.fetch_update(Relaxed, Relaxed, add);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// The sum of all values.
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.sum.load(Relaxed))
    }
}

impl Metric for Histogram {
    type Shape = &'static [f64];
    const KIND: Kind = Kind::Histogram;

    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0f64.to_bits()),
        }
    }

    fn fingerprint(&self) -> u64 {
        self.count()
    }

    fn encode(&self, series: &mut Series<'_>) {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let mut count = 0;
        for (bound, bucket) in bounds.zip(&self.buckets) {
            // Counting along, instead of loading a count of its own, keeps `_count` equal to the last bucket.
            count += bucket.load(Relaxed);
            series.bucket(bound, count);
        }
        series.suffixed("_count", count);
        series.suffixed("_sum", self.sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_the_bucket_below() {
        let histogram = Histogram::new(&[1.0, 2.0]);
        [0.5, 1.0, 1.5, 2.0, 9.0]
            .iter()
            .for_each(|value| histogram.observe(*value));
        let counts: Vec<_> = histogram.buckets.iter().map(|b| b.load(Relaxed)).collect();
        assert_eq!(counts, [2, 2, 1]);
        assert_eq!((histogram.count(), histogram.sum()), (5, 14.0));
    }

    #[test]
    fn a_value_that_is_no_number_is_counted_above_the_last_bound() {
        let histogram = Histogram::new(&[1.0]);
        histogram.observe(f64::INFINITY);
        assert_eq!(histogram.buckets[1].load(Relaxed), 1);
    }

    #[test]
    fn a_counter_wraps_above_what_a_double_counts_exactly() {
        let counter = Counter::default();
        counter.add(1 << 53);
        assert_eq!(counter.value(), 0);
    }

    #[test]
    fn threads_lose_no_observation() {
        let histogram = Histogram::new(&[1.0]);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..1000).for_each(|_| histogram.observe(0.5)));
            }
        });
        assert_eq!((histogram.count(), histogram.sum()), (2000, 1000.0));
    }
}
