//! A request from the mesh: route it, authorize it, forward it to the application.

use std::sync::{Arc, OnceLock};

use http::{HeaderValue, Request, Response, Version};
use outrigger_policy::authz::{ClientTls, Deny, authorize};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::route::{Head, RouteTable};

use crate::error::{self, BoxError, Fault, Kind, Side};
use crate::exchange::Exchange;
use crate::http::body::{Body, Tracked};
use crate::http::closing::Closing;
use crate::http::headers::{self, CLIENT_ID, ORIG_PROTO};
use crate::http::orig_proto;
use crate::http::pool::Pool;
use crate::http::respond::Asked;
use crate::http::target;
use crate::http::upgrade;
use crate::inbound::arrival::Arrival;
use crate::inbound::report::Resolved;
use crate::inbound::shared::Inbound;

/// A connection from the mesh on which HTTP is spoken.
#[derive(Debug)]
pub(super) struct Connection {
    inbound: Arc<Inbound>,
    arrival: Arrival,
    /// What the application is told about the client.
    client_id: Option<HeaderValue>,
    /// Metrics of this connection's requests, by route and authorization.
    resolved: Resolved,
    /// The application's connections, found by the first request that is admitted: all are for the same address.
    pool: OnceLock<Arc<Pool>>,
    pub(super) closing: Closing,
}

impl Connection {
    pub(super) fn new(inbound: Arc<Inbound>, arrival: Arrival) -> Arc<Self> {
        let client_id = match &arrival.tls {
            ClientTls::Terminated(Some(id)) => HeaderValue::from_str(id.as_str()).ok(),
            ClientTls::Terminated(None) | ClientTls::None => None,
        };
        let resolved = Resolved::default();
        Arc::new(Self {
            inbound,
            arrival,
            client_id,
            resolved,
            pool: OnceLock::new(),
            closing: Closing::default(),
        })
    }

    /// Counts a request that was refused before it could become one.
    pub(super) fn refused(&self, fault: &Fault) {
        let Arrival { dst, port, .. } = &self.arrival;
        self.inbound.report.http_error(*dst, &port.policy.get(), fault);
    }

    fn pool(&self) -> Result<&Arc<Pool>, Fault> {
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        let found = self.inbound.local.pool(self.arrival.dst)?;
        Ok(self.pool.get_or_init(|| found))
    }
}

/// Carries one request from the mesh to the application, and the answer back.
///
/// An error is one that the client should see as such: an HTTP/2 stream that the application reset is reset here too.
pub(super) async fn request(
    connection: Arc<Connection>,
    mut request: Request<Body>,
) -> Result<Response<Tracked<Exchange>>, BoxError> {
    let asked = Asked {
        version: request.version(),
        grpc: request.version() == Version::HTTP_2 && headers::is_grpc(request.headers()),
        informational: matches!(connection.arrival.tls, ClientTls::Terminated(_)),
    };
    let permit = match connection.inbound.limit.enter() {
        Ok(permit) => permit,
        Err(fault) => return refuse(&connection, Exchange::refused(), fault, asked),
    };
    let mut exchange = Exchange::open(permit);
    match forward(&connection, &mut request, &mut exchange).await {
        Ok(response) => Ok(exchange.track(response)),
        Err(fault) => refuse(&connection, exchange, fault, asked),
    }
}

/// Routes the request, authorizes it, and sends it to the application.
async fn forward(
    connection: &Connection,
    request: &mut Request<Body>,
    exchange: &mut Exchange,
) -> Result<Response<Body>, Fault> {
    let native = request.version();
    let carried = restore(
        request,
        matches!(connection.arrival.tls, ClientTls::Terminated(_)),
    );
    target::check(request, &connection.inbound.config.head_limits)?;
    // What concerns the client's connection goes first: it must not take with it what is said next.
    let tunnel = upgrade::prepare(request);
    identify(request, connection.client_id.as_ref());
    admit(connection, request, exchange)?;
    let pool = connection.pool()?;
    let mut response = pool.send(request).await.map_err(|failed| failed.fault)?;
    upgrade::settle(tunnel, &mut response, &connection.inbound.drain)?;
    if carried {
        orig_proto::mark(&mut response);
    } else {
        response.headers_mut().remove(ORIG_PROTO);
        if native == Version::HTTP_2 {
            *response.version_mut() = Version::HTTP_2;
        }
    }
    Ok(response)
}

