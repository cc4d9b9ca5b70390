//! What inbound traffic reports, with the labels of a connection filled in.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use outrigger_policy::inbound::{InboundPolicy, InboundProtocol};
use outrigger_policy::name::{Identity, ResourceRef};
use outrigger_policy::rate_limit::Scope;

use crate::error::{self, Fault, Kind};
use crate::exchange::detected;
use crate::http::h2::backlog;
use crate::http::pool::metrics::PoolMetrics;
use crate::inbound::arrival::Arrival;
use crate::inbound::metrics::{
    self, Client, Detected, HttpAllow, HttpDeny, HttpError, Metrics, RateLimited, TcpAllow, TcpError,
};
use crate::net::detect::first::First;
use crate::net::detect::http::Preface;
use crate::net::header::{Session, TransportHeader};
use crate::net::io::Meter;
use crate::telemetry::handles::Handles;
use crate::telemetry::http::{EndpointLabels, HttpMetrics};
use crate::telemetry::inbound_route::InboundRouteMetrics;
use crate::telemetry::labels::{Authz, Route, Srv, Target};
use crate::telemetry::metric::Counter;
use crate::telemetry::refusals::{Refusal, Refusals};
use crate::telemetry::route::RouteHandles;
use crate::telemetry::transport::{TransportLabels, TransportMetrics};

/// The families that inbound traffic reports to.
#[derive(Clone, Debug)]
pub struct Report {
    /// Those of its own.
    pub metrics: Metrics,
    /// What was not let in.
    pub refusals: Refusals,
    /// Requests and responses.
    pub http: HttpMetrics,
    /// Routes.
    pub routes: InboundRouteMetrics,
    /// Connections.
    pub transport: TransportMetrics,
    /// HTTP/2 connections to servers.
    pub pools: PoolMetrics,
    /// What has come over HTTP/2 and was not read.
    pub unread: backlog::Handles,
}

/// Pairs of route and authorization remembered by a connection.
const MAX_RESOLVED: usize = 32;

/// The metrics that a connection's requests have needed so far, by route and authorization.
#[derive(Debug, Default)]
pub(super) struct Resolved(Mutex<Vec<Allowed>>);

#[derive(Debug)]
struct Allowed {
    server: Arc<ResourceRef>,
    route: Arc<ResourceRef>,
    authz: Arc<ResourceRef>,
    allow: Arc<Counter>,
    handles: Handled,
}

/// What a request that was let in reports to.
#[derive(Clone, Debug)]
pub(crate) struct Handled {
    /// With its client, route and authorization.
    pub(super) endpoint: Arc<Handles>,
    /// With its route only.
    pub(super) route: Arc<RouteHandles>,
}

/// A detection under way.
#[derive(Debug)]
pub(super) struct Detection<'a> {
    metrics: &'a Metrics,
    srv: Srv,
    started: Instant,
}

impl Report {
    /// Counts a client's connection.
    pub(super) fn accepted(&self, arrival: &Arrival) -> Arc<dyn Meter> {
        let client = client(arrival, &arrival.port.policy.get());
        let labels = TransportLabels::InboundAccept {
            target: client.target,
            tls: client.tls,
            srv: client.srv,
        };
        self.transport.handle(labels)
    }

    /// Counts connections to the application.
    pub(super) fn connected(&self) -> Arc<dyn Meter> {
        self.transport.handle(TransportLabels::InboundConnect)
    }

