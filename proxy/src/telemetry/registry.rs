//! Every family that `/metrics` prints: found by label set, forgotten when idle, never larger than a bound.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry::metric::{Counter, Gauge, Histogram, Metric, Seconds};
use crate::telemetry::text::{Description, Document, EncodeLabels, Format, LabelWriter, Name, Series};

/// Label sets that a family remembers at most; more share one series, labelled `overflow="true"`.
pub const MAX_LABEL_SETS: usize = 10_000;
/// How often a full family looks for idle label sets on its own, when nobody scrapes.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Every family of the process, in the order of registration.
#[derive(Debug)]
pub struct Registry {
    retain_idle: Duration,
    overflow: Family<FamilyName, Counter>,
    collectors: Vec<Box<dyn Collect>>,
}

/// Something that prints one or more families.
pub trait Collect: fmt::Debug + Send + Sync {
    /// The families it prints.
    fn describe(&self) -> Vec<Description>;
    /// Appends those of its families that have a sample.
    fn collect(&self, now: Instant, out: &mut Document);
}

/// One metric per label set. A clone is the same family.
pub struct Family<L, M: Metric>(Arc<State<L, M>>);

struct State<L, M: Metric> {
    description: Description,
    shape: M::Shape,
    retain_idle: Duration,
    max: usize,
    /// Counts what went to the overflow series; none for the family that does the counting.
    overflow: Option<Family<FamilyName, Counter>>,
    sets: Mutex<Sets<L, M>>,
}

struct Sets<L, M> {
    known: HashMap<L, Entry<M>>,
    overflow: Option<Arc<M>>,
    swept: Option<Instant>,
}

struct Entry<M> {
    metric: Arc<M>,
    /// When somebody last held it, or its value was last seen to have changed.
    used: Instant,
    seen: u64,
}

/// The label of `outrigger_metrics_overflow_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FamilyName(String);

impl Registry {
    /// An empty registry whose families forget label sets that nobody holds and that did not change for
    /// `retain_idle`.
    pub fn new(retain_idle: Duration) -> Self {
        let description = Description {
            name: Name::classic("outrigger_metrics_overflow_total"),
            kind: Counter::KIND,
            help: "Requests for a label set that a full family answered with its overflow series",
            labels: FamilyName::DOC,
        };
        let overflow = Family::with(description, (), retain_idle, None);
        let collectors: Vec<Box<dyn Collect>> = vec![Box::new(overflow.clone())];
        Self {
            retain_idle,
            overflow,
            collectors,
        }
    }

    /// A family of counters. `help` is one sentence without its dot.
    pub fn counter<L: Labels>(&mut self, name: impl Into<Name>, help: &'static str) -> Family<L, Counter> {
        self.family(name.into(), help, ())
    }

    /// A family of gauges.
    pub fn gauge<L: Labels>(&mut self, name: impl Into<Name>, help: &'static str) -> Family<L, Gauge> {
        self.family(name.into(), help, ())
    }

    /// A family of moments or lengths of time.
    pub fn seconds<L: Labels>(&mut self, name: impl Into<Name>, help: &'static str) -> Family<L, Seconds> {
        self.family(name.into(), help, ())
    }

    /// A family of histograms; `buckets` are upper bounds in rising order, without `+Inf`.
    pub fn histogram<L: Labels>(
        &mut self,
        name: impl Into<Name>,
        help: &'static str,
        buckets: &'static [f64],
    ) -> Family<L, Histogram> {
        self.family(name.into(), help, buckets)
    }

    /// Families whose values are looked up when they are scraped.
    pub fn collector(&mut self, collector: impl Collect + 'static) {
        self.collectors.push(Box::new(collector));
    }

    /// The families, in the order they are printed.
    pub fn describe(&self) -> Vec<Description> {
        self.collectors.iter().flat_map(|c| c.describe()).collect()
    }

    /// Prints every family that has a sample in the classic format, and forgets what is idle at `now`.
    pub fn encode(&self, now: Instant) -> String {
        self.encode_as(Format::Classic, now)
    }

    /// The same in either format.
    pub fn encode_as(&self, format: Format, now: Instant) -> String {
        let mut out = Document::new(format);
        for collector in &self.collectors {
            collector.collect(now, &mut out);
        }
        out.finish()
    }

