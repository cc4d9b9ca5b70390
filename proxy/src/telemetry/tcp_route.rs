//! The metrics of outbound routes for what is not HTTP: connections, and how they ended.

use std::net::IpAddr;
use std::sync::Arc;

use crate::telemetry::labels::{OutboundRoute, Parent};
use crate::telemetry::metric::Counter;
use crate::telemetry::registry::{Family, Registry};
use crate::telemetry::shared::Shared;
use crate::telemetry::text::{EncodeLabels, LabelWriter, Name};

/// Connections by the route they took.
#[derive(Clone, Debug)]
pub struct TcpRouteMetrics {
    opaque: Families,
    tls: Families,
    resolved: Shared<TcpRouteLabels, Handles>,
}

#[derive(Clone, Debug)]
struct Families {
    opened: Family<TcpRouteLabels, Counter>,
    closed: Family<Closed, Counter>,
}

/// A route for connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpRouteLabels {
    /// The destination.
    pub parent: Parent,
    /// The route.
    pub route: OutboundRoute,
    /// What the application connected to; `None` of routes for TLS, which the server's name chooses.
    pub dialled: Option<(Option<IpAddr>, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Closed {
    labels: Arc<TcpRouteLabels>,
    error: &'static str,
}

/// What the connections of one route report to.
#[derive(Debug)]
struct Handles {
    opened: Arc<Counter>,
    closed_well: Arc<Counter>,
    closed: Family<Closed, Counter>,
    labels: Arc<TcpRouteLabels>,
}

/// A connection that has taken a route; it is counted as closed when it is dropped.
#[derive(Debug)]
pub struct Flow {
    handles: Arc<Handles>,
    error: &'static str,
}

impl TcpRouteMetrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            opaque: Families::register(registry, "tcp"),
            tls: Families::register(registry, "tls"),
            resolved: Shared::default(),
        }
    }

    /// Counts a connection as opened.
    pub fn open(&self, labels: TcpRouteLabels) -> Flow {
        let families = match labels.dialled {
            Some(_) => &self.opaque,
            None => &self.tls,
        };
        let handles = self.resolved.get_or(labels, |labels| families.handles(labels));
        handles.opened.inc();
        Flow { handles, error: "" }
    }
}

impl Families {
    fn register(registry: &mut Registry, protocol: &str) -> Self {
        let name = |suffix: &str| Name::open(format!("outbound_{protocol}_route_{suffix}"));
        Self {
            opened: registry.counter(name("open_total"), "Connections that have taken a route"),
            closed: registry.counter(name("close_total"), "Connections of a route that have ended"),
        }
    }

    fn handles(&self, labels: Arc<TcpRouteLabels>) -> Handles {
        Handles {
            opened: self.opened.handle((*labels).clone()),
            closed_well: self.closed.handle(Closed {
                labels: labels.clone(),
                error: "",
            }),
            closed: self.closed.clone(),
            labels,
        }
    }
}

impl Flow {
    /// The connection fails for this reason.
    pub fn failed(&mut self, error: &'static str) {
        self.error = error;
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let Self { handles, error } = self;
        if error.is_empty() {
            handles.closed_well.inc();
        } else {
            let labels = handles.labels.clone();
            handles.closed.handle(Closed { labels, error }).inc();
        }
    }
}

impl EncodeLabels for TcpRouteLabels {
    const DOC: &'static str = "parent_*, route_*, (tcp: target_ip, target_port) (tls: hostname)";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.parent.encode(out);
        self.route.encode(out);
        match self.dialled {
            Some((ip, port)) => {
                match ip {
                    Some(ip) => out.label("target_ip", ip),
                    None => out.label("target_ip", ""),
                }
                out.label("target_port", port);
            }
            // Linkerd fills it in only where hostname labels are switched on, which nothing here does.
            None => out.label("hostname", ""),
        }
    }
}

impl EncodeLabels for Closed {
    const DOC: &'static str = "as …_route_open_total, error";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.labels.encode(out);
        out.label("error", self.error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_policy::name::ResourceRef;
    use std::time::{Duration, Instant};

    #[test]
    fn a_connection_is_opened_and_closed_under_its_route() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let metrics = TcpRouteMetrics::register(&mut registry);
        let meta = Arc::new(ResourceRef::of_default("all"));
        let labels = |dialled| TcpRouteLabels {
            parent: Parent(meta.clone()),
            route: OutboundRoute(meta.clone()),
            dialled,
        };
        let open = metrics.open(labels(Some(("10.0.0.1".parse().ok(), 80))));
        metrics.open(labels(None)).failed("forbidden");
        let text = registry.encode(Instant::now());
        let tail = "route_name=\"all\",target_ip=\"10.0.0.1\",target_port=\"80\"} 1\n";
        assert!(text.contains(tail), "{text}");
        let tail = "route_name=\"all\",hostname=\"\",error=\"forbidden\"} 1\n";
        assert!(
            text.contains(tail) && text.contains("outbound_tls_route_close"),
            "{text}"
        );
        assert!(text.contains("target_port=\"80\",error=\"\"} 0\n"), "{text}");
        drop(open);
        let text = registry.encode(Instant::now());
        assert!(text.contains("target_port=\"80\",error=\"\"} 1\n"), "{text}");
    }
}
