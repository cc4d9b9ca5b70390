//! The HTTP metrics of one endpoint, resolved: an ordinary request costs atomic adds and no hashing.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::telemetry::http::{EndpointLabels, HttpMetrics, LatencyLabels, Outcome, ResponseLabels};
use crate::telemetry::metric::{Counter, Histogram};
use crate::telemetry::registry::Family;

/// Outcomes that an endpoint finds without hashing; more are looked up in the family each time.
const RESOLVED: usize = 8;

/// The metrics of one endpoint (and, inbound, of one client, route and authorization).
#[derive(Debug)]
pub struct Handles {
    requests: Arc<Counter>,
    endpoint: Arc<EndpointLabels>,
    response_total: Family<ResponseLabels, Counter>,
    response_latency_ms: Family<LatencyLabels, Histogram>,
    outcomes: Slots<Outcome, Counter>,
    latencies: Slots<Option<u16>, Histogram>,
}

/// Filled on first sight, then only read.
pub(super) type Slots<K, M> = [OnceLock<(K, Arc<M>)>; RESOLVED];

impl Handles {
    /// Resolves what an endpoint's requests will need. Keep it as long as the endpoint, or the connection.
    pub fn new(metrics: &HttpMetrics, endpoint: EndpointLabels) -> Arc<Self> {
        metrics.resolved.get_or(endpoint, |endpoint| Self {
            requests: metrics.request_total.handle(endpoint.clone()),
            endpoint,
            response_total: metrics.response_total.clone(),
            response_latency_ms: metrics.response_latency_ms.clone(),
            outcomes: Slots::default(),
            latencies: Slots::default(),
        })
    }

    /// Counts a request.
    pub fn request(&self) {
        self.requests.inc();
    }

    /// Counts a response that has ended, or a request that ended without one.
    pub fn response(&self, outcome: Outcome) {
        let find = || {
            let endpoint = self.endpoint.clone();
            let labels = ResponseLabels { endpoint, outcome };
            self.response_total.handle(labels)
        };
        resolve(&self.outcomes, outcome, find, Counter::inc);
    }

    /// Records the time from dispatch to the first frame of the response's body.
    pub fn latency(&self, status: impl Into<Option<u16>>, latency: Duration) {
        let status = status.into();
        let find = || {
            let endpoint = self.endpoint.clone();
            let labels = LatencyLabels { endpoint, status };
            self.response_latency_ms.handle(labels)
        };
        let milliseconds = latency.as_secs_f64() * 1e3;
        resolve(&self.latencies, status, find, |h| h.observe(milliseconds));
    }
}

/// Uses the metric of `key`: out of the first slot that has it, else found once and put into the first empty slot.
pub(super) fn resolve<K: PartialEq, M>(
    slots: &Slots<K, M>,
    key: K,
    find: impl FnOnce() -> Arc<M>,
    apply: impl FnOnce(&M),
) {
    for slot in slots {
        match slot.get() {
            Some((known, metric)) if *known == key => return apply(metric),
            Some(_) => {}
            None => {
                let metric = find();
                apply(&metric);
                // Another thread may have taken the slot meanwhile; the next request with this key takes another.
                let _taken = slot.set((key, metric));
                return;
            }
        }
    }
    apply(&find());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Registry;
    use crate::telemetry::labels::{Dst, NoTls, Target, TlsConnect};
    use std::time::Instant;

    fn outbound() -> EndpointLabels {
        EndpointLabels::Outbound {
            authority: Some("web.emojivoto.svc.cluster.local:80".into()),
            target: Target("10.0.0.1:8080".parse().unwrap()),
            tls: TlsConnect::NoIdentity(NoTls::NotProvided),
            dst: Dst(Arc::new([("pod".to_owned(), "web-1".to_owned())].into())),
        }
    }

    fn outcome(status: u16) -> Outcome {
        Outcome {
            status: Some(status),
            success: status < 500,
            grpc: None,
            error: "",
        }
    }

    #[test]
    fn an_outbound_response_prints_every_label_in_linkerds_order() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let metrics = HttpMetrics::register(&mut registry);
        Handles::new(&metrics, outbound()).response(outcome(200));
        let text = registry.encode(Instant::now());
        let series = "response_total{direction=\"outbound\",authority=\"web.emojivoto.svc.cluster.local:80\",\
            target_addr=\"10.0.0.1:8080\",target_ip=\"10.0.0.1\",target_port=\"8080\",\
            tls=\"no_identity\",no_tls_reason=\"not_provided_by_service_discovery\",dst_pod=\"web-1\",\
            status_code=\"200\",classification=\"success\",grpc_status=\"\",error=\"\"} 1\n";
        assert!(text.contains(series), "{text}");
    }

    #[test]
    fn outcomes_beyond_the_resolved_ones_are_counted_all_the_same() {
        let metrics = HttpMetrics::register(&mut Registry::new(Duration::from_secs(60)));
        let handles = Handles::new(&metrics, outbound());
        for status in (200..230).chain(200..230) {
            handles.response(outcome(status));
        }
        let endpoint = Arc::new(outbound());
        let outcome = outcome(229);
        let last = ResponseLabels { endpoint, outcome };
        assert_eq!(metrics.response_total.handle(last).value(), 2);
    }

    #[test]
    fn an_error_without_a_response_has_no_status_code() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let metrics = HttpMetrics::register(&mut registry);
        Handles::new(&metrics, outbound()).latency(None, Duration::from_micros(1500));
        let text = registry.encode(Instant::now());
        assert!(!text.contains("status_code"), "{text}");
        assert!(
            text.contains("response_latency_ms_sum{direction") && text.contains("} 1.5\n"),
            "{text}"
        );
    }
}