    /// Times a detection.
    pub(super) fn detection(&self, policy: &InboundPolicy, port: u16) -> Detection<'_> {
        Detection {
            metrics: &self.metrics,
            srv: srv(policy, port),
            started: Instant::now(),
        }
    }

    pub(super) fn transport_header(&self, header: &TransportHeader, client_id: &Identity) {
        let session_protocol = match header.session {
            Some(Session::Http1) => "http/1",
            Some(Session::Http2) => "http/2",
            None => "",
        };
        let labels = metrics::TransportHeader {
            session_protocol,
            target_port: header.port.get(),
            target_name: header
                .name
                .as_ref()
                .map_or_else(|| "".into(), |name| name.as_str().into()),
            client_id: Some(client_id.clone()),
        };
        self.metrics.transport_header.handle(labels).inc();
    }

    pub(super) fn tcp_allowed(&self, arrival: &Arrival, policy: &InboundPolicy, by: &Arc<ResourceRef>) {
        let labels = TcpAllow {
            client: client(arrival, policy),
            authz: Authz(by.clone()),
        };
        self.metrics.tcp_allow.handle(labels).inc();
    }

    pub(super) fn tcp_denied(&self, arrival: &Arrival, policy: &InboundPolicy) {
        self.metrics.tcp_deny.handle(client(arrival, policy)).inc();
    }

    pub(super) fn tcp_terminated(&self, arrival: &Arrival, policy: &InboundPolicy) {
        self.metrics.tcp_terminate.handle(client(arrival, policy)).inc();
    }

    pub(super) fn tcp_error(&self, dst: SocketAddr, fault: &Fault) {
        let error = match fault.kind {
            Kind::DetectTimeout => Some("tls detection timeout"),
            kind => metrics::error_label(kind),
        };
        if let Some(error) = error {
            self.metrics
                .tcp_errors
                .handle(TcpError {
                    error,
                    target: Target(dst),
                })
                .inc();
        }
    }

    pub(super) fn http_error(&self, dst: SocketAddr, policy: &InboundPolicy, fault: &Fault) {
        if let Some(error) = metrics::error_label(fault.kind) {
            let labels = HttpError {
                error,
                target: Target(dst),
                srv: srv(policy, dst.port()),
            };
            self.metrics.http_errors.handle(labels).inc();
        }
    }

    pub(super) fn route_not_found(&self, arrival: &Arrival, policy: &InboundPolicy) {
        self.metrics
            .http_route_not_found
            .handle(client(arrival, policy))
            .inc();
    }

    pub(super) fn http_denied(&self, arrival: &Arrival, policy: &InboundPolicy, route: &Arc<ResourceRef>) {
        let labels = HttpDeny {
            client: client(arrival, policy),
            route: Route(route.clone()),
        };
        self.metrics.http_deny.handle(labels).inc();
    }

    /// Remembers and logs what a policy did not let in, and what would have to change for that.
    pub(super) fn refused(
        &self,
        arrival: &Arrival,
        policy: &InboundPolicy,
        route: Option<&Arc<ResourceRef>>,
        fault: &Fault,
        remedy: String,
    ) {
        let refusal = Refusal {
            time: SystemTime::now(),
            client: arrival.client,
            identity: arrival.identity().cloned(),
            dst: arrival.dst,
            server: policy.meta.clone(),
            route: route.cloned(),
            reason: fault.kind.answer().reason,
            remedy,
        };
        let (client, port) = (refusal.client, refusal.dst.port());
        let identity = refusal.identity.as_ref().map_or("", Identity::as_str);
        let route = refusal.route.as_deref().map(tracing::field::display);
        let Refusal {
            server,
            reason,
            remedy,
            ..
        } = &refusal;
        tracing::info!(%client, identity, port, %server, route, reason, remedy, error = %error::chain(fault), "Refused");
        self.refusals.push(refusal);
    }

    pub(super) fn rate_limited(
        &self,
        arrival: &Arrival,
        policy: &InboundPolicy,
        limit: &Arc<ResourceRef>,
        scope: Scope,
    ) {
        let labels = RateLimited {
            client: client(arrival, policy),
            limit: limit.clone(),
            total: scope == Scope::Total,
        };
        self.metrics.http_rate_limited.handle(labels).inc();
    }

    fn resolve(
        &self,
        arrival: &Arrival,
        policy: &InboundPolicy,
        route: &Arc<ResourceRef>,
        authz: &Arc<ResourceRef>,
    ) -> Allowed {
        let grpc = matches!(policy.protocol, InboundProtocol::Grpc(_));
        let client = client(arrival, policy);
        let endpoint = EndpointLabels::Inbound {
            target: client.target,
            tls: client.tls.clone(),
            srv: client.srv.clone(),
            route: Route(route.clone()),
            authz: Authz(authz.clone()),
        };
        let allow = HttpAllow {
            client,
            route: Route(route.clone()),
            authz: Authz(authz.clone()),
        };
        Allowed {
            server: policy.meta.clone(),
            route: route.clone(),
            authz: authz.clone(),
            allow: self.metrics.http_allow.handle(allow),
            handles: Handled {
                endpoint: Handles::new(&self.http, endpoint),
                route: self.routes.route(srv(policy, arrival.dst.port()), route, grpc),
            },
        }
    }
}

impl Resolved {
    /// Counts a request that was admitted, and gives the metrics for it.
    pub(super) fn allowed(
        &self,
        report: &Report,
        arrival: &Arrival,
        policy: &InboundPolicy,
        route: &Arc<ResourceRef>,
        authz: &Arc<ResourceRef>,
    ) -> Handled {
        let same = |known: &&Allowed| {
            Arc::ptr_eq(&known.route, route)
                && Arc::ptr_eq(&known.authz, authz)
                && Arc::ptr_eq(&known.server, &policy.meta)
        };
        let mut resolved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = resolved.iter().find(same) {
            known.allow.inc();
            return known.handles.clone();
        }
        if resolved.len() >= MAX_RESOLVED {
            resolved.clear();
        }
        let new = report.resolve(arrival, policy, route, authz);
        new.allow.inc();
        let handles = new.handles.clone();
        resolved.push(new);
        handles
    }
}

impl Detection<'_> {
    /// Records what came of it.
    pub(super) fn finish<K>(self, first: &First<Preface, K>) {
        let Some(result) = detected(first) else { return };
        let seconds = self.started.elapsed().as_secs_f64();
        self.metrics
            .detect_seconds
            .handle(self.srv.clone())
            .observe(seconds);
        self.metrics
            .detect_results
            .handle(Detected {
                result,
                srv: self.srv,
            })
            .inc();
    }
}

fn client(arrival: &Arrival, policy: &InboundPolicy) -> Client {
    Client {
        target: Target(arrival.dst),
        srv: srv(policy, arrival.dst.port()),
        tls: arrival.labels.clone(),
    }
}

fn srv(policy: &InboundPolicy, port: u16) -> Srv {
    Srv {
        meta: policy.meta.clone(),
        port,
    }
}
