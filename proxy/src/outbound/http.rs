//! A request from the application: route it, send it, answer.

use std::sync::Arc;

use http::{Request, Response, Version};
use outrigger_policy::route::{Found, Head};

use crate::error::{self, BoxError, Fault, Kind, Side};
use crate::exchange::Exchange;
use crate::http::body::{Body, Tracked};
use crate::http::closing::Closing;
use crate::http::headers::{self, ORIG_PROTO};
use crate::http::interim::Interims;
use crate::http::respond::Asked;
use crate::http::target;
use crate::outbound::attempt::Way;
use crate::outbound::retry;
use crate::outbound::router::Router;
use crate::outbound::rule::Rule;
use crate::outbound::shared::Outbound;
use crate::outbound::target::Target;

/// A connection on which HTTP is spoken: the application's, or that of a peer proxy through a gateway.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) outbound: Arc<Outbound>,
    target: Arc<Target>,
    pub(crate) closing: Closing,
}

impl Connection {
    pub(crate) fn new(outbound: Arc<Outbound>, target: Arc<Target>, closing: Closing) -> Arc<Self> {
        Arc::new(Self {
            outbound,
            target,
            closing,
        })
    }
}

/// Carries one request from the application to a backend, and the answer back; interim ones go to `interims`.
///
/// An error is one that the client should see as such: an HTTP/2 stream that the server reset is reset here too.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps what it is given by value twice"
)]
pub(crate) fn request(
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
    let outbound = &connection.outbound;
    let asked = asked(outbound, request);
    let permit = match outbound.limit.enter() {
        Ok(permit) => permit,
        Err(fault) => return refuse(connection, Exchange::refused(), fault, asked),
    };
    let mut exchange = Exchange::open(permit);
    let router = connection.target.router();
    match forward(connection, &router, asked, request, &mut exchange, interims).await {
        Ok(response) => Ok(exchange.track(response)),
        Err(fault) => refuse(connection, exchange, fault, asked),
    }
}

/// How a request asks to be answered.
pub(super) fn asked(outbound: &Outbound, request: &Request<Body>) -> Asked {
    Asked {
        version: request.version(),
        grpc: request.version() == Version::HTTP_2 && headers::is_grpc(request.headers()),
        informational: outbound.config.informational_headers,
    }
}

/// Routes the request and sends it.
async fn forward(
    connection: &Connection,
    router: &Router,
    asked: Asked,
    request: &mut Request<Body>,
    exchange: &mut Exchange,
    interims: &Interims,
) -> Result<Response<Body>, Fault> {
    target::check(request, &connection.outbound.config.head_limits)?;
    // Proxies tell each other, applications do not.
    request.headers_mut().remove(ORIG_PROTO);
    let found = route(router, request)?;
    exchange.on(&found.then.handles, request.body_mut());
    let outbound = &connection.outbound;
    let way = Way {
        rule: found.then,
        prefix: found.prefix(),
        asked,
        interims,
        fail_fast: outbound.config.http_fail_fast,
        dialled: connection.target.dialled(),
    };
    retry::send(
        &way,
        request,
        exchange,
        &outbound.memories.retries,
        &outbound.tunnels,
    )
    .await
}

/// Finds the rule that the request takes.
fn route<'a>(router: &'a Router, request: &Request<Body>) -> Result<Found<'a, Arc<Rule>>, Fault> {
    let head = Head {
        host: headers::authority(request),
        method: request.method(),
        path: request.uri().path(),
        query: request.uri().query(),
        headers: request.headers(),
    };
    let routes = router.http(request.version()).ok_or_else(|| {
        Fault::because(
            Kind::Policy,
            Side::Control,
            "the destination takes no HTTP any more: connect again",
        )
    })?;
    routes
        .find(&head)
        .ok_or_else(|| Fault::new(Kind::NoRoute, Side::Client))
}

/// Answers a fault.
pub(super) fn refuse(
    connection: &Connection,
    exchange: Exchange,
    fault: Fault,
    asked: Asked,
) -> Result<Response<Tracked<Exchange>>, BoxError> {
    connection.outbound.report.http_error(&fault);
    let dst = connection.target.dialled();
    let reason = fault.kind.answer().reason;
    tracing::info!(%dst, reason, error = %error::chain(&fault), "Request failed");
    exchange.refuse(
        fault,
        asked,
        &format!("logical service {dst}: "),
        &connection.closing,
    )
}
