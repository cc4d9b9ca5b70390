//! The two directions of traffic.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::env::Reader;
use crate::config::http::{self, HeadLimits, Http2Client, Http2Server, Pool};
use crate::config::socket::{self, Accept, Connect};
use crate::config::value::{Addresses, Listeners, OptionalDuration, PortSet, Suffixes};
use crate::config::vars;

/// Traffic from the application.
#[derive(Clone, Debug, PartialEq)]
pub struct Outbound {
    /// Where it arrives: one address, or two for IPv4 and IPv6.
    pub listen: Vec<SocketAddr>,
    /// Options of accepted sockets.
    pub accept: Accept,
    /// How connections to other pods are opened.
    pub connect: Connect,
    /// Connections that may be open, accepted and opened each; `None`: as open files allow.
    pub max_connections: Option<usize>,
    /// How long an opaque connection may be silent when one side has ended; `None`: for ever.
    pub half_closed: Option<Duration>,
    /// How long to wait for the first bytes before calling a connection opaque.
    pub detect_timeout: Duration,
    /// Silence of a client after which the server may be the one that speaks first.
    pub server_first_after: Duration,
    /// How long a request waits for an endpoint.
    pub http_fail_fast: Duration,
    /// How long a connection waits for an endpoint.
    pub tcp_fail_fast: Duration,
    /// Requests in flight; more are shed.
    pub max_in_flight: usize,
    /// Bytes of request bodies that are kept to be sent again, of all requests together.
    pub retry_bytes: usize,
    /// Bytes of request bodies that are kept for mirrors, of all requests together.
    pub mirror_bytes: usize,
    /// Copies of requests that may be under way to mirrors.
    pub mirrors_in_flight: usize,
    /// What is taken of a message's head.
    pub head_limits: HeadLimits,
    /// HTTP/1 connections to an endpoint.
    pub pool: Pool,
    /// HTTP/2 to endpoints.
    pub http2_client: Http2Client,
    /// HTTP/2 from the application.
    pub http2_server: Http2Server,
    /// Memory for what has come on HTTP/2 streams and nobody has read, in bytes.
    pub max_unread: usize,
    /// How long what is known of a destination is kept after its last use.
    pub discovery_idle: Duration,
    /// Whether requests may name their destination (`l5d-dst-override`), as those of an ingress controller do.
    pub ingress: bool,
    /// Whether `l5d-proxy-error`, `l5d-proxy-connection` and `grpc-message` are shown to the application.
    pub informational_headers: bool,
    /// The pod's addresses: endpoints with these are reached without TLS.
    pub local_ips: Addresses,
}

/// Traffic to the application.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// Where it arrives.
    pub listen: SocketAddr,
    /// Options of accepted sockets.
    pub accept: Accept,
    /// How connections to the application are opened.
    pub connect: Connect,
    /// Connections that may be open, accepted and opened each; `None`: as open files allow.
    pub max_connections: Option<usize>,
    /// How long an opaque connection may be silent when one side has ended; `None`: for ever.
    pub half_closed: Option<Duration>,
    /// How long to wait for the first bytes, of TLS and then of the protocol, before calling a connection opaque.
    pub detect_timeout: Duration,
    /// Silence of a client after which the server may be the one that speaks first.
    pub server_first_after: Duration,
    /// Requests in flight; more are shed.
    pub max_in_flight: usize,
    /// What is taken of a message's head.
    pub head_limits: HeadLimits,
    /// How long a request waits for room on a connection to the application.
    pub http_fail_fast: Duration,
    /// HTTP/1 connections to a port of the application.
    pub pool: Pool,
    /// HTTP/2 to the application.
    pub http2_client: Http2Client,
    /// HTTP/2 from the mesh.
    pub http2_server: Http2Server,
    /// Memory for what has come on HTTP/2 streams and nobody has read, in bytes.
    pub max_unread: usize,
    /// How long what is known of a port is kept after its last use.
    pub discovery_idle: Duration,
    /// Ports whose policies are watched from the start; the admin port is among them, and that of a gateway.
    pub ports: PortSet,
    /// Names that connections may be carried on to.
    pub gateway: Suffixes,
    /// Whether paths that can be read in two ways are refused where they could lead past an authorization.
    pub strict_paths: bool,
    /// The pod's addresses: connections to others are refused. Empty: to any.
    pub allowed_ips: Addresses,
}

