//! The metrics of inbound routes: requests, how long they took, how large their frames were, how they ended.

use std::sync::Arc;

use outrigger_policy::name::ResourceRef;

use crate::telemetry::handles::{Slots, resolve};
use crate::telemetry::labels::{Route, Srv};
use crate::telemetry::metric::{Counter, Histogram};
use crate::telemetry::registry::{Family, Registry};
use crate::telemetry::route::{FRAME_BYTES, How, RESPONSE_SECONDS, RouteHandles, Took};
use crate::telemetry::shared::Shared;
use crate::telemetry::text::{EncodeLabels, LabelWriter, Name};

/// Bounds of the times from the end of a request to the end of its response, seconds.
const AFTER_REQUEST_SECONDS: &[f64] = &[0.05, 0.5, 1., 10.];

/// The families of inbound routes: once for HTTP, once for ports whose policy calls them gRPC.
#[derive(Clone, Debug)]
pub struct InboundRouteMetrics {
    http: Families,
    grpc: Families,
    resolved: Shared<(Labels, bool), RouteHandles>,
}

#[derive(Clone, Debug)]
struct Families {
    requests: Family<Labels, Counter>,
    request_seconds: Family<Labels, Histogram>,
    response_seconds: Family<Labels, Histogram>,
    request_bytes: Family<Labels, Histogram>,
    response_bytes: Family<Labels, Histogram>,
    statuses: Family<Status, Counter>,
}

/// A route of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Labels {
    srv: Srv,
    route: Route,
}

/// A route, and the status that its requests were answered with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Status {
    labels: Labels,
    status: Option<u16>,
}

/// What one inbound route reports to.
#[derive(Debug)]
pub(super) struct InboundRoute {
    grpc: bool,
    labels: Labels,
    requests: Arc<Counter>,
    request_seconds: Arc<Histogram>,
    response_seconds: Arc<Histogram>,
    pub(super) request_bytes: Arc<Histogram>,
    pub(super) response_bytes: Arc<Histogram>,
    statuses: Family<Status, Counter>,
    resolved: Slots<Option<u16>, Counter>,
}

impl InboundRouteMetrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            http: Families::register(registry, "http"),
            grpc: Families::register(registry, "grpc"),
            resolved: Shared::default(),
        }
    }

    /// What a route of a server reports to. `grpc`: the server's policy calls it gRPC.
    pub fn route(&self, srv: Srv, route: &Arc<ResourceRef>, grpc: bool) -> Arc<RouteHandles> {
        let labels = Labels {
            srv,
            route: Route(route.clone()),
        };
        let families = if grpc { &self.grpc } else { &self.http };
        self.resolved
            .get_or((labels, grpc), |key| families.route(&key.0, grpc).into())
    }
}

impl Families {
    fn register(registry: &mut Registry, protocol: &str) -> Self {
        let name = |suffix: &str| Name::open(format!("inbound_{protocol}_{suffix}"));
        Self {
            requests: registry.counter(name("requests_total"), "Requests that were let in"),
            request_seconds: registry.histogram(
                name("request_duration_seconds"),
                "Time from a request's arrival to the end of its response",
                RESPONSE_SECONDS,
            ),
            response_seconds: registry.histogram(
                name("response_duration_seconds"),
                "Time from the end of a request to the end of its response",
                AFTER_REQUEST_SECONDS,
            ),
            request_bytes: registry.histogram(
                name("request_frame_size_bytes"),
                "Sizes of the frames of requests' bodies",
                FRAME_BYTES,
            ),
            response_bytes: registry.histogram(
                name("response_frame_size_bytes"),
                "Sizes of the frames of responses' bodies",
                FRAME_BYTES,
            ),
            statuses: registry.counter(
                name("statuses_total"),
                "Requests by the status of their responses, none if there was no whole one",
            ),
        }
    }

    fn route(&self, labels: &Labels, grpc: bool) -> InboundRoute {
        InboundRoute {
            grpc,
            labels: labels.clone(),
            requests: self.requests.handle(labels.clone()),
            request_seconds: self.request_seconds.handle(labels.clone()),
            response_seconds: self.response_seconds.handle(labels.clone()),
            request_bytes: self.request_bytes.handle(labels.clone()),
            response_bytes: self.response_bytes.handle(labels.clone()),
            statuses: self.statuses.clone(),
            resolved: Slots::default(),
        }
    }
}

