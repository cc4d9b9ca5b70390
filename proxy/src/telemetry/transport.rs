//! The TCP families that both directions share: connections and bytes.

use std::io;
use std::sync::Arc;

use crate::telemetry::http::EndpointLabels;
use crate::telemetry::labels::{Direction, NoTls, Srv, Target, TlsAccept, TlsConnect};
use crate::telemetry::metric::{Counter, Gauge};
use crate::telemetry::registry::{Family, Registry};
use crate::telemetry::shared::Shared;
use crate::telemetry::text::{EncodeLabels, LabelWriter, Name};

/// Connections and bytes.
#[derive(Clone, Debug)]
pub struct TransportMetrics {
    /// Connections opened.
    pub tcp_open_total: Family<Arc<TransportLabels>, Counter>,
    /// Connections open now.
    pub tcp_open_connections: Family<Arc<TransportLabels>, Gauge>,
    /// Connections closed, by OS error.
    pub tcp_close_total: Family<CloseLabels, Counter>,
    /// Bytes read from peers.
    pub tcp_read_bytes_total: Family<Arc<TransportLabels>, Counter>,
    /// Bytes written to peers.
    pub tcp_write_bytes_total: Family<Arc<TransportLabels>, Counter>,
    /// Bytes sent to endpoints and received from them, by where they are.
    pub transfer_cost: Family<CostLabels, Counter>,
    /// HTTP/2 connections that this proxy ended because of what the peer sent.
    pub http2_abuse: Family<AbuseLabels, Counter>,
    /// Connections asked for again, since nobody had answered in time.
    pub asked_again: Family<Direction, Counter>,
    /// What is resolved and in use.
    pub resolved: Shared<TransportLabels, TransportHandle>,
}

/// One side of a connection that this proxy carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TransportLabels {
    /// A client connected to the application beside this proxy (`peer="src"`).
    InboundAccept {
        /// The address that the client connected to.
        target: Target,
        /// How it arrived.
        tls: TlsAccept,
        /// What the port is under.
        srv: Srv,
    },
    /// This proxy connected to the application beside it (`peer="dst"`).
    InboundConnect,
    /// The application beside this proxy connected to something (`peer="src"`).
    OutboundAccept {
        /// The address that it connected to.
        target: Target,
    },
    /// This proxy connected to an endpoint (`peer="dst"`); [`EndpointLabels::Outbound`].
    OutboundConnect(Arc<EndpointLabels>),
}

/// Labels of `tcp_close_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CloseLabels {
    /// The side.
    pub transport: Arc<TransportLabels>,
    /// Name of the OS error; empty when it ended well.
    pub errno: &'static str,
}

/// Labels of `outbound_tcp_transfer_cost_bytes_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CostLabels {
    /// `Send` or `Recv`.
    pub op: &'static str,
    /// `Local` in this pod's zone, `Remote` in another, `Unknown`.
    pub zone_locality: &'static str,
}

/// Labels of `outrigger_http2_abuse_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbuseLabels {
    /// Whose traffic the connection carries.
    pub direction: Direction,
    /// `src` for a client, `dst` for a server.
    pub peer: &'static str,
    /// What it sent too much of, or what was wrong with it.
    pub reason: &'static str,
}

/// The metrics of one kind of connection, resolved.
#[derive(Debug)]
pub struct TransportHandle {
    /// Connections asked for again.
    pub asked_again: Arc<Counter>,
    read: Arc<Counter>,
    written: Arc<Counter>,
    /// What was received and sent, of connections to endpoints.
    cost: Option<[Arc<Counter>; 2]>,
    open_total: Arc<Counter>,
    open: Arc<Gauge>,
    closed_well: Arc<Counter>,
    close_total: Family<CloseLabels, Counter>,
    http2_abuse: Family<AbuseLabels, Counter>,
    labels: Arc<TransportLabels>,
}

