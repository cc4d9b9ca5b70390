//! The HTTP families that both directions share: requests, responses, latency.

use std::sync::{Arc, OnceLock};

use crate::telemetry::labels::{Authz, Class, Direction, Dst, Route, Srv, Target, TlsAccept, TlsConnect};
use crate::telemetry::metric::{Counter, Histogram};
use crate::telemetry::registry::{Family, Registry};
use crate::telemetry::text::{EncodeLabels, LabelWriter};

/// Bounds of `response_latency_ms`, milliseconds.
pub const LATENCY_MS: &[f64] = &[
    1., 2., 3., 4., 5., 10., 20., 30., 40., 50., 100., 200., 300., 400., 500., 1_000., 2_000., 3_000.,
    4_000., 5_000., 10_000., 20_000., 30_000., 40_000., 50_000.,
];
/// Outcomes that an endpoint finds without hashing; more are looked up in the family each time.
const RESOLVED_OUTCOMES: usize = 12;

/// Requests, responses and their latency.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    /// Requests whose first body frame was read, or that have no body.
    pub request_total: Family<Arc<EndpointLabels>, Counter>,
    /// Responses that have ended, well or not.
    pub response_total: Family<ResponseLabels, Counter>,
    /// Milliseconds from dispatch to the first frame of the response's body, or to its end.
    pub response_latency_ms: Family<LatencyLabels, Histogram>,
}

/// Where a request went, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointLabels {
    /// To the application beside this proxy.
    Inbound {
        /// The address that the client connected to.
        target: Target,
        /// How the client arrived.
        tls: TlsAccept,
        /// What the port is under.
        srv: Srv,
        /// The route that the request took.
        route: Route,
        /// What admitted the client.
        authz: Authz,
    },
    /// From the application beside this proxy.
    Outbound {
        /// The `name:port` that was balanced over, or the profile's own; left out if there is none.
        authority: Option<Arc<str>>,
        /// The endpoint's address.
        target: Target,
        /// How the endpoint is reached.
        tls: TlsConnect,
        /// What discovery says about it.
        dst: Dst,
    },
}

/// Labels of `response_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResponseLabels {
    /// Where the request went.
    pub endpoint: Arc<EndpointLabels>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Labels of `response_latency_ms`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LatencyLabels {
    /// Where the request went.
    pub endpoint: Arc<EndpointLabels>,
    /// The status; left out without a response.
    pub status_code: Option<u16>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// The HTTP status; left out without a response.
    pub status_code: Option<u16>,
    /// How the response is judged.
    pub class: Class,
}

/// The metrics of one endpoint, resolved: an ordinary request costs atomic adds and no hashing.
#[derive(Debug)]
pub struct HttpHandles {
    /// `request_total`.
    pub requests: Arc<Counter>,
    endpoint: Arc<EndpointLabels>,
    metrics: HttpMetrics,
    outcomes: [OnceLock<(Outcome, Arc<Counter>)>; RESOLVED_OUTCOMES],
    latencies: [OnceLock<(Option<u16>, Arc<Histogram>)>; RESOLVED_OUTCOMES],
}

impl HttpMetrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            request_total: registry.counter("request_total", "Total count of HTTP requests"),
            response_total: registry.counter("response_total", "Total count of HTTP responses"),
            response_latency_ms: registry.histogram(
                "response_latency_ms",
                "Milliseconds between a request being dispatched and the first frame of its response",
                LATENCY_MS,
            ),
        }
    }

    /// The metrics of an endpoint (and, inbound, of a client, a route and an authorization). Keep it.
    pub fn handles(&self, endpoint: EndpointLabels) -> Arc<HttpHandles> {
        let endpoint = Arc::new(endpoint);
        Arc::new(HttpHandles {
            requests: self.request_total.handle(endpoint.clone()),
            endpoint,
            metrics: self.clone(),
            outcomes: Default::default(),
            latencies: Default::default(),
        })
    }
}

impl HttpHandles {
    /// Counts a response that has ended.
    pub fn response(&self, outcome: Outcome) {
        let find = || {
            let endpoint = self.endpoint.clone();
            self.metrics
                .response_total
                .handle(ResponseLabels { endpoint, outcome })
        };
        resolve(&self.outcomes, outcome, find, |counter| counter.inc());
    }

    /// Records the milliseconds from dispatch to the first frame of the response's body.
    pub fn latency(&self, status_code: Option<u16>, milliseconds: f64) {
        let find = || {
            let endpoint = self.endpoint.clone();
            let labels = LatencyLabels {
                endpoint,
                status_code,
            };
            self.metrics.response_latency_ms.handle(labels)
        };
        resolve(&self.latencies, status_code, find, |h| h.observe(milliseconds));
    }
}

