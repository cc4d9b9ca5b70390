//! A request from the application: route it, send it, answer.

use std::sync::Arc;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use outrigger_policy::route::Head;

use crate::balance::Balancer;
use crate::error::{self, BoxError, Fault, Kind, Side};
use crate::exchange::{self, Exchange};
use crate::http::body::{Body, Tracked};
use crate::http::headers;
use crate::http::respond::{self, Asked};
use crate::http::server::Closing;
use crate::outbound::attempt;
use crate::outbound::router::{Router, Target};
use crate::outbound::shared::Outbound;

/// A connection of the application on which HTTP is spoken.
#[derive(Debug)]
pub(super) struct Connection {
    outbound: Arc<Outbound>,
    target: Arc<Target>,
    pub(super) closing: Closing,
}

impl Connection {
    pub(super) fn new(outbound: Arc<Outbound>, target: Arc<Target>) -> Arc<Self> {
        Arc::new(Self {
            outbound,
            target,
            closing: Closing::default(),
        })
    }
}

/// Carries one request from the application to a backend, and the answer back.
///
/// An error is one that the client should see as such: an HTTP/2 stream that the server reset is reset here too.
pub(super) async fn request(
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Tracked<Exchange>>, BoxError> {
    let outbound = &connection.outbound;
    let asked = Asked {
        version: request.version(),
        grpc: request.version() == Version::HTTP_2 && headers::is_grpc(request.headers()),
        informational: outbound.config.informational_headers,
    };
    let permit = match outbound.limit.enter() {
        Ok(permit) => permit,
        Err(fault) => return refuse(&connection, Exchange::refused(), fault, asked),
    };
    let mut exchange = Exchange::open(permit);
    let router = connection.target.router();
    let mut request = request.map(Body::from);
    match forward(outbound, &router, &mut request, &mut exchange).await {
        Ok(response) => Ok(exchange.track(response)),
        Err(fault) => refuse(&connection, exchange, fault, asked),
    }
}

/// Routes the request and sends it.
async fn forward(
    outbound: &Outbound,
    router: &Router,
    request: &mut Request<Body>,
    exchange: &mut Exchange,
) -> Result<Response<Body>, Fault> {
    let balancer = route(router, request)?;
    attempt::send(balancer, request, exchange, &outbound.drain).await
}

/// Finds the balancer of the route that the request takes.
fn route<'a>(router: &'a Router, request: &Request<Body>) -> Result<&'a Balancer, Fault> {
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
    let found = routes
        .find(&head)
        .ok_or_else(|| Fault::new(Kind::NoRoute, Side::Client))?;
    found.then.balancer()
}

/// Answers a fault, unless the client's protocol has a better way to say it.
fn refuse(
    connection: &Connection,
    exchange: Exchange,
    mut fault: Fault,
    asked: Asked,
) -> Result<Response<Tracked<Exchange>>, BoxError> {
    let outbound = &connection.outbound;
    outbound.report.http_error(&fault);
    let reset = fault
        .source
        .as_deref()
        .and_then(|source| exchange::h2_reason(source));
    if asked.version == Version::HTTP_2
        && reset.is_some()
        && let Some(source) = fault.source.take()
    {
        return Err(source);
    }
    let answer = fault.kind.answer();
    let dst = connection.target.dialled();
    tracing::info!(%dst, reason = answer.reason, error = %error::chain(&fault), "Request failed");
    if answer.close && asked.version == Version::HTTP_2 {
        connection.closing.ask();
    }
    let context = format!("logical service {dst}: ");
    Ok(exchange.track(respond::to_fault(&fault, &context, asked)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the future: HTTP/2 allocates it for each request.
    const BUDGET: usize = 1_700; // measured: 1,568

    fn future_size<A, B, F>(_function: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_is_small() {
        let size = future_size(request);
        assert!(size <= BUDGET, "{size} bytes");
    }
}
