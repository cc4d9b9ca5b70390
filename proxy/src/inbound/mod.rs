//! A connection from the mesh: terminate its TLS, find out what it speaks, hand it on.

pub mod admit;
pub mod arrival;
pub mod direct;
pub mod http;
pub mod local;
pub mod metrics;
pub mod port;
pub mod report;
pub mod shared;
pub mod tcp;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_policy::authz::ClientTls;
use outrigger_policy::inbound::InboundProtocol;
use outrigger_policy::port::PortPolicy;

use crate::error::{self, Fault, Kind, Side};
use crate::http::{h2, http1};
use crate::inbound::arrival::{Arrival, Passage};
use crate::inbound::direct::Direct;
use crate::inbound::http::Connection;
use crate::inbound::shared::Inbound;
use crate::inbound::tls::Tls;
use crate::net::detect::first::{self, First, Heard, Patience};
use crate::net::detect::http::Preface;
use crate::net::detect::read::Unread;
use crate::net::header::Session;
use crate::net::io::Io;
use crate::net::listen::Accepted;
use crate::telemetry::labels::{NoTls, TlsAccept};

/// One connection, to its end. `Some`: it is for somebody else, and nothing of it has been carried on yet.
pub(crate) async fn connection(
    inbound: &Arc<Inbound>,
    accepted: Accepted,
) -> Result<Option<Box<Passage>>, Fault> {
    let dst = accepted.original_dst;
    if !allowed(inbound, dst) {
        let text = format!(
            "inbound connections are not allowed on this IP address ({})",
            dst.ip()
        );
        return Err(Fault::because(Kind::Unauthorized, Side::Client, text));
    }
    if dst.port() == inbound.config.listen.port() {
        return peer_proxy(inbound, accepted).await;
    }
    redirected(inbound, accepted).await?;
    Ok(None)
}

/// Counts and logs why a connection was closed.
pub(crate) fn closed(inbound: &Inbound, peer: SocketAddr, dst: SocketAddr, fault: &Fault) {
    inbound.report.tcp_error(dst, fault);
    let reason = fault.kind.answer().reason;
    tracing::info!(client.addr = %peer, %dst, reason, error = %error::chain(fault), "Connection closed");
}

/// Whether connections to this address are for this pod at all.
fn allowed(inbound: &Inbound, dst: SocketAddr) -> bool {
    let ips = &inbound.config.allowed_ips;
    ips.is_empty() || ips.contains(dst.ip())
}

/// A connection that a peer proxy opened to this one, for the application or for somebody else.
async fn peer_proxy(inbound: &Arc<Inbound>, accepted: Accepted) -> Result<Option<Box<Passage>>, Fault> {
    match direct::accept(inbound, accepted).await? {
        None => {}
        Some(Direct::Through(passage)) => return Ok(Some(Box::new(passage))),
        Some(Direct::Here(arrival, io, None)) => tcp::forward(inbound, arrival, io).await?,
        Some(Direct::Here(arrival, io, Some(Session::Http1))) => http1(inbound, arrival, io).await?,
        Some(Direct::Here(arrival, io, Some(Session::Http2))) => http2(inbound, arrival, io).await?,
    }
    Ok(None)
}

/// A connection to the application that the kernel redirected here.
async fn redirected(inbound: &Arc<Inbound>, accepted: Accepted) -> Result<(), Fault> {
    let Accepted {
        mut socket,
        peer: client,
        original_dst: dst,
    } = accepted;
    let port = inbound.port(dst.port());
    let policy = port.policy.get();
    let mut arrival = Arrival {
        client,
        dst,
        tls: ClientTls::None,
        labels: TlsAccept::NoIdentity(NoTls::FromRemote),
        port,
        limit: inbound.limits.redirected.clone(),
    };
    if matches!(policy.protocol, InboundProtocol::Opaque) {
        arrival.labels = TlsAccept::NoIdentity(NoTls::PortSkipped);
        let io = Io::plain(socket).metered(inbound.report.accepted(&arrival));
        return tcp::forward(inbound, arrival, io).await;
    }
    match Box::pin(greet(inbound, &arrival, &policy, &mut socket, first::anything)).await? {
        First::Client((), _) => {}
        First::Server(app, ()) | First::Nobody(Some((app, ()))) => {
            let io = Io::plain(socket).metered(inbound.report.accepted(&arrival));
            return Box::pin(tcp::join(inbound, arrival, io, app)).await;
        }
        First::Nobody(None) => {
            return Err(Fault::because(
                Kind::DetectTimeout,
                Side::Client,
                "TLS detection timed out",
            ));
        }
        First::Ended => return Ok(()),
    }
    let io = match Box::pin(tls::terminate(inbound, socket)).await? {
        Some(Tls::Terminated(io, tls, labels)) => {
            (arrival.tls, arrival.labels) = (tls, labels);
            io
        }
        Some(Tls::PassedThrough(socket, sni)) => {
            arrival.labels = TlsAccept::Opaque { sni: sni.into() };
            Io::plain(socket)
        }
        Some(Tls::None(socket)) => Io::plain(socket),
        None => return Ok(()),
    };
    let io = io.metered(inbound.report.accepted(&arrival));
    hand_on(inbound, arrival, io, &policy).await
}