/// Reads what concerns traffic from the application.
pub(in crate::config) fn outbound(r: &mut Reader<'_>) -> Outbound {
    let single = r.read(&vars::OUTBOUND_LISTEN_ADDR);
    let listen = r.optional(&vars::OUTBOUND_LISTEN_ADDRS);
    let ingress = r.read(&vars::INGRESS_MODE);
    let quiet = r.optional(&vars::OUTBOUND_DISABLE_INFORMATIONAL_HEADERS);
    Outbound {
        listen: listen.map_or_else(|| vec![single], |Listeners(addresses)| addresses),
        accept: socket::outbound_accept(r),
        connect: socket::outbound_connect(r),
        max_connections: r.optional(&vars::OUTBOUND_MAX_CONNECTIONS),
        half_closed: half_closed(r),
        detect_timeout: r.read(&vars::OUTBOUND_DETECT_TIMEOUT),
        server_first_after: r.read(&vars::OUTBOUND_SERVER_FIRST_AFTER),
        http_fail_fast: r.read(&vars::OUTBOUND_HTTP_FAILFAST_TIMEOUT),
        tcp_fail_fast: r.read(&vars::OUTBOUND_TCP_FAILFAST_TIMEOUT),
        max_in_flight: r.read(&vars::OUTBOUND_MAX_IN_FLIGHT),
        retry_bytes: r.read(&vars::OUTBOUND_RETRY_MAX_BYTES),
        mirror_bytes: r.read(&vars::OUTBOUND_MIRROR_MAX_BYTES),
        mirrors_in_flight: r.read(&vars::OUTBOUND_MIRROR_MAX_IN_FLIGHT),
        head_limits: http::head_limits(r),
        pool: Pool {
            max_idle: r.read(&vars::OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT),
            idle_timeout: r.read(&vars::OUTBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT),
        },
        http2_client: http::client(r),
        http2_server: http::outbound_server(r),
        max_unread: r.read(&vars::HTTP2_MAX_UNREAD_BYTES),
        discovery_idle: r.read(&vars::OUTBOUND_DISCOVERY_IDLE_TIMEOUT),
        ingress,
        informational_headers: !quiet.unwrap_or(ingress),
        local_ips: r.optional(&vars::INBOUND_IPS).unwrap_or_default(),
    }
}

/// Reads what concerns traffic to the application.
pub(in crate::config) fn inbound(r: &mut Reader<'_>, admin_port: u16) -> Inbound {
    let listen: SocketAddr = r.read(&vars::INBOUND_LISTEN_ADDR);
    let gateway: Suffixes = r.read(&vars::INBOUND_GATEWAY_SUFFIXES);
    let ports = r.read(&vars::INBOUND_PORTS).with(admin_port);
    Inbound {
        listen,
        accept: socket::inbound_accept(r),
        connect: socket::inbound_connect(r),
        max_connections: r.optional(&vars::INBOUND_MAX_CONNECTIONS),
        half_closed: half_closed(r),
        detect_timeout: r.read(&vars::INBOUND_DETECT_TIMEOUT),
        server_first_after: r.read(&vars::INBOUND_SERVER_FIRST_AFTER),
        max_in_flight: r.read(&vars::INBOUND_MAX_IN_FLIGHT),
        head_limits: http::head_limits(r),
        http_fail_fast: r.read(&vars::INBOUND_HTTP_FAILFAST_TIMEOUT),
        pool: Pool {
            max_idle: r.read(&vars::INBOUND_MAX_IDLE_CONNS_PER_ENDPOINT),
            idle_timeout: r.read(&vars::INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT),
        },
        http2_client: http::client(r),
        http2_server: http::inbound_server(r),
        max_unread: r.read(&vars::HTTP2_MAX_UNREAD_BYTES),
        discovery_idle: r.read(&vars::INBOUND_DISCOVERY_IDLE_TIMEOUT),
        ports: if gateway.0.is_empty() {
            ports
        } else {
            ports.with(listen.port())
        },
        gateway,
        strict_paths: r.read(&vars::INBOUND_STRICT_PATHS),
        allowed_ips: r.optional(&vars::INBOUND_IPS).unwrap_or_default(),
    }
}

fn half_closed(r: &mut Reader<'_>) -> Option<Duration> {
    let OptionalDuration(timeout) = r.read(&vars::TCP_HALF_CLOSED_TIMEOUT);
    timeout
}
