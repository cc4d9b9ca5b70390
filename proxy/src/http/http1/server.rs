//! Serving HTTP/1.0 and 1.1: hyper's server behind our guard, and its drain.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryFutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Parts};
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
use crate::http::interim::Interims;
use crate::http::rarely::rarely;
use crate::net::io::Io;

/// Header fields that hyper takes without an allocation for each request.
const INLINE_FIELDS: usize = 100;
/// hyper's own bound of what it buffers, bytes; it has to hold a head.
const MIN_BUFFER: usize = 400 << 10;

/// How long a connection has nothing to do before it gives up its buffers, two thirds of what it holds: longer than the
/// pauses within a page or a burst, and soon enough for thousands of connections that are only kept.
const REST: Duration = Duration::from_secs(2);

/// Serves until the client goes, an error, or the drain's end.
///
/// hyper keeps its buffers as long as it lives. So a connection that rests has no hyper, and gets a new one with the next
/// byte.
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
    S: Fn(Request<Body>, Interims) -> F + Unpin,
    F: Future<Output = Result<Response<Tracked<T>>, BoxError>>,
    T: Track + Unpin + 'static,
{
    let ledger = Arc::<Ledger>::default();
    let io = TokioIo::new(Guard::new(io, limits, ledger.clone()));
    let entered = ledger.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let turn = Turn::of(&entered, &mut request);
        let interims = turn.interims(request.version());
        service(request.map(Body::from), interims).and_then(|response| turn.answer(response))
    });
    let builder = builder(limits);
    let (mut io, mut service) = (io, service);
    let mut connection = loop {
        let mut connection = builder.serve_connection(io, service).with_upgrades();
        let interrupted = rarely(async {
            tokio::select! {
                () = closing.or_drain(&mut drain) => Interrupted::Drain,
                () = quiet(&ledger, REST, Ledger::is_at_rest) => Interrupted::Rest,
            }
        });
        tokio::select! {
            biased; // What has arrived before the drain is still served.
            served = &mut connection => return served,
            why = interrupted => if why == Interrupted::Drain { break connection },
        }
        // Its buffer is empty, and goes.
        let Some(Parts {
            io: at_rest,
            service: kept,
            ..
        }) = connection.into_parts()
        else {
            return Ok(()); // a tunnel by now
        };
        (io, service) = (at_rest, kept);
        tokio::select! {
            biased;
            () = io.inner().readable() => {}
            () = closing.or_drain(&mut drain) => break builder.serve_connection(io, service).with_upgrades(),
        }
    };
    ledger.drain();
    tokio::select! {
        served = &mut connection => return served,
        () = quiet(&ledger, limits.drain_idle, Ledger::is_idle) => {}
    }
    Pin::new(&mut connection).graceful_shutdown();
    connection.await
}

/// Why a connection is taken from hyper, or told to end.
#[derive(PartialEq)]
enum Interrupted {
    Drain,
    Rest,
}

/// Waits until the client has asked for nothing, and waited for nothing, for so long.
async fn quiet(ledger: &Ledger, time: Duration, is_quiet: fn(&Ledger) -> bool) {
    loop {
        let before = ledger.ended();
        sleep(time).await;
        if is_quiet(ledger) && ledger.ended() == before {
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
