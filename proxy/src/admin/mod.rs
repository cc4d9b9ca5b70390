//! The admin server: probes and metrics.

pub mod readiness;

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::drain::Drain;
use crate::telemetry::Registry;
pub use readiness::{Condition, Readiness};

/// Connections that are served at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1_000;
/// How long a request's head may take, and a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// After this, a connection is asked to end: nobody keeps the others out for ever.
const MAX_LIFETIME: Duration = Duration::from_secs(600);
/// How long a connection that was asked to end may take for it.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 streams per connection.
const MAX_STREAMS: u32 = 16;
/// How long to wait when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin server shows.
#[derive(Debug)]
pub struct Admin {
    /// The families that `/metrics` prints.
    pub registry: Registry,
    /// What `/ready` answers.
    pub readiness: Readiness,
}

/// Serves until draining starts, then finishes what runs. Everything happens on the runtime that polls this.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, mut drain: Drain) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = drain.started() => return,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((tcp, place)) => {
                let (admin, drain) = (admin.clone(), drain.clone());
                tokio::spawn(async move {
                    if let Err(error) = connection(tcp, admin, drain).await {
                        tracing::debug!(%error, "An admin connection ended early");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "The admin server can't accept a connection; is the limit of open files too low?");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (tcp, _) = listener.accept().await?;
    Ok((tcp, place))
}

/// Serves one connection: HTTP/2 if it starts with its preface, HTTP/1 otherwise.
async fn connection(
    tcp: TcpStream,
    admin: Arc<Admin>,
    mut drain: Drain,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut first = [0; 3];
    let seen = tokio::select! {
        seen = tokio::time::timeout(HEAD_TIMEOUT, tcp.peek(&mut first)) => seen??,
        () = drain.started() => return Ok(()),
    };
    let service = service_fn(move |req: Request<Incoming>| {
        let response = admin.answer(req.method(), req.uri().path());
        async { Ok::<_, Infallible>(response) }
    });
    let io = TokioIo::new(tcp);
    // "PRI" is no method of HTTP/1 (RFC 9113 §11.6).
    if &first[..seen] == b"PRI" {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(HEAD_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS);
        let served = pin!(builder.serve_connection(io, service));
        bounded(served, http2::Connection::graceful_shutdown, drain).await
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let served = pin!(builder.serve_connection(io, service));
        bounded(served, http1::Connection::graceful_shutdown, drain).await
    }
}

/// Runs a connection to its end, which it is asked to come to when it is old or draining starts.
async fn bounded<C>(
    mut served: Pin<&mut C>,
    end: impl FnOnce(Pin<&mut C>),
    mut drain: Drain,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::select! {
        ended = served.as_mut() => return Ok(ended?),
        () = drain.started() => {}
        () = tokio::time::sleep(MAX_LIFETIME) => {}
    }
    end(served.as_mut());
    Ok(tokio::time::timeout(END_TIMEOUT, served).await??)
}

impl Admin {
    /// The answer to any request: these paths take every method, as Linkerd's do.
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, body) = match path {
            "/live" => (StatusCode::OK, Some("live\n".to_owned())),
            "/ready" => self.ready(),
            "/metrics" => (StatusCode::OK, Some(self.registry.encode(Instant::now()))),
            _ => (StatusCode::NOT_FOUND, None),
        };
        let is_text = body.is_some() && status == StatusCode::OK;
        let body = body.unwrap_or_default();
        let length = HeaderValue::from(body.len());
        let body = if method == Method::HEAD {
            Bytes::new()
        } else {
            Bytes::from(body)
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_LENGTH, length);
        if is_text {
            let plain = HeaderValue::from_static("text/plain");
            response.headers_mut().insert(CONTENT_TYPE, plain);
        }
        response
    }

    /// The first line is Linkerd's; the reasons follow.
    fn ready(&self) -> (StatusCode, Option<String>) {
        let missing = self.readiness.missing(SystemTime::now());
        if missing.is_empty() {
            return (StatusCode::OK, Some("ready\n".to_owned()));
        }
        let body = format!("not ready\n{}\n", missing.join("\n"));
        (StatusCode::SERVICE_UNAVAILABLE, Some(body))
    }
}

#[cfg(test)]
mod tests;
