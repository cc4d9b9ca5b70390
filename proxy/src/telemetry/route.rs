//! The metrics of routes and of their backends, resolved when a policy arrives: a request costs atomic adds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use outrigger_policy::classify::{GrpcStatus, ResponseClass};
use outrigger_policy::name::ResourceRef;

use crate::telemetry::handles::{Slots, resolve};
use crate::telemetry::inbound_route::InboundRoute;
use crate::telemetry::labels::{Backend, OutboundRoute, Parent};
use crate::telemetry::metric::{Counter, Histogram};
use crate::telemetry::profile::{ProfileMetrics, ProfileRoute};
use crate::telemetry::registry::{Family, Registry};
use crate::telemetry::text::{EncodeLabels, LabelWriter, Name};

/// Bounds of the durations of requests, seconds.
const REQUEST_SECONDS: &[f64] = &[0.05, 0.5, 1., 10.];
/// Bounds of the durations of backends' responses, seconds.
pub(super) const RESPONSE_SECONDS: &[f64] = &[0.025, 0.05, 0.1, 0.25, 0.5, 1., 10.];

/// Bounds of the sizes of bodies' frames, bytes.
pub(super) const FRAME_BYTES: &[f64] = &[128., 1_024., 10_240.];

/// The families of outbound routes: once for HTTP, once for gRPC policies.
#[derive(Clone, Debug)]
pub struct RouteMetrics {
    http: Families,
    grpc: Families,
    profile: ProfileMetrics,
}

#[derive(Clone, Debug)]
struct Families {
    grpc: bool,
    request_seconds: Family<RouteLabels, Histogram>,
    request_statuses: Family<Ended<RouteLabels>, Counter>,
    request_bytes: Family<RouteLabels, Histogram>,
    retries: Family<RouteLabels, Counter>,
    retry_successes: Family<RouteLabels, Counter>,
    retry_exhausted: Family<RouteLabels, Counter>,
    retry_overflows: Family<RouteLabels, Counter>,
    backend_requests: Family<BackendLabels, Counter>,
    response_seconds: Family<BackendLabels, Histogram>,
    response_statuses: Family<Ended<BackendLabels>, Counter>,
    response_bytes: Family<BackendLabels, Histogram>,
}

/// A route of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteLabels {
    parent: Parent,
    route: OutboundRoute,
}

/// A backend of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendLabels {
    parent: Parent,
    route: OutboundRoute,
    backend: Backend,
}

/// How a request of a route, or a response of a backend, ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ended<L> {
    labels: L,
    grpc: bool,
    how: How,
}

/// How an exchange ended, for the metrics of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct How {
    /// The HTTP status, if there was a response.
    pub status: Option<u16>,
    /// The gRPC code, if there was one.
    pub grpc: Option<GrpcStatus>,
    /// What broke it off, as Linkerd names it; empty if nothing did.
    pub error: &'static str,
}

/// How long an exchange took, or an attempt of it.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// From the request's arrival to the response's end.
    pub request: Duration,
    /// From the end of the request to that of the response; zero if the response ended first.
    pub response: Duration,
}

/// What one route reports to.
#[derive(Debug)]
pub struct RouteHandles {
    /// What counts as a failure.
    classes: Arc<[ResponseClass]>,
    families: RouteFamilies,
}

/// What one backend of one route reports to.
#[derive(Debug)]
pub struct BackendHandles(BackendFamilies);

/// Outbound routes of policies, those of ServiceProfiles, and inbound routes have families of their own.
#[derive(Debug)]
enum RouteFamilies {
    Policy(Box<PolicyRoute>),
    Profile(Arc<ProfileRoute>),
    Inbound(Box<InboundRoute>),
}

#[derive(Debug)]
enum BackendFamilies {
    Policy(Box<PolicyBackend>),
    Profile(Arc<ProfileRoute>),
    /// The application beside the proxy: the route says it all.
    None,
}

/// What comes of a request that might be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It is.
    Sent,
    /// It was, and the answer is good.
    Succeeded,
    /// It was as often as the route allows.
    Exhausted,
    /// It is not: the budget is spent, or the request's body no longer there.
    Overflowed,
}

#[derive(Debug)]
struct PolicyRoute {
    families: Families,
    labels: RouteLabels,
    seconds: Arc<Histogram>,
    request_bytes: Arc<Histogram>,
    statuses: Slots<How, Counter>,
    retries: Arc<Counter>,
    retry_successes: Arc<Counter>,
    retry_exhausted: Arc<Counter>,
    retry_overflows: Arc<Counter>,
}

