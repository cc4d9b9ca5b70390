//! What only outbound traffic reports: protocols, detection, failures.

use std::sync::Arc;

use crate::error::{Kind, Late};
use crate::telemetry::labels::{Backend, DetectResult, OutboundRoute, Parent, Target};
use crate::telemetry::text::{EncodeLabels, LabelWriter};
use crate::telemetry::{Counter, Family, Histogram, Name, Registry};

/// Bounds of detection times, seconds.
const DETECT_SECONDS: &[f64] = &[0.001, 0.1];

/// What only outbound traffic reports.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// HTTP requests that failed here, by reason.
    pub http_errors: Family<HttpError, Counter>,
    /// Connections that failed here, by reason.
    pub tcp_errors: Family<TcpError, Counter>,
    /// Connections by what the policy says they speak.
    pub protocol_connections: Family<Protocol, Counter>,
    /// Seconds until it was known whether a connection speaks HTTP.
    pub detect_seconds: Family<Parent, Histogram>,
    /// What connections turned out to speak.
    pub detect_results: Family<Detected, Counter>,
    /// How often discovery was asked again because none of a service's endpoints could be connected to.
    pub asked_again: Family<Service, Counter>,
    /// Copies of requests for mirrors, by what became of them.
    pub mirrored: Family<Copied, Counter>,
}

/// Why requests fail.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpError {
    /// The reason; see [`error_label`].
    pub error: &'static str,
}

/// Why connections to an address fail.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpError {
    /// The address that the application connected to.
    pub target: Target,
    /// The reason; see [`error_label`].
    pub error: &'static str,
}

/// What a policy says that connections speak.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Protocol {
    /// `http/1`, `http/2`, `detect`, `opaq` or `tls`.
    pub protocol: &'static str,
    /// The object that the application connected to.
    pub parent: Parent,
}

/// What connections to a destination turn out to speak.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Detected {
    /// What.
    pub result: DetectResult,
    /// The object that the application connected to.
    pub parent: Parent,
}

/// A service whose endpoints are balanced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// `name:port`, as discovery is asked for it.
    pub authority: Arc<str>,
}

/// Copies of a route's requests for one of its mirrors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Copied {
    /// The object that the application connected to.
    pub parent: Parent,
    /// The route.
    pub route: OutboundRoute,
    /// The mirror.
    pub backend: Backend,
    /// What became of them; see [`Outcome`].
    pub result: &'static str,
}

/// What becomes of a copy of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was sent, and answered, whatever the answer was.
    Answered,
    /// There was no complete answer.
    Failed,
    /// It was not sent: too many copies were under way.
    Busy,
    /// It was not sent: the body is longer than is kept for it.
    TooLong,
    /// It was not sent: all bodies together have used up the memory for them.
    Full,
    /// It was not sent: the request itself broke off before its end.
    BrokenOff,
    /// It was not sent: a tunnel can't be mirrored.
    Tunnel,
}

/// What one mirror reports to.
#[derive(Debug)]
pub struct Mirrored([Arc<Counter>; Outcome::ALL.len()]);

impl Outcome {
    const ALL: [Self; 7] = [
        Self::Answered,
        Self::Failed,
        Self::Busy,
        Self::TooLong,
        Self::Full,
        Self::BrokenOff,
        Self::Tunnel,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Busy => "busy",
            Self::TooLong => "too_long",
            Self::Full => "no_memory",
            Self::BrokenOff => "broken_off",
            Self::Tunnel => "tunnel",
        }
    }
}

impl Mirrored {
    /// Counts a copy.
    pub fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].inc();
    }
}

impl Metrics {
    /// What a mirror reports to.
    pub fn mirror(&self, parent: Parent, route: OutboundRoute, backend: Backend) -> Mirrored {
        Mirrored(Outcome::ALL.map(|outcome| {
            self.mirrored.handle(Copied {
                parent: parent.clone(),
                route: route.clone(),
                backend: backend.clone(),
                result: outcome.label(),
            })
        }))
    }

    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            http_errors: registry.counter(
                "outbound_http_errors_total",
                "The total number of outbound HTTP requests that failed in the proxy",
            ),
            tcp_errors: registry.counter(
                "outbound_tcp_errors_total",
                "The total number of outbound TCP connections that failed in the proxy",
            ),
            protocol_connections: registry.counter(
                Name::open("outbound_tcp_protocol_connections_total"),
                "Connections by what the policy says they speak",
            ),
            detect_seconds: registry.histogram(
                Name::open("outbound_tcp_detect_http_duration_seconds"),
                "Time until it was known whether a connection speaks HTTP",
                DETECT_SECONDS,
            ),
            detect_results: registry.counter(
                Name::open("outbound_tcp_detect_http_results_total"),
                "What connections turned out to speak",
            ),
            asked_again: registry.counter(
                "outrigger_balancer_rediscoveries_total",
                "How often discovery was asked again because no endpoint of a service could be connected to",
            ),
            mirrored: registry.counter(
                "outrigger_mirror_requests_total",
                "Copies of requests for mirrors: answered, failed, or not sent and why (busy, too_long, no_memory, broken_off, tunnel)",
            ),
        }
    }
}

/// The `error` label of a fault.
pub fn error_label(kind: Kind) -> &'static str {
    match kind {
        Kind::Overloaded => "loadshed",
        Kind::FailFast => "failfast",
        Kind::PeerIdentity => "identity required",
        Kind::Connect | Kind::ConnectTimeout | Kind::Reset => "i/o",
        Kind::Timeout(Late::Headers) => "response timeout",
        Kind::Internal => "unexpected",
        other => other.answer().reason,
    }
}

impl EncodeLabels for HttpError {
    const DOC: &'static str = "error";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("error", self.error);
    }
}

impl EncodeLabels for TcpError {
    const DOC: &'static str = "target_*, error";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.target.encode(out);
        out.label("error", self.error);
    }
}

impl EncodeLabels for Protocol {
    const DOC: &'static str = "protocol, parent_*";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("protocol", self.protocol);
        self.parent.encode(out);
    }
}

impl EncodeLabels for Detected {
    const DOC: &'static str = "result, parent_*";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.result.encode(out);
        self.parent.encode(out);
    }
}

impl EncodeLabels for Service {
    const DOC: &'static str = "authority";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("authority", &self.authority);
    }
}

impl EncodeLabels for Copied {
    const DOC: &'static str = "parent_*, route_*, backend_*, result";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.parent.encode(out);
        self.route.encode(out);
        self.backend.encode(out);
        out.label("result", self.result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_of_a_copy_has_a_series_of_its_own() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
    }

    #[test]
    fn a_fault_without_a_label_of_linkerds_reports_its_reason_code() {
        assert_eq!(error_label(Kind::PeerIdentity), "identity required");
        assert_eq!(error_label(Kind::Timeout(Late::Headers)), "response timeout");
        assert_eq!(error_label(Kind::Discovery), "discovery");
    }
}
