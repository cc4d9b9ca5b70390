//! HTTP clients: hyper's two handshakes with our settings. Each connection is driven by a task of its own.

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outrigger_policy::endpoint::Http2Params;

use crate::config;
use crate::http::body::Body;
use crate::http::h2::guard::Guarded;
use crate::net::io::Io;

/// Sends requests on one HTTP/1 connection, one after another.
pub type Http1 = http1::SendRequest<Body>;
/// Sends requests on one HTTP/2 connection, many at a time.
pub type Http2 = http2::SendRequest<Body>;

/// Flow-control windows of HTTP/2 connections that we open, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Of a stream.
    pub stream: u32,
    /// Of the connection.
    pub connection: u32,
}

impl From<&config::Http2Client> for Windows {
    fn from(client: &config::Http2Client) -> Self {
        Self {
            stream: client.stream_window,
            connection: client.connection_window,
        }
    }
}

/// Starts HTTP/1 on a connection.
pub async fn http1(io: Io) -> Result<Http1, hyper::Error> {
    let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "an HTTP/1 connection to a server ended");
        }
    });
    Ok(sender)
}

/// Starts HTTP/2 on a connection, with prior knowledge.
pub async fn http2(
    io: Io,
    windows: Windows,
    flood_scale: u32,
    params: &Http2Params,
) -> Result<Http2, hyper::Error> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    if params.adaptive_window {
        builder.adaptive_window(true);
    } else {
        builder
            .initial_stream_window_size(params.stream_window.unwrap_or(windows.stream))
            .initial_connection_window_size(params.connection_window.unwrap_or(windows.connection));
    }
    if let Some((interval, timeout)) = params.keep_alive {
        builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
        builder.keep_alive_while_idle(params.keep_alive_while_idle);
    }
    if let Some(streams) = params.max_concurrent_reset_streams {
        builder.max_concurrent_reset_streams(streams);
    }
    if let Some(size) = params.max_frame_size {
        builder.max_frame_size(size);
    }
    if let Some(size) = params.max_send_buf_size {
        builder.max_send_buf_size(size);
    }
    let io = Guarded::to_server(io, flood_scale);
    let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP/2 connection to a server ended");
        }
    });
    Ok(sender)
}