#[derive(Debug)]
struct PolicyBackend {
    families: Families,
    labels: BackendLabels,
    requests: Arc<Counter>,
    seconds: Arc<Histogram>,
    response_bytes: Arc<Histogram>,
    statuses: Slots<How, Counter>,
}

impl RouteMetrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            http: Families::register(registry, "http"),
            grpc: Families::register(registry, "grpc"),
            profile: ProfileMetrics::register(registry),
        }
    }

    /// What a route of a policy reports to. `grpc`: the policy calls the destination gRPC.
    pub fn route(&self, parent: &Arc<ResourceRef>, route: &Arc<ResourceRef>, grpc: bool) -> RouteHandles {
        let families = if grpc { &self.grpc } else { &self.http }.clone();
        let labels = RouteLabels {
            parent: Parent(parent.clone()),
            route: OutboundRoute(route.clone()),
        };
        let route = PolicyRoute {
            seconds: families.request_seconds.handle(labels.clone()),
            request_bytes: families.request_bytes.handle(labels.clone()),
            statuses: Slots::default(),
            retries: families.retries.handle(labels.clone()),
            retry_successes: families.retry_successes.handle(labels.clone()),
            retry_exhausted: families.retry_exhausted.handle(labels.clone()),
            retry_overflows: families.retry_overflows.handle(labels.clone()),
            families,
            labels,
        };
        RouteHandles {
            classes: Arc::default(),
            families: RouteFamilies::Policy(Box::new(route)),
        }
    }

    /// What a route of the ServiceProfile of `dst` (`name:port`) reports to.
    pub fn profile(
        &self,
        dst: &Arc<str>,
        labels: &Arc<BTreeMap<String, String>>,
        classes: &Arc<[ResponseClass]>,
    ) -> RouteHandles {
        RouteHandles {
            classes: classes.clone(),
            families: RouteFamilies::Profile(Arc::new(self.profile.route(dst, labels))),
        }
    }
}

impl Families {
    fn register(registry: &mut Registry, protocol: &str) -> Self {
        let name = |suffix: &str| Name::open(format!("outbound_{protocol}_route_{suffix}"));
        Self {
            grpc: protocol == "grpc",
            request_seconds: registry.histogram(
                name("request_duration_seconds"),
                "Time from a request's arrival to the end of its response",
                REQUEST_SECONDS,
            ),
            request_statuses: registry.counter(
                name("request_statuses_total"),
                "Requests of a route by how they ended",
            ),
            request_bytes: registry.histogram(
                name("request_frame_size_bytes"),
                "Sizes of the frames of requests' bodies, each as it came, however often it was sent",
                FRAME_BYTES,
            ),
            retries: registry.counter(name("retry_requests_total"), "Attempts after the first"),
            retry_successes: registry.counter(
                name("retry_successes_total"),
                "Retried requests that were answered well in the end",
            ),
            retry_exhausted: registry.counter(
                name("retry_limit_exceeded_total"),
                "Requests that failed as often as the route lets them be tried",
            ),
            retry_overflows: registry.counter(
                name("retry_overflow_total"),
                "Requests not tried again because the budget was spent or the body no longer there",
            ),
            backend_requests: registry.counter(
                name("backend_requests_total"),
                "Requests that a backend of a route was sent, retries included",
            ),
            response_seconds: registry.histogram(
                name("backend_response_duration_seconds"),
                "Time from the end of a request to the end of the backend's response",
                RESPONSE_SECONDS,
            ),
            response_statuses: registry.counter(
                name("backend_response_statuses_total"),
                "Responses of a backend of a route by how they ended",
            ),
            response_bytes: registry.histogram(
                name("backend_response_frame_size_bytes"),
                "Sizes of the frames of responses' bodies",
                FRAME_BYTES,
            ),
        }
    }
}

impl RouteHandles {
    /// What one of its backends reports to.
    pub fn backend(&self, backend: &Arc<ResourceRef>) -> Arc<BackendHandles> {
        Arc::new(BackendHandles(match &self.families {
            RouteFamilies::Policy(route) => BackendFamilies::Policy(Box::new(route.backend(backend))),
            RouteFamilies::Profile(route) => BackendFamilies::Profile(route.clone()),
            RouteFamilies::Inbound(_) => BackendFamilies::None,
        }))
    }