impl TransportMetrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            tcp_open_total: registry.counter("tcp_open_total", "Total count of opened connections"),
            tcp_open_connections: registry
                .gauge("tcp_open_connections", "Number of currently-open connections"),
            tcp_close_total: registry.counter("tcp_close_total", "Total count of closed connections"),
            tcp_read_bytes_total: registry
                .counter("tcp_read_bytes_total", "Total count of bytes read from peers"),
            tcp_write_bytes_total: registry
                .counter("tcp_write_bytes_total", "Total count of bytes written to peers"),
            transfer_cost: registry.counter(
                Name::open("outbound_tcp_transfer_cost_bytes_total"),
                "Bytes sent to endpoints and received from them, by whether they are in this zone",
            ),
            http2_abuse: registry.counter(
                "outrigger_http2_abuse_total",
                "HTTP/2 connections that the proxy ended because of what the peer sent: floods, and errors of protocol",
            ),
            asked_again: registry.counter(
                "outrigger_tcp_connect_retries_total",
                "Connections asked for again, since the application had not answered in time: its listen queue may be full",
            ),
            resolved: Shared::default(),
        }
    }

    /// The metrics of connections with these labels. Resolve once per connection or endpoint.
    pub fn handle(&self, labels: TransportLabels) -> Arc<TransportHandle> {
        self.resolved.get_or(labels, |labels| {
            let well = CloseLabels {
                transport: labels.clone(),
                errno: "",
            };
            TransportHandle {
                cost: labels.zone_locality().map(|zone_locality| {
                    ["Recv", "Send"].map(|op| self.transfer_cost.handle(CostLabels { op, zone_locality }))
                }),
                read: self.tcp_read_bytes_total.handle(labels.clone()),
                written: self.tcp_write_bytes_total.handle(labels.clone()),
                asked_again: self.asked_again.handle(labels.side().0),
                open_total: self.tcp_open_total.handle(labels.clone()),
                open: self.tcp_open_connections.handle(labels.clone()),
                closed_well: self.tcp_close_total.handle(well),
                close_total: self.tcp_close_total.clone(),
                http2_abuse: self.http2_abuse.clone(),
                labels,
            }
        })
    }
}

impl TransportHandle {
    /// Counts a connection as opened.
    pub fn opened(&self) {
        self.open_total.inc();
        self.open.inc();
    }

    /// Counts bytes that were read from the peer.
    pub fn read(&self, bytes: u64) {
        self.read.add(bytes);
        if let Some([received, _]) = &self.cost {
            received.add(bytes);
        }
    }

    /// Counts bytes that were written to the peer.
    pub fn written(&self, bytes: u64) {
        self.written.add(bytes);
        if let Some([_, sent]) = &self.cost {
            sent.add(bytes);
        }
    }

    /// Counts a connection that was ended because of what the peer sent.
    pub fn abused(&self, reason: &'static str) {
        let (direction, peer) = self.labels.side();
        let labels = AbuseLabels {
            direction,
            peer,
            reason,
        };
        self.http2_abuse.handle(labels).inc();
    }

    /// Counts a connection as closed: well, or by the operating system's error (a number of `errno.h`).
    pub fn closed(&self, error: Option<i32>) {
        self.open.dec();
        let errno = error.map_or("", errno);
        match errno {
            "" => self.closed_well.inc(),
            _ => {
                let transport = self.labels.clone();
                self.close_total.handle(CloseLabels { transport, errno }).inc();
            }
        }
    }
}

/// The name of an OS error; `EIO` for what has no name here.
fn errno(code: i32) -> &'static str {
    // By kind, since the numbers differ between platforms.
    match io::Error::from_raw_os_error(code).kind() {
        io::ErrorKind::ConnectionRefused => "ECONNREFUSED",
        io::ErrorKind::ConnectionReset => "ECONNRESET",
        io::ErrorKind::ConnectionAborted => "ECONNABORTED",
        io::ErrorKind::BrokenPipe => "EPIPE",
        io::ErrorKind::TimedOut => "ETIMEDOUT",
        io::ErrorKind::HostUnreachable => "EHOSTUNREACH",
        io::ErrorKind::NetworkUnreachable => "ENETUNREACH",
        io::ErrorKind::NetworkDown => "ENETDOWN",
        io::ErrorKind::NotConnected => "ENOTCONN",
        io::ErrorKind::AddrNotAvailable => "EADDRNOTAVAIL",
        io::ErrorKind::AddrInUse => "EADDRINUSE",
        io::ErrorKind::PermissionDenied => "EACCES",
        _ => "EIO",
    }
}

