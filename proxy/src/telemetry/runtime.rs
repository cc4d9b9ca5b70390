//! The runtime that carries traffic, as `/metrics` shows it: looked up when scraped.

use std::time::Instant;

use tokio::runtime::{Handle, RuntimeMetrics};

use crate::telemetry::registry::{Collect, Registry};
use crate::telemetry::text::{Description, Document, Kind, Name, Series};

/// Registers the families of the runtime behind `handle`.
pub fn register(registry: &mut Registry, handle: &Handle) {
    registry.collector(Runtime(handle.metrics()));
}

/// Answers from the runtime's own counters, which it keeps in any case.
#[derive(Debug)]
struct Runtime(RuntimeMetrics);

/// The families, in the order of [`Runtime::values`]. Tokio offers no more of Linkerd's without an unstable build.
const FAMILIES: [(&str, Kind, &str); 5] = [
    (
        "tokio_rt_workers",
        Kind::Gauge,
        "The number of worker threads used by the runtime",
    ),
    (
        "tokio_rt_injection_queue_depth",
        Kind::Gauge,
        "The number of tasks waiting in the runtime's shared queue",
    ),
    (
        "tokio_rt_park_total",
        Kind::Counter,
        "How often worker threads have gone to sleep",
    ),
    (
        "tokio_rt_busy_seconds_total",
        Kind::Counter,
        "Time that worker threads have been busy, all together",
    ),
    (
        "outrigger_tasks",
        Kind::Gauge,
        "The number of tasks that are alive on the runtime that carries traffic",
    ),
];

impl Runtime {
    fn values(&self) -> [f64; FAMILIES.len()] {
        let Self(runtime) = self;
        let workers = 0..runtime.num_workers();
        let busy = |worker| runtime.worker_total_busy_duration(worker).as_secs_f64();
        let parked = |worker| runtime.worker_park_count(worker) as f64;
        [
            runtime.num_workers() as f64,
            runtime.global_queue_depth() as f64,
            workers.clone().map(parked).sum(),
            workers.map(busy).sum(),
            runtime.num_alive_tasks() as f64,
        ]
    }
}

impl Collect for Runtime {
    fn describe(&self) -> Vec<Description> {
        let description = |&(name, kind, help): &(&'static str, _, _)| Description {
            name: Name::open(name),
            kind,
            help,
            labels: "",
        };
        FAMILIES.iter().map(description).collect()
    }

    fn collect(&self, _now: Instant, out: &mut Document) {
        for (family, value) in self.describe().iter().zip(self.values()) {
            family.encode(out);
            Series::new(out, &family.name, "").sample(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_task_is_seen_while_it_is_alive() {
        let mut registry = Registry::new(Duration::from_secs(60));
        register(&mut registry, &Handle::current());
        let task = tokio::spawn(std::future::pending::<()>());
        let text = registry.encode(Instant::now());
        assert!(text.contains("\noutrigger_tasks 1\n"), "{text}");
        assert!(text.contains("\ntokio_rt_workers 1\n"), "{text}");
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(registry.encode(Instant::now()).contains("\noutrigger_tasks 0\n"));
    }
}
