//! What outbound traffic reports, with the labels of a destination or an endpoint filled in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::OutboundPolicy;

use crate::error::{Fault, Kind};
use crate::exchange::detected;
use crate::http::h2::backlog;
use crate::http::pool::metrics::PoolMetrics;
use crate::net::detect::first::First;
use crate::net::detect::http::Preface;
use crate::net::io::Meter;
use crate::outbound::dialled::Dialled;
use crate::outbound::metrics::{self, Detected, HttpError, Metrics, Protocol, TcpError};
use crate::outbound::router::Opaque;
use crate::telemetry::balancer::{BalancerLabels, BalancerMetrics};
use crate::telemetry::handles::Handles;
use crate::telemetry::http::{EndpointLabels, HttpMetrics};
use crate::telemetry::labels::{Backend, Dst, NoTls, OutboundRoute, Parent, Target, TlsConnect};
use crate::telemetry::route::{RouteHandles, RouteMetrics};
use crate::telemetry::tcp_route::{Flow, TcpRouteLabels, TcpRouteMetrics};
use crate::telemetry::transport::{TransportLabels, TransportMetrics};

/// The families that outbound traffic reports to.
#[derive(Clone, Debug)]
pub struct Report {
    /// Those of its own.
    pub metrics: Metrics,
    /// Requests and responses.
    pub http: HttpMetrics,
    /// Routes and their backends.
    pub routes: RouteMetrics,
    /// Routes for what is not HTTP.
    pub tcp_routes: TcpRouteMetrics,
    /// Balancers.
    pub balancers: BalancerMetrics,
    /// Connections.
    pub transport: TransportMetrics,
    /// HTTP/2 connections to servers.
    pub pools: PoolMetrics,
    /// What has come over HTTP/2 and was not read.
    pub unread: backlog::Handles,
}

/// How an endpoint is reached, for the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// By mutual TLS.
    Meshed,
    /// As it is: discovery names no identity.
    Plain,
    /// As it is: it is the application beside this proxy.
    Local,
}

/// What a backend is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Traffic<'a> {
    /// Requests that take a rule of this route.
    Http(&'a Arc<RouteHandles>),
    /// Copies of requests that take a rule of this route.
    Mirror(&'a Arc<RouteHandles>),
    /// Opaque connections.
    Opaque,
    /// Connections with TLS of the application.
    Tls,
}

/// A detection under way.
#[derive(Debug)]
pub(super) struct Detection<'a> {
    metrics: &'a Metrics,
    parent: Parent,
    started: Instant,
}

impl Report {
    /// Counts connections of the application to a destination.
    pub(super) fn accepted(&self, dst: SocketAddr) -> Arc<dyn Meter> {
        self.transport
            .handle(TransportLabels::OutboundAccept { target: Target(dst) })
    }

    /// The metrics of an endpoint's requests, and of its connections.
    pub(super) fn endpoint(
        &self,
        authority: &Arc<str>,
        endpoint: &Endpoint,
        reached: Reached,
    ) -> (Arc<Handles>, Arc<dyn Meter>) {
        let tls = match (reached, &endpoint.tls) {
            (Reached::Meshed, Some(tls)) => TlsConnect::Originated {
                server_id: tls.identity.clone(),
            },
            (Reached::Local, _) => TlsConnect::NoIdentity(NoTls::Loopback),
            _ => TlsConnect::NoIdentity(NoTls::NotProvided),
        };
        let labels = EndpointLabels::Outbound {
            authority: Some(authority.clone()).filter(|authority| !authority.is_empty()),
            target: Target(endpoint.addr),
            tls,
            dst: Dst(endpoint.labels.clone()),
        };
        let transport = self
            .transport
            .handle(TransportLabels::OutboundConnect(Arc::new(labels.clone())));
        (Handles::new(&self.http, labels), transport)
    }

    /// Counts a connection by what the policy says it speaks.
    pub(super) fn protocol(&self, protocol: &'static str, parent: &Arc<ResourceRef>) {
        let labels = Protocol {
            protocol,
            parent: Parent(parent.clone()),
        };
        self.metrics.protocol_connections.handle(labels).inc();
    }

    /// Times a detection.
    pub(super) fn detection(&self, parent: &Arc<ResourceRef>) -> Detection<'_> {
        Detection {
            metrics: &self.metrics,
            parent: Parent(parent.clone()),
            started: Instant::now(),
        }
    }

    pub(super) fn http_error(&self, fault: &Fault) {
        self.metrics
            .http_errors
            .handle(HttpError {
                error: metrics::error_label(fault.kind),
            })
            .inc();
    }

    pub(super) fn tcp_error(&self, dst: SocketAddr, fault: &Fault) {
        let labels = TcpError {
            target: Target(dst),
            error: metrics::error_label(fault.kind),
        };
        self.metrics.tcp_errors.handle(labels).inc();
    }
}

impl Report {
    /// Counts a connection that takes a route for what is not HTTP: by what was dialled, unless the server's name has
    /// chosen the route.
    pub(super) fn flow(&self, route: &Opaque, dialled: Option<&Dialled>) -> Flow {
        self.tcp_routes.open(TcpRouteLabels {
            parent: Parent(route.parent.clone()),
            route: OutboundRoute(route.meta.clone()),
            dialled: dialled.map(|dialled| match dialled {
                Dialled::Addr(addr) => (Some(addr.ip()), addr.port()),
                Dialled::Name(name) => (None, name.port.get()),
            }),
        })
    }
}

/// Says of a connection's flow why it fails, if it does.
pub(super) fn checked<T>(flow: &mut Flow, result: Result<T, Fault>) -> Result<T, Fault> {
    if let Err(fault) = &result {
        flow.failed(match fault.kind {
            Kind::Unauthorized => "forbidden",
            Kind::NoBackend | Kind::NoDispatcher => "invalid_backend",
            Kind::Policy | Kind::NoRoute => "invalid_policy",
            _ => "unexpected",
        });
    }
    result
}

impl Traffic<'_> {
    /// The labels of the balancer of a backend, over the endpoints of `path`; that of a mirror has none.
    pub(super) fn balancer(
        self,
        policy: &OutboundPolicy,
        backend: &Arc<ResourceRef>,
        path: &Arc<str>,
    ) -> Option<BalancerLabels> {
        let (parent, backend) = (Parent(policy.parent.clone()), Backend(backend.clone()));
        let concrete = path.clone();
        match self {
            Self::Http(_) => Some(BalancerLabels::Http { parent, backend }),
            Self::Mirror(_) => None,
            Self::Opaque => Some(BalancerLabels::Tcp {
                parent,
                backend,
                logical: policy.authority.clone(),
                concrete,
            }),
            Self::Tls => Some(BalancerLabels::Tls { concrete }),
        }
    }
}

impl Detection<'_> {
    /// Records what came of it.
    pub(super) fn finish<K>(self, first: &First<Preface, K>) {
        let Some(result) = detected(first) else { return };
        let seconds = self.started.elapsed().as_secs_f64();
        self.metrics
            .detect_seconds
            .handle(self.parent.clone())
            .observe(seconds);
        self.metrics
            .detect_results
            .handle(Detected {
                result,
                parent: self.parent,
            })
            .inc();
    }
}
