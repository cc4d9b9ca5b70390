//! The application: answers HTTP of both versions, and sends back whatever else it is told.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

/// Listens, and serves until the runtime ends.
pub(crate) async fn serve(addr: SocketAddr) {
    let listener = TcpListener::bind(addr).await.unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _peer)) = listener.accept().await {
            drop(tokio::spawn(connection(tcp)));
        }
    });
}

async fn connection(mut tcp: TcpStream) {
    tcp.set_nodelay(true).unwrap();
    let mut first = [0; 1];
    let Ok(_peeked) = tcp.peek(&mut first).await else {
        return;
    };
    // How a connection ends is the proxy's affair.
    match &first {
        b"G" => {
            let io = TokioIo::new(tcp);
            let _end = http1::Builder::new()
                .serve_connection(io, service_fn(answer))
                .await;
        }
        b"P" => {
            let (io, executor) = (TokioIo::new(tcp), TokioExecutor::new());
            let _end = http2::Builder::new(executor)
                .serve_connection(io, service_fn(answer))
                .await;
        }
        _ => {
            let (mut read, mut write) = tcp.split();
            let _end = tokio::io::copy(&mut read, &mut write).await;
        }
    }
}

async fn answer(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::builder()
        .header("content-type", "text/plain")
        .body(Full::new(Bytes::from_static(b"hello")))
        .expect("the parts are valid"))
}
