//! Serving HTTP/2: hyper's server with our settings; and the drain of every server.

use std::pin::pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Notify;

use crate::config::{FlowControl, Http2Server, KeepAlive};
use crate::drain::Drain;
use crate::error::BoxError;
use crate::http::body::{Body, Track, Tracked};
use crate::http::h2::guard::Guarded;
use crate::http::rarely::rarely;
use crate::net::io::Io;

/// Asks one connection to finish what it has and close.
#[derive(Clone, Debug, Default)]
pub struct Closing(Arc<Notify>);

impl Closing {
    /// Asks.
    pub fn ask(&self) {
        self.0.notify_one();
    }

    async fn asked(&self) {
        self.0.notified().await;
    }
}

/// Waits until the connection is to end.
pub(in crate::http) async fn end(drain: &mut Drain, closing: &Closing) {
    tokio::select! {
        () = drain.started() => {}
        () = closing.asked() => {}
    }
}

/// Serves HTTP/2 until the client goes, an error, or the drain's end.
pub async fn http2<S, F, T>(
    io: Io,
    service: S,
    settings: &Http2Server,
    closing: Closing,
    mut drain: Drain,
) -> Result<(), hyper::Error>
where
    S: Fn(Request<Body>) -> F + Clone,
    F: Future<Output = Result<Response<Tracked<T>>, BoxError>> + Send + 'static,
    T: Track + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| service(request.map(Body::from)));
    let builder = http2_builder(settings);
    let io = Guarded::from_client(io, settings.flood_scale);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        biased; // What has arrived before the drain is still served.
        served = connection.as_mut() => return served,
        () = rarely(end(&mut drain, &closing)) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

fn http2_builder(settings: &Http2Server) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    match settings.flow_control {
        FlowControl::Adaptive => builder.adaptive_window(true),
        FlowControl::Fixed {
            stream_window,
            connection_window,
        } => builder
            .initial_stream_window_size(stream_window)
            .initial_connection_window_size(connection_window),
    };
    if let Some(KeepAlive { interval, timeout }) = settings.keep_alive {
        builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
    }
    builder.max_concurrent_streams(settings.max_concurrent_streams);
    if let Some(size) = settings.max_frame_size {
        builder.max_frame_size(size);
    }
    if let Some(size) = settings.max_header_list_size {
        builder.max_header_list_size(size);
    }
    if let Some(streams) = settings.max_pending_accept_reset_streams {
        builder.max_pending_accept_reset_streams(streams);
    }
    if let Some(size) = settings.max_send_buf_size {
        builder.max_send_buf_size(size);
    }
    builder
}
