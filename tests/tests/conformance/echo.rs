//! An application for HTTP/1.1 and HTTP/2: it sends each body back while it still arrives, and greets where there is none.

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_e2e::pod::Pod;
use std::convert::Infallible;
use std::thread;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;

/// Serves on this port of the pod until the test ends.
pub(crate) fn serve(pod: &Pod, port: u16) {
    let listener = pod.listen(port);
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((tcp, _peer)) = listener.accept().await {
                drop(tokio::spawn(connection(tcp)));
            }
        });
    });
}

async fn connection(tcp: TcpStream) {
    let mut first = [0; 3];
    // A connection that ends early, or wrongly, is the client's affair.
    let Ok(_length) = tcp.peek(&mut first).await else {
        return;
    };
    let (io, service) = (TokioIo::new(tcp), service_fn(answer));
    let _end = if [b"GET", b"POS"].contains(&&first) {
        http1::Builder::new().serve_connection(io, service).await
    } else {
        let http2 = http2::Builder::new(TokioExecutor::new());
        http2.serve_connection(io, service).await
    };
}

async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
    // hyper sends what it is given to HEAD over HTTP/2 too, where no DATA may follow (RFC 9110 section 9.3.2).
    let is_head = request.method() == Method::HEAD;
    let body = request.into_body();
    Ok(Response::new(if body.is_end_stream() {
        let greeting = if is_head { "" } else { "nothing to send back\n" };
        let greeting = Full::new(Bytes::from_static(greeting.as_bytes()));
        greeting.map_err(|never| match never {}).boxed()
    } else {
        body.boxed()
    }))
}