    /// What counts as a failure, before anything else.
    pub fn classes(&self) -> &[ResponseClass] {
        &self.classes
    }

    /// A request takes the route.
    pub fn request(&self) {
        match &self.families {
            // Linkerd counts these where they are sent to.
            RouteFamilies::Policy(_) => {}
            RouteFamilies::Profile(route) => route.request(),
            RouteFamilies::Inbound(route) => route.request(),
        }
    }

    /// Where the sizes of its requests' frames are counted, if they are.
    pub fn request_bytes(&self) -> Option<&Arc<Histogram>> {
        match &self.families {
            RouteFamilies::Policy(route) => Some(&route.request_bytes),
            RouteFamilies::Profile(_) => None,
            RouteFamilies::Inbound(route) => Some(&route.request_bytes),
        }
    }

    /// A frame of a response has come.
    pub fn response_frame(&self, bytes: usize) {
        if let RouteFamilies::Inbound(route) = &self.families {
            route.response_bytes.observe(bytes as f64);
        }
    }

    /// The first byte of the answer has come, so long after the request.
    pub fn latency(&self, status: StatusCode, latency: Duration) {
        if let RouteFamilies::Profile(route) = &self.families {
            route.latency(status, latency);
        }
    }

    /// A request has ended.
    pub fn finish(&self, how: How, success: bool, took: Took) {
        match &self.families {
            RouteFamilies::Policy(route) => route.finish(how, took.request),
            RouteFamilies::Profile(route) => route.response(how, success),
            RouteFamilies::Inbound(route) => route.finish(how, took),
        }
    }

    /// What came of a request that might be sent again.
    pub fn retry(&self, retry: Retry) {
        match &self.families {
            RouteFamilies::Policy(route) => route.retry(retry).inc(),
            RouteFamilies::Profile(route) => route.retry(retry),
            // Nothing is sent to the application twice.
            RouteFamilies::Inbound(_) => {}
        }
    }
}

impl BackendHandles {
    /// A request is sent to it.
    pub fn request(&self) {
        match &self.0 {
            BackendFamilies::Policy(backend) => backend.requests.inc(),
            BackendFamilies::Profile(route) => route.attempt(),
            BackendFamilies::None => {}
        }
    }

    /// A frame of its response has come.
    pub fn response_frame(&self, bytes: usize) {
        if let BackendFamilies::Policy(backend) = &self.0 {
            backend.response_bytes.observe(bytes as f64);
        }
    }

    /// Its response has ended, so long after the request had been sent.
    pub fn finish(&self, how: How, success: bool, after: Duration) {
        match &self.0 {
            BackendFamilies::Policy(backend) => backend.finish(how, after),
            BackendFamilies::Profile(route) => route.attempt_ended(how, success),
            BackendFamilies::None => {}
        }
    }
}

impl From<InboundRoute> for RouteHandles {
    fn from(route: InboundRoute) -> Self {
        Self {
            classes: Arc::default(),
            families: RouteFamilies::Inbound(Box::new(route)),
        }
    }
}

impl PolicyRoute {
    fn backend(&self, backend: &Arc<ResourceRef>) -> PolicyBackend {
        let families = self.families.clone();
        let labels = BackendLabels {
            parent: self.labels.parent.clone(),
            route: self.labels.route.clone(),
            backend: Backend(backend.clone()),
        };
        PolicyBackend {
            requests: families.backend_requests.handle(labels.clone()),
            seconds: families.response_seconds.handle(labels.clone()),
            response_bytes: families.response_bytes.handle(labels.clone()),
            statuses: Slots::default(),
            families,
            labels,
        }
    }

    fn finish(&self, how: How, after: Duration) {
        self.seconds.observe(after.as_secs_f64());
        let grpc = self.families.grpc;
        let find = || {
            let labels = self.labels.clone();
            self.families.request_statuses.handle(Ended { labels, grpc, how })
        };
        resolve(&self.statuses, how, find, Counter::inc);
    }

    fn retry(&self, retry: Retry) -> &Counter {
        match retry {
            Retry::Sent => &self.retries,
            Retry::Succeeded => &self.retry_successes,
            Retry::Exhausted => &self.retry_exhausted,
            Retry::Overflowed => &self.retry_overflows,
        }
    }
}