/// Hands a connection on by what its port speaks, or by what it turns out to speak.
async fn hand_on(
    inbound: &Arc<Inbound>,
    arrival: Arrival,
    mut io: Io,
    policy: &Arc<PortPolicy>,
) -> Result<(), Fault> {
    let meshed = matches!(arrival.tls, ClientTls::Terminated(_));
    match &policy.protocol {
        InboundProtocol::Opaque | InboundProtocol::Tls => return tcp::forward(inbound, arrival, io).await,
        InboundProtocol::Http2(_) | InboundProtocol::Grpc(_) => return http2(inbound, arrival, io).await,
        InboundProtocol::Http1(_) if !meshed => return http1(inbound, arrival, io).await,
        InboundProtocol::Http1(_) | InboundProtocol::Invalid(_) | InboundProtocol::Detect { .. } => {}
    }
    let detection = inbound.report.detection(policy, arrival.dst.port());
    let first = Box::pin(greet(inbound, &arrival, policy, &mut io, first::preface)).await;
    if let Ok(first) = &first {
        detection.finish(first);
    }
    match first? {
        First::Client(Preface::Http1, _) => {
            arrival.port.hint(policy).forget();
            http1(inbound, arrival, io).await
        }
        First::Client(Preface::Http2, _) => {
            arrival.port.hint(policy).forget();
            http2(inbound, arrival, io).await
        }
        First::Client(_, None) | First::Nobody(None) => tcp::forward(inbound, arrival, io).await,
        First::Client(_, Some((app, ()))) | First::Nobody(Some((app, ()))) | First::Server(app, ()) => {
            Box::pin(tcp::join(inbound, arrival, io, app)).await
        }
        First::Ended => Ok(()),
    }
}

/// Waits for the first word, the client's or the application's.
async fn greet<T>(
    inbound: &Inbound,
    arrival: &Arrival,
    policy: &Arc<PortPolicy>,
    client: &mut impl Unread,
    decide: impl Fn(&[u8], Heard) -> Option<T>,
) -> Result<First<T, ()>, Fault> {
    let total = match &policy.protocol {
        InboundProtocol::Detect { timeout, .. } => *timeout,
        _ => inbound.config.detect_timeout,
    };
    let patience = Patience {
        silence: inbound.config.server_first_after,
        total,
    };
    let dial = tcp::dial_early(inbound, arrival, policy);
    first::word(client, patience, arrival.port.hint(policy), decide, dial)
        .await
        .map_err(|error| Fault::because(Kind::Reset, Side::Client, error))
}

async fn http1(inbound: &Arc<Inbound>, arrival: Arrival, io: Io) -> Result<(), Fault> {
    let connection = Connection::new(inbound.clone(), arrival);
    let (closing, drain) = (connection.closing.clone(), inbound.drain.clone());
    let limits = inbound.config.head_limits;
    let service = move |request, interims| http::request(connection.clone(), request, interims);
    ended(Box::pin(http1::server::serve(io, service, limits, closing, drain)).await);
    Ok(())
}

async fn http2(inbound: &Arc<Inbound>, arrival: Arrival, io: Io) -> Result<(), Fault> {
    let connection = Connection::new(inbound.clone(), arrival);
    let (closing, drain) = (connection.closing.clone(), inbound.drain.clone());
    let service = move |request, interims| http::request(connection.clone(), request, interims);
    let settings = &inbound.config.http2_server;
    ended(
        Box::pin(h2::server::serve(
            io,
            service,
            settings,
            &inbound.backlog,
            closing,
            drain,
        ))
        .await,
    );
    Ok(())
}

/// A client that goes away in the middle is no fault of anybody's here.
pub(crate) fn ended(served: Result<(), impl std::error::Error + 'static>) {
    if let Err(error) = served {
        tracing::debug!(error = %error::chain(&error), "an HTTP connection from the mesh ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the future: every connection keeps it; what is large and rare, or large and long, is boxed.
    const CONNECTION: usize = 2_450; // measured: 2,336
    /// Bytes of the future: HTTP/2 allocates it for each request, HTTP/1 keeps it with the connection.
    const REQUEST: usize = 1_500; // measured: 1,472

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