impl EndpointLabels {
    /// Writes all but the direction.
    pub fn encode_undirected(&self, out: &mut LabelWriter<'_>) {
        match self {
            Self::Inbound {
                target,
                tls,
                srv,
                route,
                authz,
            } => {
                target.encode(out);
                tls.encode(out);
                srv.encode(out);
                route.encode(out);
                authz.encode(out);
            }
            Self::Outbound {
                authority,
                target,
                tls,
                dst,
            } => {
                if let Some(authority) = authority {
                    out.label("authority", authority);
                }
                target.encode(out);
                tls.encode(out);
                dst.encode(out);
            }
        }
    }
}

/// Uses the metric of `key`: out of the first slot that has it, else found once and put into the first empty slot.
fn resolve<K: PartialEq, M>(
    slots: &[OnceLock<(K, Arc<M>)>],
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
                // Another thread may have taken the slot meanwhile; the next request with this key finds another.
                let _taken = slot.set((key, metric));
                return;
            }
        }
    }
    apply(&find());
}

impl EncodeLabels for EndpointLabels {
    const DOC: &'static str = "direction, *inbound:* target_*, tls …, srv_*, route_*, authz_* *outbound:* authority?, target_*, tls …, dst_*";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        let direction = match self {
            Self::Inbound { .. } => Direction::Inbound,
            Self::Outbound { .. } => Direction::Outbound,
        };
        direction.encode(out);
        self.encode_undirected(out);
    }
}

impl EncodeLabels for Arc<EndpointLabels> {
    const DOC: &'static str = EndpointLabels::DOC;
    fn encode(&self, out: &mut LabelWriter<'_>) {
        EndpointLabels::encode(self, out);
    }
}

impl EncodeLabels for ResponseLabels {
    const DOC: &'static str = "as `request_total`, status_code?, classification, grpc_status, error";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.endpoint.encode(out);
        if let Some(status) = self.outcome.status_code {
            out.label("status_code", status);
        }
        self.outcome.class.encode(out);
    }
}

impl EncodeLabels for LatencyLabels {
    const DOC: &'static str = "as `request_total`, status_code?";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.endpoint.encode(out);
        if let Some(status) = self.status_code {
            out.label("status_code", status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::labels::NoTls;
    use std::time::{Duration, Instant};

    fn outbound() -> EndpointLabels {
        EndpointLabels::Outbound {
            authority: Some("web.emojivoto.svc.cluster.local:80".into()),
            target: Target("10.0.0.1:8080".parse().unwrap()),
            tls: TlsConnect::NoIdentity(NoTls::NotProvided),
            dst: Dst(Arc::new([("pod".to_owned(), "web-1".to_owned())].into())),
        }
    }

    fn outcome(status: u16) -> Outcome {
        let class = Class {
            success: status < 500,
            grpc_status: None,
            error: "",
        };
        Outcome {
            status_code: Some(status),
            class,
        }
    }

    #[test]
    fn an_outbound_response_prints_every_label_in_linkerds_order() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let handles = HttpMetrics::register(&mut registry).handles(outbound());
        handles.response(outcome(200));
        let text = registry.encode(Instant::now());
        let series = "response_total{direction=\"outbound\",authority=\"web.emojivoto.svc.cluster.local:80\",\
            target_addr=\"10.0.0.1:8080\",target_ip=\"10.0.0.1\",target_port=\"8080\",\
            tls=\"no_identity\",no_tls_reason=\"not_provided_by_service_discovery\",dst_pod=\"web-1\",\
            status_code=\"200\",classification=\"success\",grpc_status=\"\",error=\"\"} 1\n";
        assert!(text.contains(series), "{text}");
    }

    #[test]
    fn outcomes_beyond_the_resolved_ones_are_counted_all_the_same() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let metrics = HttpMetrics::register(&mut registry);
        let handles = metrics.handles(outbound());
        for status in (200..230).chain(200..230) {
            handles.response(outcome(status));
        }
        let endpoint = Arc::new(outbound());
        let last = ResponseLabels {
            endpoint,
            outcome: outcome(229),
        };
        assert_eq!(metrics.response_total.handle(last).value(), 2);
    }

    #[test]
    fn an_error_without_a_response_has_no_status_code() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let handles = HttpMetrics::register(&mut registry).handles(outbound());
        handles.latency(None, 1.5);
        let text = registry.encode(Instant::now());
        assert!(!text.contains("status_code"), "{text}");
        assert!(text.contains("response_latency_ms_sum"), "{text}");
    }
}
