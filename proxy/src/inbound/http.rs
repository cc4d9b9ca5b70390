//! A request from the mesh: route it, authorize it, forward it to the application.

use std::sync::{Arc, OnceLock};

use http::{HeaderValue, Request, Response, Version};
use outrigger_policy::authz::ClientTls;
use outrigger_policy::name::Identity;

use crate::error::{self, BoxError, Fault, Kind};
use crate::exchange::{Exchange, Limit};
use crate::http::body::{Body, Tracked};
use crate::http::closing::Closing;
use crate::http::headers::{self, CLIENT_ID, ORIG_PROTO};
use crate::http::interim::Interims;
use crate::http::orig_proto;
use crate::http::pool::Pool;
use crate::http::respond::Asked;
use crate::http::target;
use crate::http::upgrade;
use crate::inbound::admit::admit;
use crate::inbound::arrival::Arrival;
use crate::inbound::report::{Handled, Resolved};
use crate::inbound::shared::Inbound;

/// A connection from the mesh on which HTTP is spoken.
#[derive(Debug)]
pub(crate) struct Connection {
    inbound: Arc<Inbound>,
    arrival: Arrival,
    /// What the application is told about the client.
    client_id: Option<HeaderValue>,
    /// Metrics of this connection's requests, by route and authorization.
    resolved: Resolved,
    /// The application's connections, found by the first request that is admitted: all are for the same address.
    pool: OnceLock<Arc<Pool>>,
    pub(crate) closing: Closing,
}

impl Connection {
    pub(crate) fn new(inbound: Arc<Inbound>, arrival: Arrival) -> Arc<Self> {
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

    /// Counts a request that failed here.
    pub(crate) fn refused(&self, fault: &Fault) {
        let Arrival { dst, port, .. } = &self.arrival;
        self.inbound.report.http_error(*dst, &port.policy.get(), fault);
    }

    /// How a request is to be answered.
    pub(crate) fn asked(&self, request: &Request<Body>) -> Asked {
        Asked {
            version: request.version(),
            grpc: request.version() == Version::HTTP_2 && headers::is_grpc(request.headers()),
            informational: matches!(self.arrival.tls, ClientTls::Terminated(_)),
        }
    }

    /// Requests in flight.
    pub(crate) fn limit(&self) -> &Limit {
        &self.arrival.limit
    }

    /// Who the client proved to be.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.arrival.identity()
    }

    /// Lets a request in, by the policy of the port. `Some`: a filter of its route has answered it.
    pub(crate) fn admit(
        &self,
        request: &mut Request<Body>,
        asked: Asked,
        count: impl FnOnce(&Handled, &mut Body),
    ) -> Result<Option<Response<Body>>, Fault> {
        let (inbound, arrival) = (&self.inbound, &self.arrival);
        admit(inbound, arrival, &self.resolved, request, asked, count)
    }

    /// Answers a fault.
    pub(crate) fn refuse(
        &self,
        exchange: Exchange,
        fault: Fault,
        asked: Asked,
    ) -> Result<Response<Tracked<Exchange>>, BoxError> {
        self.refused(&fault);
        let Arrival { client, dst, .. } = &self.arrival;
        if !is_refusal(fault.kind) {
            let reason = fault.kind.answer().reason;
            tracing::info!(client.addr = %client, %dst, reason, error = %error::chain(&fault), "Request failed");
        }
        let context = format!("client {client}: server: {dst}: ");
        exchange.refuse(fault, asked, &context, &self.closing)
    }

    fn pool(&self) -> Result<&Arc<Pool>, Fault> {
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        let found = self.inbound.local.pool(self.arrival.dst)?;
        Ok(self.pool.get_or_init(|| found))
    }
}

/// Carries one request from the mesh to the application, and the answer back; interim ones go to `interims`.
///
/// An error is one that the client should see as such: an HTTP/2 stream that the application reset is reset here too.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps what it is given by value twice"
)]
pub(super) fn request(
    connection: Arc<Connection>,
    mut request: Request<Body>,
    interims: Interims,
) -> impl Future<Output = Result<Response<Tracked<Exchange>>, BoxError>> {
    async move { carry(&connection, &mut request, &interims).await }
}

async fn carry(
    connection: &Connection,
    request: &mut Request<Body>,
    interims: &Interims,
) -> Result<Response<Tracked<Exchange>>, BoxError> {
    let asked = connection.asked(request);
    let permit = match connection.limit().enter() {
        Ok(permit) => permit,
        Err(fault) => return connection.refuse(Exchange::refused(), fault, asked),
    };
    let mut exchange = Exchange::open(permit);
    match forward(connection, request, &mut exchange, asked, interims).await {
        Ok(response) => Ok(exchange.track(response)),
        Err(fault) => connection.refuse(exchange, fault, asked),
    }
}

/// Lets the request in, and sends it to the application.
async fn forward(
    connection: &Connection,
    request: &mut Request<Body>,
    exchange: &mut Exchange,
    asked: Asked,
    interims: &Interims,
) -> Result<Response<Body>, Fault> {
    let native = request.version();
    let received = receive(connection, request)?;
    let count = |handles: &Handled, body: &mut Body| {
        exchange.on(&handles.route, body);
        exchange.dispatch(&handles.endpoint);
    };
    if let Some(answer) = connection.admit(request, asked, count)? {
        return Ok(answer);
    }
    let tunnel = received.tunnel.then(|| upgrade::take(request));
    let pool = connection.pool()?;
    let sent = pool.send(request, interims).await;
    let mut response = sent.map_err(|failed| failed.fault)?;
    upgrade::settle(tunnel, &mut response, &connection.inbound.tunnels)?;
    leave(&mut response, native, received.carried);
    Ok(response)
}

/// What a request was when it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// HTTP/1 that a peer proxy carried over HTTP/2.
    pub(crate) carried: bool,
    /// It asks for a tunnel.
    pub(crate) tunnel: bool,
}

/// Makes a request what its client sent, refuses one that makes no sense, and says who the client is.
pub(crate) fn receive(connection: &Connection, request: &mut Request<Body>) -> Result<Received, Fault> {
    let meshed = matches!(connection.arrival.tls, ClientTls::Terminated(_));
    let carried = restore(request, meshed);
    target::check(request, &connection.inbound.config.head_limits)?;
    // What concerns the client's connection goes first: it must not take with it what is said next.
    let tunnel = upgrade::clean(request);
    identify(request, connection.client_id.as_ref());
    Ok(Received { carried, tunnel })
}

/// Makes an answer what the client's side expects.
pub(crate) fn leave<B>(response: &mut Response<B>, native: Version, carried: bool) {
    if carried {
        orig_proto::mark(response);
    } else {
        response.headers_mut().remove(ORIG_PROTO);
        if native == Version::HTTP_2 {
            *response.version_mut() = Version::HTTP_2;
        }
    }
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

/// Whether a fault is a refusal, which was logged with its remedy.
fn is_refusal(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::NoRoute | Kind::Unauthorized | Kind::RateLimited | Kind::AmbiguousPath
    )
}
