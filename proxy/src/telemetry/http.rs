//! The HTTP families that both directions share: requests, responses, latency.

use std::sync::Arc;

use crate::telemetry::handles::Handles;
use crate::telemetry::labels::{Authz, Direction, Dst, Route, Srv, Target, TlsAccept, TlsConnect};
use crate::telemetry::metric::{Counter, Histogram};
use crate::telemetry::registry::{Family, Registry};
use crate::telemetry::shared::Shared;
use crate::telemetry::text::{EncodeLabels, LabelWriter};

/// Bounds of `response_latency_ms`, milliseconds.
pub const LATENCY_MS: &[f64] = &[
    1., 2., 3., 4., 5., 10., 20., 30., 40., 50., 100., 200., 300., 400., 500., 1_000., 2_000., 3_000.,
    4_000., 5_000., 10_000., 20_000., 30_000., 40_000., 50_000.,
];

/// Requests, responses and their latency.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    /// Requests whose first body frame was read, or that have no body.
    pub request_total: Family<Arc<EndpointLabels>, Counter>,
    /// Responses that have ended, well or not.
    pub response_total: Family<ResponseLabels, Counter>,
    /// Milliseconds from dispatch to the first frame of the response's body, or to its end.
    pub response_latency_ms: Family<LatencyLabels, Histogram>,
    /// What is resolved and in use.
    pub resolved: Shared<EndpointLabels, Handles>,
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
    pub status: Option<u16>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// The HTTP status; left out without a response.
    pub status: Option<u16>,
    /// Whether it counts as a success.
    pub success: bool,
    /// The gRPC status code, of gRPC responses.
    pub grpc: Option<u16>,
    /// Why there is no whole response: `timeout`, `h2(REASON)`, `unclassified`; empty when there is.
    pub error: &'static str,
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
            resolved: Shared::default(),
        }
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

impl EncodeLabels for EndpointLabels {
    const DOC: &'static str = "direction, (inbound: target_*, tls …, srv_*, route_*, authz_*) (outbound: authority?, target_*, tls …, dst_*)";
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
    const DOC: &'static str = "as request_total, status_code?, classification, grpc_status, error";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.endpoint.encode(out);
        self.outcome.encode(out);
    }
}

impl EncodeLabels for Outcome {
    const DOC: &'static str = "status_code?, classification, grpc_status, error";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        if let Some(status) = self.status {
            out.label("status_code", status);
        }
        let class = if self.success { "success" } else { "failure" };
        out.label("classification", class);
        out.optional_label("grpc_status", self.grpc);
        out.label("error", self.error);
    }
}

impl EncodeLabels for LatencyLabels {
    const DOC: &'static str = "as request_total, status_code?";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.endpoint.encode(out);
        if let Some(status) = self.status {
            out.label("status_code", status);
        }
    }
}
