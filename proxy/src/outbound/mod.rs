//! A connection from the application: where to, what protocol.

pub mod again;
pub mod attempt;
pub mod backends;
pub mod builder;
pub mod dialled;
pub mod dispatch;
pub mod http;
pub mod ingress;
pub mod kept;
pub mod memory;
pub mod metrics;
pub mod mirror;
pub mod report;
pub mod retry;
pub mod router;
pub mod rule;
pub mod shared;
pub mod target;
pub mod tcp;
pub mod unchanged;

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::Either;
use tokio::net::TcpListener;

use crate::control::DiscoveryError;
use crate::error::{self, BoxError, Fault, Kind, Side};
use crate::exchange::Exchange;
use crate::http::body::{Body, Tracked};
use crate::http::closing::Closing;
use crate::http::interim::Interims;
use crate::http::{h2, http1};
use crate::net::detect::first::{self, First, Patience};
use crate::net::detect::http::Preface;
use crate::net::io::{Io, Socket};
use crate::net::listen::{self, Accepted, OriginalDst};
use crate::outbound::dialled::Dialled;
use crate::outbound::http::Connection;
use crate::outbound::router::{Opaque, Protocol};
use crate::outbound::shared::Outbound;
use crate::outbound::target::Target;

/// Accepts connections from the application until draining starts.
pub async fn serve(outbound: Arc<Outbound>, listener: TcpListener, original_dst: OriginalDst) {
    let drain = outbound.drain.clone();
    let room = outbound.rooms.accepted.clone();
    let serve = move |accepted| connection(outbound.clone(), accepted);
    listen::accept_loop(listener, room, original_dst, drain, serve).await;
}

/// One connection, to its end.
async fn connection(outbound: Arc<Outbound>, accepted: Accepted) {
    let Accepted {
        socket,
        peer,
        original_dst,
    } = accepted;
    if let Err(fault) = dispatch(&outbound, socket, original_dst).await {
        outbound.report.tcp_error(original_dst, &fault);
        let reason = fault.kind.answer().reason;
        tracing::info!(client.addr = %peer, dst = %original_dst, reason, error = %error::chain(&fault), "Connection closed");
    }
}

async fn dispatch(outbound: &Arc<Outbound>, socket: Socket, dst: SocketAddr) -> Result<(), Fault> {
    let target = outbound
        .targets
        .get_or_try(&dst, || target(outbound.clone(), dst))
        .await
        .map_err(|error| Fault::because(Kind::Discovery, Side::Control, error))?;
    let (router, accepted) = (target.router(), outbound.report.accepted(dst));
    outbound.report.protocol(router.protocol.label(), &router.parent);
    if let Protocol::Tls(routes) = &router.protocol {
        return tcp::tls(socket, accepted, routes, &outbound.report, &outbound.config).await;
    }
    let io = Io::plain(socket).metered(accepted);
    match &router.protocol {
        Protocol::Http1(_) => http1(outbound, target, io).await,
        Protocol::Http2(_) => http2(outbound, target, io).await,
        // In ingress mode what is HTTP may name another destination.
        Protocol::Opaque(route) if !outbound.config.ingress => {
            let flow = outbound.report.flow(route, Some(target.dialled()));
            Box::pin(tcp::opaque(io, route, flow, &outbound.config)).await
        }
        Protocol::Detect { opaque: route, .. } | Protocol::Opaque(route) => {
            detect(outbound, target.clone(), io, route).await
        }
        Protocol::Tls(_) => Ok(()),
        Protocol::Invalid(why) => Err(Fault::because(Kind::Policy, Side::Control, why.to_string())),
    }
}

async fn target(outbound: Arc<Outbound>, dst: SocketAddr) -> Result<Target, DiscoveryError> {
    let policy = outbound.discovery.outbound(dst).await?;
    Ok(Target::new(Dialled::Addr(dst), policy, &outbound.builder))
}