    fn family<L: Labels, M: Metric>(
        &mut self,
        name: Name,
        help: &'static str,
        shape: M::Shape,
    ) -> Family<L, M> {
        let description = Description {
            name,
            kind: M::KIND,
            help,
            labels: L::DOC,
        };
        let family = Family::with(description, shape, self.retain_idle, Some(self.overflow.clone()));
        self.collectors.push(Box::new(family.clone()));
        family
    }
}

/// What a label set has to be: cheap to clone, since a scrape clones it.
pub trait Labels: EncodeLabels + Eq + Hash + Clone + Send + Sync + 'static {}

impl<L: EncodeLabels + Eq + Hash + Clone + Send + Sync + 'static> Labels for L {}

impl<L: Labels, M: Metric> Family<L, M> {
    /// The metric of a label set. It hashes and locks: resolve it once per connection, endpoint or route, and keep
    /// it; a label set lives while somebody holds it.
    pub fn handle(&self, labels: L) -> Arc<M> {
        let mut sets = self.lock();
        if let Some(entry) = sets.known.get_mut(&labels) {
            return entry.metric.clone();
        }
        let now = Instant::now();
        if sets.known.len() >= self.0.max && !self.make_room(&mut sets, now) {
            let metric = sets
                .overflow
                .get_or_insert_with(|| Arc::new(M::new(self.0.shape)))
                .clone();
            drop(sets);
            self.count_overflow();
            return metric;
        }
        let metric = Arc::new(M::new(self.0.shape));
        let entry = Entry {
            metric: metric.clone(),
            used: now,
            seen: metric.fingerprint(),
        };
        sets.known.insert(labels, entry);
        metric
    }

    fn with(
        description: Description,
        shape: M::Shape,
        retain_idle: Duration,
        overflow: Option<Family<FamilyName, Counter>>,
    ) -> Self {
        let sets = Sets {
            known: HashMap::new(),
            overflow: None,
            swept: None,
        };
        Self(Arc::new(State {
            description,
            shape,
            retain_idle,
            max: MAX_LABEL_SETS,
            overflow,
            sets: Mutex::new(sets),
        }))
    }

    /// Whether there is room again. Looks at most once per interval, since looking costs as much as the family is large.
    fn make_room(&self, sets: &mut Sets<L, M>, now: Instant) -> bool {
        if sets
            .swept
            .is_none_or(|last| now.saturating_duration_since(last) >= SWEEP_INTERVAL)
        {
            sets.sweep(self.0.retain_idle, now);
        }
        sets.known.len() < self.0.max
    }

