//! The metrics of ServiceProfile routes: per request (`route_*`) and per attempt (`route_actual_*`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::telemetry::handles::{Slots, resolve};
use crate::telemetry::http::{LATENCY_MS, Outcome};
use crate::telemetry::labels::Direction;
use crate::telemetry::metric::{Counter, Histogram};
use crate::telemetry::registry::{Family, Registry};
use crate::telemetry::route::{How, Retry};
use crate::telemetry::text::{EncodeLabels, LabelWriter};

/// The families of ServiceProfile routes.
#[derive(Clone, Debug)]
pub struct ProfileMetrics {
    requests: Family<ProfileLabels, Counter>,
    responses: Family<ProfileResponse, Counter>,
    latency_ms: Family<ProfileLatency, Histogram>,
    actual_requests: Family<ProfileLabels, Counter>,
    actual_responses: Family<ProfileResponse, Counter>,
    retryable: Family<ProfileRetry, Counter>,
}

/// A route of a ServiceProfile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ProfileLabels {
    dst: Arc<str>,
    route: Arc<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ProfileResponse {
    labels: ProfileLabels,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ProfileLatency {
    labels: ProfileLabels,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ProfileRetry {
    labels: ProfileLabels,
    skipped: bool,
}

/// The metrics of one route.
#[derive(Debug)]
pub(super) struct ProfileRoute {
    families: ProfileMetrics,
    labels: ProfileLabels,
    requests: Arc<Counter>,
    actual_requests: Arc<Counter>,
    retries: Arc<Counter>,
    skipped: Arc<Counter>,
    responses: Slots<Outcome, Counter>,
    actual_responses: Slots<Outcome, Counter>,
    latencies: Slots<StatusCode, Histogram>,
}

impl ProfileMetrics {
    /// Registers the families.
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            requests: registry.counter("route_request_total", "Requests of a ServiceProfile route"),
            responses: registry.counter("route_response_total", "Responses of a ServiceProfile route"),
            latency_ms: registry.histogram(
                "route_response_latency_ms",
                "Milliseconds between a request of a ServiceProfile route and the first frame of its response",
                LATENCY_MS,
            ),
            actual_requests: registry.counter(
                "route_actual_request_total",
                "Requests sent for a ServiceProfile route, retries included",
            ),
            actual_responses: registry.counter(
                "route_actual_response_total",
                "Responses received for a ServiceProfile route, to retries too",
            ),
            retryable: registry.counter(
                "route_retryable_total",
                "Failed requests of a ServiceProfile route that may be sent again",
            ),
        }
    }

    /// What a route of the profile of `dst` reports to.
    pub(super) fn route(&self, dst: &Arc<str>, labels: &Arc<BTreeMap<String, String>>) -> ProfileRoute {
        let labels = ProfileLabels {
            dst: dst.clone(),
            route: labels.clone(),
        };
        let retry = |skipped| {
            let labels = labels.clone();
            self.retryable.handle(ProfileRetry { labels, skipped })
        };
        ProfileRoute {
            requests: self.requests.handle(labels.clone()),
            actual_requests: self.actual_requests.handle(labels.clone()),
            retries: retry(false),
            skipped: retry(true),
            responses: Slots::default(),
            actual_responses: Slots::default(),
            latencies: Slots::default(),
            families: self.clone(),
            labels,
        }
    }
}

impl ProfileRoute {
    pub(super) fn request(&self) {
        self.requests.inc();
    }

    pub(super) fn attempt(&self) {
        self.actual_requests.inc();
    }

    pub(super) fn response(&self, how: How, success: bool) {
        self.count(&self.families.responses, &self.responses, outcome(how, success));
    }

    pub(super) fn attempt_ended(&self, how: How, success: bool) {
        let family = &self.families.actual_responses;
        self.count(family, &self.actual_responses, outcome(how, success));
    }

    pub(super) fn latency(&self, status: StatusCode, latency: Duration) {
        let find = || {
            let labels = self.labels.clone();
            let status = status.as_u16();
            self.families.latency_ms.handle(ProfileLatency { labels, status })
        };
        let milliseconds = latency.as_secs_f64() * 1e3;
        resolve(&self.latencies, status, find, |h| h.observe(milliseconds));
    }

    pub(super) fn retry(&self, retry: Retry) {
        match retry {
            Retry::Sent => self.retries.inc(),
            Retry::Overflowed => self.skipped.inc(),
            Retry::Succeeded | Retry::Exhausted => {}
        }
    }

    fn count(
        &self,
        family: &Family<ProfileResponse, Counter>,
        slots: &Slots<Outcome, Counter>,
        outcome: Outcome,
    ) {
        let find = || {
            let labels = self.labels.clone();
            family.handle(ProfileResponse { labels, outcome })
        };
        resolve(slots, outcome, find, Counter::inc);
    }
}

fn outcome(how: How, success: bool) -> Outcome {
    Outcome {
        status: how.status,
        success,
        grpc: how.grpc.map(|grpc| grpc.0),
        error: match how.error {
            "" => "",
            name if name.ends_with("TIMEOUT") => "timeout",
            _ => "unclassified",
        },
    }
}

impl EncodeLabels for ProfileLabels {
    const DOC: &'static str = "direction, dst, rt_*";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        Direction::Outbound.encode(out);
        out.label("dst", &self.dst);
        for (name, value) in &*self.route {
            out.foreign_label("rt_", name, value);
        }
    }
}

impl EncodeLabels for ProfileResponse {
    const DOC: &'static str = "direction, dst, rt_*, status_code?, classification, grpc_status, error";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.labels.encode(out);
        self.outcome.encode(out);
    }
}

impl EncodeLabels for ProfileLatency {
    const DOC: &'static str = "direction, dst, rt_*, status_code";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.labels.encode(out);
        out.label("status_code", self.status);
    }
}

impl EncodeLabels for ProfileRetry {
    const DOC: &'static str = "direction, dst, rt_*, skipped?";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.labels.encode(out);
        if self.skipped {
            out.label("skipped", "no_budget");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_profile_route_counts_requests_attempts_and_what_was_not_tried_again() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let metrics = ProfileMetrics::register(&mut registry);
        let labels = Arc::new(BTreeMap::from([("route".to_owned(), "GET /".to_owned())]));
        let route = metrics.route(&"web.ns.svc.cluster.local:80".into(), &labels);
        let how = How {
            status: Some(503),
            grpc: None,
            error: "",
        };
        route.request();
        route.attempt();
        route.attempt_ended(how, false);
        route.retry(Retry::Overflowed);
        route.response(how, false);
        let text = registry.encode(Instant::now());
        let labels = "direction=\"outbound\",dst=\"web.ns.svc.cluster.local:80\",rt_route=\"GET /\"";
        for line in [
            format!("route_request_total{{{labels}}} 1\n"),
            format!("route_retryable_total{{{labels},skipped=\"no_budget\"}} 1\n"),
            format!(
                "route_actual_response_total{{{labels},status_code=\"503\",classification=\"failure\",grpc_status=\"\",error=\"\"}} 1\n"
            ),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
    }
}