impl TransportLabels {
    /// Where an endpoint is, as discovery says.
    fn zone_locality(&self) -> Option<&'static str> {
        let Self::OutboundConnect(endpoint) = self else {
            return None;
        };
        let EndpointLabels::Outbound { dst, .. } = &**endpoint else {
            return None;
        };
        Some(match dst.0.get("zone_locality").map(String::as_str) {
            Some("local") => "Local",
            Some("remote") => "Remote",
            _ => "Unknown",
        })
    }

    /// The values of `direction` and `peer`.
    fn side(&self) -> (Direction, &'static str) {
        match self {
            Self::InboundAccept { .. } => (Direction::Inbound, "src"),
            Self::InboundConnect => (Direction::Inbound, "dst"),
            Self::OutboundAccept { .. } => (Direction::Outbound, "src"),
            Self::OutboundConnect(_) => (Direction::Outbound, "dst"),
        }
    }
}

impl EncodeLabels for TransportLabels {
    const DOC: &'static str = "direction, peer, (inbound src: target_*, tls …, srv_*) (inbound dst: tls …) (outbound src: target_*, tls …) (outbound dst: authority?, target_*, tls …, dst_*)";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        let (direction, peer) = self.side();
        direction.encode(out);
        out.label("peer", peer);
        match self {
            Self::InboundAccept { target, tls, srv } => {
                target.encode(out);
                tls.encode(out);
                srv.encode(out);
            }
            Self::InboundConnect => TlsConnect::NoIdentity(NoTls::Loopback).encode(out),
            Self::OutboundAccept { target } => {
                target.encode(out);
                TlsAccept::NoIdentity(NoTls::Loopback).encode(out);
            }
            Self::OutboundConnect(endpoint) => endpoint.encode_undirected(out),
        }
    }
}

impl EncodeLabels for Arc<TransportLabels> {
    const DOC: &'static str = TransportLabels::DOC;
    fn encode(&self, out: &mut LabelWriter<'_>) {
        TransportLabels::encode(self, out);
    }
}

impl EncodeLabels for CloseLabels {
    const DOC: &'static str = "as tcp_open_total, errno";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.transport.encode(out);
        out.label("errno", self.errno);
    }
}

impl EncodeLabels for CostLabels {
    const DOC: &'static str = "op, zone_locality";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("op", self.op);
        out.label("zone_locality", self.zone_locality);
    }
}

impl EncodeLabels for AbuseLabels {
    const DOC: &'static str = "direction, peer, reason";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.direction.encode(out);
        out.label("peer", self.peer);
        out.label("reason", self.reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::labels::Dst;
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    fn accepted() -> TransportLabels {
        TransportLabels::OutboundAccept {
            target: Target("10.0.0.1:80".parse().unwrap()),
        }
    }

    #[test]
    fn a_connection_is_closed_well_or_by_an_error() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let handle = TransportMetrics::register(&mut registry).handle(accepted());
        for error in [None, Some(104), None] {
            handle.opened();
            handle.closed(error);
        }
        let text = registry.encode(Instant::now());
        for line in ["errno=\"ECONNRESET\"} 1", "errno=\"\"} 2", "loopback\"} 3"] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert_eq!(handle.open.value(), 0);
    }

    #[test]
    fn bytes_of_endpoints_are_counted_by_where_they_are() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let metrics = TransportMetrics::register(&mut registry);
        let endpoint = |zone: &str| {
            let dst = BTreeMap::from([("zone_locality".to_owned(), zone.to_owned())]);
            TransportLabels::OutboundConnect(Arc::new(EndpointLabels::Outbound {
                authority: None,
                target: Target("10.0.0.1:80".parse().unwrap()),
                tls: TlsConnect::Disabled,
                dst: Dst(Arc::new(dst)),
            }))
        };
        metrics.handle(endpoint("remote")).written(7);
        metrics.handle(endpoint("")).read(5);
        metrics.handle(accepted()).read(100);
        let text = registry.encode(Instant::now());
        for line in [
            "{op=\"Send\",zone_locality=\"Remote\"} 7",
            "{op=\"Recv\",zone_locality=\"Unknown\"} 5",
        ] {
            let line = format!("outbound_tcp_transfer_cost_bytes_total{line}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
    }

    #[test]
    fn an_open_connection_shows_its_bytes() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let handle = TransportMetrics::register(&mut registry).handle(accepted());
        handle.read(7);
        let series = "tcp_read_bytes_total{direction=\"outbound\",peer=\"src\",target_addr=\"10.0.0.1:80\",\
            target_ip=\"10.0.0.1\",target_port=\"80\",tls=\"no_identity\",no_tls_reason=\"loopback\"} 7\n";
        let text = registry.encode(Instant::now());
        assert!(text.contains(series), "{text}");
    }
}
