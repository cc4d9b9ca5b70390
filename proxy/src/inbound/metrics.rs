//! What only inbound traffic reports: detection, authorization, refusals.

use std::sync::Arc;

use outrigger_policy::name::{Identity, ResourceRef};

use crate::error::Kind;
use crate::telemetry::labels::{Authz, DetectResult, Route, Srv, Target, TlsAccept};
use crate::telemetry::text::{EncodeLabels, LabelWriter};
use crate::telemetry::{Counter, Family, Histogram, Name, Registry};

/// Bounds of detection times, seconds.
const DETECT_SECONDS: &[f64] = &[0.001, 0.1];

/// What only inbound traffic reports.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// HTTP requests that an authorization admitted.
    pub http_allow: Family<HttpAllow, Counter>,
    /// HTTP requests that no authorization admitted.
    pub http_deny: Family<HttpDeny, Counter>,
    /// HTTP requests that no route matched.
    pub http_route_not_found: Family<Client, Counter>,
    /// HTTP requests that exceeded a local rate limit.
    pub http_rate_limited: Family<RateLimited, Counter>,
    /// Connections that an authorization admitted.
    pub tcp_allow: Family<TcpAllow, Counter>,
    /// Connections that no authorization admitted.
    pub tcp_deny: Family<Client, Counter>,
    /// Connections that were admitted and then cut, because the policy changed.
    pub tcp_terminate: Family<Client, Counter>,
    /// HTTP requests that failed here, by reason.
    pub http_errors: Family<HttpError, Counter>,
    /// Connections that failed here, by reason.
    pub tcp_errors: Family<TcpError, Counter>,
    /// Seconds until it was known whether a connection speaks HTTP.
    pub detect_seconds: Family<Srv, Histogram>,
    /// What connections turned out to speak.
    pub detect_results: Family<Detected, Counter>,
    /// Connections that arrived with a transport header.
    pub transport_header: Family<TransportHeader, Counter>,
}

/// A client on a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The address it connected to.
    pub target: Target,
    /// What the port is under.
    pub srv: Srv,
    /// How it arrived.
    pub tls: TlsAccept,
}

/// A client on a port, and what admitted it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpAllow {
    /// The client and the port.
    pub client: Client,
    /// What admitted it.
    pub authz: Authz,
}

/// A client on a route, and what admitted it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpAllow {
    /// The client and the port.
    pub client: Client,
    /// The route.
    pub route: Route,
    /// What admitted it.
    pub authz: Authz,
}

/// A client on a route that does not admit it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpDeny {
    /// The client and the port.
    pub client: Client,
    /// The route.
    pub route: Route,
}

/// A client on a port, and the limit that it has exceeded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateLimited {
    /// The client and the port.
    pub client: Client,
    /// The object that sets the limit.
    pub limit: Arc<ResourceRef>,
    /// Whether it is that of all clients.
    pub total: bool,
}

/// Why requests to a port fail.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpError {
    /// The reason; see [`error_label`].
    pub error: &'static str,
    /// The address that the client connected to.
    pub target: Target,
    /// What the port is under.
    pub srv: Srv,
}

/// Why connections to an address fail.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpError {
    /// The reason; see [`error_label`], and `tls detection timeout`.
    pub error: &'static str,
    /// The address that the client connected to.
    pub target: Target,
}

/// What connections to a port turn out to speak.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Detected {
    /// What.
    pub result: DetectResult,
    /// What the port is under.
    pub srv: Srv,
}

/// What a transport header asks for. Its name comes from the peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TransportHeader {
    /// `http/1`, `http/2`, or empty for bytes.
    pub session_protocol: &'static str,
    /// The port it names.
    pub target_port: u16,
    /// The name it carries; empty if none.
    pub target_name: Arc<str>,
    /// The client's identity, if it proved one.
    pub client_id: Option<Identity>,
}

impl Metrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            http_allow: registry.counter(
                "inbound_http_authz_allow_total",
                "The total number of inbound HTTP requests that were authorized",
            ),
            http_deny: registry.counter(
                "inbound_http_authz_deny_total",
                "The total number of inbound HTTP requests that could not be authorized",
            ),
            http_route_not_found: registry.counter(
                "inbound_http_route_not_found_total",
                "The total number of inbound HTTP requests that matched no route",
            ),
            http_rate_limited: registry.counter(
                "inbound_http_local_ratelimit_total",
                "The total number of inbound HTTP requests that exceeded a local rate limit",
            ),
            tcp_allow: registry.counter(
                "inbound_tcp_authz_allow_total",
                "The total number of inbound TCP connections that were authorized",
            ),
            tcp_deny: registry.counter(
                "inbound_tcp_authz_deny_total",
                "The total number of inbound TCP connections that were denied",
            ),
            tcp_terminate: registry.counter(
                "inbound_tcp_authz_terminate_total",
                "The total number of inbound TCP connections cut because a policy changed",
            ),
            http_errors: registry.counter(
                "inbound_http_errors_total",
                "The total number of inbound HTTP requests that failed in the proxy",
            ),
            tcp_errors: registry.counter(
                "inbound_tcp_errors_total",
                "The total number of inbound TCP connections that failed in the proxy",
            ),
            detect_seconds: registry.histogram(
                Name::open("inbound_tcp_detect_http_duration_seconds"),
                "Time until it was known whether a connection speaks HTTP",
                DETECT_SECONDS,
            ),
            detect_results: registry.counter(
                Name::open("inbound_tcp_detect_http_results_total"),
                "What connections turned out to speak",
            ),
            transport_header: registry.counter(
                Name::open("inbound_tcp_transport_header_connections_total"),
                "Connections that arrived with a transport header",
            ),
        }
    }
}