/// Finds out what is spoken. A client that says nothing may be waiting for a server that speaks first.
async fn detect(
    outbound: &Arc<Outbound>,
    target: Arc<Target>,
    mut io: Io,
    route: &Opaque,
) -> Result<(), Fault> {
    let (hint, report) = (target.hint(), &outbound.report);
    let detection = report.detection(&target.router().parent);
    let patience = Patience {
        silence: outbound.config.server_first_after,
        total: outbound.config.detect_timeout,
    };
    let first = Box::pin(first::word(
        &mut io,
        patience,
        hint,
        first::preface,
        tcp::dial(route),
    ))
    .await
    .map_err(|error| Fault::because(Kind::Reset, Side::Client, error))?;
    detection.finish(&first);
    match first {
        First::Client(Preface::Http1, _) => {
            hint.forget();
            http1(outbound, target, io).await
        }
        First::Client(Preface::Http2, _) => {
            hint.forget();
            http2(outbound, target, io).await
        }
        // The policy may have changed while nobody spoke.
        First::Client(_, None) | First::Nobody(None) => {
            let router = target.router();
            let route = router.opaque()?;
            let flow = report.flow(route, Some(target.dialled()));
            Box::pin(tcp::opaque(io, route, flow, &outbound.config)).await
        }
        First::Client(_, Some((server, picked)))
        | First::Nobody(Some((server, picked)))
        | First::Server(server, picked) => {
            let flow = tcp::flow(target.router().opaque()?, report, target.dialled())?;
            Box::pin(tcp::join(&mut io, server, picked, flow, &outbound.config)).await
        }
        First::Ended => Ok(()),
    }
}

/// Serves HTTP/1 on a connection from the application.
pub async fn http1(outbound: &Arc<Outbound>, target: Arc<Target>, io: Io) -> Result<(), Fault> {
    let (closing, drain) = (Closing::default(), outbound.drain.clone());
    let connection = Connection::new(outbound.clone(), target, closing.clone());
    let limits = outbound.config.head_limits;
    let service = move |request, interims| request_of(&connection, request, interims);
    ended(Box::pin(http1::server::serve(io, service, limits, closing, drain)).await);
    Ok(())
}

/// Serves HTTP/2 on a connection from the application.
pub async fn http2(outbound: &Arc<Outbound>, target: Arc<Target>, io: Io) -> Result<(), Fault> {
    let (closing, drain) = (Closing::default(), outbound.drain.clone());
    let connection = Connection::new(outbound.clone(), target, closing.clone());
    let service = move |request, interims| request_of(&connection, request, interims);
    let settings = &outbound.config.http2_server;
    let backlog = outbound.builder.backlog();
    let served = Box::pin(h2::server::serve(io, service, settings, backlog, closing, drain)).await;
    ended(served);
    Ok(())
}

/// One request. In ingress mode it is boxed, so that others keep no room for it.
fn request_of(
    connection: &Arc<Connection>,
    request: ::http::Request<Body>,
    interims: Interims,
) -> impl Future<Output = Result<::http::Response<Tracked<Exchange>>, BoxError>> + use<> {
    let connection = connection.clone();
    match connection.outbound.config.ingress {
        false => Either::Left(http::request(connection, request, interims)),
        true => Either::Right(Box::pin(ingress::request(connection, request, interims))),
    }
}

/// A client that goes away in the middle is no fault of anybody's here.
fn ended(served: Result<(), impl std::error::Error + 'static>) {
    if let Err(error) = served {
        tracing::debug!(error = %error::chain(&error), "an HTTP connection from the application ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the future: every connection keeps it; what is large and rare, or large and long, is boxed.
    const CONNECTION: usize = 1_400; // measured: 1,304
    /// Bytes of the future: HTTP/2 allocates it for each request, HTTP/1 keeps it with the connection.
    const REQUEST: usize = 2_750; // measured: 2,720

    fn future_size<A, B, F>(_function: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_is_small() {
        let size = future_size(connection);
        assert!(size <= CONNECTION, "{size} bytes");
    }

    #[test]
    fn a_request_is_small() {
        let size =
            future_size(|(connection, request), interims| http::request(connection, request, interims));
        assert!(size <= REQUEST, "{size} bytes");
    }
}
