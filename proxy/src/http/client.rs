//! HTTP/1 clients: hyper's handshake with our settings. Each connection is driven by a task of its own.

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::http::body::Body;
use crate::net::io::Io;

/// Sends requests on one HTTP/1 connection, one after another.
pub type Http1 = http1::SendRequest<Body>;

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
