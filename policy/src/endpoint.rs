//! Endpoints: where a request can be sent, and how to speak there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::name::{DnsName, Identity};

/// One pod (or external address) behind a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Where the application listens.
    pub addr: SocketAddr,
    /// Relative weight; 10,000 is one. Not used for choosing yet.
    pub weight: u32,
    /// Who must answer there. `None`: no mutual TLS.
    pub tls: Option<EndpointTls>,
    /// Which protocol the proxy beside the endpoint accepts.
    pub hint: ProtocolHint,
    /// Port of the proxy beside the endpoint that takes a transport header
    /// (`protocol_hint.opaque_transport.inbound_port`).
    pub transport_port: Option<NonZeroU16>,
    /// Authority that replaces the request's own on the way to a multicluster gateway (`name[:port]`).
    pub authority_override: Option<Arc<str>>,
    /// How HTTP/2 connections to it are set up; unset fields keep the proxy's own defaults.
    pub http2: Http2Params,
    /// Metric labels (`dst_*`), in key order: the set's labels overlaid with the address's own.
    pub labels: Arc<BTreeMap<String, String>>,
}

impl Endpoint {
    /// An address about which nothing more is known.
    pub fn bare(addr: SocketAddr) -> Self {
        Self {
            addr,
            weight: 10_000,
            tls: None,
            hint: ProtocolHint::Unknown,
            transport_port: None,
            authority_override: None,
            http2: Http2Params::default(),
            labels: Arc::default(),
        }
    }
}

/// The identity that an endpoint has to prove.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointTls {
    /// The SAN its certificate must carry.
    pub identity: Identity,
    /// The SNI to send.
    pub server_name: DnsName,
}

/// Which protocol the peer's proxy accepts beyond what the application speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ProtocolHint {
    /// Nothing known: speak what the application speaks.
    #[default]
    Unknown,
    /// HTTP/1 may be carried over HTTP/2 (`l5d-orig-proto`).
    Http2,
    /// The port is opaque on the server's side.
    Opaque,
}

/// HTTP/2 client parameters from discovery (`Http2ClientParams`); `None` keeps the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Http2Params {
    /// Flow-control window of a stream, bytes.
    pub stream_window: Option<u32>,
    /// Flow-control window of the connection, bytes.
    pub connection_window: Option<u32>,
    /// Windows that follow the bandwidth-delay product.
    pub adaptive_window: bool,
    /// PING interval and the time to wait for its answer.
    pub keep_alive: Option<(Duration, Duration)>,
    /// PING also without open streams.
    pub keep_alive_while_idle: bool,
    /// Locally reset streams to remember.
    pub max_concurrent_reset_streams: Option<usize>,
    /// Largest frame accepted, bytes.
    pub max_frame_size: Option<u32>,
    /// Send buffer of a stream, bytes.
    pub max_send_buf_size: Option<usize>,
}
