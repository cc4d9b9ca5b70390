//! Serving HTTP/1.0 and 1.1: hyper's server behind our guard, and its drain.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryFutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::sleep;

use crate::config::HeadLimits;
use crate::drain::Drain;
use crate::error::{BoxError, Fault, Kind, Side};
use crate::http::body::{Body, Track, Tracked};
use crate::http::closing::Closing;
use crate::http::http1::guard::Guard;
use crate::http::http1::ledger::{Ledger, Turn};
use crate::http::rarely::rarely;
use crate::net::io::Io;

/// Header fields that hyper takes without an allocation for each request.
const INLINE_FIELDS: usize = 100;
/// hyper's own bound of what it buffers, bytes; it has to hold a head.
const MIN_BUFFER: usize = 400 << 10;

/// Serves until the client goes, an error, or the drain's end.
///
/// During a drain every answer says that its connection closes. One without a request stays open for a while: to close it
/// at once would fail a request that is on its way, of which the client can't tell whether it was processed (RFC 9112
/// §9.3.1).
///
/// A request that stands for refused bytes carries the [`Refusal`](crate::http::http1::head::Refusal) as an extension.
pub async fn serve<S, F, T>(
    io: Io,
    service: S,
    limits: HeadLimits,
    closing: Closing,
    mut drain: Drain,
) -> Result<(), hyper::Error>
where
    S: Fn(Request<Body>) -> F,
    F: Future<Output = Result<Response<Tracked<T>>, BoxError>>,
    T: Track + Unpin + 'static,
{
    let ledger = Arc::<Ledger>::default();
    let io = TokioIo::new(Guard::new(io, limits, ledger.clone()));
    let entered = ledger.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let turn = Turn::of(&entered, &mut request);
        service(request.map(Body::from)).map_ok(|response| turn.answered(response))
    });
    let builder = builder(limits);
    let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
    tokio::select! {
        biased; // What has arrived before the drain is still served.
        served = connection.as_mut() => return served,
        () = rarely(closing.or_drain(&mut drain)) => {}
    }
    ledger.drain();
    tokio::select! {
        served = connection.as_mut() => return served,
        () = quiet(&ledger, limits.drain_idle) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// Waits until the client has asked for nothing, and waited for nothing, for so long.
async fn quiet(ledger: &Ledger, idle: Duration) {
    loop {
        let before = ledger.ended();
        sleep(idle).await;
        if ledger.is_idle() && ledger.ended() == before {
            return;
        }
    }
}

/// What hyper refused by itself and has answered, such as a target that is no URI.
pub fn refused(error: &hyper::Error) -> Option<Fault> {
    error
        .is_parse()
        .then(|| Fault::new(Kind::Malformed, Side::Client))
}

/// No half-close and no timer of hyper's: the guard has its own. No `Date` where the application gave none.
fn builder(limits: HeadLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .auto_date_header(false)
        .max_buf_size(MIN_BUFFER.max(limits.max_bytes * 2));
    if limits.max_fields > INLINE_FIELDS {
        builder.max_headers(limits.max_fields);
    }
    builder
}