/// The `error` label of a fault; none for what a policy denied, which is counted elsewhere.
pub fn error_label(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Unauthorized | Kind::NoRoute | Kind::RateLimited => None,
        Kind::Overloaded => Some("loadshed"),
        Kind::FailFast => Some("failfast"),
        Kind::Loop => Some("gateway loop"),
        Kind::GatewayDomain => Some("gateway domain invalid"),
        Kind::Connect | Kind::ConnectTimeout | Kind::Reset => Some("i/o"),
        Kind::Internal => Some("unexpected"),
        other => Some(other.answer().reason),
    }
}

impl EncodeLabels for Client {
    const DOC: &'static str = "target_*, srv_*, tls …";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.target.encode(out);
        self.srv.encode(out);
        self.tls.encode(out);
    }
}

impl EncodeLabels for TcpAllow {
    const DOC: &'static str = "target_*, srv_*, authz_*, tls …";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.client.target.encode(out);
        self.client.srv.encode(out);
        self.authz.encode(out);
        self.client.tls.encode(out);
    }
}

impl EncodeLabels for HttpAllow {
    const DOC: &'static str = "target_*, srv_*, route_*, authz_*, tls …";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.client.target.encode(out);
        self.client.srv.encode(out);
        self.route.encode(out);
        self.authz.encode(out);
        self.client.tls.encode(out);
    }
}

impl EncodeLabels for HttpDeny {
    const DOC: &'static str = "target_*, srv_*, route_*, tls …";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.client.target.encode(out);
        self.client.srv.encode(out);
        self.route.encode(out);
        self.client.tls.encode(out);
    }
}

impl EncodeLabels for RateLimited {
    const DOC: &'static str = "target_*, srv_*, ratelimit_*, ratelimit_scope, tls …";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.client.target.encode(out);
        self.client.srv.encode(out);
        out.label("ratelimit_group", &self.limit.group);
        out.label("ratelimit_kind", &self.limit.kind);
        out.label("ratelimit_name", &self.limit.name);
        out.label("ratelimit_scope", if self.total { "total" } else { "identity" });
        self.client.tls.encode(out);
    }
}

impl EncodeLabels for HttpError {
    const DOC: &'static str = "error, target_*, srv_*";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("error", self.error);
        self.target.encode(out);
        self.srv.encode(out);
    }
}

impl EncodeLabels for TcpError {
    const DOC: &'static str = "error, target_*";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("error", self.error);
        self.target.encode(out);
    }
}

impl EncodeLabels for Detected {
    const DOC: &'static str = "result, srv_*";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.result.encode(out);
        self.srv.encode(out);
    }
}

impl EncodeLabels for TransportHeader {
    const DOC: &'static str = "session_protocol, target_port, target_name, client_id";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("session_protocol", self.session_protocol);
        out.label("target_port", self.target_port);
        out.label("target_name", &self.target_name);
        out.label("client_id", self.client_id.as_ref().map_or("", Identity::as_str));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_policy_denies_is_not_an_error() {
        assert_eq!(error_label(Kind::Unauthorized), None);
        assert_eq!(error_label(Kind::Connect), Some("i/o"));
        assert_eq!(error_label(Kind::Policy), Some("policy"));
    }

    #[test]
    fn an_authorization_stands_between_the_server_and_the_client() {
        let meta = Arc::new(ResourceRef::of_default("all"));
        let target = Target("10.0.0.1:80".parse().unwrap());
        let (srv, tls) = (
            Srv {
                meta: meta.clone(),
                port: 80,
            },
            TlsAccept::Disabled,
        );
        let client = Client { target, srv, tls };
        let mut out = String::new();
        TcpAllow {
            client,
            authz: Authz(meta),
        }
        .encode(&mut LabelWriter::new(&mut out));
        let tail = r#"srv_port="80",authz_group="",authz_kind="default",authz_name="all",tls="disabled""#;
        assert!(out.ends_with(tail), "{out}");
    }
}
