//! What only outbound traffic reports: protocols, detection, failures.

use crate::error::Kind;
use crate::telemetry::labels::{DetectResult, Parent, Target};
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

impl Metrics {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_without_a_label_of_linkerds_reports_its_reason_code() {
        assert_eq!(error_label(Kind::PeerIdentity), "identity required");
        assert_eq!(error_label(Kind::Discovery), "discovery");
    }
}
