//! One connection to the admin port: plain or mesh TLS, HTTP/1 or HTTP/2.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outrigger_policy::authz::ClientTls;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::admin::access::Peer;
use crate::admin::pages::Admin;
use crate::drain::Drain;
use crate::live::Live;
use crate::net::detect::http::Preface;
use crate::net::detect::tls::Hello;
use crate::net::detect::{self, Seen};
use crate::net::io::{Io, Socket};
use crate::tls::{self, Credentials};

/// How long each step may take: the ClientHello, the handshake, the beginning of a request.
const DETECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a request's head may take, and a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// After this, a connection is asked to end: nobody keeps the others out for ever.
const MAX_LIFETIME: Duration = Duration::from_secs(600);
/// How long a connection that was asked to end may take for it.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 streams per connection.
const MAX_STREAMS: u32 = 16;

/// Serves one connection to its end.
pub(super) async fn serve(
    tcp: TcpStream,
    peer: SocketAddr,
    admin: Arc<Admin>,
    credentials: Live<Credentials>,
    mut drain: Drain,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let opened = tokio::select! {
        opened = open(tcp, peer, &credentials) => opened?,
        () = drain.started() => return Ok(()),
    };
    let Some((io, version, tls)) = opened else {
        return Ok(());
    };
    let peer = Arc::new(Peer { addr: peer, tls });
    let service = service_fn(move |request: Request<Incoming>| {
        let (admin, peer) = (admin.clone(), peer.clone());
        async move { Ok::<_, Infallible>(admin.answer(request, &peer).await) }
    });
    let io = TokioIo::new(io);
    match version {
        Version::Http2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .keep_alive_interval(HEAD_TIMEOUT)
                .max_concurrent_streams(MAX_STREAMS);
            let served = pin!(builder.serve_connection(io, service));
            bounded(served, http2::Connection::graceful_shutdown, drain).await
        }
        Version::Http1 => {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let served = pin!(builder.serve_connection(io, service));
            bounded(served, http1::Connection::graceful_shutdown, drain).await
        }
    }
}

enum Version {
    Http1,
    Http2,
}

/// Terminates TLS where there is some, and finds out which HTTP it is. `None`: it is not served.
async fn open(
    tcp: TcpStream,
    peer: SocketAddr,
    credentials: &Live<Credentials>,
) -> Result<Option<(Io, Version, ClientTls)>, Box<dyn Error + Send + Sync>> {
    let Some((mut io, default, tls)) = terminate(Socket::new(tcp), peer, credentials).await? else {
        return Ok(None);
    };
    let version = match detect::preface(&mut io, DETECT_TIMEOUT).await? {
        Seen::Decided(Preface::Http1) => Version::Http1,
        Seen::Decided(Preface::Http2) => Version::Http2,
        Seen::TimedOut => default,
        Seen::Ended => return Ok(None),
        Seen::Decided(Preface::NotHttp | Preface::NeedMore) => {
            tracing::info!(%peer, "A connection to the admin port that is not HTTP has been closed");
            return Ok(None);
        }
    };
    Ok(Some((io, version, tls)))
}

/// Ends TLS that is meant for this proxy. With it comes what a peer that then says nothing is taken to speak, and what it
/// proved.
async fn terminate(
    mut socket: Socket,
    peer: SocketAddr,
    credentials: &Live<Credentials>,
) -> Result<Option<(Io, Version, ClientTls)>, Box<dyn Error + Send + Sync>> {
    let sni = match detect::client_hello(&mut socket, DETECT_TIMEOUT).await? {
        Seen::Decided(Hello::Tls { sni }) => sni,
        Seen::Decided(Hello::NotTls | Hello::NeedMore) => {
            return Ok(Some((Io::plain(socket), Version::Http1, ClientTls::None)));
        }
        Seen::TimedOut | Seen::Ended => return Ok(None),
    };
    let credentials = credentials.get();
    if sni.as_ref() != Some(credentials.server_name()) {
        let sni = sni.map(|name| name.to_string()).unwrap_or_default();
        tracing::info!(%peer, sni, "A TLS connection to the admin port that names another server has been closed");
        return Ok(None);
    }
    let handshake = tls::server::accept(&credentials, socket, false);
    let accepted = timeout(DETECT_TIMEOUT, handshake).await??;
    let tls = ClientTls::Terminated(accepted.client);
    Ok(Some((Io::server(accepted.stream), Version::Http2, tls)))
}

/// Runs a connection to its end, which it is asked to come to when it is old or draining starts.
async fn bounded<C>(
    mut served: Pin<&mut C>,
    end: impl FnOnce(Pin<&mut C>),
    mut drain: Drain,
) -> Result<(), Box<dyn Error + Send + Sync>>
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::select! {
        ended = served.as_mut() => return Ok(ended?),
        () = drain.started() => {}
        () = tokio::time::sleep(MAX_LIFETIME) => {}
    }
    end(served.as_mut());
    Ok(timeout(END_TIMEOUT, served).await??)
}