impl PolicyBackend {
    fn finish(&self, how: How, after: Duration) {
        self.seconds.observe(after.as_secs_f64());
        let grpc = self.families.grpc;
        let find = || {
            let labels = self.labels.clone();
            self.families
                .response_statuses
                .handle(Ended { labels, grpc, how })
        };
        resolve(&self.statuses, how, find, Counter::inc);
    }
}

/// The name of a gRPC code (`google.rpc.Code`); what there is no name for is UNKNOWN.
fn grpc_name(status: Option<GrpcStatus>) -> &'static str {
    match status.map(|status| status.0) {
        Some(0) => "OK",
        Some(1) => "CANCELLED",
        Some(3) => "INVALID_ARGUMENT",
        Some(4) => "DEADLINE_EXCEEDED",
        Some(5) => "NOT_FOUND",
        Some(6) => "ALREADY_EXISTS",
        Some(7) => "PERMISSION_DENIED",
        Some(8) => "RESOURCE_EXHAUSTED",
        Some(9) => "FAILED_PRECONDITION",
        Some(10) => "ABORTED",
        Some(11) => "OUT_OF_RANGE",
        Some(12) => "UNIMPLEMENTED",
        Some(13) => "INTERNAL",
        Some(14) => "UNAVAILABLE",
        Some(15) => "DATA_LOSS",
        Some(16) => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

impl EncodeLabels for RouteLabels {
    const DOC: &'static str = "parent_*, route_*, hostname";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.parent.encode(out);
        self.route.encode(out);
        // Linkerd fills it in only where hostname labels are switched on, which nothing here does.
        out.label("hostname", "");
    }
}

impl EncodeLabels for BackendLabels {
    const DOC: &'static str = "parent_*, route_*, backend_*";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.parent.encode(out);
        self.route.encode(out);
        self.backend.encode(out);
    }
}

impl EncodeLabels for Ended<RouteLabels> {
    const DOC: &'static str = "parent_*, route_*, hostname, http_status or grpc_status, error";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.labels.encode(out);
        self.how.encode(self.grpc, out);
    }
}

impl EncodeLabels for Ended<BackendLabels> {
    const DOC: &'static str = "parent_*, route_*, backend_*, http_status or grpc_status, error";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.labels.encode(out);
        self.how.encode(self.grpc, out);
    }
}

impl How {
    fn encode(self, grpc: bool, out: &mut LabelWriter<'_>) {
        if grpc {
            out.label("grpc_status", grpc_name(self.grpc));
        } else {
            out.optional_label("http_status", self.status);
        }
        out.label("error", self.error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn text(grpc: bool, how: How) -> String {
        let mut registry = Registry::new(Duration::from_secs(60));
        let metrics = RouteMetrics::register(&mut registry);
        let meta = |name| Arc::new(ResourceRef::of_default(name));
        let route = metrics.route(&meta("parent"), &meta("route"), grpc);
        let took = Took {
            request: Duration::from_millis(100),
            response: Duration::from_millis(60),
        };
        route.finish(how, true, took);
        let backend = route.backend(&meta("backend"));
        backend.request();
        backend.finish(how, true, Duration::from_millis(60));
        registry.encode(Instant::now())
    }

    #[test]
    fn an_http_route_counts_by_status_and_a_grpc_route_by_the_name_of_its_code() {
        let how = How {
            status: Some(200),
            grpc: Some(GrpcStatus::UNAVAILABLE),
            error: "",
        };
        let http = text(false, how);
        assert!(
            http.contains(
                "outbound_http_route_request_statuses_total{parent_group=\"\",parent_kind=\"default\""
            ),
            "{http}"
        );
        assert!(
            http.contains("hostname=\"\",http_status=\"200\",error=\"\"} 1\n"),
            "{http}"
        );
        let grpc = text(true, how);
        assert!(
            grpc.contains("grpc_status=\"UNAVAILABLE\",error=\"\"} 1\n"),
            "{grpc}"
        );
        assert!(
            grpc.contains("outbound_grpc_route_backend_requests_total{"),
            "{grpc}"
        );
    }

    #[test]
    fn what_broke_off_has_a_reason_and_no_status() {
        let how = How {
            status: None,
            grpc: None,
            error: "FAIL_FAST",
        };
        let text = text(false, how);
        assert!(
            text.contains("http_status=\"\",error=\"FAIL_FAST\"} 1\n"),
            "{text}"
        );
    }
}