impl InboundRoute {
    pub(super) fn request(&self) {
        self.requests.inc();
    }

    pub(super) fn finish(&self, how: How, took: Took) {
        self.request_seconds.observe(took.request.as_secs_f64());
        self.response_seconds.observe(took.response.as_secs_f64());
        let status = match (how.error, self.grpc) {
            ("", true) => how.grpc.map(|status| status.0),
            ("", false) => how.status,
            _ => None,
        };
        let find = || {
            let labels = self.labels.clone();
            self.statuses.handle(Status { labels, status })
        };
        resolve(&self.resolved, status, find, Counter::inc);
    }
}

impl EncodeLabels for Labels {
    const DOC: &'static str = "parent_group, parent_kind, parent_name, parent_port, route_*";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("parent_group", &self.srv.meta.group);
        out.label("parent_kind", &self.srv.meta.kind);
        out.label("parent_name", &self.srv.meta.name);
        out.label("parent_port", self.srv.port);
        self.route.encode(out);
    }
}

impl EncodeLabels for Status {
    const DOC: &'static str = "parent_group, parent_kind, parent_name, parent_port, route_*, status";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.labels.encode(out);
        out.optional_label("status", self.status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_policy::classify::GrpcStatus;
    use std::time::{Duration, Instant};

    /// One request of a route, as it is printed.
    fn text(grpc: bool, error: &'static str) -> String {
        let mut registry = Registry::new(Duration::from_secs(60));
        let metrics = InboundRouteMetrics::register(&mut registry);
        let meta = Arc::new(ResourceRef::of_default("all"));
        let srv = Srv { meta, port: 80 };
        let route = metrics.route(srv, &Arc::new(ResourceRef::of_default("probe")), grpc);
        route.request();
        route.response_frame(129);
        let how = How {
            status: Some(200),
            grpc: Some(GrpcStatus(7)),
            error,
        };
        let took = Took {
            request: Duration::from_millis(40),
            response: Duration::from_millis(30),
        };
        route.finish(how, true, took);
        registry.encode(Instant::now())
    }

    #[test]
    fn a_route_is_printed_with_the_labels_of_its_server() {
        let text = text(false, "");
        let labels = "parent_group=\"\",parent_kind=\"default\",parent_name=\"all\",parent_port=\"80\",\
                      route_group=\"\",route_kind=\"default\",route_name=\"probe\"";
        for line in [
            format!("inbound_http_requests_total{{{labels}}} 1\n"),
            format!("inbound_http_request_duration_seconds_bucket{{{labels},le=\"0.05\"}} 1\n"),
            format!("inbound_http_response_duration_seconds_sum{{{labels}}} 0.03\n"),
            format!("inbound_http_response_frame_size_bytes_bucket{{{labels},le=\"128.0\"}} 0\n"),
            format!("inbound_http_response_frame_size_bytes_bucket{{{labels},le=\"1024.0\"}} 1\n"),
            format!("inbound_http_statuses_total{{{labels},status=\"200\"}} 1\n"),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
    }

    #[test]
    fn a_route_that_has_gone_is_forgotten() {
        let (start, idle) = (Instant::now(), Duration::from_secs(60));
        let mut registry = Registry::new(idle);
        let metrics = InboundRouteMetrics::register(&mut registry);
        let meta = Arc::new(ResourceRef::of_default("all"));
        let srv = Srv {
            meta: meta.clone(),
            port: 80,
        };
        let route = metrics.route(srv, &meta, false);
        let is_printed = |after| {
            registry
                .encode(start + after)
                .contains("inbound_http_requests_total{")
        };
        assert!(is_printed(2 * idle));
        drop(route);
        assert!(!is_printed(4 * idle));
    }

    #[test]
    fn a_grpc_port_counts_codes_and_what_broke_off_has_no_status() {
        assert!(text(true, "").contains("route_name=\"probe\",status=\"7\"} 1\n"));
        assert!(text(false, "CANCEL").contains("route_name=\"probe\",status=\"\"} 1\n"));
    }
}
