//! What is counted of manifests.

use std::collections::BTreeSet;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::index::cluster::Cluster;
use crate::resources::report::Severity;

/// What is counted of manifests.
#[derive(Clone, Debug, Default)]
pub struct ManifestMetrics {
    resources: Family<Kind, Gauge>,
    reports: Family<Level, Gauge>,
    files_with_errors: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Level {
    severity: &'static str,
}

impl ManifestMetrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "manifest_resources",
            "Kubernetes objects that are served",
            metrics.resources.clone(),
        );
        registry.register(
            "manifest_reports",
            "Things in the manifests that are not served as written (error), or perhaps not as meant (warning)",
            metrics.reports.clone(),
        );
        registry.register(
            "manifest_files_with_errors",
            "Files of which something is not served as written; the log says what",
            metrics.files_with_errors.clone(),
        );
        metrics
    }

    /// Follows the cluster for as long as there is one.
    pub async fn follow(self, mut cluster: watch::Receiver<Arc<Cluster>>) {
        loop {
            let current = cluster.borrow_and_update().clone();
            self.set(&current);
            if cluster.changed().await.is_err() {
                return;
            }
        }
    }

    fn set(&self, cluster: &Cluster) {
        let (services, pods, slices) = cluster.sizes();
        let own = [("Service", services), ("Pod", pods), ("EndpointSlice", slices)];
        for (kind, count) in own.into_iter().chain(cluster.policies.sizes()) {
            set(&self.resources.get_or_create_owned(&Kind { kind }), count);
        }
        for (severity, level) in [(Severity::Error, "error"), (Severity::Warning, "warning")] {
            let count = cluster
                .reports
                .iter()
                .filter(|report| report.severity == severity)
                .count();
            set(
                &self.reports.get_or_create_owned(&Level { severity: level }),
                count,
            );
        }
        let errors = cluster
            .reports
            .iter()
            .filter(|report| report.severity == Severity::Error);
        let files: BTreeSet<_> = errors.map(|report| &report.origin.file).collect();
        set(&self.files_with_errors, files.len());
    }
}

fn set(gauge: &Gauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}