    fn count_overflow(&self) {
        if let Some(counter) = &self.0.overflow {
            let name = self.0.description.name.as_str().to_owned();
            counter.handle(FamilyName(name)).inc();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sets<L, M>> {
        // Nothing that panics runs while it is held; if it did, the map would still be whole.
        self.0.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L, M: Metric> Sets<L, M> {
    /// Forgets what nobody holds and what did not change for `retain_idle`.
    fn sweep(&mut self, retain_idle: Duration, now: Instant) {
        self.swept = Some(now);
        self.known.retain(|_, entry| {
            let value = entry.metric.fingerprint();
            // A handle is only made under the lock that is held here, so a count of one stays one.
            if Arc::strong_count(&entry.metric) > 1 || value != entry.seen {
                (entry.used, entry.seen) = (now, value);
            }
            now.saturating_duration_since(entry.used) < retain_idle
        });
    }
}

impl<L: Labels, M: Metric> Collect for Family<L, M> {
    fn describe(&self) -> Vec<Description> {
        vec![self.0.description.clone()]
    }

    fn collect(&self, now: Instant, out: &mut Document) {
        // Printing happens after the lock is released: a scrape does not hold up connections that ask for a handle.
        let mut sets = self.lock();
        sets.sweep(self.0.retain_idle, now);
        let overflow = sets.overflow.clone();
        let known: Vec<(L, Arc<M>)> = sets
            .known
            .iter()
            .map(|(labels, entry)| (labels.clone(), entry.metric.clone()))
            .collect();
        drop(sets);
        if known.is_empty() && overflow.is_none() {
            return;
        }
        self.0.description.encode(out);
        let mut text = String::new();
        for (labels, metric) in &known {
            text.clear();
            labels.encode(&mut LabelWriter::new(&mut text));
            metric.encode(&mut Series::new(out, &self.0.description.name, &text));
        }
        if let Some(metric) = overflow {
            metric.encode(&mut Series::new(
                out,
                &self.0.description.name,
                "overflow=\"true\"",
            ));
        }
    }
}

impl<L, M: Metric> Clone for Family<L, M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L, M: Metric> fmt::Debug for Family<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Family({})", self.0.description.name.as_str())
    }
}

impl EncodeLabels for FamilyName {
    const DOC: &'static str = "family";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("family", &self.0);
    }
}

impl EncodeLabels for () {
    const DOC: &'static str = "";
    fn encode(&self, _: &mut LabelWriter<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct N(usize);

    impl EncodeLabels for N {
        const DOC: &'static str = "n";
        fn encode(&self, out: &mut LabelWriter<'_>) {
            out.label("n", self.0);
        }
    }

    #[test]
    fn a_counter_prints_as_linkerd_prints_it() {
        let mut registry = Registry::new(IDLE);
        let family = registry.counter("request_total", "Total count of HTTP requests");
        family.handle(N(1)).add(3);
        assert_eq!(
            registry.encode(Instant::now()),
            "# HELP request_total Total count of HTTP requests\n\
             # TYPE request_total counter\n\
             request_total{n=\"1\"} 3\n\
             # EOF\n"
        );
    }

    #[test]
    fn a_histogram_prints_as_linkerd_prints_it() {
        let mut registry = Registry::new(IDLE);
        let family = registry.histogram("latency_ms", "Latency", &[1.0, 50_000.0]);
        family.handle(N(1)).observe(2.5);
        assert_eq!(
            registry.encode(Instant::now()),
            "# HELP latency_ms Latency\n\
             # TYPE latency_ms histogram\n\
             latency_ms_bucket{n=\"1\",le=\"1\"} 0\n\
             latency_ms_bucket{n=\"1\",le=\"50000\"} 1\n\
             latency_ms_bucket{n=\"1\",le=\"+Inf\"} 1\n\
             latency_ms_count{n=\"1\"} 1\n\
             latency_ms_sum{n=\"1\"} 2.5\n\
             # EOF\n"
        );
    }

    #[test]
    fn a_family_without_samples_is_left_out() {
        let mut registry = Registry::new(IDLE);
        let _family: Family<N, Gauge> = registry.gauge("g", "Nothing");
        assert_eq!(registry.encode(Instant::now()), "# EOF\n");
    }

    #[test]
    fn a_label_set_is_forgotten_when_nobody_holds_it_and_it_is_idle() {
        let mut registry = Registry::new(IDLE);
        let family = registry.counter("c", "C");
        let held = family.handle(N(1));
        family.handle(N(2)).inc();
        let start = Instant::now();
        // The first scrape sees that set 2 has changed, so its idle time starts there.
        assert!(registry.encode(start + IDLE).contains("n=\"2\""));
        let later = registry.encode(start + 2 * IDLE);
        assert!(later.contains("n=\"1\"") && !later.contains("n=\"2\""), "{later}");
        drop(held);
    }

    #[test]
    fn two_handles_of_one_label_set_are_the_same_metric() {
        let mut registry = Registry::new(IDLE);
        let family = registry.counter("c", "C");
        family.handle(N(1)).inc();
        family.clone().handle(N(1)).inc();
        assert_eq!(family.handle(N(1)).value(), 2);
    }

    #[test]
    fn a_full_family_shares_one_series_and_counts_what_went_there() {
        let mut registry = Registry::new(IDLE);
        let family = registry.counter("c", "C");
        for n in 0..MAX_LABEL_SETS + 2 {
            family.handle(N(n)).inc();
        }
        let text = registry.encode(Instant::now());
        assert!(text.contains("c{overflow=\"true\"} 2\n"));
        assert!(text.contains("outrigger_metrics_overflow_total{family=\"c\"} 2\n"));
    }

    #[test]
    fn a_full_family_forgets_idle_sets_when_nobody_scrapes() {
        let mut registry = Registry::new(Duration::ZERO);
        let family = registry.counter("c", "C");
        for n in 0..=MAX_LABEL_SETS {
            family.handle(N(n));
        }
        let text = registry.encode(Instant::now());
        assert!(!text.contains("overflow"), "{text}");
    }
}
