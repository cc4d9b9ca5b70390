//! What outbound traffic reports, with the labels of a destination or an endpoint filled in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::name::ResourceRef;

use crate::error::Fault;
use crate::exchange::detected;
use crate::http::pool::metrics::PoolMetrics;
use crate::net::detect::first::First;
use crate::net::detect::http::Preface;
use crate::net::io::Meter;
use crate::outbound::metrics::{self, Detected, HttpError, Metrics, Protocol, TcpError};
use crate::telemetry::handles::Handles;
use crate::telemetry::http::{EndpointLabels, HttpMetrics};
use crate::telemetry::labels::{Dst, NoTls, Parent, Target, TlsConnect};
use crate::telemetry::route::RouteMetrics;
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
    /// Connections.
    pub transport: TransportMetrics,
    /// HTTP/2 connections to servers.
    pub pools: PoolMetrics,
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