/// Makes HTTP/1 that a peer proxy carried over HTTP/2 HTTP/1 again; nobody else is believed to have done so.
fn restore(request: &mut Request<Body>, meshed: bool) -> bool {
    if meshed && request.version() == Version::HTTP_2 {
        return orig_proto::downgrade(request).is_some();
    }
    request.headers_mut().remove(ORIG_PROTO);
    false
}

/// Tells the application who the client is; what a client says of itself is never believed.
fn identify(request: &mut Request<Body>, client_id: Option<&HeaderValue>) {
    match client_id {
        Some(id) => drop(request.headers_mut().insert(CLIENT_ID, id.clone())),
        None => drop(request.headers_mut().remove(CLIENT_ID)),
    }
}

/// Finds the request's route, and whether the client may take it, by the policy as it is now.
fn admit(connection: &Connection, request: &Request<Body>, exchange: &mut Exchange) -> Result<(), Fault> {
    let (arrival, report) = (&connection.arrival, &connection.inbound.report);
    let policy = arrival.port.policy.get();
    let head = Head {
        host: headers::authority(request),
        method: request.method(),
        path: request.uri().path(),
        query: request.uri().query(),
        headers: request.headers(),
    };
    let Some(found) = routes(&policy)?.find(&head) else {
        report.route_not_found(arrival, &policy);
        return Err(Fault::new(Kind::NoRoute, Side::Client));
    };
    match authorize(&found.then.authorizations, arrival.client.ip(), &arrival.tls) {
        Ok(permit) => {
            let handles = connection
                .resolved
                .allowed(report, arrival, &policy, found.meta, permit.by);
            exchange.dispatch(&handles);
            if permit.is_audit() {
                let (client, dst) = (arrival.client, arrival.dst);
                tracing::info!(client.addr = %client, %dst, tls = ?arrival.tls, "Request allowed: the policy only audits");
            }
        }
        Err(Deny) => {
            report.http_denied(arrival, &policy, found.meta);
            return Err(Fault::new(Kind::Unauthorized, Side::Client));
        }
    }
    match policy.unenforced().or_else(|| found.then.unenforced(found.meta)) {
        Some(why) => Err(Fault::because(Kind::Policy, Side::Control, why.to_string())),
        None => Ok(()),
    }
}

/// The routes that a port's policy has for requests.
fn routes(policy: &InboundPolicy) -> Result<&RouteTable<InboundRule>, Fault> {
    match &policy.protocol {
        InboundProtocol::Detect { routes, .. }
        | InboundProtocol::Http1(routes)
        | InboundProtocol::Http2(routes)
        | InboundProtocol::Grpc(routes) => Ok(routes),
        InboundProtocol::Invalid(why) => Err(Fault::because(
            Kind::Policy,
            Side::Control,
            format!("invalid server policy: {why}"),
        )),
        InboundProtocol::Opaque | InboundProtocol::Tls => {
            let text = "the port takes no HTTP: the client's side must call it opaque too (config.linkerd.io/opaque-ports)";
            Err(Fault::because(Kind::Policy, Side::Control, text))
        }
    }
}

/// Answers a fault.
fn refuse(
    connection: &Connection,
    exchange: Exchange,
    fault: Fault,
    asked: Asked,
) -> Result<Response<Tracked<Exchange>>, BoxError> {
    let Arrival {
        client, dst, port, ..
    } = &connection.arrival;
    connection
        .inbound
        .report
        .http_error(*dst, &port.policy.get(), &fault);
    let reason = fault.kind.answer().reason;
    tracing::info!(client.addr = %client, %dst, reason, error = %error::chain(&fault), "Request failed");
    exchange.refuse(
        fault,
        asked,
        &format!("client {client}: server: {dst}: "),
        &connection.closing,
    )
}
